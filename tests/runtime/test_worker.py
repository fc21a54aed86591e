"""A worker on a real connection, with one endpoint made up: limits, draining, reply subjects."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from nats.aio.client import Client
from tests.tracing.kept import Kept

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.op_id import split_op_id
from holdfast.errors import NotFoundError, UnavailableError
from holdfast.handlers.endpoint import AnyEndpoint, BytesReply, Call, Endpoint, Forward
from holdfast.protocol.blobs import (
    HAS_BLOBS,
    PUT_PART,
    STAT_BLOB,
    BlobHead,
    BlobStat,
    HasBlobs,
    MissingBlobs,
    PartStored,
    PutPart,
    StatBlob,
)
from holdfast.protocol.subjects import part_subject
from holdfast.runtime.dispatch import Dispatcher
from holdfast.runtime.lifecycle import Chore, WorkersConnection, serve_until_stopped
from holdfast.runtime.statistics import Identity
from holdfast.runtime.worker import Worker
from holdfast.tracing import NO_TRACER, TRACE, TraceStep
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from nats.aio.msg import Msg

    from holdfast.tracing import Tracer
    from holdfast.transport.connection import Connection
    from holdfast.transport.message import Message

DIGEST = "ab" * 32
BODY = json.dumps({"digest": DIGEST}).encode()
STAT = BlobStat(
    digest=DIGEST,
    size=1,
    chunks=1,
    type="a/b",
    created_at="then",
    pinned=True,
    state="ok",
    names=[],
)
LIMIT = 4
SECRET = "hunter2"


class Gate:
    """An endpoint that answers when the test lets it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = 0

    async def stat(self, request: StatBlob, call: Call) -> BlobStat:
        """Wait, then answer."""
        del request, call
        self.entered += 1
        await self.open.wait()
        return STAT

    async def wait_entered(self, count: int) -> None:
        """Until so many requests are being answered."""
        while self.entered < count:  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.005)


class Pair:
    """A worker, and somebody who asks."""

    def __init__(self, worker: Worker, gate: Gate, client: Client, subject: str) -> None:
        self.worker = worker
        self.gate = gate
        self.client = client
        self.subject = subject

    async def ask(self, **headers: str) -> Msg:
        """One request."""
        return await self.client.request(
            self.subject, BODY, timeout=30, headers=dict(headers) or None
        )

    def ask_many(self, count: int) -> list[asyncio.Task[Msg]]:
        """Requests at the same time."""
        return [asyncio.create_task(self.ask()) for _ in range(count)]


def make_worker(
    connection: Connection,
    gate: Gate,
    prefix: str,
    *,
    node: str | None = None,
    handle: Callable[[StatBlob, Call], Awaitable[BlobStat | Forward]] | None = None,
    more: tuple[AnyEndpoint, ...] = (),
    age: Callable[[], float] = lambda: 0.0,
    tracer: Tracer = NO_TRACER,
) -> Worker:
    """A worker that answers ``blob.stat`` through ``gate``, or with ``handle``, and ``more``."""
    dispatcher = Dispatcher(SOURCES, timeout_seconds=10)
    identity = Identity(id=f"id{prefix}{node or ''}", version="1.0.0", started="then", metadata={})
    return Worker(
        connection,
        dispatcher,
        (Endpoint(STAT_BLOB, handle or gate.stat, local=handle is not None), *more),
        identity,
        prefix=prefix,
        max_concurrent=LIMIT,
        inbox_prefixes=("_INBOX.", "_R_."),
        node=node,
        age=age,
        tracer=tracer,
    )


@pytest_asyncio.fixture
async def pair(nats_url: str) -> AsyncIterator[Pair]:
    """A worker that serves, under a prefix of its own."""
    prefix = f"w{secrets.token_hex(4)}"
    connection = await connect(NatsOptions(servers=(nats_url,)))
    gate = Gate()
    worker = make_worker(connection, gate, prefix)
    worker.start()
    await connection.wait_flushed(30)
    client = Client()
    await client.connect(nats_url)
    yield Pair(worker, gate, client, f"{prefix}.blob.stat")
    gate.open.set()
    await client.close()
    await worker.drain(30)
    await connection.close()


def code_of(message: Msg) -> str:
    """The code of a failed answer, or ``ok``."""
    body = json.loads(message.data)
    return str(body.get("code", "ok"))


@pytest.mark.nats
async def test_requests_are_answered_at_the_same_time(pair: Pair) -> None:
    asking = pair.ask_many(LIMIT)

    await pair.gate.wait_entered(LIMIT)
    assert pair.worker.in_flight == LIMIT
    pair.gate.open.set()

    assert [code_of(message) for message in await asyncio.gather(*asking)] == ["ok"] * LIMIT
    assert pair.worker.in_flight == 0


@pytest.mark.nats
@pytest.mark.fault("I15")
async def test_requests_beyond_the_limit_are_refused_at_once(pair: Pair) -> None:
    first = pair.ask_many(LIMIT)
    await pair.gate.wait_entered(LIMIT)

    refused = await asyncio.gather(*pair.ask_many(10))

    assert [code_of(message) for message in refused] == ["rate_limited"] * 10
    assert pair.gate.entered == LIMIT
    pair.gate.open.set()
    assert [code_of(message) for message in await asyncio.gather(*first)] == ["ok"] * LIMIT
    assert code_of(await pair.ask()) == "ok"


@pytest.mark.nats
async def test_a_lane_at_its_limit_does_not_hold_up_the_other(nats_url: str) -> None:
    prefix, gate = f"w{secrets.token_hex(4)}", Gate()

    async def part(request: PutPart, _: Call) -> PartStored:
        return PartStored(part=request.part)

    async with AsyncExitStack() as stack:
        connection = await connect(NatsOptions(servers=(nats_url,)))
        stack.push_async_callback(connection.close)
        worker = make_worker(
            connection, gate, prefix, more=(Endpoint(PUT_PART, part, lane="parts"),)
        )
        worker.start()
        stack.push_async_callback(worker.drain, 30)
        await connection.wait_flushed(30)
        client = Client()
        await client.connect(nats_url)
        stack.push_async_callback(client.close)
        pair = Pair(worker, gate, client, f"{prefix}.blob.stat")
        asking = pair.ask_many(LIMIT)
        await gate.wait_entered(LIMIT)

        subject = part_subject(prefix, worker.id, "u" * 22)
        stored = await client.request(subject, b"x", timeout=30, headers={"Blob-Part": "3"})

        assert json.loads(stored.data) == {"part": 3}
        assert worker.in_flight == LIMIT
        gate.open.set()
        await asyncio.gather(*asking)


@pytest.mark.nats
@pytest.mark.fault("R04")
async def test_draining_finishes_what_was_begun_and_takes_nothing_new(pair: Pair) -> None:
    from nats.errors import NoRespondersError

    asking = pair.ask_many(2)
    await pair.gate.wait_entered(2)

    draining = asyncio.create_task(pair.worker.drain(30))
    while pair.worker._sids:  # noqa: ASYNC110  (no event tells)
        await asyncio.sleep(0.005)
    await pair.client.flush()
    with pytest.raises(NoRespondersError):
        await pair.ask()
    pair.gate.open.set()
    await draining

    assert [code_of(message) for message in await asyncio.gather(*asking)] == ["ok", "ok"]
    assert pair.gate.entered == 2


@pytest.mark.nats
@pytest.mark.fault("R04")
async def test_what_does_not_end_before_the_deadline_is_answered_all_the_same(pair: Pair) -> None:
    asking = pair.ask_many(2)
    await pair.gate.wait_entered(2)

    await pair.worker.drain(0.05)

    codes = [code_of(message) for message in await asyncio.gather(*asking)]
    assert codes == ["unavailable", "unavailable"]  # a read: surely not applied
    assert pair.worker.in_flight == 0


@pytest.mark.nats
@pytest.mark.fault("A01")
@pytest.mark.fault("I12")
@pytest.mark.parametrize(
    "reply",
    [
        "",
        "$KV.holdfast.u.x",
        "$O.blobs.M.x",
        "$JS.API.STREAM.DELETE.OBJ_blobs",
        "$SRV.PING",
        "blob.put",
        "_INBOX",
        "_INBOXX.a",
        "x._INBOX.a",
        "_INBOX.a.*",
        "_INBOX.>",
        "_INBOX.a..b",
        "_INBOX." + "a" * 600,
        "_INBOX.a\x0bb",
        "_INBOX.a\xe4",
    ],
)
async def test_a_request_whose_reply_is_no_inbox_is_dropped_and_counted(
    pair: Pair, reply: str
) -> None:
    pair.gate.open.set()
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    can_listen = reply.isprintable() and reply[-1:] not in ("", "*", ">") and ".." not in reply
    if can_listen and not reply.startswith("$JS"):
        await pair.client.subscribe(reply, cb=hear)
    before = pair.worker.refused_replies

    await pair.client.publish(pair.subject, BODY, reply=reply)
    assert code_of(await pair.ask()) == "ok"

    assert pair.worker.refused_replies == before + 1
    assert pair.gate.entered == 1
    assert heard == []


@pytest.mark.nats
async def test_a_message_that_cannot_be_answered_does_not_end_the_worker(pair: Pair) -> None:
    pair.gate.open.set()

    gone = Client()
    await gone.connect(pair.client.connected_url.geturl())  # type: ignore[union-attr]  # connected
    await gone.publish(pair.subject, BODY, reply="_INBOX.gone.1")
    await gone.close()

    assert code_of(await pair.ask()) == "ok"


@pytest.mark.nats
async def test_stopping_drains_and_ends_well_and_chores_go_on_after_a_failure(
    nats_url: str,
) -> None:
    connection = await connect(NatsOptions(servers=(nats_url,)))
    gate = Gate()
    stop, lost, often = asyncio.Event(), asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def chore() -> None:
        done.append(1)
        if len(done) == 4:
            often.set()
        if len(done) == 1:
            raise NotFoundError("gone for now")
        if len(done) == 2:
            raise asyncio.CancelledError  # of something that it waited for
        raise ValueError("a bug")

    serving = asyncio.create_task(
        serve_until_stopped(
            make_worker(connection, gate, f"w{secrets.token_hex(4)}"),
            [Chore("chore", 0.01, chore)],
            stop=stop,
            lost=lost,
            drain_seconds=1,
        )
    )
    await asyncio.wait_for(often.wait(), 30)
    stop.set()

    assert await serving == 0
    rounds = len(done)
    await asyncio.sleep(0.05)
    assert len(done) == rounds, "chores end with the worker"
    await connection.close()


@pytest.mark.nats
async def test_a_chore_that_makes_an_error_of_its_cancellation_ends_with_the_worker(
    nats_url: str,
) -> None:
    connection = await connect(NatsOptions(servers=(nats_url,)))
    stop, begun = asyncio.Event(), asyncio.Event()

    async def chore() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise UnavailableError("the store was closed") from error

    serving = asyncio.create_task(
        serve_until_stopped(
            make_worker(connection, Gate(), f"w{secrets.token_hex(4)}"),
            [Chore("chore", 0.01, chore)],
            stop=stop,
            lost=asyncio.Event(),
            drain_seconds=1,
        )
    )
    await begun.wait()
    stop.set()

    assert await asyncio.wait_for(serving, 20) == 0
    await connection.close()


@pytest.mark.nats
async def test_a_chore_may_begin_at_once_and_others_drain_with_the_worker(nats_url: str) -> None:
    connection = await connect(NatsOptions(servers=(nats_url,)))
    stop, done = asyncio.Event(), asyncio.Event()
    drained: list[float] = []

    async def chore() -> None:
        done.set()

    async def drain(seconds: float) -> None:
        drained.append(seconds)

    serving = asyncio.create_task(
        serve_until_stopped(
            make_worker(connection, Gate(), f"w{secrets.token_hex(4)}"),
            [Chore("chore", 3600, chore, first_seconds=0)],
            stop=stop,
            lost=asyncio.Event(),
            drain_seconds=7,
            drain_too=(drain,),
        )
    )
    await asyncio.wait_for(done.wait(), 30)
    stop.set()

    assert await serving == 0
    assert drained == [7]
    await connection.close()


@pytest.mark.nats
@pytest.mark.fault("R03")
async def test_a_connection_lost_for_good_ends_the_worker_with_a_failure(nats_url: str) -> None:
    lost = asyncio.Event()
    connection = await connect(NatsOptions(servers=(nats_url,)), observer=WorkersConnection(lost))
    serving = asyncio.create_task(
        serve_until_stopped(
            make_worker(connection, Gate(), f"w{secrets.token_hex(4)}"),
            [],
            stop=asyncio.Event(),
            lost=lost,
            drain_seconds=1,
        )
    )
    await asyncio.sleep(0)

    await connection.close()

    assert await asyncio.wait_for(serving, 30) == 1


@pytest.mark.nats
@pytest.mark.parametrize(
    "subject", ["$SRV.PING", "$SRV.PING.holdfast", "$SRV.STATS.holdfast.{id}", "$SRV.INFO.holdfast"]
)
async def test_discovery_answers_on_every_subject_of_adr_32(pair: Pair, subject: str) -> None:
    found = await gather_answers(pair.client, subject.format(id=pair.worker.id))

    mine = [answer for answer in found if answer["id"] == pair.worker.id]
    assert len(mine) == 1
    assert mine[0]["name"] == "holdfast"


async def gather_answers(client: Client, subject: str) -> list[dict[str, Any]]:
    """Everything that comes to one request: the first answer, and what follows in a moment."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, b"", reply=inbox)
    found: list[dict[str, Any]] = []
    try:
        while True:
            found.append(json.loads((await subscription.next_msg(0.3 if found else 10)).data))
    except TimeoutError:
        return found


@pytest.mark.nats
async def test_a_forwarded_request_is_answered_to_the_caller_and_not_forwarded_again(
    nats_url: str,
) -> None:
    # Given two workers, of which one knows that the other's node has the answer,
    prefix = f"w{secrets.token_hex(4)}"
    seen: list[tuple[str, bool, str | None]] = []

    def handler(name: str) -> Callable[[StatBlob, Call], Awaitable[BlobStat | Forward]]:
        async def stat(request: StatBlob, call: Call) -> BlobStat | Forward:
            assert request.digest == DIGEST
            seen.append((name, call.forwarded, split_op_id(call.op_id or "")[0]))
            return STAT if name == "far" else Forward("far")

        return stat

    connections = [await connect(NatsOptions(servers=(nats_url,))) for _ in range(2)]
    workers = [
        make_worker(connection, Gate(), prefix, node=name, handle=handler(name))
        for connection, name in zip(connections, ("near", "far"), strict=True)
    ]
    for worker, connection in zip(workers, connections, strict=True):
        worker.start()
        await connection.wait_flushed(30)
    client = Client()
    await client.connect(nats_url)
    try:
        # when requests come to either,
        for number in range(20):
            answer = await client.request(
                f"{prefix}.blob.stat", BODY, timeout=30, headers={"Op-Id": str(number)}
            )
            assert code_of(answer) == "ok"
    finally:
        await client.close()
        for worker, connection in zip(workers, connections, strict=True):
            await worker.drain(30)
            await connection.close()

    # then each is answered by the second, with what the caller said.
    assert {op for name, _, op in seen if name == "far"} == {str(n) for n in range(20)}
    assert {forwarded for name, forwarded, _ in seen if name == "near"} <= {False}
    assert {name for name, forwarded, _ in seen if forwarded} <= {"far"}


async def broken_pieces() -> AsyncGenerator[bytes]:
    """A window whose second message cannot be had."""
    yield b"first"
    raise ValueError(SECRET)


async def broken_delivery(subject: str) -> None:
    """A store that fails as nobody expects."""
    del subject
    raise KeyError(SECRET)


HEAD = BlobHead(digest=DIGEST, size=9, offset=0, length=9, type="a/b", parts=2)


async def forwarding() -> Forward:
    """The request goes on, and its header cannot."""
    return Forward("far")


async def relaying() -> BytesReply[BlobHead]:
    """A head, and pieces that end in a failure."""
    return BytesReply(head=HEAD, pieces=broken_pieces())


async def delivering() -> BytesReply[BlobHead]:
    """A head, and a delivery that fails."""
    return BytesReply(head=HEAD, deliver=broken_delivery)


async def waiting_in_vain() -> None:
    """Somebody has cancelled what several wait for."""
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    shared.cancel()
    await shared


@pytest.mark.nats
@pytest.mark.parametrize(
    "reply",
    [
        forwarding,
        relaying,
        delivering,
        waiting_in_vain,
    ],
    ids=["forward", "relay", "delivery", "what it waits for is cancelled"],
)
async def test_whatever_fails_a_request_is_answered(
    nats_url: str, reply: Callable[[], Awaitable[Any]]
) -> None:
    async def stat(request: StatBlob, call: Call) -> Any:
        del request, call
        return await reply()

    prefix = f"w{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        connection = await connect(NatsOptions(servers=(nats_url,)))
        stack.push_async_callback(connection.close)
        worker = make_worker(connection, Gate(), prefix, handle=stat)
        worker.start()
        answers: asyncio.Queue[Message] = asyncio.Queue()
        mailbox = Inbox(connection).open(answers.put_nowait)
        # A header line with a line feed inside, which no client of ours would send.
        block = b"NATS/1.0\r\ntraceparent: a\nb\r\n\r\n"
        line = f"HPUB {prefix}.blob.stat {mailbox.subject} {len(block)} {len(block) + len(BODY)}"
        connection._client.queue_bytes(line.encode(), b"\r\n", block, BODY, b"\r\n")

        async with asyncio.timeout(30):
            while "Nats-Service-Error-Code" not in (last := await answers.get()).headers:
                pass
        await worker.drain(30)
        await connection.wait_flushed(30)
        assert answers.empty(), "nothing comes after it"

    assert json.loads(bytes(last.data))["code"] == "internal"
    assert SECRET not in bytes(last.data).decode()


@pytest.mark.nats
async def test_what_a_worker_does_for_a_request_belongs_to_its_trace(nats_url: str) -> None:
    prefix, kept, seen = f"w{secrets.token_hex(4)}", Kept(), []
    trace = TraceStep.first()._replace(flags="01")

    async def stat(request: StatBlob, call: Call) -> BlobStat | Forward:
        del request
        seen.append(TRACE.get())
        if call.forwarded:
            raise NotFoundError
        return Forward("far")

    async with AsyncExitStack() as stack:
        connection = await connect(NatsOptions(servers=(nats_url,)))
        stack.push_async_callback(connection.close)
        for node in ("near", "far"):
            worker = make_worker(
                connection, Gate(), prefix, node=node, handle=stat, tracer=kept.tracer
            )
            worker.start()
            stack.push_async_callback(worker.drain, 30)
        await connection.wait_flushed(30)
        client = Client()
        await client.connect(nats_url)
        stack.push_async_callback(client.close)
        headers = {"traceparent": str(trace)}
        answer = await client.request(f"{prefix}.blob.stat", BODY, timeout=30, headers=headers)

    assert code_of(answer) == "not_found"

    first, second = seen
    assert first is not None
    assert second is not None
    assert first.trace_id == second.trace_id == trace.trace_id
    assert kept.parent_of("blob.stat") == first.span_id
    assert (kept.spans["blob.stat"].attributes or {})["error.type"] == "not_found"


@pytest.mark.nats
async def test_a_worker_alone_answers_on_a_subject_of_its_own(nats_url: str) -> None:
    async with serving_alone(nats_url) as (client, prefix):
        answer = await client.request(f"{prefix}.blob.has.mine", b'{"digests":[]}', timeout=30)

        assert json.loads(answer.data) == {"missing": []}


@pytest.mark.nats
async def test_what_may_have_been_under_way_for_too_long_is_not_answered(nats_url: str) -> None:
    seconds = [6.0]
    async with serving_alone(nats_url, age=lambda: seconds[0]) as (client, prefix):
        subject, body = f"{prefix}.blob.has", b'{"digests":[]}'
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        await client.publish(subject, body, reply=inbox)
        await client.request(f"{prefix}.blob.stat", BODY, timeout=30)
        seconds[0] = 4.0

        await client.publish(subject, body, reply=inbox)

        assert json.loads((await answers.next_msg(30)).data) == {"missing": []}
        assert answers.pending_msgs == 0


@asynccontextmanager
async def serving_alone(
    nats_url: str, age: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[tuple[Client, str]]:
    """A worker that takes ``blob.has`` also at ``blob.has.mine``, while it is fresh."""
    prefix = f"w{secrets.token_hex(4)}"
    gate = Gate()
    gate.open.set()
    fresh = Endpoint(HAS_BLOBS, nothing_missing, own_subject="blob.has.mine", fresh_seconds=5)
    connection = await connect(NatsOptions(servers=(nats_url,)))
    worker = make_worker(connection, gate, prefix, more=(fresh,), age=age)
    worker.start()
    await connection.wait_flushed(30)
    client = Client()
    await client.connect(nats_url)
    yield client, prefix
    await client.close()
    await worker.drain(30)
    await connection.close()


async def nothing_missing(_request: HasBlobs, _call: Call) -> MissingBlobs:
    """Everything is there."""
    return MissingBlobs(missing=[])
