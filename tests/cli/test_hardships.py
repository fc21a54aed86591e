"""Every command, where things are not as they usually are: a sentence, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.cli.app import build_app
from holdfast.cli.base import exit_codes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cyclopts import App
    from tests.cli.conftest import Holdfast

pytestmark = pytest.mark.nats

ABSENT = "0" * 64
KEY = "app:00000000-0000-7000-8000-000000000000"

ARGUMENTS: dict[str, list[str]] = {
    "blob put": ["/etc/hostname"],
    "blob get": [ABSENT],
    "blob has": [ABSENT],
    "blob stat": [ABSENT],
    "blob ls": [],
    "blob rm": [ABSENT],
    "blob verify": [],
    "blob gc": [],
    "name put": ["hostname", "/etc/hostname"],
    "name get": ["nothing"],
    "name ls": [],
    "name stat": ["nothing"],
    "name cp": ["nothing", "else"],
    "name mv": ["nothing", "else"],
    "name rm": ["nothing"],
    "name history": ["nothing"],
    "name versions": ["nothing"],
    "name restore": ["nothing", "1"],
    "name rules": [],
    "snapshot create": ["nobody"],
    "snapshot restore": [KEY],
    "snapshot ls": [],
    "snapshot show": [KEY],
    "snapshot files": [KEY],
    "snapshot diff": [KEY, KEY],
    "snapshot cat": [KEY, "file"],
    "snapshot export": [KEY],
    "snapshot verify": [KEY],
    "snapshot rm": [KEY],
    "snapshot purge": ["nobody"],
    "snapshot prune": ["nobody", "--keep-last", "1"],
    "snapshot hold": [KEY],
    "snapshot release": [KEY],
    "snapshot policy": ["nobody"],
    "blob link": [ABSENT],
    "name link": ["nothing"],
    "snapshot link": [KEY],
    "import blobs": ["/nonexistent/blobs"],
    "import store": ["/nonexistent/data"],
    "import archive": ["/nonexistent/archive.tar.zst", "--app", "nobody"],
    "import state": ["/nonexistent/snapshot.json", "--name", "nothing"],
    "token create": ["read:/", "--file", "/nonexistent/tokens"],
    "token ls": ["--file", "/nonexistent/tokens"],
    "token rm": ["a1", "--file", "/nonexistent/tokens"],
    "link-key create": ["--file", "/nonexistent/keys"],
    "link-key ls": ["--file", "/nonexistent/keys"],
    "link-key end": ["summer", "--file", "/nonexistent/keys"],
    "state append": ["hardships", '{"a": 1}'],
    "state save": ["nothing", "/dev/null", "--index=1"],
    "state show": ["nothing"],
    "state log": ["nothing"],
    "state replay": ["nothing"],
    "state trim": ["nothing", "1"],
    "state hash": ["/dev/null"],
    "state verify": ["nothing"],
    "state ls": [],
    "state rm": ["nothing"],
    "state repair": ["nothing", "1"],
    "state policy": ["nothing"],
    "watch": ["names", "--since", "1000000"],
    "status": [],
    "doctor": [],
    "usage": [],
    "scrub": [],
    "worker": ["--store", "disk:///nonexistent/store"],
    "gateway": ["--listen", ":99999"],
    "admin init": [],
    "admin upgrade": [],
    "admin accept-loss": [],
    "admin replicas": ["1"],
    "admin layout": [],
    "up": ["--workers", "0"],
    "config": [],
    "bench blob": ["--nonsense"],
    "bench snapshot": ["--nonsense"],
    "bench state": ["--nonsense"],
}
"""The arguments of each command: enough to get as far as it can without doing harm."""

UNCONNECTED = {
    *("up", "state hash", "bench blob", "bench snapshot", "bench state"),
    *("link-key create", "link-key ls", "link-key end", "token create", "token ls", "token rm"),
}
WRITERS = {
    *("blob put", "blob rm", "blob ls", "name put", "name rm"),
    *("status", "admin init", "admin layout", "config"),
}
ABSENT_NODE = {"blob link", "name link", "snapshot link", "snapshot create"}
"""What no worker here can do, and the commands wait for one that can."""

CLOSED = ["stdin", "stdout", "stderr", "stdin stdout stderr"]

ODD = [
    "",
    "\udcff",  # a byte that is not UTF-8, as the interpreter passes it on
    "nan",
    "-1",
    "9" * 30,
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-12:00",
    "~nobody-knows-him/file",
]


def commands(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    """Every command that does something, by its words."""
    for name in app:
        if name.startswith("-"):
            continue
        inner = app[name]
        if any(not word.startswith("-") for word in inner):
            yield from commands(inner, (*path, name))
        else:
            yield " ".join((*path, name)), inner


COMMANDS = dict(commands(build_app()))


@cache
def options_of(name: str) -> list[str]:
    collection = COMMANDS[name].assemble_argument_collection(parse_docstring=False)
    return [a.names[0] for a in collection if a.names and a.names[0].startswith("--")]


COMMON = "blob stat"
"""It has no options but those of many commands, and tries them for all."""


SHORT = {"blob put", "snapshot ls"}
"""The cases that are tried each time; the others, which are many, at length."""


def length_of(name: str) -> tuple[pytest.MarkDecorator, ...]:
    return () if name in SHORT else (pytest.mark.long,)


EACH = [pytest.param(name, marks=length_of(name), id=name) for name in COMMANDS]


class Bare:
    """Runs commands with hardships in a bare process, which has the modules loaded."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("hardships.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, words: list[str], hardship: str) -> tuple[int, str]:
        """The exit status, and standard error."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps([words, hardship]), file=self._process.stdin, flush=True)
        status, said = json.loads(self._process.stdout.readline())
        return status, said

    def close(self) -> None:
        assert self._process.communicate()[0] == ""


@pytest.fixture(scope="module")
def bare() -> Iterator[Bare]:
    bare = Bare()
    yield bare
    bare.close()


def test_every_command_is_tried() -> None:
    assert COMMANDS.keys() <= ARGUMENTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_no_command_minds_standard_streams_that_are_closed_or_full(
    name: str, holdfast: Holdfast, bare: Bare
) -> None:
    holdfast("blob", "put", "/etc/hostname")  # so that there is something to list
    words = [*name.split(), *ARGUMENTS[name], *patience(name), *connection_of(name, holdfast)]
    for hardship in [*CLOSED, "full"] if Path("/dev/full").exists() else CLOSED:
        status, said = bare.run(words, hardship)

        told = f"{words} with {hardship}: {status}, {said}"
        assert "Traceback" not in said, told
        assert status in {*exit_codes.EXIT_CODES.values(), exit_codes.OK}, told
        if hardship in {"stdout", "full"} and name in WRITERS:
            assert status == exit_codes.FAILURE, told
            assert said.count("\n") == 1, told


def patience(name: str, seconds: float = 2) -> list[str]:
    """Little of it: who asks for a node that is not there would wait for it."""
    seconds = min(seconds, 0.3) if name in ABSENT_NODE else seconds
    return [f"--timeout={seconds}"] if "--timeout" in options_of(name) else []


def connection_of(name: str, holdfast: Holdfast) -> tuple[str, ...]:
    return () if name in UNCONNECTED else holdfast.connection


@pytest.mark.parametrize("name", EACH)
def test_an_odd_value_of_an_option_is_taken_or_refused(
    name: str, holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [o for o in options_of(name) if name == COMMON or o not in options_of(COMMON)]

    for option, value in product(options, ODD):
        more = patience(name, 0.2) if option != "--timeout" else []
        words = [*name.split(), *ARGUMENTS[name], f"{option}={value}", *more]
        ran = holdfast.unconnected(*words, *connection_of(name, holdfast))

        told = f"{option}={value!r}: {ran}"
        assert ran.status in {*exit_codes.EXIT_CODES.values(), exit_codes.OK}, told
        assert ran.status == exit_codes.OK or ran.err or ran.out, told


@pytest.mark.parametrize("name", EACH)
def test_an_argument_that_is_not_utf8_is_taken_or_refused(
    name: str, holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*name.split(), *("\udcff" for _ in ARGUMENTS[name])]

    ran = holdfast.unconnected(*words, *connection_of(name, holdfast))

    assert ran.status == exit_codes.OK or ran.err


def test_a_file_whose_name_is_not_utf8_is_put(holdfast: Holdfast, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(path)).write_bytes(b"x")

    ran = holdfast("blob", "put", os.fsdecode(path))

    assert ran.status == exit_codes.OK
    assert ran.out.endswith(b"\\xff\n")


@pytest.mark.parametrize("name", EACH)
def test_no_command_needs_a_home_directory(
    name: str, holdfast: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "home", nobody)
    for variable in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)

    ran = holdfast.unconnected(*name.split(), *ARGUMENTS[name], *connection_of(name, holdfast))

    assert "home" not in ran.err
