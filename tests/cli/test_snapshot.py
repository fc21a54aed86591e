"""``holdfast snapshot``, against a worker and a real nats-server."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
from nats.aio.client import Client as NatsClient
from tests.cli.conftest import PREFIX, unread_bytes, wait_until
from tests.contracts.blob_store import some_bytes
from tests.programs import needs_zstd

from holdfast.cli.app import build_app
from holdfast.cli.base import exit_codes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Holdfast

pytestmark = pytest.mark.nats

ABSENT = "blog:01935f9e-7b1c-7000-8000-000000000000"


def make_tree(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "text.txt").write_bytes(b"hello\n")
    (root / "sub/data").write_bytes(bytes(range(256)) * 400)
    (root / "sub/link").symlink_to("data")
    (root / "sub/a\nb\x1b[2J").write_bytes(b"hostile")
    return root


def created(holdfast: Holdfast, *arguments: str) -> str:
    """The key that ``snapshot create`` prints."""
    ran = holdfast("snapshot", "create", *arguments)
    assert ran.status == 0, ran.err
    (key,) = ran.lines
    return key


@pytest.mark.parametrize("mode", ["new", "replace", "merge"])
def test_an_empty_name_is_not_the_directory_one_is_in(
    mode: str, holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created(holdfast, f"{make_tree(tmp_path / 'unset')}/")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/kept").touch()
    monkeypatch.chdir(tmp_path / "here")

    restored = holdfast("snapshot", "restore", "unset", "--to", "", "--mode", mode)
    exported = holdfast("snapshot", "export", "unset", "-o", "")

    assert (restored.status, exported.status) == (exit_codes.USAGE, exit_codes.USAGE)
    assert os.listdir(tmp_path / "here") == ["kept"]


def test_a_directory_is_archived_and_restored(holdfast: Holdfast, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "shop")

    ran = holdfast("snapshot", "create", f"{tree}/", "--label", "a=b", "--label", "c=d")
    restored = holdfast("snapshot", "restore", "shop", "--to", str(tmp_path / "copy"))

    assert ran.status == 0
    assert ran.lines[0].startswith("shop:")
    assert "3 files, 100.0 KiB" in ran.err
    assert (restored.status, restored.out) == (0, b"")
    assert "3 files, 100.0 KiB restored to" in restored.err
    assert (tmp_path / "copy/text.txt").read_bytes() == b"hello\n"
    assert os.readlink(tmp_path / "copy/sub/link") == "data"


def test_an_app_is_archived_and_restored_by_the_worker(holdfast: Holdfast, apps: Path) -> None:
    make_tree(apps / "blog")

    key = created(holdfast, "blog")
    restored = holdfast("snapshot", "restore", "blog:latest", "--app", "copy")
    refused = holdfast("snapshot", "restore", key)
    planned = holdfast("snapshot", "restore", key, "--mode", "replace", "--dry-run")

    assert restored.status == 0
    assert (apps / "copy/text.txt").read_bytes() == b"hello\n"
    assert refused.status == exit_codes.CONFLICT
    assert planned.status == 0
    assert "would be restored" in planned.err


@pytest.mark.parametrize("kind", ["file", "standard input"])
def test_a_tar_becomes_a_snapshot(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    archive = tmp_path / "packed.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(make_tree(tmp_path / "tree"), arcname=".")
    source = str(archive)
    if kind == "standard input":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(archive.read_bytes())))
        source = "-"

    key = created(holdfast, source, "--app", "packed")

    assert holdfast("snapshot", "cat", key, "text.txt").out == b"hello\n"


def test_what_is_in_a_snapshot_is_listed_without_control_characters(
    holdfast: Holdfast, tmp_path: Path
) -> None:
    key = created(holdfast, f"{make_tree(tmp_path / 'listed')}/")

    short = holdfast("snapshot", "files", key, "sub")
    long = holdfast("snapshot", "files", "listed", "-l")
    listed = [json.loads(line) for line in holdfast("snapshot", "files", key, "--json").lines]

    assert short.lines == ["sub/", r"sub/a\nb\x1b[2J", "sub/data", "sub/link"]
    assert len(long.lines) == len(listed) == 6
    assert long.lines[-1].endswith("text.txt")
    assert any("sub/link -> data" in line for line in long.lines)
    assert {entry["path"] for entry in listed} >= {"", "sub", "sub/a\nb\x1b[2J"}


def test_a_range_of_a_file_goes_to_standard_output_or_a_file(
    holdfast: Holdfast, tmp_path: Path
) -> None:
    key = created(holdfast, f"{make_tree(tmp_path / 'ranges')}/")
    out = tmp_path / "out"

    ran = holdfast("snapshot", "cat", key, "sub/data", "--offset", "250", "--length", "10")
    holdfast("snapshot", "cat", key, "sub/data", "-o", str(out))

    assert ran.out == (bytes(range(256)) * 2)[250:260]
    assert out.read_bytes() == bytes(range(256)) * 400


@needs_zstd
def test_an_export_is_what_tar_reads(holdfast: Holdfast, tmp_path: Path) -> None:
    key = created(holdfast, f"{make_tree(tmp_path / 'exported')}/")
    target = tmp_path / "exported.tar.zst"

    to_file = holdfast("snapshot", "export", key, str(target))
    content = target.read_bytes()
    to_output = holdfast("snapshot", "export", "exported")
    to_option = holdfast("snapshot", "export", key, "-o", str(target))

    assert (to_file.status, to_file.out) == (0, b"")
    assert (to_option.status, to_option.out) == (0, b"")
    assert to_output.out == content == target.read_bytes()
    listed = subprocess.run(["tar", "--zstd", "-tf", target], capture_output=True, check=True)
    assert b"\ntext.txt\n" in listed.stdout
    assert sorted(os.listdir(tmp_path)) == ["exported", "exported.tar.zst"]


def test_snapshots_are_compared(holdfast: Holdfast, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "compared")
    before = created(holdfast, f"{tree}/")
    (tree / "text.txt").write_bytes(b"changed\n")
    (tree / "sub/link").unlink()
    (tree / "new").touch()
    created(holdfast, f"{tree}/")

    ran = holdfast("snapshot", "diff", before, "compared:latest")

    assert {"+  new", "-  sub/link", "M  text.txt"} <= set(ran.lines)


def test_a_list_is_that_of_its_conditions(holdfast: Holdfast, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "conditions")
    first = created(holdfast, f"{tree}/", "--label", "n=1")
    second = created(holdfast, f"{tree}/", "--label", "n=2")

    def keys(*arguments: str) -> list[str]:
        ran = holdfast("snapshot", "ls", "--app", "conditions", *arguments)
        assert ran.status == 0, ran.err
        return [line.split()[0] for line in ran.lines]

    assert keys() == [second, first]
    assert keys("--limit", "1") == [second]
    assert keys("--limit", "0") == []
    assert keys("--label", "n=1") == [first]
    assert keys("--since", "1d") == [second, first]
    assert keys("--until", "1d") == []
    assert keys("--state", "failure") == []
    assert keys("--since", "2000-01-01T00:00:00Z") == [second, first]
    (shown,) = holdfast("snapshot", "ls", "--label", "n=2", "--json").lines
    assert json.loads(shown)["labels"] == {"n": "2"}


def test_a_record_is_shown(holdfast: Holdfast, tmp_path: Path) -> None:
    key = created(holdfast, f"{make_tree(tmp_path / 'shown')}/", "--label", "a=b")

    text = holdfast("snapshot", "show", "shown")
    record = json.loads(holdfast("snapshot", "show", key, "--json").out)

    assert f"key             {key}" in text.lines
    assert (record["key"], record["state"], record["labels"]) == (key, "ok", {"a": "b"})


def test_a_restore_is_shown_by_its_id(holdfast: Holdfast, apps: Path) -> None:
    make_tree(apps / "restored")
    key = created(holdfast, "restored")
    ran = holdfast("snapshot", "restore", key, "--app", "restored2", "--json")

    shown = json.loads(holdfast("snapshot", "show", json.loads(ran.out)["restore"], "--json").out)

    assert (shown["key"], shown["app"], shown["state"]) == (key, "restored2", "ok")


def test_verifying_counts_what_it_read(holdfast: Holdfast, tmp_path: Path) -> None:
    key = created(holdfast, f"{make_tree(tmp_path / 'verified')}/")

    one = holdfast("snapshot", "verify", key)
    all_of_app = json.loads(holdfast("snapshot", "verify", "--app", "verified", "--json").out)

    assert (one.status, one.out) == (0, b"")
    assert one.err.startswith("1 checked, ")
    assert (all_of_app["snapshots"], all_of_app["damaged"]) == (1, 0)


def test_damage_ends_with_5_and_names_the_pack(
    holdfast: Holdfast, tmp_path: Path, nats_url: str
) -> None:
    tree = tmp_path / "damaged"
    tree.mkdir()
    (tree / "unique").write_bytes(some_bytes(300_000, seed=77))
    before = packs_of(nats_url)
    key = created(holdfast, f"{tree}/")
    lost = sorted(packs_of(nats_url) - before)[:1]
    remove_pack(nats_url, lost[0])

    ran = holdfast("snapshot", "verify", key)
    in_json = holdfast("snapshot", "verify", "damaged", "--json")

    assert ran.status == in_json.status == exit_codes.CORRUPT
    assert ran.out or "corrupt" in ran.err
    assert all(line.startswith(f"{key}  ") for line in ran.lines)


def packs_of(url: str) -> set[str]:
    """The subjects of all packs' metadata."""

    async def look() -> set[str]:
        client = NatsClient()
        await client.connect(url)
        stream = f"OBJ_{PREFIX}_packs"
        subjects = f"$O.{PREFIX}_packs.M.>"
        info = await client.jetstream().stream_info(stream, subjects_filter=subjects)
        await client.close()
        return set(info.state.subjects or {})

    return asyncio.run(look())


def remove_pack(url: str, subject: str) -> None:
    """Make a pack disappear."""

    async def remove() -> None:
        client = NatsClient()
        await client.connect(url)
        await client.jetstream().purge_stream(f"OBJ_{PREFIX}_packs", subject=subject)
        await client.close()

    asyncio.run(remove())


def test_an_interrupted_archive_of_a_silent_standard_input_ends(
    worker_connection: tuple[str, ...],
) -> None:
    reading, writing = os.pipe()
    os.write(writing, bytes(512))
    command = [sys.executable, "-m", "holdfast", "snapshot", "create", "-", "--app", "silent"]
    ran = subprocess.Popen(
        [*command, *worker_connection], stdin=reading, stderr=subprocess.PIPE, text=True
    )
    assert ran.stderr is not None
    wait_until(lambda: unread_bytes(reading) == 0)

    ran.terminate()

    assert ran.wait(60) == exit_codes.INTERRUPTED
    assert "Fatal" not in ran.stderr.read()
    ran.stderr.close()
    os.close(writing)
    os.close(reading)


def test_snapshots_are_deleted(holdfast: Holdfast, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "deleted")
    keys = [created(holdfast, f"{tree}/") for _ in range(3)]

    one = holdfast("snapshot", "rm", keys[0], keys[0])
    rest = holdfast("snapshot", "rm", "--app", "deleted", "--all")

    assert one.lines == [f"{keys[0]}  deleted", f"{keys[0]}  was not there"]
    assert rest.lines == ["deleted  2 snapshots deleted"]
    assert holdfast("snapshot", "ls", "--app", "deleted").out == b""


def test_all_snapshots_of_an_app_are_purged_and_no_others(
    holdfast: Holdfast, tmp_path: Path
) -> None:
    tree, other = make_tree(tmp_path / "purged"), make_tree(tmp_path / "other")
    for _ in range(2):
        created(holdfast, f"{tree}/")
    kept = created(holdfast, f"{other}/")

    first = holdfast("snapshot", "purge", "purged", "--yes")
    again = holdfast("snapshot", "purge", "purged", "--json")

    assert (first.status, first.lines) == (0, ["purged  2 snapshots deleted"])
    assert (again.status, json.loads(again.out)) == (0, {"app": "purged", "deleted": 0})
    assert holdfast("snapshot", "ls", "--app", "purged").out == b""
    assert holdfast("snapshot", "show", kept).status == 0
    assert holdfast("snapshot", "purge").status == exit_codes.USAGE
    assert holdfast("snapshot", "purge", "no/name").status == exit_codes.USAGE


@pytest.mark.parametrize("command", ["rm", "purge"])
def test_nothing_is_deleted_unless_whoever_is_asked_says_yes(
    holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    key = created(holdfast, f"{make_tree(tmp_path / 'asked')}/")
    delete = ["purge", "asked"] if command == "purge" else ["rm", key]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def answered(text: str, *more: str) -> int:
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
        monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
        with monkeypatch.context() as asked:
            asked.setattr(sys, "stdin", stdin)
            return holdfast("snapshot", *delete, *more).status

    assert answered("") == exit_codes.FAILURE
    assert answered("no\n") == exit_codes.FAILURE
    assert holdfast("snapshot", "show", key).status == 0
    assert answered("y\n") == 0
    assert holdfast("snapshot", "show", key).status == exit_codes.NOT_FOUND


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "nobody-has-this"],
        ["show", ABSENT],
        ["show", "nobody-has-this"],
        ["files", ABSENT],
        ["cat", ABSENT, "x"],
        ["export", ABSENT],
        ["verify", "--app", "nobody"],
        ["restore", ABSENT],
        ["create", "/nonexistent/blog"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_ends_with_3(holdfast: Holdfast, arguments: list[str]) -> None:
    ran = holdfast("snapshot", *arguments)

    assert (ran.status, ran.out) == (exit_codes.NOT_FOUND, b"")
    assert ran.err.startswith("holdfast: not_found: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["create"],
        ["create", "../"],
        ["create", "-"],
        ["create", "a", "--label", "x"],
        ["create", "./a", "--node", "one"],
        ["create", "./a", "--no-wait"],
        ["restore", ABSENT, "--to", "x", "--app", "y"],
        ["restore", ABSENT, "--mode", "over"],
        ["restore", ABSENT, "x", "--mode", "replace"],
        ["ls", "--since", "yesterday"],
        ["ls", "--app", "a/b"],
        ["ls", "--state", "done"],
        ["show", "a:b"],
        ["diff", ABSENT],
        ["verify"],
        ["verify", ABSENT, "--app", "a"],
        ["rm"],
        ["rm", "blog"],
        ["rm", "--app", "blog"],
        ["rm", "--all"],
        ["rm", ABSENT, "--app", "blog", "--all"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_a_reason(
    holdfast: Holdfast, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no app has this name/below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "no app has this name/below")

    ran = holdfast("snapshot", *arguments)

    assert (ran.status, ran.out) == (exit_codes.USAGE, b"")
    assert ran.err


def test_its_options_are_completed() -> None:
    script = build_app().generate_completion(shell="bash")  # noqa: S604 - its name

    assert "--exclude-caches" in script
    assert "snapshot" in script
