"""``holdfast name``, against a worker and a real nats-server."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import TYPE_CHECKING

import pytest
from tests.cli.test_blob import LARGE, stdin_of

from holdfast.cli.base import exit_codes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Holdfast

pytestmark = pytest.mark.nats

ABSENT = "0" * 64


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small file."""
    (tmp_path / "file").write_bytes(b"hello")
    return tmp_path / "file"


@pytest.mark.parametrize("data", [b"", b"hello", LARGE], ids=["empty", "small", "large"])
def test_what_was_put_under_a_name_can_be_got(
    data: bytes, name: str, holdfast: Holdfast, file: Path
) -> None:
    file.write_bytes(data)

    put = holdfast("name", "put", name, str(file))
    got = holdfast("name", "get", name)

    assert (put.status, put.lines) == (0, [f"{digest_of(data)}       1  {name}"])
    assert (got.status, got.out) == (0, data)


def test_standard_input_is_put_and_a_file_is_got(
    name: str, holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_of(LARGE))

    holdfast("name", "put", name, "-")
    got = holdfast("name", "get", name, "-o", str(tmp_path / "target"), "--offset", "5")

    assert (got.status, got.out) == (0, b"")
    assert (tmp_path / "target").read_bytes() == LARGE[5:]


def test_json_tells_what_was_stored(name: str, holdfast: Holdfast, file: Path) -> None:
    put = holdfast("name", "put", name, str(file), "--json")

    expected = {"name": name, "digest": digest_of(b"hello"), "size": 5, "version": 1}
    assert json.loads(put.out) == expected | {"state": "ok"}


def test_a_name_is_put_only_on_the_conditions_that_were_given(
    name: str, holdfast: Holdfast, file: Path
) -> None:
    def put(*options: str) -> int:
        return holdfast("name", "put", name, str(file), *options).status

    assert put("--replace") == exit_codes.NOT_FOUND
    assert put("--if-version", "1") == exit_codes.CONFLICT
    assert put("--create") == exit_codes.OK
    assert put("--create") == exit_codes.CONFLICT
    assert put("--if-absent") == exit_codes.CONFLICT
    assert put("--if-version", "2") == exit_codes.CONFLICT
    assert put("--if-digest", ABSENT) == exit_codes.CONFLICT
    assert put("--if-version", "1", "--if-digest", digest_of(b"hello")) == exit_codes.OK
    assert put("--replace") == exit_codes.OK
    assert put() == exit_codes.OK
    assert put("--create", "--replace") == exit_codes.USAGE
    assert put("--if-absent", "--if-version", "4") == exit_codes.USAGE
    assert put("--digest", ABSENT) == exit_codes.USAGE
    assert holdfast("name", "ls", name, "-l").lines[0].split()[:2] == ["ok", "4"]


def test_what_is_said_of_a_name_is_shown(name: str, holdfast: Holdfast, file: Path) -> None:
    file.write_bytes(b"described")
    said = ("--type", "text/plain", "--label", "k=v w", "--label", "l=x", "--expires", "30d")
    holdfast("name", "put", name, str(file), *said)

    described = json.loads(holdfast("name", "stat", name, "--json").out)
    shown = holdfast("name", "stat", name)

    assert (described["type"], described["labels"]) == ("text/plain", {"k": "v w", "l": "x"})
    assert described["expires_at"] > described["modified_at"]
    assert f"{'labels':12}  k=v w l=x" in shown.lines
    assert f"{'names':12}  {name}" in shown.lines


@pytest.mark.parametrize("expires", ["", "soon", "2027-01-31", "2027-01-31T12:00:00", "-1d"])
def test_an_expiry_is_a_time_with_its_zone_or_a_duration(
    name: str, expires: str, holdfast: Holdfast, file: Path
) -> None:
    put = holdfast("name", "put", name, str(file), f"--expires={expires}")

    assert put.status == exit_codes.USAGE
    assert holdfast("name", "ls", name).lines == []


def test_names_are_listed_with_and_without_directories(
    name: str, holdfast: Holdfast, file: Path
) -> None:
    for token in ("b", "a/1", "a/2", "a!"):
        holdfast("name", "put", f"{name}/{token}", str(file), "--label", f"at={token[0]}")

    listed = holdfast("name", "ls", f"{name}/")
    grouped = holdfast("name", "ls", f"{name}/", "--delimiter", "/")
    labelled = holdfast("name", "ls", f"{name}/", "--label", "at=b")
    behind = holdfast("name", "ls", f"{name}/", "--start-after", f"{name}/a/1")
    rows = [json.loads(line) for line in holdfast("name", "ls", f"{name}/", "--json").lines]

    assert listed.lines == [f"{name}/{token}" for token in ("a!", "a/1", "a/2", "b")]
    assert grouped.lines == [f"{name}/{token}" for token in ("a!", "a/", "b")]
    assert labelled.lines == [f"{name}/b"]
    assert behind.lines == [f"{name}/a/2", f"{name}/b"]
    assert [row["name"] for row in rows] == listed.lines
    long = holdfast("name", "ls", f"{name}/", "--delimiter", "/", "--long").lines
    assert [line.split()[0] for line in long] == ["ok", "prefix", "ok"]
    assert len({line.index(name) for line in long}) == 1


def test_names_are_copied_renamed_and_removed(name: str, holdfast: Holdfast, file: Path) -> None:
    holdfast("name", "put", f"{name}1", str(file))

    copied = holdfast("name", "cp", f"{name}1", f"{name}2")
    refused = holdfast("name", "cp", f"{name}1", f"{name}2", "--if-absent")
    moved = holdfast("name", "mv", f"{name}2", f"{name}3")
    linked = holdfast("name", "cp", digest_of(b"hello"), f"{name}4", "--by-digest")
    kept = holdfast("name", "rm", f"{name}3", "--if-version", "2")
    removed = holdfast("name", "rm", f"{name}3", f"{name}2")

    assert (copied.status, moved.status, linked.status) == (0, 0, 0)
    assert (refused.status, kept.status) == (exit_codes.CONFLICT, exit_codes.CONFLICT)
    assert removed.lines == [f"{name}3  deleted", f"{name}2  was not there"]
    assert holdfast("name", "ls", name).lines == [f"{name}1", f"{name}4"]
    assert holdfast("name", "mv", f"{name}2", f"{name}5").status == exit_codes.NOT_FOUND
    assert holdfast("name", "rm", "a", "b", "--if-version", "1").status == exit_codes.USAGE


def test_versions_are_kept_by_rules_shown_and_restored(
    name: str, holdfast: Holdfast, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {"prefix": name, "keep_versions": 2}
    monkeypatch.setattr(sys, "stdin", stdin_of(json.dumps(rule).encode() + b"\n"))
    made = holdfast("name", "rules", "--replace", "-", "--json")
    for data in (b"one", b"two", b"three"):
        file.write_bytes(data)
        holdfast("name", "put", name, str(file))

    versions = holdfast("name", "versions", name)
    restored = holdfast("name", "restore", name, "2", "--if-version", "3")
    steps = [json.loads(line) for line in holdfast("name", "history", name, "--json").lines]

    assert json.loads(made.out) == rule
    assert holdfast("name", "rules").lines == [f"prefix  {name}  keep_versions=2"]
    assert [line.split()[0] for line in versions.lines] == ["3", "2"]
    assert holdfast("name", "get", name, "--version", "3").out == b"three"
    assert holdfast("name", "get", name, "--version", "1").status == exit_codes.NOT_FOUND
    assert restored.lines == [f"{digest_of(b'two')}       4  {name}"]
    assert (steps[0]["state"], steps[0]["version"]) == ("ok", 4)
    assert holdfast("name", "history", name).lines[-1].split()[1] == "pending"
    assert holdfast("name", "rules", "--if-revision", "1").status == exit_codes.USAGE
    stale = holdfast("name", "rules", "--replace", "/dev/null", "--if-revision", "0")
    assert stale.status == exit_codes.CONFLICT
    assert holdfast("name", "rules", "--replace", "/dev/null").status == exit_codes.OK


def test_rules_that_are_none_change_nothing(holdfast: Holdfast, file: Path) -> None:
    for text in (b"hello", b'{"prefix": 5}', b'{"prefix": "a", "keep": 1}', b"\xff"):
        file.write_bytes(text)
        assert holdfast("name", "rules", "--replace", str(file)).status == exit_codes.USAGE

    assert holdfast("name", "rules").lines == []


def test_a_failed_get_leaves_the_file_as_it_was(name: str, holdfast: Holdfast, file: Path) -> None:
    got = holdfast("name", "get", name, "-o", str(file))

    assert got.status == exit_codes.NOT_FOUND
    assert got.err.count("\n") == 1
    assert file.read_bytes() == b"hello"
