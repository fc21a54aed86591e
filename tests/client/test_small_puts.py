"""Small puts that go together in one request, and all that may keep them from it."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio
from tests.deployment import deployed
from tests.handlers.service import Service

from holdfast.client import Client, connect
from holdfast.client.many import AT_ONCE
from holdfast.client.puts.small_puts import MOST_BYTES_EACH
from holdfast.domain.digest import digest_of
from holdfast.domain.limits import MAX_BLOBS_PER_PUT, MIB
from holdfast.errors import (
    HoldfastError,
    InvalidError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.protocol.blobs import PUT_BLOB, PUT_BLOBS, BlobStored, PutBlobs
from holdfast.runtime.statistics import Identity
from holdfast.runtime.worker import Worker
from holdfast.stores.memory import MemoryBlobStore
from holdfast.tracing import TRACE, TraceStep
from holdfast.transport import connection as transport
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Buffer, Callable, Iterator

    from tests.conftest import StartServer
    from tests.deployment import Deployment

    from holdfast.domain.digest import Digest
    from holdfast.handlers.endpoint import AnyEndpoint, Call
    from holdfast.stores.ports import Attributes, Stored

pytestmark = pytest.mark.nats

MANY: Final = 200
BLOBS: Final = [b"one of many: %d" % number for number in range(MANY)]
ALONE: Final = PUT_BLOB.subject
TOGETHER: Final = PUT_BLOBS.subject
ALL: Final = (ALONE, TOGETHER)


class Store(MemoryBlobStore):
    """A store in memory; ``refuse`` says what a put is answered, None if it is done.

    A put waits until as many are under way as ``together`` wants.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refuse: Callable[[Digest], HoldfastError | None] = lambda _: None
        self.together = asyncio.Barrier(1)

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        await self.together.wait()
        error = self.refuse(digest)
        if error is not None:
            raise error
        return await super().put(digest, data, attributes)


class Pool:
    """Workers in this process, which share a store. ``asked`` counts what they were asked.

    ``traces`` are those of requests with several blobs, and the digests of these.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"w{secrets.token_hex(4)}"
        self.store = Store()
        self.asked: Counter[str] = Counter()
        self.traces: list[tuple[TraceStep | None, list[Digest]]] = []
        self._workers: list[tuple[Worker, transport.Connection]] = []

    async def start(
        self,
        subjects: tuple[str, ...] = ALL,
        *,
        max_inline_bytes: int = 960 * 1024,
        is_lost: bool = False,
    ) -> None:
        """Start a worker that knows ``subjects``. One that ``is_lost`` does it, and then ends."""
        service = Service(self.store, max_inline_bytes=max_inline_bytes)
        connection = await transport.connect(NatsOptions(servers=(self.url,)))
        endpoints = tuple(
            self._counted(service.endpoints[subject], connection if is_lost else None)
            for subject in subjects
        )
        worker = Worker(
            connection,
            service.dispatcher,
            endpoints,
            Identity(id=secrets.token_hex(4), version="1.0.0", started="then", metadata={}),
            prefix=self.prefix,
            max_concurrent=256,
            inbox_prefixes=("_INBOX.",),
        )
        worker.start()
        await connection.wait_flushed(30)
        self._workers.append((worker, connection))

    def _counted(self, endpoint: AnyEndpoint, lost: transport.Connection | None) -> AnyEndpoint:
        async def handle(request: Any, call: Call) -> Any:
            self.asked[endpoint.operation.subject] += 1
            if isinstance(request, PutBlobs):
                self.traces.append((TRACE.get(), [digest_of(one.data) for one in request.blobs]))
            reply = await endpoint.handle(request, call)
            if lost is not None:
                await lost.close()
            return reply

        return replace(endpoint, handle=handle)

    @asynccontextmanager
    async def client(self, *, timeout_seconds: float = 30) -> AsyncIterator[Client]:
        """A client of theirs."""
        connecting = connect(servers=self.url, prefix=self.prefix, timeout_seconds=timeout_seconds)
        async with await connecting as client:
            yield client

    async def stop(self) -> None:
        """End them all."""
        for worker, connection in self._workers:
            await worker.drain(5)
            await connection.close()


@pytest_asyncio.fixture
async def pool(nats_url: str) -> AsyncIterator[Pool]:
    """A pool that has no workers yet."""
    pool = Pool(nats_url)
    yield pool
    await pool.stop()


async def put_all(client: Client, blobs: list[bytes] = BLOBS) -> list[BlobStored | BaseException]:
    """Put ``blobs`` at the same time; what became of each."""
    return await asyncio.gather(*map(client.put, blobs), return_exceptions=True)


def stored(data: bytes, *, created: bool = True) -> BlobStored:
    return BlobStored(digest=digest_of(data), size=len(data), created=created)


async def test_puts_at_once_go_in_few_requests_each_with_its_own_answer(pool: Pool) -> None:
    await pool.start()
    async with pool.client() as client:
        await client.put(BLOBS[7])

        outcomes = await put_all(client)

    assert outcomes == [stored(data, created=number != 7) for number, data in enumerate(BLOBS)]
    assert pool.asked[ALONE] == 2, "the one before, and the first, which waits for nobody"
    assert pool.asked[TOGETHER] <= MANY // 16 + 1


async def test_a_request_with_several_belongs_to_the_trace_of_the_first(pool: Pool) -> None:
    traces = {digest_of(data): TraceStep.first() for data in BLOBS}

    async def put(client: Client, data: bytes) -> None:
        TRACE.set(traces[digest_of(data)])
        await client.put(data)

    await pool.start()
    async with pool.client() as client:
        for _ in range(3):
            await asyncio.gather(*(put(client, data) for data in BLOBS))

    assert pool.traces
    assert [trace for trace, _ in pool.traces] == [traces[of[0]] for _, of in pool.traces]


async def test_256_of_put_many_are_under_way_together(pool: Pool) -> None:
    await pool.start()
    pool.store.together = asyncio.Barrier(AT_ONCE)
    blobs = [b"%d" % number for number in range(AT_ONCE)]
    async with pool.client() as client:
        found = [one async for one in client.put_many(blobs)]

    assert found == [stored(data) for data in blobs]


async def test_one_after_another_goes_alone(pool: Pool) -> None:
    await pool.start()
    async with pool.client() as client:
        for data in BLOBS[:10]:
            assert await client.put(data) == stored(data)

    assert pool.asked == {ALONE: 10}


async def test_what_is_large_goes_alone_and_requests_are_bounded(pool: Pool) -> None:
    await pool.start()
    large = [bytes([number]) * (MOST_BYTES_EACH + 1) for number in range(3)]
    full = [bytes([number, 1]) * (MOST_BYTES_EACH // 2) for number in range(64)]
    tiny = [b"%d" % number for number in range(8 * MAX_BLOBS_PER_PUT)]
    async with pool.client() as client:
        for blobs in (large, full, tiny):
            assert await put_all(client, blobs) == [stored(data) for data in blobs]

    assert pool.asked[ALONE] == len(large) + 2
    assert pool.asked[TOGETHER] > len(full) * MOST_BYTES_EACH // MIB


async def test_type_and_expected_digest_are_of_each_blob(pool: Pool) -> None:
    await pool.start()
    async with pool.client() as client:
        outcomes = await asyncio.gather(
            client.put(b"first"),
            client.put(b"a", type="a/a"),
            client.put(b"b", digest=digest_of(b"other bytes")),
            client.put(b"", type="c/c", digest=digest_of(b"")),
            return_exceptions=True,
        )

    assert (outcomes[1], outcomes[3]) == (stored(b"a"), stored(b""))
    assert isinstance(outcomes[2], InvalidError)
    types = [(await pool.store.stat(digest_of(data))).type for data in (b"a", b"")]
    assert types == ["a/a", "c/c"]
    assert pool.asked[TOGETHER] == 1


async def test_a_pool_that_does_not_know_such_requests_gets_single_ones(pool: Pool) -> None:
    await pool.start((ALONE,))
    async with pool.client() as client:
        assert await put_all(client) == [stored(data) for data in BLOBS]
        assert await put_all(client) == [stored(data, created=False) for data in BLOBS]

    assert pool.asked == {ALONE: 2 * MANY}


async def test_of_a_mixed_pool_whoever_knows_them_answers(pool: Pool) -> None:
    await pool.start((ALONE,))
    await pool.start()
    async with pool.client() as client:
        for blobs in (BLOBS[:70], BLOBS[70:130], BLOBS[130:]):
            assert await put_all(client, blobs) == [stored(data) for data in blobs]

    assert pool.asked[ALONE] == 3
    assert pool.asked[TOGETHER] > 0


async def test_what_a_worker_stored_and_did_not_answer_is_known_by_one_that_knows_no_such_requests(
    pool: Pool,
) -> None:
    await pool.start((TOGETHER,), is_lost=True)
    await pool.start((ALONE,))
    async with pool.client() as client:
        assert await put_all(client) == [stored(data) for data in BLOBS]

    assert pool.asked[TOGETHER] > 0


async def test_what_a_worker_may_have_stored_is_unknown_where_nobody_else_answers(
    pool: Pool,
) -> None:
    await pool.start(is_lost=True)
    async with pool.client(timeout_seconds=3) as client:
        outcomes = await put_all(client)

    assert all(isinstance(one, OutcomeUnknownError | UnavailableError) for one in outcomes)
    for data, outcome in zip(BLOBS, outcomes, strict=True):
        is_stored = digest_of(data) not in await pool.store.missing([digest_of(data)])
        assert not is_stored or isinstance(outcome, OutcomeUnknownError)


async def test_without_a_worker_nothing_is_stored_for_sure(pool: Pool) -> None:
    async with pool.client(timeout_seconds=4) as client:
        outcomes = await put_all(client)

    assert all(isinstance(outcome, UnavailableError) for outcome in outcomes), outcomes


async def test_one_that_could_not_be_stored_just_now_is_asked_for_again_alone(pool: Pool) -> None:
    await pool.start()
    failures = iter([UnavailableError("not now"), OutcomeUnknownError("who knows")])
    pool.store.refuse = lambda digest: (
        next(failures, None) if digest == digest_of(BLOBS[5]) else None
    )
    async with pool.client() as client:
        assert await put_all(client, BLOBS[:10]) == [stored(data) for data in BLOBS[:10]]

    assert pool.asked[ALONE] > 1


async def test_one_that_can_never_be_stored_takes_none_with_it(pool: Pool) -> None:
    await pool.start()
    full = QuotaExceededError("full")
    pool.store.refuse = lambda digest: full if digest == digest_of(BLOBS[5]) else None
    async with pool.client() as client:
        outcomes = await put_all(client, BLOBS[:10])

    assert isinstance(outcomes.pop(5), QuotaExceededError)
    assert outcomes == [stored(data) for data in BLOBS[:10] if data != BLOBS[5]]
    assert pool.asked == {ALONE: 1, TOGETHER: 1}


async def test_a_worker_that_takes_less_at_once_gets_single_requests(pool: Pool) -> None:
    await pool.start(max_inline_bytes=100)
    async with pool.client() as client:
        assert await put_all(client) == [stored(data) for data in BLOBS]


async def test_who_gives_up_takes_none_of_the_others_with_it(pool: Pool) -> None:
    await pool.start()
    async with pool.client() as client:
        puts = [asyncio.create_task(client.put(data)) for data in BLOBS]
        await asyncio.sleep(0)
        for put in puts[1::2]:
            put.cancel()
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        assert await client.put(b"afterwards") == stored(b"afterwards")

    assert outcomes[::2] == [stored(data) for data in BLOBS[::2]]
    assert all(isinstance(one, asyncio.CancelledError) for one in outcomes[1::2])


async def test_a_user_who_may_not_ask_for_several_puts_one_at_a_time(
    start_server: StartServer,
) -> None:
    users = """
        authorization { users: [
            {user: worker, password: w},
            {user: some, password: s, permissions: {publish: ["*.blob.put"], subscribe: "_INBOX.>"}}
        ] }"""
    address = start_server(extra_configuration=users).url.removeprefix("nats://")
    pool = Pool(f"nats://worker:w@{address}")
    await pool.start()
    connecting = connect(servers=f"nats://some:s@{address}", prefix=pool.prefix)
    async with await connecting as client:
        assert await put_all(client) == [stored(data) for data in BLOBS]
    await pool.stop()

    assert pool.asked == {ALONE: MANY}


@pytest.fixture
def two_workers(nats_url: str) -> Iterator[Deployment]:
    """Two workers that a test may kill."""
    with deployed(nats_url, "one", "two") as deployment:
        yield deployment


@pytest.mark.slow
@pytest.mark.fault("P02")
async def test_puts_go_on_when_a_worker_is_killed_among_them(two_workers: Deployment) -> None:
    blobs = [b"killed among them: %d" % number for number in range(8 * AT_ONCE)]
    client: Client
    async with await connect(servers=two_workers.url, prefix=two_workers.prefix) as client:
        found = []
        async for one in client.put_many(blobs):
            found.append(one)
            if len(found) == AT_ONCE:
                two_workers.kill("one")

        assert found == [stored(data) for data in blobs]
        assert await client.has([digest_of(data) for data in blobs]) == []
        for data in blobs[::50]:
            assert await client.get(digest_of(data)) == data
