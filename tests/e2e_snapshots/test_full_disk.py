"""A restore for which the disk is too small: the old tree stays, and nothing is left behind."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.deployment import deployed
from tests.e2e_snapshots.site import NODE, RefusedError, Site
from tests.e2e_snapshots.trees import difference, look, plain_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e_snapshots.site import Record

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

_DISK_MIB = 24


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of its own with little room."""
    place = tmp_path_factory.mktemp("small")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "holdfast-test", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture(scope="module")
def running(server: EmbeddedServer, small_disk: Path) -> Iterator[Site]:
    """A worker whose apps lie on the small disk."""
    with deployed(server.url, NODE, apps=str(small_disk)) as deployment:
        yield Site(deployment, small_disk)


@pytest.mark.parametrize("mode", ["replace", "new"])
async def test_a_restore_that_does_not_fit_leaves_all_as_it_was(site: Site, mode: str) -> None:
    app = f"app-{mode}"
    tree = plain_tree(site.apps / app, files=40, size=200_000, seed=1)
    record = await site.create(app)
    (tree / "newer").write_bytes(b"newer")
    before = look(tree)
    filler = site.apps / "filler"
    filler.write_bytes(bytes((_DISK_MIB - 10) * 1024 * 1024))
    target = app if mode == "replace" else f"{app}-new"

    ended = await restored(site, record["key"], app=target, mode=mode)

    assert ended == "quota_exceeded"
    assert difference(before, look(tree)) == []
    assert sorted(entry.name for entry in site.apps.iterdir()) == [app, "filler"]

    filler.unlink()
    assert await restored(site, record["key"], app=target, mode=mode) == "ok"
    for name in {app, target}:
        shutil.rmtree(site.apps / name)


async def restored(site: Site, key: str, **request: str) -> str:
    """``ok``, or the code with which a restore was refused or ended."""
    try:
        record: Record = await site.restore(key, **request)
    except RefusedError as refused:
        return refused.code
    return "ok" if record["state"] == "ok" else str(record["code"])
