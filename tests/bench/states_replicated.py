"""Appends to states of three replicas on three servers, beside bare publishes there.

    python -m tests.bench.states_replicated --rounds 5 --commands 4000

With one replica ``holdfast bench state`` measures the same.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console
from tests.deployment import Deployment
from tests.nats.clusters import Cluster

from holdfast.cli.base.output import say
from holdfast.cli.bench.machine import describe_machine
from holdfast.cli.bench.report import Report, judge, write_report
from holdfast.cli.bench.states import PROMISES_OF_THREE, BenchPlace, measure_appends

REPLICAS = 3


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    nodes = [f"worker-{number}" for number in range(chosen.workers)]
    with tempfile.TemporaryDirectory() as directory:
        report = Report(machine=describe_machine(Path(directory)), workers=chosen.workers)
        report.notes.append(f"{REPLICAS} replicas on as many servers")
        store = f"nats://blobs?replicas={REPLICAS}"
        with (
            Cluster(Path(directory)) as cluster,
            Deployment(",".join(cluster.urls), store=store) as deployment,
        ):
            deployment.start(*nodes)
            place = BenchPlace(
                url=deployment.url, sync="always", prefix=deployment.prefix, replicas=REPLICAS
            )
            figures = asyncio.run(
                measure_appends(place, chosen.rounds, chosen.commands, say),
                loop_factory=uvloop.new_event_loop,
            )
            report.figures.extend(figures)
    write_report(Console(), report, judge(report, PROMISES_OF_THREE), json=False)


if __name__ == "__main__":
    main()
