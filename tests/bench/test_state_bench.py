"""The bench of states, whole, at sizes so small that its figures mean nothing.

For figures that mean something: ``holdfast bench state``.
"""

from __future__ import annotations

import pytest
from tests.bench.test_blob_bench import run

from holdfast.cli.bench.report import judge
from holdfast.cli.bench.states import PROMISES

pytestmark = [pytest.mark.nats, pytest.mark.long]


def test_the_command_measures_everything_that_is_promised() -> None:
    sizes = ("--rounds", "1", "--commands", "300", "--size", "1MiB", "--states", "30")

    report = run("holdfast", "bench", "state", "--json", *sizes)

    assert report.problems == []
    assert all(verdict.measured is not None for verdict in judge(report, PROMISES))
    assert {figure.what for figure in report.figures} >= {
        "append, 10 states",
        "append, 30 states",
        "load, 30 states",
    }
