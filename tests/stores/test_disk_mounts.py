"""Which file system a path lies on, by what the kernel tells, and where records are refused."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from tests.stores.disk_tools import FakeClock

from holdfast.errors import UnavailableError
from holdfast.stores.disk import mounts as disk_mounts
from holdfast.stores.disk.database import create_record_store
from holdfast.stores.disk.mounts import filesystem_of, refuse_network
from holdfast.stores.disk.records import DiskRecordStore

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /proc rw,nosuid - proc proc rw
41 22 0:40 / /srv/shared rw,relatime shared:2 master:1 - nfs4 server:/export rw,vers=4.2
42 41 8:2 / /srv/shared/local rw - xfs /dev/sdb1 rw
43 22 0:41 / /srv/with\040space rw - cifs //server/share rw
44 22 8:3 / /srv/twice rw - ext4 /dev/sdc1 rw
45 44 0:42 / /srv/twice rw - fuse.sshfs host:/ rw
not a line of it
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/other", "ext4"),
        ("/srv/shared", "nfs4"),
        ("/srv/shared/deep/er", "nfs4"),
        ("/srv/shared-not", "ext4"),
        ("/srv/shared/local/x", "xfs"),
        ("/srv/with space/x", "cifs"),
        ("/srv/twice/x", "fuse.sshfs"),
        ("/", "ext4"),
    ],
)
def test_a_path_lies_on_the_deepest_and_latest_of_the_mounts_above_it(path: str, kind: str) -> None:
    assert filesystem_of(PurePosixPath(path), MOUNTS) == kind


def test_where_nothing_is_told_nothing_is_known() -> None:
    assert filesystem_of(PurePosixPath("/srv"), "") is None


def tell(monkeypatch: pytest.MonkeyPatch, place: Path, kind: str) -> None:
    """Have the kernel say that ``place`` is a mount of that kind."""
    told = place.with_name("mounts")
    told.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:2 / {place} rw - {kind} x rw\n")
    monkeypatch.setattr(disk_mounts, "MOUNTS", told)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "ceph", "fuse.sshfs"])
async def test_records_on_a_file_system_of_a_network_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    root = tmp_path / "store"
    create_record_store(root)
    tell(monkeypatch, root, kind)

    with pytest.raises(UnavailableError, match=f"disk of this machine: {kind}"):
        create_record_store(root)
    store = DiskRecordStore(root, clock=FakeClock())
    with pytest.raises(UnavailableError, match=f"disk of this machine: {kind}"):
        await store.check()
    with pytest.raises(UnavailableError):
        await store.put("a", b"", expected=0)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs"])
def test_those_of_a_machine_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tell(monkeypatch, tmp_path / "store", kind)

    refuse_network(tmp_path / "store" / "deep")


def test_nothing_is_refused_where_nothing_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_mounts, "MOUNTS", tmp_path / "nothing")

    refuse_network(tmp_path)
