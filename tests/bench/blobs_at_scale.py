"""The cost of list, verify, has, put and get among a million blobs, beside a bucket with few.

    python -m tests.bench.blobs_at_scale [--blobs 1000000] [--directory DIR]

Not a test: it takes minutes, and wants some 2 GB of memory and 1 GB of disk. It starts a
nats-server of its own on ``DIR`` (a temporary one by default), loads it by pipelined publishes
without syncing, starts it again as it is run in production, and prints a table, row by row. What
was loaded into ``DIR`` is used again the next time. Each blob has 100 bytes. It asserts one thing:
that nothing keeps the event loop for more than ``LONGEST_BLOCK_MS``. Columns: milliseconds of a
request, of the processor's time for it in the worker and in the server, and of the longest block.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import os
import random
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from nats.nuid import NUID

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.chunk_index import build_index
from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import UnavailableError
from holdfast.protocol.headers import BLOB_PART
from holdfast.repository.blobs import BLOBS, BlobRepository
from holdfast.runtime.embedded import EmbeddedServer
from holdfast.stores.jetstream.blobs.meta import chunk_subject, meta_subject, to_meta
from holdfast.stores.jetstream.blobs.objects import ObjectBlobStore
from holdfast.stores.jetstream.buckets.provisioning import ensure_stream, object_stream
from holdfast.stores.location import BucketLocation
from holdfast.stores.ports import Attributes, BlobInfo
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

FEW: Final = 1_000
BUCKET: Final = "scale"
BLOB_BYTES: Final = 100
RUN: Final = 500
RUNS_IN_FLIGHT: Final = 8
ROUNDS: Final = 30
PAGE: Final = 1_000
LONGEST_BLOCK_MS: Final = 50.0
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
ATTRIBUTES: Final = Attributes(type="application/octet-stream", created_at=NOW)
_nuid = NUID()


def new_id() -> str:
    """A fresh one."""
    return _nuid.next().decode()


def content(number: int) -> bytes:
    """The bytes of a blob, the same every time."""
    return (b"%d " % number).ljust(BLOB_BYTES, b"x")


def messages(count: int) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """The content of a bucket of ``count`` blobs, in order."""
    for number in range(count):
        data, nuid = content(number), new_id()
        yield chunk_subject(BUCKET, nuid), data, {BLOB_PART: "0"}
        info = BlobInfo(
            digest=digest_of(data),
            size=len(data),
            chunks=1,
            part_size=len(data),
            type=ATTRIBUTES.type,
            created_at=NOW,
            pinned=True,
            generation=nuid,
            index=build_index([2 * number + 1]),
        )
        record = msgspec.json.encode(to_meta(BUCKET, info, ATTRIBUTES))
        yield meta_subject(BUCKET, info.digest), record, {"Nats-Rollup": "sub"}


async def fill(js: JetStream, inbox: Inbox, count: int) -> None:
    """Make the bucket, and publish what is in it: runs of messages, whose last is acknowledged."""
    stream = f"OBJ_{BUCKET}"
    await ensure_stream(js, object_stream(BUCKET, BucketLocation(bucket=BUCKET)))
    runs = asyncio.Semaphore(RUNS_IN_FLIGHT)
    mailbox = inbox.open(lambda _: runs.release())
    for run in itertools.batched(messages(count), RUN):
        await runs.acquire()
        await js.connection.wait_sendable()
        for number, (subject, data, headers) in enumerate(run, 1):
            reply = mailbox.subject if number == len(run) else ""
            js.connection.send(subject, data, reply=reply, headers=headers)
    for _ in range(RUNS_IN_FLIGHT):
        await runs.acquire()
    mailbox.close()
    assert (await js.state(stream)).messages == 2 * count


class Watchdog:
    """How long the event loop did not come round, at the longest.

    Whatever it did meanwhile counts, a wait for a lock or for a file as well as work. Left out is
    only how long its thread was ready to run and waited for a processor, which is the doing of
    whatever else the machine runs; the kernel counts that for each thread.
    """

    tick_seconds = 0.005

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._counts = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")

    async def run(self) -> None:
        """Look until cancelled. It sits in the thread of the loop."""
        loop = asyncio.get_running_loop()
        while True:
            queued, due = self._queued_seconds(), loop.time() + self.tick_seconds
            await asyncio.sleep(self.tick_seconds)
            late = loop.time() - due - (self._queued_seconds() - queued)
            self.longest_ms = max(self.longest_ms, late * 1000)

    def _queued_seconds(self) -> float:
        """How long this thread has waited for a processor so far."""
        return int(self._counts.read_text("ascii").split()[1]) / 1e9


@asynccontextmanager
async def watched(what: str, blocked: list[str]) -> AsyncIterator[Watchdog]:
    """With a watchdog, whose complaint goes to ``blocked``."""
    watchdog = Watchdog()
    task = asyncio.create_task(watchdog.run())
    try:
        yield watchdog
    finally:
        task.cancel()
    if watchdog.longest_ms > LONGEST_BLOCK_MS:
        blocked.append(f"{what} kept the event loop for {watchdog.longest_ms:.0f} ms")


class Scale:
    """The measurements, on a bucket of ``blobs``."""

    def __init__(self, store: ObjectBlobStore, server: EmbeddedServer, blobs: int) -> None:
        self.store = store
        self.server = server
        self.blobs = blobs
        self.repository = BlobRepository({BLOBS: store}, max_inline_bytes=960 * 1024)
        self.rng = random.Random(2)  # noqa: S311  (test data, not secrets)
        self.fresh = itertools.count()
        self.name = new_id().encode()
        self.blocked: list[str] = []

    def some(self) -> bytes:
        """The bytes of one that is there."""
        return content(self.rng.randrange(self.blobs))

    async def make_a_hole(self) -> None:
        """Delete a blob: in a stream that lacks no message a server counts without looking."""
        data = b"hole %s" % self.name
        await self.store.put(digest_of(data), data, ATTRIBUTES)
        assert await self.store.delete(digest_of(data))

    async def measure(self) -> None:
        """Print a row for each thing that is done."""
        await self.make_a_hole()
        near = [digest_of(content(number)) for number in range(min(1024, self.blobs))]
        anywhere = [digest_of(self.some()) for _ in range(1024)]
        absent = [digest_of(b"absent %d" % number) for number in range(1024)]
        await self.row("has of 1,024, next to each other", partial(self.has, near, 0))
        await self.row("has of 1,024, anywhere, the first time", partial(self.has, anywhere, 0), 1)
        await self.row("has of 1,024, anywhere", partial(self.has, anywhere, 0))
        await self.row("has of 1,024, absent", partial(self.has, absent, 1024))
        await self.row("get", self.get, 10 * ROUNDS)
        await self.row("put", self.put, 10 * ROUNDS)
        await self.row("put of what is there", self.put_again, 10 * ROUNDS)
        places = (("first", 0), ("middle", self.blobs), ("last", 2 * (self.blobs - PAGE)))
        for name, position in places:
            listing = partial(self.page, "", str(position + 1))
            await self.row(f"list: a page of {PAGE:,}, {name}", listing)
        await self.row("list by 12 digits, for the first time", self.one_match, 1)
        await self.row("list by 12 digits: one match", self.one_match)
        await self.row("list by 2 digits: a page", partial(self.page, "ab", None))
        await self.verify()

    async def row(
        self, what: str, work: Callable[[], Awaitable[object]], rounds: int = ROUNDS
    ) -> None:
        """Do it ``rounds`` times, and print one line of the table."""
        found = []
        before = time.process_time(), self.server_seconds()
        async with watched(what, self.blocked) as watchdog:
            for _ in range(rounds):
                started = time.perf_counter()
                await work()
                found.append((time.perf_counter() - started) * 1000)
        ordered = sorted(found)
        p95 = ordered[int(len(ordered) * 0.95)]
        figures = f"{statistics.median(ordered):9.2f} | {p95:9.2f} | {ordered[0]:9.2f}"
        worker = (time.process_time() - before[0]) * 1000 / rounds
        server = (self.server_seconds() - before[1]) * 1000 / rounds
        cpu = f"{worker:6.2f} | {server:6.2f}"
        print(f"| {what:<38} | {figures} | {cpu} | {watchdog.longest_ms:7.1f} |", flush=True)

    def server_seconds(self) -> float:
        """The processor time that the server has taken so far."""
        counts = Path(f"/proc/{self.server.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(counts[11]) + int(counts[12])) / os.sysconf("SC_CLK_TCK")

    async def has(self, digests: list[Digest], missing: int) -> None:
        """Which are missing."""
        assert len(await self.store.missing(digests)) == missing

    async def get(self) -> None:
        """A small blob, as a worker reads it."""
        data = self.some()
        assert await self.store.get(await self.store.stat(digest_of(data))) == data

    async def put(self) -> None:
        """A new blob."""
        data = b"new %s %d" % (self.name, next(self.fresh))
        assert (await self.store.put(digest_of(data), data, ATTRIBUTES)).created

    async def put_again(self) -> None:
        """A blob that is there."""
        data = self.some()
        assert not (await self.store.put(digest_of(data), data, ATTRIBUTES)).created

    async def page(self, prefix: str, cursor: str | None) -> None:
        """A page of a listing."""
        await self.store.list_blobs(prefix=prefix, cursor=cursor, limit=PAGE)

    async def one_match(self) -> None:
        """All pages by the first digits of a blob."""
        found, cursor = 0, None
        prefix = digest_of(self.some())[:12]
        while True:
            page = await self.store.list_blobs(prefix=prefix, cursor=cursor, limit=PAGE)
            found += len(page.entries)
            cursor = page.cursor
            if cursor is None:
                break
        assert found == 1

    async def verify(self) -> None:
        """One pass over all."""
        started, before = time.perf_counter(), (time.process_time(), self.server_seconds())
        cursor, checked = None, 0
        async with watched("verify", self.blocked) as watchdog:
            while True:
                report = await self.repository.verify_page(
                    cursor=cursor, limit=PAGE, has_time=lambda: True
                )
                assert not report.damaged
                checked, cursor = checked + report.checked, report.cursor
                if cursor is None:
                    break
        seconds = time.perf_counter() - started
        worker = time.process_time() - before[0]
        server = self.server_seconds() - before[1]
        each = f"{seconds * 1000 / checked:.2f} ms per blob ({worker * 1000 / checked:.2f} of the"
        print(f"\nverify, one pass over {checked:,}: {each}", end="")
        print(f" worker's, {server * 1000 / checked:.2f} of the server's processor time); the loop")
        print(f"was kept for {watchdog.longest_ms:.1f} ms at the most", flush=True)


async def run(directory: Path, count: int) -> list[str]:
    """Load what is not there yet, start again, measure. What kept the event loop too long."""
    blocked: list[str] = []
    for blobs in sorted({min(FEW, count), count}):
        place = directory / str(blobs)
        loaded = place / "loaded"
        if not loaded.exists():
            place.mkdir(parents=True)
            started = time.perf_counter()
            with EmbeddedServer.start(place, sync_interval="2m") as server:
                await with_js(server, partial(fill, count=blobs))
            loaded.write_text(f"{time.perf_counter() - started:.0f} s")
        with EmbeddedServer.start(place) as server:
            load = " ".join(f"{one:.1f}" for one in os.getloadavg())
            print(
                f"\n{blobs:,} blobs of {BLOB_BYTES} bytes, loaded in {loaded.read_text()};", end=""
            )
            print(f" ms; load average {load}\n")
            print(f"| {'':<38} |       p50 |       p95 |       min | worker | server | blocked |")
            print(f"| {'-' * 38} | {'--------: | ' * 3}{'-----: | ' * 2}------: |", flush=True)
            await with_js(server, partial(report, server=server, blobs=blobs, blocked=blocked))
    return blocked


async def report(
    js: JetStream, inbox: Inbox, server: EmbeddedServer, blobs: int, blocked: list[str]
) -> None:
    """Wait until the server has recovered, then measure."""
    del inbox
    store = ObjectBlobStore(js, BUCKET, sources=replace(SOURCES, clock=lambda: NOW))
    while True:
        try:
            await store.missing([digest_of(content(0))])
            break
        except UnavailableError:
            await asyncio.sleep(0.5)
    scale = Scale(store, server, blobs)
    await scale.measure()
    blocked += scale.blocked
    await store.aclose()


async def with_js(
    server: EmbeddedServer, work: Callable[[JetStream, Inbox], Awaitable[None]]
) -> None:
    """Do ``work`` over a connection of its own."""
    connection = await connect(NatsOptions(servers=(server.url,)))
    try:
        inbox = Inbox(connection)
        await work(JetStream(connection, inbox, patience_seconds=20), inbox)
    finally:
        await connection.close()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--blobs", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    gc.collect()
    gc.freeze()  # as a worker does
    with ExitStack() as stack:
        directory = arguments.directory
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        blocked = asyncio.run(run(directory, arguments.blobs))
    if blocked:
        raise SystemExit("\n".join(blocked))


if __name__ == "__main__":
    main()
