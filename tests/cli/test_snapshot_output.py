"""Snapshots on a terminal, hostile names included."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from holdfast.cli.base.snapshot_output import (
    name_of,
    print_change,
    print_file,
    print_record,
    print_row,
    progress_of,
    say_created,
    say_more,
    say_restored,
)
from holdfast.protocol.files import FileEntry, SnapshotChange
from holdfast.protocol.snapshots import (
    RestoreRecord,
    SnapshotRecord,
    SnapshotWarning,
)

if TYPE_CHECKING:
    from holdfast.protocol.files import EntryKind

KEY = "blog:01935f9e-7b1c-7000-8000-000000000000"
RECORD = SnapshotRecord(
    key=KEY,
    app="blog",
    state="ok",
    created_at="2026-11-30T12:00:00.123456Z",
    labels={"reason": "upgrade", "by": "ada"},
    files=3,
    size=3 * 2**20,
    archive_size=1000,
    added=100,
)

RESTORED = RestoreRecord(
    restore=KEY.partition(":")[2],
    key=KEY,
    app="b",
    mode="new",
    state="ok",
    created_at="2026-11-30T12:00:00.123456Z",
)


def entry(path: str, kind: EntryKind = "file", **fields: object) -> FileEntry:
    values: dict[str, object] = {
        "path": path,
        "kind": kind,
        "mode": 0o4755,
        "uid": 0,
        "gid": 1000,
        "mtime": "2026-11-30T12:00:00.123456789Z",
        "size": 5,
    }
    return FileEntry(**(values | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "raw", "shown"),
    [
        ("", None, "."),
        ("ä/b", None, "ä/b"),
        ("a\N{REPLACEMENT CHARACTER}b", b"a\xffb", "a\\xffb"),
    ],
)
def test_a_name_that_is_not_utf8_is_shown_by_its_bytes(
    path: str, raw: bytes | None, shown: str
) -> None:
    assert name_of(path, raw) == shown


def test_a_long_listing_reads_as_tar_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_file(entry("bin/x"), long=True, json=False)
    print_file(entry("", "directory", size=0), long=True, json=False)
    print_file(entry("l", "symlink", target="x y", mode=0o777), long=True, json=False)
    print_file(entry("h", "hardlink", target="bin/x"), long=True, json=False)

    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "-rwsr-xr-x       0/1000             5  2026-11-30T12:00:00Z  bin/x",
        "drwsr-xr-x       0/1000             0  2026-11-30T12:00:00Z  ./",
        "lrwxrwxrwx       0/1000             5  2026-11-30T12:00:00Z  l -> x y",
        "hrwsr-xr-x       0/1000             5  2026-11-30T12:00:00Z  h link to bin/x",
    ]


@pytest.mark.parametrize("long", [True, False])
def test_control_characters_of_names_never_reach_the_terminal(
    capsys: pytest.CaptureFixture[str], *, long: bool
) -> None:
    hostile = "a\x1b[2Jb\nc\u202e"

    print_file(entry(hostile, "symlink", target=hostile), long=long, json=False)
    print_change(SnapshotChange(path=hostile, change="added"), json=False)

    out = capsys.readouterr().out
    assert out.count("\n") == 2
    assert not {"\x1b", "\u202e"} & set(out)


def test_json_has_the_exact_bytes_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    print_file(entry("?", path_bytes=b"\xff"), long=False, json=True)

    assert json.loads(capsys.readouterr().out)["path_bytes"] == "/w=="


def test_changes_have_a_mark_each(capsys: pytest.CaptureFixture[str]) -> None:
    for change in ("added", "removed", "modified", "metadata"):
        print_change(SnapshotChange(path="x", change=change), json=False)

    assert capsys.readouterr().out.splitlines() == ["+  x", "-  x", "M  x", "U  x"]


def test_a_row_has_key_time_state_size_and_labels(capsys: pytest.CaptureFixture[str]) -> None:
    print_row(RECORD, json=False)

    words = capsys.readouterr().out.split()
    assert words == [
        *(KEY, "2026-11-30T12:00:00Z", "ok", "3", "3.0", "MiB"),
        *("by=ada", "reason=upgrade"),
    ]


def test_a_record_is_shown_with_its_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    warned = SnapshotRecord(
        key=KEY,
        app="blog",
        state="ok",
        created_at=RECORD.created_at,
        labels={"a": "b"},
        warnings=[SnapshotWarning(kind="vanished", path="x\ny", detail="gone")],
    )

    print_record(warned, json=False)

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["key", KEY] in lines
    assert ["labels", "a=b"] in lines
    assert ["warning", "vanished", r"x\ny", "gone"] in lines


def test_the_summary_tells_how_much_was_known_already(capsys: pytest.CaptureFixture[str]) -> None:
    say_created(RECORD, 1.5)

    assert capsys.readouterr().err == "3 files, 3.0 MiB, 100 B added (90% deduplicated), 1.5 s\n"


def test_only_the_first_warnings_are_told_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = [SnapshotWarning(kind="skipped", path=str(n)) for n in range(100)]
    record = msgspec.structs.replace(RESTORED, warnings=warnings, warning_count=250)

    say_restored(record, "app b", 0.1)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "0 files, 0 B restored to app b, 0.1 s"
    assert lines[1] == "warning: skipped: 0"
    assert lines[-1] == "and 240 more warnings"
    assert len(lines) == 12


def test_a_plan_that_is_cut_says_how_much_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    plan = [SnapshotChange(path=str(n), change="removed") for n in range(3)]
    record = msgspec.structs.replace(RESTORED, plan=plan, plan_count=10, dry_run=True)

    say_more(record)
    say_more(msgspec.structs.replace(record, plan_count=3))

    assert capsys.readouterr().err == "and 7 more\n"


def test_what_is_not_done_yet_is_not_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    pending = SnapshotRecord(key=KEY, app="blog", state="pending", created_at="")

    say_created(pending, 0.1)
    say_restored(msgspec.structs.replace(RESTORED, state="pending"), "app blog", 0.1)

    assert capsys.readouterr().err.count("it goes on") == 2


def test_nothing_is_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_of("archiving", lambda: 0.0) as update:
        assert update is None

    assert capsys.readouterr() == ("", "")
