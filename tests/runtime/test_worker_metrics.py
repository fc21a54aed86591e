"""The metrics of a worker: its connection, and its work on states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.repository.states.pool import StatesPool

from holdfast.runtime.metrics import show
from holdfast.runtime.worker_metrics import connection_metrics, state_metrics
from holdfast.transport.observer import Counters

if TYPE_CHECKING:
    from holdfast.runtime.worker import Worker
    from holdfast.transport.connection import Connection


@dataclass
class FakeConnection:
    """A connection's face towards the metrics."""

    is_connected: bool = True
    counters: Counters = field(default_factory=Counters)


@dataclass
class FakeWorker:
    """A worker's."""

    is_serving: bool = True
    in_flight: int = 0
    watches: int = 0
    refused_replies: int = 0


def shown(connection: FakeConnection, worker: FakeWorker) -> list[str]:
    """The lines with values, as they are served."""
    registry = CollectorRegistry()
    shown_of = cast("Connection", connection), cast("Worker", worker)
    show(registry, lambda: connection_metrics(*shown_of))
    text = generate_latest(registry).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    ("serving", "connected", "ready"),
    [(True, True, "1.0"), (True, False, "0.0"), (False, True, "0.0")],
    ids=["serves", "not connected", "drains"],
)
def test_it_is_ready_while_it_serves_and_is_connected(
    serving: bool, connected: bool, ready: str
) -> None:
    lines = shown(FakeConnection(is_connected=connected), FakeWorker(is_serving=serving))

    assert f"holdfast_ready {ready}" in lines


def test_everything_that_is_counted_is_shown_as_it_is_now() -> None:
    connection = FakeConnection(counters=Counters(1, 2, 3, 4, 5))

    lines = shown(connection, FakeWorker(in_flight=6, watches=8, refused_replies=7))

    assert lines == [
        "holdfast_ready 1.0",
        "holdfast_requests_in_flight 6.0",
        "holdfast_watches 8.0",
        "holdfast_nats_disconnects_total 1.0",
        "holdfast_nats_reconnects_total 2.0",
        "holdfast_nats_servers_left_total 3.0",
        "holdfast_nats_violations_total 4.0",
        "holdfast_nats_unsent_total 5.0",
        "holdfast_replies_refused_total 7.0",
    ]


async def test_what_was_done_with_states_is_counted() -> None:
    worker = StatesPool().worker()
    registry = CollectorRegistry()
    show(registry, lambda: state_metrics(worker.states.totals))

    await worker.append("s", 1)
    await worker.append("s", *range(2, 7), op_id="op x")
    await worker.append("s", *range(2, 7), op_id="op x")
    await worker.append("s", *range(7, 1007 - 6))
    await worker.save("s", b"1", 1)
    await worker.replays.tell("s", 7, 1000)
    await worker.replays.page("s", 7, 1000)  # as a scrub reads
    async with worker.replays.follow("s", 1):
        lines = generate_latest(registry).decode().splitlines()

    assert {line for line in lines if not line.startswith("#") and "log_bytes" not in line} == {
        "holdfast_state_appends_total 4.0",
        "holdfast_state_saves_total 1.0",
        "holdfast_state_replays_total 1.0",
        "holdfast_state_followers 1.0",
        'holdfast_state_group_commands_bucket{le="1"} 1.0',
        'holdfast_state_group_commands_bucket{le="4"} 1.0',
        'holdfast_state_group_commands_bucket{le="16"} 2.0',
        'holdfast_state_group_commands_bucket{le="64"} 2.0',
        'holdfast_state_group_commands_bucket{le="256"} 2.0',
        'holdfast_state_group_commands_bucket{le="+Inf"} 3.0',
        "holdfast_state_group_commands_count 3.0",
        "holdfast_state_group_commands_sum 1000.0",
    }
    written = sum(
        len(entry.value) for entry in (await worker.states.logs.journal.read("s", 0)).entries
    )
    assert f"holdfast_state_log_bytes_total {float(written)}" in lines
    assert worker.states.totals.followers == 0
