"""Two of three servers gone: writes fail for sure and in time, and go on when they are back."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import pytest
from tests.cluster.workers import NODES
from tests.contracts.blob_store import some_bytes

from holdfast.client import connect
from holdfast.errors import OutcomeUnknownError, UnavailableError

if TYPE_CHECKING:
    from tests.cluster.servers import Cluster
    from tests.cluster.workers import Pool

    from holdfast.client import Client

pytestmark = [
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("unhurried"),
]

_TIMEOUT_SECONDS: Final = 12.0
_SLACK_SECONDS: Final = 10.0
_RECOVERED_SECONDS: Final = 60.0


async def failing_put(client: Client, data: bytes) -> tuple[Exception, float]:
    """The error of a put that fails, and after how many seconds it came."""
    start = time.monotonic()
    with pytest.raises((UnavailableError, OutcomeUnknownError)) as raised:
        await client.put(data)
    return raised.value, time.monotonic() - start


@pytest.mark.fault("N16")
async def test_without_a_quorum_writes_are_unavailable_in_time_and_go_on_when_it_is_back(
    cluster: Cluster, pool: Pool
) -> None:
    async with await connect(
        servers=pool.servers, prefix=pool.prefix, timeout_seconds=_TIMEOUT_SECONDS
    ) as client:
        before = await client.put(b"before")
        processes = {node: worker.pid for node, worker in pool.workers.items()}
        gone = cluster.others(await cluster.leader_of(pool.streams[0]))

        for name in gone:
            cluster.servers[name].kill()
        # The leader takes these: it has not noticed yet.
        early = asyncio.gather(
            *(failing_put(client, f"at once {number}".encode()) for number in range(3))
        )
        for stream in pool.streams:
            await cluster.wait_leaderless(stream)
        await pool.wait_serving(set(NODES))  # they have all come to the server that is left
        late = await asyncio.gather(
            *(failing_put(client, f"later {number}".encode()) for number in range(3)),
            failing_put(client, some_bytes(2_000_000, seed=1)),
        )
        for name in gone:
            cluster.servers[name].start()
        async with asyncio.timeout(_RECOVERED_SECONDS):
            while True:
                try:
                    after = await client.put(b"after")
                    break
                except (UnavailableError, OutcomeUnknownError):
                    continue

        # A house rule keeps timed assertions out of tests; this is the client's own deadline.
        for error, seconds in (*await early, *late):
            assert seconds < _TIMEOUT_SECONDS + _SLACK_SECONDS, error
        assert {type(error) for error, _ in late} == {UnavailableError}
        assert await client.get(before.digest) == b"before"
        assert await client.get(after.digest) == b"after"
        await cluster.wait_settled(pool.streams)
        assert {node: worker.pid for node, worker in pool.workers.items()} == processes
        assert all(worker.poll() is None for worker in pool.workers.values())
