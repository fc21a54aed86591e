"""Two of three servers killed at once under a heavy load, and started again a while later.

nats-server#8519: does the bucket come back, what does a client see until then, does the status
tell? ``make faults-majority`` does it with a gigabyte stored and 2,000 writes a second; here it is
small. What was acknowledged is there afterwards, and the report says the rest.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Final

import pytest

from holdfast.client import connect
from holdfast.domain.digest import digest_of
from holdfast.errors import HoldfastError
from holdfast.stores.jetstream.blobs.meta import chunk_subject
from holdfast.transport.connection import connect as connect_transport
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.jetstream_messages import RefusedError
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.servers import Cluster
    from tests.cluster.workers import Pool

    from holdfast.client import Client

_STORED_MB: Final = int(os.environ.get("STORED_MB", "4"))
_WRITES_PER_SECOND: Final = int(os.environ.get("WRITES_PER_SECOND", "100"))
_GONE_SECONDS: Final = float(os.environ.get("GONE_SECONDS", "5"))
_BLOB_BYTES: Final = 1_000_000
_WRITE_BYTES: Final = 200
_PUT_BYTES: Final = 2_000
_PUTTERS: Final = 4
_WARM_SECONDS: Final = 3.0
_TICK_SECONDS: Final = 0.02
_MOST_UNDER_WAY: Final = 8_000
_STATUS_SECONDS: Final = 1.0
_BACK_SECONDS: Final = 300.0

pytestmark = [
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("unhurried"),
]


@dataclass
class Tally:
    """The events, and when they were seen, in seconds since the servers were killed."""

    killed_at: float = 0.0
    started_at: float = 0.0
    kept: set[str] = field(default_factory=set)
    written: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    acks: list[float] = field(default_factory=list)
    told: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)

    def now(self) -> float:
        return time.monotonic() - self.killed_at

    def telling(self, sentences: tuple[str, ...]) -> None:
        if not self.told or self.told[-1][1] != sentences:
            self.told.append((self.now(), sentences))

    def tells_why(self) -> bool:
        """Whether the status said why nothing is written."""
        sentences = [sentence for _, told in self.told for sentence in told]
        return any("leader" in sentence or "answer" in sentence for sentence in sentences)


async def fill(client: Client, tally: Tally) -> None:
    async def one(number: int) -> None:
        data = Random(f"stored {number}").randbytes(_BLOB_BYTES)  # noqa: S311
        tally.kept.add((await client.put(data)).digest)

    for start in range(0, _STORED_MB, 8):
        await asyncio.gather(*(one(n) for n in range(start, min(start + 8, _STORED_MB))))


async def write(pool: Pool, tally: Tally, stop: asyncio.Event) -> None:
    """Messages into the stream of the blobs, at an even rate, as many puts would make."""
    options = NatsOptions(servers=tuple(pool.servers), name="writes")
    connection = await connect_transport(options)
    js = JetStream(connection, Inbox(connection))
    subject = chunk_subject(pool.bucket, f"{'w' * 22}")
    under_way: set[asyncio.Task[None]] = set()

    async def one() -> None:
        try:
            await js.publish(subject, bytes(_WRITE_BYTES), {}, attempts=1)
            tally.written += 1
        except RefusedError as refused:
            tally.refused[str(refused.error.err_code)] += 1
        except HoldfastError as error:
            tally.refused[error.code] += 1

    began, sent = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - began) * _WRITES_PER_SECOND)
        for _ in range(max(min(due - sent, _MOST_UNDER_WAY - len(under_way)), 0)):
            task = asyncio.create_task(one())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        sent = due
        await asyncio.sleep(_TICK_SECONDS)
    if under_way:
        await asyncio.wait(under_way)
    await connection.close()


async def put(pool: Pool, name: str, tally: Tally, stop: asyncio.Event) -> None:
    """Put as a client does, one after the other, with its usual settings."""
    options = NatsOptions(servers=tuple(pool.servers), name=name)
    async with await connect(options, prefix=pool.prefix) as client:
        number = 0
        while not stop.is_set():
            number += 1
            data = Random(f"{name} {number}").randbytes(_PUT_BYTES)  # noqa: S311
            began = time.monotonic()
            try:
                digest = (await client.put(data)).digest
            except HoldfastError as error:
                tally.answers[error.code] += 1
            else:
                tally.answers["ok"] += 1
                tally.kept.add(digest)
                tally.acks.append(tally.now())
            tally.longest = max(tally.longest, time.monotonic() - began)


async def watch(pool: Pool, tally: Tally, stop: asyncio.Event) -> None:
    """Note the status, whenever it is another."""
    async with await connect(servers=pool.servers, prefix=pool.prefix) as client:
        while not stop.is_set():
            try:
                status = await client.store_status(timeout_seconds=10)
                tally.telling(tuple(status.problems))
            except HoldfastError as error:
                tally.telling((f"{error.code}: {error.detail}",))
            with suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_SECONDS):
                    await stop.wait()


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_BACK_SECONDS):
        while not condition():  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(_TICK_SECONDS)


@contextmanager
def reporting(tally: Tally) -> Iterator[None]:
    """Print what was seen, also of a run that fails: it is what a long run is for."""
    try:
        yield
    finally:
        print(f"\n{report(tally)}")  # noqa: T201


def report(tally: Tally) -> str:
    first = next((at for at in tally.acks if at > tally.started_at), None)
    gap = max(later - at for at, later in pairwise([0.0, *tally.acks]))
    lines = [
        f"{_STORED_MB} MB stored, {_WRITES_PER_SECOND} writes/s, two of three killed,"
        f" started again after {tally.started_at:.1f} s",
        f"next ack {(first or 0) - tally.started_at:.1f} s after the start;"
        f" longest time without one {gap:.1f} s, longest put {tally.longest:.1f} s",
        f"puts: {dict(tally.answers)}; writes: {tally.written} acknowledged, {dict(tally.refused)}",
        "status:",
    ]
    lines += [f"  {at:6.1f} s {' | '.join(told) or 'no problems'}" for at, told in tally.told]
    return "\n".join(lines)


@pytest.mark.fault("N03")
@pytest.mark.fault("N16")
async def test_a_bucket_comes_back_when_two_of_three_were_killed_at_once_under_load(
    cluster: Cluster, pool: Pool
) -> None:
    tally = Tally(killed_at=time.monotonic())
    async with await connect(servers=pool.servers, prefix=pool.prefix) as client:
        await fill(client, tally)
    with reporting(tally):
        await strike(cluster, pool, tally)

    assert tally.tells_why()
    async with await connect(servers=pool.servers, prefix=pool.prefix) as client:
        for digest in tally.kept:
            assert digest_of(await client.get(digest)) == digest


async def strike(cluster: Cluster, pool: Pool, tally: Tally) -> None:
    """Kill, start again, and wait until writes go on, replicas are current and status is well."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write(pool, tally, stop))
        tasks.create_task(watch(pool, tally, stop))
        for number in range(_PUTTERS):
            tasks.create_task(put(pool, f"putter-{number}", tally, stop))
        await asyncio.sleep(_WARM_SECONDS)
        leader = await cluster.leader_of(pool.streams[0])
        gone = [leader, cluster.others(leader)[0]]
        tally.acks.clear()
        tally.told.clear()
        tally.killed_at = time.monotonic()
        for name in gone:
            cluster.servers[name].kill()

        await asyncio.sleep(_GONE_SECONDS)
        await wait_for(tally.tells_why)
        tally.started_at = tally.now()
        for name in gone:
            cluster.servers[name].start()
        await wait_for(lambda: any(at > tally.started_at for at in tally.acks))
        await cluster.wait_settled(pool.streams)
        await wait_for(lambda: bool(tally.told) and tally.told[-1][1] == ())
        stop.set()
