"""Arguments of commands on snapshots: those that are taken, and those that are refused."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast.cli.base.arguments import first_words, output_of, parse_labels, standard_input
from holdfast.cli.base.snapshot_arguments import (
    ARCHIVE_ENDINGS,
    AppSource,
    LocalSource,
    parse_time,
    read_patterns,
    source_of,
)
from holdfast.errors import InvalidError

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def test_a_name_without_a_slash_is_an_app() -> None:
    assert source_of("blog", None) == AppSource("blog")
    assert source_of("blog", "blog") == AppSource("blog")


def test_a_slash_a_dot_and_an_archive_are_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "shop"
    here.mkdir()
    (here / "blog.tar.zst").touch()
    monkeypatch.chdir(here)

    assert source_of(".", None) == LocalSource(Path(), "shop")
    assert source_of("./", None) == LocalSource(Path(), "shop")
    assert source_of(f"{here}/", "other") == LocalSource(here, "other")
    assert source_of("blog.tar.zst", None) == LocalSource(Path("blog.tar.zst"), "blog")
    assert source_of("-", "blog") == LocalSource(standard_input(), "blog")


def test_an_archive_that_is_not_there_is_an_app_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert source_of("blog.tar", None) == AppSource("blog.tar")


@pytest.mark.parametrize(
    ("text", "app"),
    [("-", None), (".hidden", None), ("blog", "shop"), ("/", None), ("./a b", None), ("./x", "..")],
)
def test_what_names_no_app_is_refused(text: str, app: str | None) -> None:
    with pytest.raises(InvalidError):
        source_of(text, app)


def test_labels_are_keys_and_values() -> None:
    assert parse_labels(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}


@pytest.mark.parametrize("texts", [["a"], ["=b"], ["a="], ["a=1", "a=2"], ["a=b\n"], ["a b=c"]])
def test_what_is_no_label_is_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidError):
        parse_labels(texts)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2d", NOW - timedelta(days=2)),
        ("90m", NOW - timedelta(minutes=90)),
        ("1w", NOW - timedelta(weeks=1)),
        ("30s", NOW - timedelta(seconds=30)),
        ("12h", NOW - timedelta(hours=12)),
        ("2026-11-29", datetime(2026, 11, 29, tzinfo=UTC)),
        ("2026-11-29T10:00:00Z", datetime(2026, 11, 29, 10, tzinfo=UTC)),
        ("2026-11-29T10:00:00+02:00", datetime(2026, 11, 29, 8, tzinfo=UTC)),
    ],
)
def test_a_time_is_one_or_says_how_long_ago(text: str, at: datetime) -> None:
    assert parse_time(text, NOW) == at


def test_no_time_is_none() -> None:
    assert parse_time(None, NOW) is None


@pytest.mark.parametrize("text", ["", "2", "d", "2x", "yesterday", "999999w", "-2d", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_time(text, NOW)


def test_patterns_come_from_the_command_line_and_from_files(tmp_path: Path) -> None:
    file = tmp_path / "patterns"
    file.write_bytes(b"*.log\n\n# comment\n  \n\\#kept\ncache/\n")

    assert read_patterns(["*.tmp"], [file]) == ["*.tmp", "*.log", "\\#kept", "cache/"]


def test_only_line_feeds_end_a_pattern(tmp_path: Path) -> None:
    file = tmp_path / "patterns"
    file.write_bytes("one\u2028line\r\nform\x0cfeed\n\x85".encode())

    assert read_patterns([], [file]) == ["one\u2028line", "form\x0cfeed", "\x85"]


def test_patterns_are_the_bytes_of_their_file_whatever_the_locale(tmp_path: Path) -> None:
    file = tmp_path / "patterns"
    file.write_bytes(b"\xef\xbb\xbfsecret.key\r\n\xe4\xff*\n\xc3\xa4\n\xef\xbb\xbfx\n")

    found = read_patterns(["*.tmp"], [file, file])

    expected = [b"secret.key", b"\xe4\xff*", b"\xc3\xa4", b"\xef\xbb\xbfx"]
    assert [os.fsencode(pattern) for pattern in found] == [b"*.tmp", *expected, *expected]


def test_a_file_too_long_for_patterns_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "patterns"
    with file.open("wb") as sparse:
        sparse.truncate(5 * 1024 * 1024)

    with pytest.raises(InvalidError):
        read_patterns([], [file])


def test_a_dash_is_standard_output_and_input_is_not_buffered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.FileIO(0, closefd=False)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(raw)))

    assert standard_input() is raw
    assert output_of("file") == Path("file")
    assert not isinstance(output_of("-"), Path)


@pytest.mark.parametrize("ending", ARCHIVE_ENDINGS)
def test_every_ending_of_an_archive_that_can_be_read_is_known(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (f"blog{ending}", f"shop{ending.upper()}"):
        Path(name).touch()

    assert source_of(f"blog{ending}", None) == LocalSource(Path(f"blog{ending}"), "blog")
    assert source_of(f"shop{ending.upper()}", None).app == "shop"


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_time_that_is_none_in_utc_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="is not a time"):
        parse_time(text, datetime(2026, 1, 1, tzinfo=UTC))


def test_the_first_word_of_what_sha256sum_writes_is_the_digest() -> None:
    lines = ["aa  file\n", "\\bb  odd\\nname\n", "\n", "  cc\n"]

    assert list(first_words(lines)) == ["aa", "bb", "cc"]
