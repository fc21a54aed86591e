"""What is shown of states: what a worker did with them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from tests.repository.states.pool import StatesPool

from holdfast.runtime.metrics import show
from holdfast.runtime.worker_metrics import state_metrics


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
