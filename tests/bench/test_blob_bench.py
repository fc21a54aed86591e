"""Both blob benches, whole, at sizes so small that their figures mean nothing.

No test asserts a time: what is checked is that every measurement ran and is reported. For figures
that mean something:

    python -m tests.bench blob --sync both --rounds 7 --blobs 100000 --memory
"""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from tests.bench.contenders import find_contenders
from tests.bench.promises import BLOB_PROMISES

from holdfast.cli.bench import parse_size
from holdfast.cli.bench.blobs import NATS_PY, OTHER_PROMISES, SPEEDS
from holdfast.cli.bench.report import HOLDFAST, Report, judge
from holdfast.errors import InvalidError

SMALL_RUN = ("--json", "--sync", "both", "--size", "3MiB", "--rounds", "1", "--requests")


@pytest.mark.nats
@pytest.mark.long
def test_the_command_measures_everything_that_is_promised() -> None:
    memory = ("--memory", "--memory-size", "2MiB", "--client-size", "5MiB")

    report = run("holdfast", "bench", "blob", *SMALL_RUN, "9", "--blobs", "90", *memory)

    assert report.problems == []
    assert large_figures_of(report) == every_large_figure({HOLDFAST, NATS_PY})
    verdicts = judge(report, (*SPEEDS, *OTHER_PROMISES))
    assert all(verdict.measured is not None for verdict in verdicts)
    assert all(verdict.outcome == "not judged" for verdict in verdicts if "MiB" in verdict.what)


@pytest.mark.nats
@pytest.mark.long
def test_every_client_that_is_installed_is_measured_beside_ours() -> None:
    report = run("tests.bench", "blob", *SMALL_RUN, "0", "--blobs", "0")

    assert report.problems == []
    assert large_figures_of(report) == every_large_figure(
        {each.name for each in find_contenders(None)}
    )
    assert {verdict.outcome for verdict in judge(report, BLOB_PROMISES)} <= {
        "not judged",
        "not measured",
    }


def run(*command: str) -> Report:
    """The report of a whole run, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return msgspec.json.decode(ended.stdout, type=Report)


def large_figures_of(report: Report) -> set[tuple[str, str, str]]:
    """Which syncs, actions and clients were measured with a large blob."""
    return {
        (each.sync, each.what, each.contender) for each in report.figures if each.unit == "MiB/s"
    }


def every_large_figure(clients: set[str]) -> set[tuple[str, str, str]]:
    """The measurements of ``clients``."""
    return {
        (sync, action, client)
        for sync in ("default", "always")
        for action in ("put", "get")
        for client in clients
    }


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("4096", 4096),
        ("64KiB", 65536),
        ("256MiB", 2**28),
        ("1 GiB", 2**30),
        ("2g", 2**31),
    ],
)
def test_a_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0MiB", "-1", "MiB", "1.5GiB", "1TiB", "1MiB1", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="is not a size"):
        parse_size(text)
