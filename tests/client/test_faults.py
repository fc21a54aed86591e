"""Faults that a client does not notice: a worker that dies in mid-upload, lost messages."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
from typing import TYPE_CHECKING, Final

import pytest
from tests.contracts.blob_store import some_bytes
from tests.deployment import Asker, Deployment, deployed

from holdfast.client import Client, connect
from holdfast.client.puts.upload import STALL_SECONDS
from holdfast.client.requests import Requester
from holdfast.protocol.headers import BLOB_PART
from holdfast.transport import connection as transport
from holdfast.transport.inbox import Inbox
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from holdfast.runtime.embedded import EmbeddedServer
    from holdfast.transport.message import Message

pytestmark = [pytest.mark.nats, pytest.mark.slow]

UPLOAD_BYTES: Final = 64 * 1024 * 1024
BLOCK: Final = 1024 * 1024
FAULTS: Final = 3
"""Of each lossy connection: a window that meets one costs two seconds."""


@pytest.fixture
def deployment(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """Two workers that a test may kill."""
    with deployed(nats_server.url, "one", "two") as deployment:
        yield deployment


async def owner_of_uploads(ask: Asker) -> str:
    """The node whose worker takes the parts: the one with the open upload."""
    counts: dict[str, int] = {}
    for node, stats in (await ask.deployment.told(ask.client, "STATS")).items():
        by_name = {e["name"]: e["num_requests"] for e in stats["endpoints"]}
        counts[node] = by_name["blob-open"] + by_name["blob-open_name"]
    return max(counts, key=lambda node: counts[node])


class SourceWithFault:
    """Half of the upload, then ``fault`` on the worker that owns it, then the rest."""

    def __init__(self, ask: Asker, fault: Callable[[str], None]) -> None:
        self.sha256 = hashlib.sha256()
        self.owner = ""
        self._ask = ask
        self._fault = fault

    async def blocks(self) -> AsyncIterator[bytes]:
        """The bytes; they cannot be had twice."""
        blocks = UPLOAD_BYTES // BLOCK
        for number in range(blocks):
            if number == blocks // 2:
                self.owner = await owner_of_uploads(self._ask)
                self._fault(self.owner)
            block = some_bytes(BLOCK, seed=number)
            self.sha256.update(block)
            yield block


async def check_stored(holdfast: Client, ask: Asker, source: SourceWithFault) -> None:
    """The blob is right when it is read back, and alone in the bucket."""
    found = hashlib.sha256()
    async for piece in holdfast.stream(source.sha256.hexdigest()):
        found.update(piece)
    assert found.hexdigest() == source.sha256.hexdigest()
    await ask.wait_no_orphans()


@pytest.mark.fault("P02")
async def test_kill_9_of_the_owner_in_the_middle_of_a_pipe_goes_unnoticed(
    deployment: Deployment, ask: Asker
) -> None:
    source = SourceWithFault(ask, deployment.kill)

    async with await connect(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        stored = await holdfast.put(source.blocks())

        assert (stored.digest, stored.size) == (source.sha256.hexdigest(), UPLOAD_BYTES)
        assert stored.created
        assert await ask.chunks_in_bucket() == await ask.chunks_of_blobs(), "once it is answered"
        await check_stored(holdfast, ask, source)


@pytest.mark.long
@pytest.mark.fault("P06")
async def test_an_owner_that_is_paused_and_woken_after_another_took_over_spoils_nothing(
    deployment: Deployment, ask: Asker
) -> None:
    source = SourceWithFault(ask, deployment.pause)

    async with await connect(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        stored = await holdfast.put(source.blocks())
        assert (stored.digest, stored.size) == (source.sha256.hexdigest(), UPLOAD_BYTES)

        deployment.signal(source.owner, signal.SIGCONT)
        await ask.wait_no_orphans()
        await check_stored(holdfast, ask, source)
    assert deployment.workers[source.owner].poll() is None
    assert STALL_SECONDS < 10, "this test waits for it"


# --- windows over a lossy way ---


class LossyConnection(transport.Connection):
    """Drops some chunks on their way in, and swaps others, as a slow consumer or a route might."""

    def __init__(self, options: NatsOptions, seed: int, *, drop: float, swap: float) -> None:
        super().__init__(options)
        self.dropped = 0
        self.swapped = 0
        self._chance = random.Random(seed)  # noqa: S311  (the same faults for the same seed)
        self._drop = drop
        self._swap = swap
        self._held: tuple[int, Message] | None = None

    def _on_message(self, sid: int, message: Message) -> None:
        if BLOB_PART in message.headers and self.dropped + self.swapped < FAULTS:
            chance = self._chance.random()
            if chance < self._drop:
                self.dropped += 1
                return
            if chance < self._drop + self._swap and self._held is None:
                self.swapped += 1
                self._held = (sid, message)
                return
        super()._on_message(sid, message)
        if self._held is not None:
            held, self._held = self._held, None
            super()._on_message(*held)


async def lossy_client(
    url: str, prefix: str, seed: int, *, drop: float, swap: float
) -> tuple[Client, LossyConnection]:
    """A client whose connection loses and swaps chunks."""
    options = NatsOptions(servers=(url,))
    connection = LossyConnection(options, seed, drop=drop, swap=swap)
    await connection.open()
    requester = Requester(
        connection, Inbox(connection, options.inbox_prefix), prefix=prefix, timeout_seconds=30
    )
    return Client(connection, requester), connection


@pytest.mark.fault("P15")
@pytest.mark.parametrize(
    ("drop", "swap"),
    [
        pytest.param(0.1, 0.0, id="drop", marks=pytest.mark.long),
        pytest.param(0.0, 0.2, id="swap", marks=pytest.mark.long),
        pytest.param(0.1, 0.1, id="both"),
    ],
)
async def test_chunks_that_are_lost_or_swapped_are_asked_for_again(
    deployment: Deployment, drop: float, swap: float
) -> None:
    data = some_bytes(17 * 2**20 + 3, seed=int(1000 * drop + 100 * swap))
    async with await connect(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        digest = (await holdfast.put(data)).digest
    lossy, connection = await lossy_client(
        deployment.url, deployment.prefix, 7, drop=drop, swap=swap
    )

    async with lossy:
        found = await lossy.get(digest)

    assert found == data
    assert connection.dropped + connection.swapped == FAULTS


@pytest.mark.fault("P11")
async def test_a_get_while_the_blob_is_deleted_and_put_again_is_whole_or_not_found(
    deployment: Deployment,
) -> None:
    data = some_bytes(9 * 2**20, seed=12)
    async with await connect(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        digest = (await holdfast.put(data)).digest

        async def churn() -> None:
            for _ in range(5):
                await holdfast.delete(digest)
                await holdfast.put(data)

        churning = asyncio.create_task(churn())
        outcomes = set()
        while not churning.done():
            try:
                found = await holdfast.get(digest)
            except Exception as error:  # noqa: BLE001  (the set says which ones may come)
                outcomes.add(getattr(error, "code", repr(error)))
            else:
                assert found == data
        await churning

        assert outcomes <= {"not_found", "unavailable"}
        assert await holdfast.get(digest) == data
