"""The client against a pool of two workers: every source and size, reading, looking up, failing."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from tests.contracts.blob_store import some_bytes
from tests.deployment import deployed

from holdfast.client import Client, connect, connect_sync
from holdfast.client.requests import Requester
from holdfast.domain.limits import max_inline_bytes, part_bytes
from holdfast.errors import InvalidError, NotFoundError, UnavailableError
from holdfast.protocol import codec
from holdfast.protocol.blobs import BlobStat, VerifyReport
from holdfast.transport import connection as transport
from holdfast.transport.inbox import Inbox
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats.aio.msg import Msg
    from tests.conftest import StartServer
    from tests.deployment import Asker, Deployment

pytestmark = pytest.mark.nats

MAX_PAYLOAD = 1024 * 1024
INLINE = max_inline_bytes(MAX_PAYLOAD)
PART = part_bytes(MAX_PAYLOAD)
ABSENT = "0" * 64
SIZES = [0, 1, INLINE - 1, INLINE, INLINE + 1, 3 * PART - 1, 3 * PART, 3 * PART + 1, 9 * 2**20 + 5]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def blocks(data: bytes, size: int) -> AsyncIterator[bytes]:
    """``data`` as it may come off a network."""
    for start in range(0, len(data), size):
        await asyncio.sleep(0)
        yield data[start : start + size]


async def test_how_the_store_is_can_be_asked(holdfast: Client, deployment: Deployment) -> None:
    status = await holdfast.store_status()

    prefix = deployment.prefix
    assert [bucket.stream for bucket in status.buckets] == [
        f"OBJ_{prefix}_blobs",
        f"OBJ_{prefix}_packs",
        f"KV_{prefix}_holdfast",
        f"KV_{prefix}_snapshots",
        f"KV_{prefix}_names",
        f"HF_{prefix}_states",
    ]
    assert [server.version.split(".")[0] for server in status.servers] == ["2"]
    assert (status.durability, status.problems) == ("unknown", [])


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_put_comes_back(holdfast: Client, ask: Asker, size: int) -> None:
    data = some_bytes(size, seed=size)

    stored = await holdfast.put(data, type="a/b")

    assert (stored.digest, stored.size, stored.created) == (digest_of(data), size, True)
    assert await holdfast.get(stored.digest) == data
    assert (await holdfast.stat(stored.digest)).type == "a/b"
    again = await holdfast.put(data)
    assert (again.digest, again.created) == (stored.digest, False)
    await ask.wait_no_orphans()


@pytest.mark.parametrize("size", [0, 10, INLINE + 1, 5 * PART + 7])
@pytest.mark.parametrize(
    "kind", ["bytearray", "memoryview", "path", "text path", "file", "pipe", "blocks", "crumbs"]
)
async def test_anything_that_gives_bytes_can_be_put(
    holdfast: Client, tmp_path: Path, kind: str, size: int
) -> None:
    data = some_bytes(size, seed=1000 + size)
    path = tmp_path / "file"
    path.write_bytes(data)
    source: Any
    with path.open("rb") as file:
        match kind:
            case "bytearray":
                source = bytearray(data)
            case "memoryview":
                source = memoryview(data)
            case "path":
                source = path
            case "text path":
                source = str(path)
            case "file":
                source = file
            case "pipe":
                source = pipe_of(data)
            case "blocks":
                source = blocks(data, 1_000_003)
            case _:
                source = blocks(data, 1009)

        stored = await holdfast.put(source)

    if kind == "pipe":
        source.close()
    assert (stored.digest, stored.size) == (digest_of(data), size)
    assert await holdfast.get(stored.digest) == data


@pytest.mark.parametrize("change", ["grows", "shrinks"])
async def test_a_file_that_changes_while_it_is_put_is_stored_as_it_was_read(
    holdfast: Client, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "log"
    path.write_bytes(some_bytes(24 * PART, seed=3000))

    def on_progress(done: int, _total: int | None) -> None:
        if change == "grows":
            with path.open("ab") as file:
                file.write(bytes(PART))
        elif done <= PART:
            os.truncate(path, 2 * PART)

    before = path.read_bytes()
    stored = await holdfast.put(path, progress=on_progress)

    assert stored.size == len(before) if change == "grows" else stored.size < len(before)
    assert await holdfast.get(stored.digest) == before[: stored.size]


def pipe_of(data: bytes) -> io.BufferedReader:
    """A pipe that another thread fills."""
    reading, writing = os.pipe()

    def fill() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    threading.Thread(target=fill).start()
    return os.fdopen(reading, "rb")


@pytest.mark.parametrize("size", [10, 3 * PART + 5])
async def test_progress_of_a_put_and_a_get_ends_at_the_size(holdfast: Client, size: int) -> None:
    data = some_bytes(size, seed=2000 + size)
    put: list[tuple[int, int | None]] = []
    got: list[tuple[int, int | None]] = []

    stored = await holdfast.put(data, progress=lambda done, total: put.append((done, total)))
    await holdfast.get(stored.digest, progress=lambda done, total: got.append((done, total)))

    assert put[-1] == (size, size)
    assert got[-1] == (size, size)
    assert [done for done, _ in put] == sorted(done for done, _ in put)
    assert [done for done, _ in got] == sorted(done for done, _ in got)


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 0),
        (0, 1),
        (1, None),
        (PART - 1, 2),
        (PART, PART),
        (2 * PART + 3, INLINE + 3 * PART),
        (5_000_000, 4_000_000),
        (9 * 2**20 + 4, 100),
        (9 * 2**20 + 5, None),
        (2**40, None),
    ],
)
async def test_a_range_is_the_slice(holdfast: Client, offset: int, length: int | None) -> None:
    data = some_bytes(9 * 2**20 + 5, seed=9 * 2**20 + 5)
    digest = (await holdfast.put(data)).digest

    found = await holdfast.get(digest, offset=offset, length=length)

    assert found == data[offset : None if length is None else offset + length]


async def test_get_to_a_path_replaces_it_only_when_all_is_right(
    holdfast: Client, tmp_path: Path
) -> None:
    data = some_bytes(3 * PART, seed=77)
    digest = (await holdfast.put(data)).digest
    target = tmp_path / "target"
    target.write_bytes(b"before")

    with pytest.raises(NotFoundError):
        await holdfast.get_to(ABSENT, target)
    assert target.read_bytes() == b"before"

    assert await holdfast.get_to(digest, target) == len(data)
    assert target.read_bytes() == data
    assert await holdfast.get_to(digest, str(target), offset=5, length=10) == 10
    assert target.read_bytes() == data[5:15]
    assert os.listdir(tmp_path) == ["target"]


async def test_get_to_that_is_interrupted_leaves_what_was_there(
    holdfast: Client, tmp_path: Path
) -> None:
    digest = (await holdfast.put(some_bytes(6 * 2**20, seed=78))).digest
    target = tmp_path / "target"
    target.write_bytes(b"before")

    def interrupt(done: int, total: int | None) -> None:
        if total is not None and done > total // 2:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await holdfast.get_to(digest, target, progress=interrupt)

    assert target.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["target"]


async def test_get_to_a_path_writes_through_no_link_and_not_twice_into_one_file(
    holdfast: Client, tmp_path: Path
) -> None:
    data = some_bytes(3 * PART, seed=86)
    digest = (await holdfast.put(data)).digest
    directory = tmp_path / "shared"
    directory.mkdir()
    target, victim = directory / "target", tmp_path / "victim"
    victim.write_bytes(b"before")
    (directory / f".target.{os.getpid()}.partial").symlink_to(victim)

    await asyncio.gather(*(holdfast.get_to(digest, target) for _ in range(5)))

    assert target.read_bytes() == data
    assert not target.is_symlink()
    assert victim.read_bytes() == b"before"


class Narrow(io.RawIOBase):
    """Takes a little at a time, as a pipe does."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def write(self, data: Any, /) -> int:
        """At most 100,000 bytes."""
        taken = memoryview(data)[:100_000]
        self.taken += taken
        return len(taken)


async def test_get_to_a_file_object_that_takes_less_at_a_time_writes_all(holdfast: Client) -> None:
    data = some_bytes(2 * PART + 7, seed=87)
    target: Any = Narrow()

    assert await holdfast.get_to((await holdfast.put(data)).digest, target) == len(data)

    assert target.taken == data


class Full(Narrow):
    """Takes nothing."""

    def write(self, data: Any, /) -> int:
        """No bytes."""
        del data
        return 0


async def test_get_to_a_file_object_that_takes_nothing_fails(holdfast: Client) -> None:
    digest = (await holdfast.put(b"for nobody")).digest
    target: Any = Full()

    with pytest.raises(BlockingIOError):
        await holdfast.get_to(digest, target)


async def test_get_to_a_file_object_writes_there(holdfast: Client) -> None:
    data = some_bytes(2 * PART, seed=79)
    target = io.BytesIO()

    await holdfast.get_to((await holdfast.put(data)).digest, target)

    assert target.getvalue() == data


async def test_a_reader_may_stop_in_the_middle(holdfast: Client) -> None:
    data = some_bytes(9 * 2**20, seed=80)
    digest = (await holdfast.put(data)).digest

    async with aclosing(holdfast.stream(digest)) as pieces:
        first = bytes(await anext(pieces))

    assert data.startswith(first)
    assert await holdfast.get(digest, length=10) == data[:10]


class SourceError(Exception):
    """An error of a caller's own source."""


@pytest.mark.fault("P17")
@pytest.mark.parametrize("after", [0, 10, INLINE + 1, 9 * PART])
async def test_a_source_that_fails_half_way_leaves_nothing(
    holdfast: Client, ask: Asker, after: int
) -> None:
    before = len([blob async for blob in holdfast.list()])

    async def source() -> AsyncIterator[bytes]:
        async for block in blocks(some_bytes(after, seed=81), 100_000):
            yield block
        raise SourceError

    with pytest.raises(SourceError):
        await holdfast.put(source())

    await ask.wait_no_orphans()
    assert len([blob async for blob in holdfast.list()]) == before


async def test_a_put_that_is_cancelled_leaves_nothing(holdfast: Client, ask: Asker) -> None:
    arrived = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield some_bytes(PART, seed=82)
        arrived.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(holdfast.put(endless()))
    await arrived.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting

    await ask.wait_no_orphans()


@pytest.mark.fault("P20")
@pytest.mark.parametrize("size", [10, INLINE + 1])
async def test_bytes_with_another_digest_are_refused_and_leave_nothing(
    holdfast: Client, ask: Asker, size: int
) -> None:
    data = some_bytes(size, seed=83)

    with pytest.raises(InvalidError):
        await holdfast.put(data, digest=ABSENT)

    assert await holdfast.has([digest_of(data)]) == [digest_of(data)]
    await ask.wait_no_orphans()


async def test_a_large_blob_that_is_there_is_not_sent_again(holdfast: Client) -> None:
    data = some_bytes(5 * PART, seed=84)
    digest = (await holdfast.put(data)).digest
    sent: list[int] = []

    again = await holdfast.put(data, digest=digest, progress=lambda done, _: sent.append(done))

    assert (again.digest, again.size, again.created) == (digest, len(data), False)
    assert sent == []


async def test_has_takes_any_number_of_digests(holdfast: Client) -> None:
    kept = (await holdfast.put(b"among thousands")).digest
    absent = [digest_of(str(n).encode()) for n in range(3000)]

    missing = await holdfast.has([*absent[:1500], kept, *absent[1500:], absent[0]])

    assert missing == absent


class WideConnection(transport.Connection):
    """Of a client whose server takes larger messages than the workers'."""

    @property
    def max_payload(self) -> int:
        """More than there is; what it sends fits all the same."""
        return MAX_PAYLOAD + 32 * 1024


async def test_a_put_that_is_too_large_for_the_worker_alone_is_sent_in_parts(
    deployment: Deployment,
) -> None:
    data = some_bytes(INLINE + 1000, seed=88)
    connection = WideConnection(NatsOptions(servers=(deployment.url,)))
    await connection.open()
    requester = Requester(
        connection, Inbox(connection), prefix=deployment.prefix, timeout_seconds=30
    )

    async with Client(connection, requester) as holdfast:
        stored = await holdfast.put(data)
        streamed = await holdfast.put(blocks(data, 100_000), digest=stored.digest)

        assert (stored.digest, stored.size, stored.created) == (digest_of(data), len(data), True)
        assert not streamed.created
        assert await holdfast.get(stored.digest) == data


@pytest.fixture
def small_deployment(start_server: StartServer) -> Iterator[Deployment]:
    """A worker on a server that takes small messages only."""
    server = start_server(extra_configuration="max_payload: 16384")
    with deployed(server.url, "one") as deployment:
        yield deployment


async def test_a_server_with_small_messages_has_smaller_batches_and_pages(
    small_deployment: Deployment,
) -> None:
    absent = [digest_of(str(n).encode()) for n in range(200)]
    async with await connect(
        servers=small_deployment.url, prefix=small_deployment.prefix
    ) as holdfast:
        digests = {
            (await holdfast.put(f"small {n}".encode(), type="t" * 255)).digest for n in range(30)
        }

        assert await holdfast.has([*absent, *digests]) == absent
        assert {blob.digest async for blob in holdfast.list()} == digests


async def test_list_goes_through_every_page(holdfast: Client) -> None:
    digests = {(await holdfast.put(f"listed {n}".encode())).digest for n in range(30)}

    found = [blob.digest async for blob in holdfast.list()]

    assert digests <= set(found)
    assert len(found) == len(set(found))
    one = min(digests)
    assert [blob.digest async for blob in holdfast.list(one[:20])] == [one]


async def test_delete_and_verify(holdfast: Client) -> None:
    digest = (await holdfast.put(b"short-lived")).digest

    [report] = [report async for report in holdfast.verify(digest)]
    assert (report.checked, report.bytes, report.damaged) == (1, 11, [])
    assert await holdfast.delete(digest)
    assert not await holdfast.delete(digest)
    reports = [report async for report in holdfast.verify()]
    assert sum(report.checked for report in reports) > 0
    assert not any(report.damaged for report in reports)


async def test_a_worker_has_longer_to_verify_one_blob_the_larger_it_is(
    deployment: Deployment, ask: Asker
) -> None:
    prefix = f"{deployment.prefix}-scripted"
    given: list[float] = []

    async def stat(message: Msg) -> None:
        stat = BlobStat(
            digest=ABSENT,
            size=10**10,
            chunks=1,
            type="a/b",
            created_at="then",
            pinned=True,
            state="ok",
            names=[],
        )
        await message.respond(codec.encode(stat))

    async def verify(message: Msg) -> None:
        given.append(float((message.headers or {})["Timeout"]))
        await message.respond(codec.encode(VerifyReport(checked=1, bytes=10**10, damaged=[])))

    await ask.client.subscribe(f"{prefix}.blob.stat", cb=stat)
    await ask.client.subscribe(f"{prefix}.blob.verify", cb=verify)
    await ask.client.flush()
    async with await connect(servers=deployment.url, prefix=prefix) as holdfast:
        [report] = [report async for report in holdfast.verify(ABSENT)]

    assert report.bytes == 10**10
    assert given == [pytest.approx(120 + 10**10 / 50e6, abs=1)]


async def test_failures_have_types(holdfast: Client, deployment: Deployment) -> None:
    for attempt in (holdfast.get(ABSENT), holdfast.stat(ABSENT)):
        with pytest.raises(NotFoundError):
            await attempt
    for wrong in ("", "AB" * 32, "../" + "a" * 61, "a" * 63):
        with pytest.raises(InvalidError):
            await holdfast.get(wrong)
    with pytest.raises(InvalidError):
        await holdfast.put(b"x", type="a\nb")
    async with await connect(
        servers=deployment.url, prefix="nobody", timeout_seconds=0.3
    ) as lonely:
        with pytest.raises(UnavailableError):
            await lonely.stat(ABSENT)


async def test_the_pool_can_be_seen(holdfast: Client) -> None:
    assert await nodes_seen(holdfast) == ["one", "two"]


async def nodes_seen(holdfast: Client) -> list[str]:
    """The nodes of the workers, once two are seen: one that is busy may miss a question."""
    async with asyncio.timeout(60):
        while len(workers := await holdfast.workers()) < 2:
            pass
    return [worker.metadata["node"] for worker in workers]


async def test_answers_of_strangers_neither_hide_the_pool_nor_keep_its_viewer(
    holdfast: Client, ask: Asker
) -> None:
    talking: set[asyncio.Task[None]] = set()

    async def chatter(message: Msg) -> None:
        async def talk() -> None:
            while True:
                for answer in (b"", b"{", b"\xff", b'{"name": 1}'):
                    await ask.client.publish(message.reply, answer)
                await asyncio.sleep(0.05)

        talking.add(asyncio.create_task(talk()))

    await ask.client.subscribe("$SRV.STATS.holdfast", cb=chatter)
    await ask.client.flush()
    async with asyncio.timeout(60):
        while not talking:  # on a busy machine an asking may be over before the first of them talks
            await nodes_seen(holdfast)
    nodes = await nodes_seen(holdfast)

    for task in talking:
        task.cancel()
    await asyncio.wait(talking)
    assert nodes == ["one", "two"]


async def test_many_puts_and_gets_at_once(holdfast: Client) -> None:
    blobs = [some_bytes(size * 7919, seed=size) for size in range(1, 150, 5)]

    stored = await asyncio.gather(*(holdfast.put(blob) for blob in blobs))
    found = await asyncio.gather(*(holdfast.get(one.digest) for one in stored))

    assert found == blobs


def test_the_synchronous_client_does_the_same(deployment: Deployment, tmp_path: Path) -> None:
    data = some_bytes(3 * PART + 1, seed=85)

    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        stored = holdfast.put(data, type="a/b")
        assert holdfast.get(stored.digest, offset=3, length=5) == data[3:8]
        assert b"".join(map(bytes, holdfast.stream(stored.digest))) == data
        assert holdfast.get_to(stored.digest, tmp_path / "target") == len(data)
        assert holdfast.has([stored.digest, ABSENT]) == [ABSENT]
        assert holdfast.stat(stored.digest).type == "a/b"
        assert stored.digest in {blob.digest for blob in holdfast.list()}
        assert [report.checked for report in holdfast.verify(stored.digest)] == [1]
        while len(holdfast.workers()) < 2:  # one that is busy may miss a question
            pass
        assert holdfast.delete(stored.digest)
        with pytest.raises(NotFoundError):
            holdfast.get(stored.digest)
    assert (tmp_path / "target").read_bytes() == data


def test_the_synchronous_client_reports_that_nobody_is_there() -> None:
    with pytest.raises(UnavailableError):
        connect_sync(servers="nats://127.0.0.1:1")
