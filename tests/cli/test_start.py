"""A command loads only the modules that it needs, for each takes time."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
import structlog

from holdfast.cli.base import exit_codes
from holdfast.cli.base.logs import configure_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Holdfast

RUN: Final = """
import sys
before = set(sys.modules)
from holdfast.cli import main
status = main(sys.argv[1:])
print(status, *(set(sys.modules) - before), file=sys.stderr)
"""
STORING: Final = frozenset(
    {
        "holdfast.bootstrap",
        "holdfast.handlers",
        "holdfast.repository",
        "holdfast.stores",
        "prometheus_client",
        "pyfastcdc",
        "sqlite3",
        "structlog",
        "uvloop",
        "zstandard",
    }
)
ASKING: Final = frozenset({"holdfast.client", "holdfast.transport.connection", "nats"})
PARSING: Final = frozenset({"cyclopts", "msgspec", "rich"})


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a command loads which succeeds."""
    words = [sys.executable, "-c", RUN, *arguments]
    ran = subprocess.run(words, capture_output=True, check=True, text=True, timeout=60)
    status, *modules = ran.stderr.split()
    assert int(status) == exit_codes.OK
    return set(modules)


def loaded_in(script: str) -> set[str]:
    """The modules that a program loads, beside those of the interpreter and of who measures it."""
    before, after = "import sys; before = set(sys.modules)", "print(*(set(sys.modules) - before))"
    words = [sys.executable, "-c", f"{before}\n{script}\n{after}"]
    return set(subprocess.check_output(words, text=True, timeout=60).split())


def test_the_version_is_told_without_a_command_line() -> None:
    loaded = loaded_by("--version")

    assert loaded & (PARSING | ASKING | STORING | {"asyncio"}) == set()


def test_the_help_loads_no_command() -> None:
    loaded = loaded_by("--help")

    unneeded = {"asyncio", "cyclopts.completion", "importlib.metadata", "logging", "msgspec"}
    assert loaded & (unneeded | ASKING | STORING) == set()


@pytest.mark.parametrize(
    "command",
    [("blob", "get"), ("snapshot", "create"), ("status",), ("config",)],
    ids=" ".join,
)
def test_the_help_of_a_client_command_loads_no_client(command: tuple[str, ...]) -> None:
    loaded = loaded_by(*command, "--help")

    assert loaded & (ASKING | STORING) == set()


@pytest.mark.nats
def test_reading_a_blob_loads_a_client_and_nothing_that_stores(holdfast: Holdfast) -> None:
    digest = holdfast("blob", "put", __file__).lines[0].split()[0]

    loaded = loaded_by("blob", "get", digest, "--output", "/dev/null", *holdfast.connection)

    assert loaded >= ASKING
    unneeded = {"cyclopts.completion", "holdfast.archive.create", "holdfast.archive.read", "rich"}
    assert loaded & (unneeded | STORING) == set()


def test_the_package_loads_no_client_before_it_is_asked_for() -> None:
    loaded = loaded_in("import holdfast")

    assert loaded & (PARSING | ASKING | STORING) == set()


def test_all_of_the_client_logs_with_the_standard_library_alone() -> None:
    loaded = loaded_in(
        "import importlib, pkgutil, holdfast.client as client\n"
        "for found in pkgutil.walk_packages(client.__path__, 'holdfast.client.'):\n"
        "    importlib.import_module(found.name)"
    )

    assert loaded >= {"holdfast.archive.create.create", "holdfast.archive.restore.restore"}
    assert "structlog" not in loaded


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("logging_as_it_was")
def test_what_a_client_command_has_to_log_is_a_line_like_a_workers(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure_for("blob")

    for name in ("one", "two\n"):
        logging.getLogger("nats").warning("failed: %s", name, extra={"subject": "a"})

    written = capfd.readouterr()
    lines = [json.loads(line) for line in written.err.splitlines()]
    assert written.out == ""
    assert [(line["event"], line["level"], line["subject"]) for line in lines] == [
        ("failed: one", "warning", "a"),
        ("failed: two\n", "warning", "a"),
    ]
