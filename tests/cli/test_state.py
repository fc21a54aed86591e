"""``holdfast state``, against a worker and a real nats-server."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.test_blob import LARGE, stdin_of

from holdfast.cli.base import exit_codes
from holdfast.runtime.child import dies_with_this_process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Holdfast, Ran

pytestmark = pytest.mark.nats


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A state in JSON, not in its canonical form."""
    (tmp_path / "state.json").write_text('{"b": 1.0, "a": [ ]}')
    return tmp_path / "state.json"


HASH = hashlib.sha256(b'{"a":[],"b":1}').hexdigest()


def rows(ran: Ran) -> list[dict[str, Any]]:
    """The lines of JSON."""
    return [json.loads(line) for line in ran.lines]


def test_commands_that_were_appended_are_in_the_log(name: str, holdfast: Holdfast) -> None:
    appended = holdfast("state", "append", name, '{"add": 1}', '"é"')
    again = holdfast("state", "append", name, "3", "--json")
    log = holdfast("state", "log", name)

    assert [line.split()[0] for line in appended.lines] == ["1", "2"]
    assert [row["index"] for row in rows(again)] == [3]
    assert [(row["index"], row["command"]) for row in rows(log)] == [
        (1, {"add": 1}),
        (2, "é"),
        (3, 3),
    ]
    assert [row["index"] for row in rows(holdfast("state", "log", name, "--from", "2"))] == [2, 3]


def test_commands_are_read_from_lines_and_one_of_bytes_from_a_file(
    name: str, holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_of(b"1\n\n[2]\n" + b"3\n" * 2000))
    (tmp_path / "bytes").write_bytes(b"\x00\xff")

    lines = holdfast("state", "append", name, "-")
    data = holdfast("state", "append", name, str(tmp_path / "bytes"), "--bytes")

    assert (len(lines.lines), data.status) == (2002, 0)
    found = rows(holdfast("state", "log", name))
    assert [row["command"] for row in found[:3]] == [1, [2], 3]
    assert found[-1]["bytes"] == base64.b64encode(b"\x00\xff").decode()


def test_lines_that_are_more_than_a_message_holds_are_appended_in_several(
    name: str, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = json.dumps("é" * 1500, ensure_ascii=False).encode()
    monkeypatch.setattr(sys, "stdin", stdin_of((line + b"\n") * 900))

    appended = holdfast("state", "append", name, "-")

    assert (appended.status, len(appended.lines)) == (0, 900)


def test_whoever_was_overtaken_appends_nothing(name: str, holdfast: Holdfast) -> None:
    def append(expected: str) -> int:
        return holdfast("state", "append", name, "1", "--expected-index", expected).status

    assert append("7") == exit_codes.NOT_FOUND
    assert append("none") == 0
    assert append("none") == exit_codes.CONFLICT
    assert append("1") == 0
    assert append("one") == exit_codes.USAGE
    assert len(holdfast("state", "log", name).lines) == 2


@pytest.mark.parametrize("command", ["{", "NaN", '"\\ud800"', "1e999", "[" * 600 + "]" * 600])
def test_what_is_no_json_is_not_appended(command: str, name: str, holdfast: Holdfast) -> None:
    ran = holdfast("state", "append", name, "1", command)

    assert ran.status == exit_codes.USAGE
    assert holdfast("state", "log", name).status == exit_codes.NOT_FOUND


def test_a_state_is_saved_in_its_canonical_form_and_shown(
    name: str, holdfast: Holdfast, file: Path, tmp_path: Path
) -> None:
    holdfast("state", "append", name, "1", "2")

    saved = holdfast("state", "save", name, str(file), "--index", "2", "--hlc", "then")
    shown = holdfast("state", "show", name)
    written = holdfast("state", "show", name, "-o", str(tmp_path / "target"))

    assert saved.lines == [f"{HASH}             2       1"]
    assert f"state_hash            {HASH}" in shown.lines
    assert "last_applied_hlc      then" in shown.lines
    assert (written.status, written.out) == (0, b"")
    assert (tmp_path / "target").read_bytes() == b'{"a":[],"b":1}'
    assert holdfast("state", "show", name, "-o", "-").out == b'{"a":[],"b":1}'


def test_saves_of_before_are_shown(name: str, holdfast: Holdfast, tmp_path: Path) -> None:
    holdfast("state", "append", name, "1", "2")
    for index in ("1", "2"):
        (tmp_path / "state").write_text(index)
        holdfast("state", "save", name, str(tmp_path / "state"), "--index", index)

    listed = rows(holdfast("state", "show", name, "--all", "--json"))
    old = holdfast("state", "show", name, "--index", "1", "--json")
    same = holdfast("state", "show", name, "--hash", listed[1]["state_hash"], "-o", "-")
    none = holdfast("state", "show", name, "--time", "2001-01-01T00:00:00Z")
    wrong = holdfast("state", "show", name, "--time", "yesterday")
    older = holdfast("state", "save", name, str(tmp_path / "state"), "--index", "1")
    forced = holdfast("state", "save", name, str(tmp_path / "state"), "--index", "1", "--force")

    assert [row["last_applied_index"] for row in listed] == [2, 1]
    assert rows(old) == [listed[1]]
    assert same.out == b"1"
    assert (none.status, wrong.status) == (exit_codes.NOT_FOUND, exit_codes.USAGE)
    assert (older.status, forced.status) == (exit_codes.CONFLICT, 0)


def test_a_state_of_bytes_is_streamed_in_and_out(
    name: str, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_of(LARGE))
    holdfast("state", "append", name, "1")

    saved = holdfast("state", "save", name, "-", "--index", "1", "--bytes", "--json")
    shown = holdfast("state", "show", name, "-o", "-")

    assert rows(saved)[0]["state_hash"] == hashlib.sha256(LARGE).hexdigest()
    assert shown.out == LARGE


def test_a_command_that_names_a_lineage_is_about_that_log_alone(
    name: str, holdfast: Holdfast, file: Path
) -> None:
    [appended] = rows(holdfast("state", "append", name, "1", "--json"))
    lineage = appended["lineage"]
    [logged] = rows(holdfast("state", "log", name, "--lineage", lineage))
    assert (logged["command"], logged["lineage"]) == (1, lineage)

    holdfast("state", "rm", name)
    holdfast("state", "append", name, "2")
    holdfast("state", "save", name, str(file), "--index", "1")

    for verb, *words in (
        ("append", "3"),
        ("log",),
        ("replay",),
        ("save", str(file), "--index", "1"),
    ):
        refused = holdfast("state", verb, name, *words, "--lineage", lineage)
        assert (refused.status, refused.lines) == (exit_codes.CONFLICT, []), verb
    assert [row["command"] for row in rows(holdfast("state", "log", name))] == [2]


def test_what_a_service_loads_is_printed(name: str, holdfast: Holdfast, file: Path) -> None:
    holdfast("state", "append", name, "1", "2", "3")
    before = rows(holdfast("state", "replay", name))
    holdfast("state", "save", name, str(file), "--index", "2")

    save, *commands = rows(holdfast("state", "replay", name))

    assert [row["command"] for row in before] == [1, 2, 3]
    assert (save["state"], save["last_applied_index"]) == ({"a": [], "b": 1}, 2)
    assert [row["command"] for row in commands] == [3]


def test_a_log_is_trimmed_and_checked(name: str, holdfast: Holdfast, file: Path) -> None:
    holdfast("state", "append", name, "1", "2", "3", "4")
    for index in ("2", "3"):
        holdfast("state", "save", name, str(file), "--index", index)

    too_far = holdfast("state", "trim", name, "3")
    trimmed = holdfast("state", "trim", name, "2")
    checked = holdfast("state", "verify", name)

    assert (too_far.status, trimmed.lines) == (exit_codes.CONFLICT, ["first command 3"])
    assert [row["index"] for row in rows(holdfast("state", "log", name))] == [3, 4]
    assert holdfast("state", "log", name, "--from", "1").status == exit_codes.NOT_FOUND
    assert (checked.status, checked.err) == (0, "saves: 2, commands: 2, damaged: 0\n")
    assert rows(holdfast("state", "verify", name, "--json"))[0]["damaged"] == []


def test_the_hash_of_a_file_needs_nobody(holdfast: Holdfast, file: Path) -> None:
    assert holdfast.unconnected("state", "hash", str(file)).lines == [HASH]
    as_bytes = holdfast.unconnected("state", "hash", str(file), "--bytes")
    assert as_bytes.lines == [hashlib.sha256(file.read_bytes()).hexdigest()]

    file.write_text('{"a": 1, "a": 1}')
    assert holdfast.unconnected("state", "hash", str(file)).status == exit_codes.USAGE


def test_states_are_listed_and_removed(name: str, holdfast: Holdfast, file: Path) -> None:
    holdfast("state", "append", f"{name}/a", "1")
    holdfast("state", "append", f"{name}/b", "1")
    holdfast("state", "save", f"{name}/b", str(file), "--index", "1")

    listed = holdfast("state", "ls", f"{name}/")
    rows_ = rows(holdfast("state", "ls", f"{name}/", "--json"))
    long = holdfast("state", "ls", f"{name}/b", "-l")
    removed = holdfast("state", "rm", f"{name}/a", f"{name}/a")

    assert sorted(listed.lines) == [f"{name}/a", f"{name}/b"]
    assert {row["name"]: row.get("saves", 0) for row in rows_} == {f"{name}/a": 0, f"{name}/b": 1}
    assert long.lines[0].split()[-2:] == [HASH, f"{name}/b"]
    assert removed.lines == [f"{name}/a  removed", f"{name}/a  was not there"]


def test_a_policy_is_changed_where_an_option_says_so(name: str, holdfast: Holdfast) -> None:
    holdfast("state", "append", name, "1")

    changed = holdfast("state", "policy", name, "--save-every", "7", "--keep-for", "2d", "--trim")
    kept = holdfast("state", "policy", name, "--json")

    assert changed.status == 0
    found = rows(kept)[0]
    assert (found["save_every"], found["keep_seconds"], found["trim"]) == (7, 172_800, True)
    assert rows(holdfast("state", "policy", name, "--no-trim", "--json"))[0]["trim"] is False
    assert holdfast("state", "policy", name, "--keep-for", "long").status == exit_codes.USAGE


def test_whoever_repairs_a_log_says_from_where_it_goes_on(name: str, holdfast: Holdfast) -> None:
    for command in ("1", "2", "3"):
        holdfast("state", "append", name, command)

    repaired = holdfast("state", "repair", name, "3")
    holdfast("state", "append", name, "4")

    assert repaired.lines == ["commands 1 to 2"]
    found = rows(holdfast("state", "log", name))
    assert [(row["index"], row["command"]) for row in found] == [(1, 1), (2, 2), (3, 4)]


def test_a_log_is_followed_until_sigint(name: str, holdfast: Holdfast) -> None:
    holdfast("state", "append", name, "1")
    command = [sys.executable, "-m", "holdfast", "state", "log", "-f", name, *holdfast.connection]
    with subprocess.Popen(
        dies_with_this_process(command), stdout=subprocess.PIPE, env=os.environ, text=True
    ) as following:
        assert following.stdout is not None
        first = json.loads(following.stdout.readline())
        holdfast("state", "append", name, "2")
        second = json.loads(following.stdout.readline())
        following.send_signal(signal.SIGINT)
        status = following.wait(60)

    assert [first["command"], second["command"], status] == [1, 2, 0]
