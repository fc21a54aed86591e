"""Stores of older systems come in from disk, once, and only if they are what they say."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard
from tests.contracts.blob_store import some_bytes

from holdfast.cli.base import exit_codes
from holdfast.cli.old_stores import OldBlob, named_blobs, old_labels, told_digest
from holdfast.client import connect_sync
from holdfast.domain.canonical import state_hash
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from tests.cli.conftest import Holdfast

    from holdfast.client import SyncClient

pytestmark = pytest.mark.nats

AT = "2017-02-20T16:35:57-08:00"


@pytest.fixture
def client(worker_connection: tuple[str, ...]) -> Iterator[SyncClient]:
    with connect_sync(servers=worker_connection[1], prefix=worker_connection[3]) as client:
        yield client


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- a directory of files by their hash ---


def test_blobs_come_in_by_their_hash_and_damaged_ones_do_not(
    holdfast: Holdfast, client: SyncClient, tmp_path: Path
) -> None:
    small, large, cut = some_bytes(9), some_bytes(3_000_000), some_bytes(11)
    (tmp_path / "ab").mkdir()
    (tmp_path / sha256(small)).write_bytes(small)
    (tmp_path / "ab" / sha256(large)).write_bytes(large)
    (tmp_path / sha256(cut)).write_bytes(cut[:5])
    (tmp_path / "notes.txt").write_text("none of them")

    ran = holdfast("import", "blobs", str(tmp_path))

    assert ran.status == exit_codes.FAILURE
    assert sum(line.startswith("imported") for line in ran.lines) == 2
    assert f"corrupt: {tmp_path / sha256(cut)}" in ran.err
    assert [client.get(sha256(data)) for data in (small, large)] == [small, large]
    assert client.has([sha256(cut)]) == [sha256(cut)]

    (tmp_path / sha256(cut)).write_bytes(cut)
    again = holdfast("import", "blobs", str(tmp_path))
    assert again.status == exit_codes.OK
    assert sorted(line.split()[0] for line in again.lines) == ["imported", "is", "is"]


def test_a_blob_that_only_a_name_keeps_is_imported_and_stays_without_it(
    holdfast: Holdfast, client: SyncClient, tmp_path: Path
) -> None:
    data = some_bytes(500, seed=5)
    client.names.create("keeper", data)
    (tmp_path / sha256(data)).write_bytes(data)

    ran = holdfast("import", "blobs", str(tmp_path))
    again = holdfast("import", "blobs", str(tmp_path))

    assert ran.lines[0].startswith("imported")
    assert client.stat(sha256(data)).pinned
    assert again.lines[0].startswith("is there")


def test_a_directory_that_cannot_be_read_is_told(holdfast: Holdfast, tmp_path: Path) -> None:
    ran = holdfast("import", "blobs", str(tmp_path / "none"))

    assert ran.status == exit_codes.FAILURE
    assert "none" in ran.err
    assert "0 imported" in ran.err


@pytest.mark.parametrize("told", ["A" * 64, "a" * 64])
def test_a_told_digest_is_compared_in_either_case(told: str) -> None:
    assert told_digest({"sha256": told}) == "a" * 64


def test_a_dry_run_checks_and_stores_nothing(
    holdfast: Holdfast, client: SyncClient, tmp_path: Path
) -> None:
    data = some_bytes(77, seed=3)
    (tmp_path / sha256(data)).write_bytes(data)
    (tmp_path / sha256(b"other")).write_bytes(b"spoilt")

    ran = holdfast("import", "blobs", str(tmp_path), "--dry-run")

    assert ran.status == exit_codes.FAILURE
    assert ran.lines == [f"would import  {sha256(data)}  {tmp_path / sha256(data)}"]
    assert client.has([sha256(data)]) == [sha256(data)]


# --- a named blob server ---


def old_blob(
    directory: Path, id_: int, name: str, data: bytes, *codes: int, index: int = 0
) -> None:
    """As that server writes it; ``codes`` are its steps: 0 ok, -1 failure, -2 pending."""
    home = directory / str(id_)
    home.mkdir()
    log = [
        {"status": {"code": code, "msg": ""}, "timestamp": "2017-02-20T16:35:57Z"} for code in codes
    ]
    state = {
        "id": id_,
        "location": name,
        "options": {},
        "status": {"log": log, "index": index or len(log)},
    }
    text = base64.b64encode(json.dumps(state).encode()).decode()
    (home / "blob_state.base64.json").write_text(f"BLOB_BASE64_dev:{text}\n\nshown - OK\n")
    (home / "data.raw").write_bytes(data)


def test_named_blobs_that_were_whole_come_in_under_their_names(
    holdfast: Holdfast, client: SyncClient, tmp_path: Path
) -> None:
    old_blob(tmp_path, 2422, "foo", b"11111111", 0, -2, 0)
    old_blob(tmp_path, 7, "pending", b"half", 0, -2)
    old_blob(tmp_path, 8, "deleted", b"gone", 0, -2, 0, -1)
    old_blob(tmp_path, 9, "made only", b"")
    old_blob(tmp_path, 10, "a b/é", b"22", 0, -2, 0)
    (tmp_path / "11").mkdir()
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "blob_state.base64.json").write_text("BLOB_BASE64_dev:!!!!")

    ran = holdfast("import", "store", str(tmp_path), "--under", "old/")

    assert ran.status == exit_codes.FAILURE
    assert "corrupt" in ran.err
    assert client.names.get("old/foo") == b"11111111"
    assert client.names.get("old/a b/é") == b"22"
    assert [row.name for row in client.names.list("old/")] == ["old/a b/é", "old/foo"]  # type: ignore[union-attr]

    client.names.replace("old/foo", b"newer")
    again = holdfast("import", "store", str(tmp_path), "--under", "old/")
    assert [line.split("  ")[0] for line in again.lines] == ["is there"]
    assert "conflict: old/foo" in again.err
    assert client.names.get("old/foo") == b"newer"


def test_a_state_file_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    old_blob(tmp_path, 1, "broken", b"1", 0)
    old_blob(tmp_path, 2, "whole", b"2", 0)
    broken = tmp_path / "1" / "blob_state.base64.json"
    broken.unlink()
    broken.symlink_to("/proc/self/mem")  # a file whose first byte cannot be read by anybody

    first, second = named_blobs(tmp_path)

    assert isinstance(first, OSError)
    assert isinstance(second, OldBlob)


def test_the_last_step_is_found_where_the_log_has_gone_round(tmp_path: Path) -> None:
    old_blob(tmp_path, 1, "whole", b"1", -1, 0, -2, index=2)
    old_blob(tmp_path, 2, "failed", b"2", 0, -1, 0, index=2)

    found = list(named_blobs(tmp_path))

    assert [blob.name for blob in found if isinstance(blob, OldBlob)] == ["whole"]


# --- archives ---


def tar_zst(path: Path, files: dict[str, bytes]) -> str:
    """An archive; its SHA-256."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    path.write_bytes(zstandard.compress(buffer.getvalue()))
    return sha256(path.read_bytes())


def test_an_archive_comes_in_once_with_the_labels_beside_it(
    holdfast: Holdfast, client: SyncClient, tmp_path: Path
) -> None:
    file = tmp_path / "blog-1.tar.zst"
    digest = tar_zst(file, {"posts/first.md": b"first"})
    (tmp_path / "_metadata").mkdir()
    metadata = {"sha256": digest, "labels": ["why:before the upgrade", "size:99999"]}
    (tmp_path / "_metadata" / "blog-1.json").write_text(json.dumps(metadata))

    ran = holdfast("import", "archive", str(file), "--app", "old-blog", "--label", "by=hand")
    again = holdfast("import", "archive", str(file), "--app", "old-blog")

    assert (ran.status, again.status) == (exit_codes.OK, exit_codes.OK)
    assert again.lines[0].startswith("is there")
    (record,) = client.snapshots.list(app="old-blog")
    assert record.labels == {"why": "before the upgrade", "by": "hand", "imported": digest}
    assert client.snapshots.read(record.key, "posts/first.md") == b"first"


def test_an_archive_that_is_not_what_its_metadata_say_is_not_imported(
    holdfast: Holdfast, client: SyncClient, tmp_path: Path
) -> None:
    file = tmp_path / "cut.tar.zst"
    tar_zst(file, {"a": some_bytes(1000)})
    (tmp_path / "_metadata").mkdir()
    (tmp_path / "_metadata" / "cut.json").write_text(json.dumps({"sha256": "0" * 64}))

    ran = holdfast("import", "archive", str(file), "--app", "cut")
    (tmp_path / "_metadata" / "cut.json").unlink()
    file.write_bytes(file.read_bytes()[:-20])
    cut = holdfast("import", "archive", str(file), "--app", "cut")

    assert (ran.status, cut.status) == (exit_codes.FAILURE, exit_codes.FAILURE)
    assert list(client.snapshots.list(app="cut", state="ok")) == []


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"a": "b", "n": 1, "size": "9"}, {"a": "b", "n": "1"}),
        (["a:b:c", "d", "files:3"], {"a": "b:c", "d": ""}),
        (None, {}),
    ],
)
def test_labels_are_an_object_or_a_list(labels: Any, found: dict[str, str]) -> None:
    assert old_labels({} if labels is None else {"labels": labels}) == found


def test_labels_that_are_neither_are_refused() -> None:
    with pytest.raises(InvalidError):
        old_labels({"labels": "a:b"})


# --- states ---


def test_a_state_comes_in_with_its_index_and_its_clock_once(
    holdfast: Holdfast, client: SyncClient, tmp_path: Path
) -> None:
    state = {"balance": {"alice": 5}, "n": [1, 2.5, None]}
    saved = {
        "state": state,
        "last_applied_index": 42,
        "last_applied_hlc": "",
        "state_hash": state_hash(state),
    }
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps(saved, indent=2))

    ran = holdfast("import", "state", str(file), "--name", "ledger")
    again = holdfast("import", "state", str(file), "--name", "ledger")

    assert (ran.status, again.status) == (exit_codes.OK, exit_codes.OK)
    assert again.lines[0].startswith("is there")
    found = client.states.latest("ledger")
    assert found is not None
    assert found.state == state
    assert (found.record.last_applied_index, found.record.state_hash) == (42, state_hash(state))


def test_the_same_state_after_more_commands_is_another_save(
    holdfast: Holdfast, client: SyncClient, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot.json"
    for index in (5, 9):
        file.write_text(json.dumps({"state": {"x": 1}, "last_applied_index": index}))
        ran = holdfast("import", "state", str(file), "--name", "same")
        assert ran.lines[0].startswith("imported")

    found = client.states.latest("same")

    assert found is not None
    assert found.record.last_applied_index == 9


def test_a_state_with_another_hash_is_not_imported(holdfast: Holdfast, tmp_path: Path) -> None:
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps({"state": {}, "last_applied_index": 1, "state_hash": "0" * 64}))

    ran = holdfast("import", "state", str(file), "--name", "spoilt")

    assert ran.status == exit_codes.CORRUPT
    assert holdfast("state", "show", "spoilt").status == exit_codes.NOT_FOUND
    file.write_text("{")
    assert holdfast("import", "state", str(file), "--name", "spoilt").status == exit_codes.USAGE
