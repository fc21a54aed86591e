"""``holdfast bench blob``, whole, at sizes so small that its figures mean nothing.

No test asserts a time: what is checked is that every measurement ran and is reported. For figures
that mean something:

    holdfast bench blob --sync both --rounds 7 --blobs 100000 --memory
"""

from __future__ import annotations

import io
import re
import subprocess
import sys

import msgspec
import pytest
from rich.console import Console
from tests.bench.__main__ import parse_size
from tests.bench.contenders import find_contenders
from tests.bench.figures import Report
from tests.bench.promises import judge
from tests.bench.report import print_report

from holdfast.errors import InvalidError


@pytest.fixture(scope="module")
def run() -> subprocess.CompletedProcess[str]:
    flags = (
        *("--sync", "both", "--size", "3MiB", "--rounds", "2", "--requests", "70"),
        *("--blobs", "1500", "--memory", "--memory-size", "2MiB", "--client-size", "5MiB"),
    )
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", "blob", "--json", *flags],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.nats
@pytest.mark.long
def test_a_run_measures_everything_that_is_promised(run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 0, run.stderr
    report = msgspec.json.decode(run.stdout, type=Report)

    assert report.problems == []
    assert {(each.sync, each.action, each.client) for each in report.large} == {
        (sync, action, contender.name)
        for sync in ("default", "always")
        for action in ("put", "get")
        for contender in find_contenders(None)
    }
    assert all(verdict.measured is not None for verdict in judge(report))
    assert all(
        verdict.outcome == "not judged" for verdict in judge(report) if "MiB" in verdict.what
    )


@pytest.mark.nats
@pytest.mark.long
def test_the_tables_show_every_figure(run: subprocess.CompletedProcess[str]) -> None:
    report = msgspec.json.decode(run.stdout, type=Report)
    console = Console(file=io.StringIO(), width=200)

    print_report(console, report, judge(report))

    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    rows = [
        line for line in shown.splitlines() if re.match(r" +(default|always|worker|client) ", line)
    ]
    assert len(rows) == len((*report.large, *report.small, *report.has, *report.memory))
    assert all(verdict.what in shown for verdict in judge(report))


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
