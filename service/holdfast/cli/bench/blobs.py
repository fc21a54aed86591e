"""Measures blobs: large ones beside nats-py, small requests beside bare ones, ``has``, memory.

A figure alone says little on a shared machine, so the contenders take turns, and what counts is
the ratio within a round. Nothing here fails because a machine is slow.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import secrets
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nats
from nats.errors import Error as NatsError

from holdfast.cli.bench.echo import LIKE_GET, LIKE_PUT
from holdfast.cli.bench.machine import describe_machine, peak_resident_bytes
from holdfast.cli.bench.pool import TIMEOUT_SECONDS, Pool, run_directory, start_pool
from holdfast.cli.bench.report import (
    HOLDFAST,
    Figure,
    Promise,
    Report,
    Sync,
    percentile,
    seconds_of,
    seconds_of_each,
)
from holdfast.client import connect
from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.limits import KIB, MAX_DIGESTS_PER_HAS, MIB
from holdfast.errors import UnavailableError
from holdfast.runtime.child import dies_with_this_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from nats.aio.client import Client as NatsClient

    from holdfast.cli.bench.pool import Pool
    from holdfast.cli.bench.report import BoundKind, Sync

    type Say = Callable[[str], None]
    type Call = Callable[[int], Awaitable[object]]
    type Put = Callable[[bytes], Awaitable[str]]
    type Get = Callable[[str, Any], Awaitable[object]]
    type Delete = Callable[[str], Awaitable[object]]
    type MeasureLarge = Callable[[Pool, int, int, Say], Awaitable[tuple[list[Figure], list[str]]]]

NATS_PY: Final = "nats-py"
BARE: Final = "bare request"
LARGE_BYTES: Final = 256 * MIB
SMALL_BYTES: Final = 4 * KIB
IN_FLIGHT: Final = 64
HAS_REQUESTS: Final = 40
WORKER_STREAMS: Final = 8
SYNCED_PUTS_PER_SECOND: Final = 1200.0
"""Many synced puts a second are enough, whatever a bare request takes."""

_FILL_STEP: Final = 10_000
_DISTINCT_GETS: Final = 64
_PURGED_LATER: Final = 4  # a deleted blob's file goes a little later than the blob

_LARGE: Final = (
    "One blob at a time; holdfast through a worker, the others straight to the server; every client"
    " checks what it reads"
)
_SMALL: Final = (
    f"Requests of 4 KiB: one at a time, the kinds in turn; then {IN_FLIGHT} at once (per second)"
)
_HAS: Final = f"has of {MAX_DIGESTS_PER_HAS:,} digests, every other one stored"
_MEMORY: Final = "Peak resident memory while blobs are streamed up, then down, through one worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRun:
    """The settings. Sizes are bytes; a 0 leaves that measurement out."""

    syncs: tuple[Sync, ...]
    size: int
    rounds: int
    requests: int
    blobs: int
    workers: int
    memory_size: int
    client_size: int
    directory: Path | None


def speed(
    sync: Sync, action: str, against: str, bound: float, kind: BoundKind = "promise"
) -> Promise:
    """So many times as fast as another client with one blob of 256 MiB."""
    return Promise(
        name=f"speed of a {action}, {{size}}, {sync} sync / {against}",
        sync=sync,
        what=action,
        size=f"{LARGE_BYTES / MIB:g} MiB",
        unit="MiB/s",
        against=against,
        comparison="at least",
        bound=bound,
        kind=kind,
    )


def _small(
    sync: Sync,
    action: str,
    measure: str,
    bound: float,
    *,
    enough: float = math.inf,
    kind: BoundKind = "promise",
) -> Promise:
    """A request of 4 KiB beside a bare one that carries as much, one or many at a time."""
    is_rate = measure == "rate"
    return Promise(
        name=f"{measure} of a {action}, 4 KiB, {sync} sync / a bare request",
        sync=sync,
        what=action,
        unit="per second" if is_rate else "p50 ms",
        against=BARE,
        comparison="at least" if is_rate else "at most",
        bound=bound,
        enough=enough,
        kind=kind,
    )


def _memory(process: str, size: str, bound: float) -> Promise:
    return Promise(
        name=f"peak memory of a {process}, {{size}}",
        sync=None,
        what=process,
        size=size,
        unit="peak MiB",
        comparison="under",
        bound=bound,
    )


SPEEDS: Final = (
    speed("default", "get", NATS_PY, 4.0),
    speed("default", "put", NATS_PY, 1.1),
    speed("default", "put", NATS_PY, 1.3, "aim"),
    speed("always", "put", NATS_PY, 2.0),
)
OTHER_PROMISES: Final = (
    # The sync of a server makes no difference to a get.
    _small("default", "get", "p50", 2.0),
    _small("default", "get", "rate", 0.3),
    _small("default", "get", "rate", 0.5, kind="aim"),
    _small("default", "put", "p50", 2.5),
    _small("default", "put", "rate", 0.25),
    _small("always", "put", "rate", 0.1, enough=SYNCED_PUTS_PER_SECOND),
    Promise(
        name="p50 of has, 1,024 digests on {size}",
        sync=None,
        what="has",
        size="100,000 blobs",
        unit="ms",
        comparison="at most",
        bound=60.0,
    ),
    _memory("worker", f"{WORKER_STREAMS} x 1024 MiB", 256.0),
    _memory("client", "1 x 4096 MiB", 128.0),
)


async def measure_large(
    pool: Pool, size: int, rounds: int, say: Say
) -> tuple[list[Figure], list[str]]:
    """Put, get and delete of one blob by holdfast and nats-py in turn; and failures.

    Content is new in each put, and random: nothing on the way can compress it.
    """
    seconds: dict[tuple[str, str], list[float]] = {}
    async with (
        await connect(servers=pool.url, timeout_seconds=TIMEOUT_SECONDS) as client,
        _bare(pool.url) as bare,
    ):
        store = await bare.jetstream().create_object_store(NATS_PY)

        async def put_ours(data: bytes) -> str:
            return (await client.put(data)).digest

        async def put_theirs(data: bytes) -> str:
            return str((await store.put(secrets.token_hex(16), data)).name)

        # To memory nats-py copies all it has for each chunk that comes.
        clients: dict[str, tuple[Put, Get, Delete]] = {
            HOLDFAST: (put_ours, client.get_to, client.delete),
            NATS_PY: (put_theirs, lambda key, sink: store.get(key, writeinto=sink), store.delete),
        }
        for calls in clients.values():  # outside the clock
            await _put_and_get(*calls, os.urandom(min(size, MIB)))
        for number in range(rounds):
            say(f"{pool.sync} sync: one blob of {size / MIB:g} MiB, round {number + 1}/{rounds}")
            for name in sorted(clients, reverse=number % 2 == 1):
                put, get = await _put_and_get(*clients[name], os.urandom(size))
                seconds.setdefault((name, "put"), []).append(put)
                seconds.setdefault((name, "get"), []).append(get)
    return large_figures(pool.sync, size, seconds), []


def large_figures(
    sync: Sync, size: int, seconds: dict[tuple[str, str], list[float]]
) -> list[Figure]:
    """The figures of clients that put or get one blob in so many ``seconds``, puts first."""
    return [
        Figure(
            table=_LARGE,
            sync=sync,
            what=action,
            size=f"{size / MIB:g} MiB",
            contender=name,
            unit="MiB/s",
            values=[size / MIB / each for each in taken],
        )
        for (name, action), taken in sorted(seconds.items(), key=lambda each: each[0][1] == "get")
    ]


async def _put_and_get(put: Put, get: Get, delete: Delete, data: bytes) -> tuple[float, float]:
    start = time.perf_counter()
    key = await put(data)
    put_seconds = time.perf_counter() - start
    with open(os.devnull, "wb", buffering=0) as sink:  # noqa: ASYNC230  (never waits)
        get_seconds = await seconds_of(get(key, sink))
    await delete(key)
    return put_seconds, get_seconds


async def run_blob_bench(
    run: BlobRun, say: Say, measure_large: MeasureLarge = measure_large
) -> Report:
    """Everything that ``run`` asks for. ``say`` is told what is going on.

    Raises InvalidError when it cannot be run here, UnavailableError when the server, a worker or
    holdfast's own client does not work.
    """
    needed = max(
        run.size * _PURGED_LATER if run.rounds else 0,
        run.memory_size * WORKER_STREAMS,
        run.client_size,
    )
    with run_directory(run.directory, needed * 1.1, "smaller sizes") as directory:
        report = Report(machine=describe_machine(directory), workers=run.workers)
        for sync in run.syncs:
            async with start_pool(directory / sync, sync=sync, workers=run.workers) as pool:
                if run.rounds:
                    figures, problems = await measure_large(pool, run.size, run.rounds, say)
                    report.figures.extend(figures)
                    report.problems.extend(problems)
                if run.requests:
                    say(f"{sync} sync: {run.requests:,} small requests of each kind")
                    report.figures.extend(await _measure_small(pool, run.requests))
                if run.blobs and sync == run.syncs[0]:  # reading does not depend on it
                    report.figures.append(await _measure_has(pool, run.blobs, say))
        for process, streams, size in (
            ("worker", WORKER_STREAMS, run.memory_size),
            ("client", 1, run.client_size),
        ):
            if size:
                say(f"{streams} x {size / MIB:g} MiB streamed through one worker")
                # On a server and a worker of their own: a peak is for ever.
                async with start_pool(directory / process, sync=run.syncs[0], workers=1) as pool:
                    report.figures.extend(await _measure_memory(pool, process, streams, size))
    return report


async def _measure_small(pool: Pool, requests: int) -> list[Figure]:
    """Gets and puts of 4 KiB through a worker, and bare requests of that size, in turn."""
    payloads = _distinct_payloads()
    async with (
        _echo(pool),
        await connect(servers=pool.url, timeout_seconds=TIMEOUT_SECONDS) as client,
        _bare(pool.url) as bare,
    ):
        digests = [(await client.put(next(payloads))).digest for _ in range(_DISTINCT_GETS)]
        wanted = itertools.cycle(digests)
        calls: dict[tuple[str, str], Call] = {
            ("get", HOLDFAST): lambda _: client.get(next(wanted)),
            ("get", BARE): lambda _: bare.request(LIKE_GET, next(wanted).encode(), timeout=30),
            ("put", HOLDFAST): lambda _: client.put(next(payloads)),
            ("put", BARE): lambda _: bare.request(LIKE_PUT, next(payloads), timeout=30),
        }
        seconds: dict[tuple[str, str], list[float]] = {kind: [] for kind in calls}
        for number in range(requests):
            for kind, call in calls.items():
                seconds[kind].append(await seconds_of(call(number)))
        return [
            Figure(
                table=_SMALL, sync=pool.sync, what=what, contender=who, unit=unit, values=[value]
            )
            for (what, who), call in calls.items()
            for unit, value in (
                ("p50 ms", percentile(seconds[what, who], 50) * 1000),
                ("p99 ms", percentile(seconds[what, who], 99) * 1000),
                ("per second", requests / await seconds_of_each(range(requests), IN_FLIGHT, call)),
            )
        ]


async def _measure_has(pool: Pool, blobs: int, say: Say) -> Figure:
    """``has`` of as many digests as one request may name, on a store filled with ``blobs``."""
    values = []
    async with await connect(servers=pool.url, timeout_seconds=TIMEOUT_SECONDS) as client:
        for first in range(0, blobs, _FILL_STEP):
            say(f"{pool.sync} sync: filling the store, {first:,} of {blobs:,} blobs")
            step = range(first, min(first + _FILL_STEP, blobs))
            await seconds_of_each(step, IN_FLIGHT, lambda number: client.put(_numbered(number)))
        for request in range(HAS_REQUESTS):
            first = request * MAX_DIGESTS_PER_HAS
            asked = [_half_present(first + each, blobs) for each in range(MAX_DIGESTS_PER_HAS)]
            start = time.perf_counter()
            missing = await client.has(asked)
            values.append((time.perf_counter() - start) * 1000)
            if missing != asked[1::2]:
                raise UnavailableError(f"has: {len(missing)} missing, and not those that are")
    size = f"{blobs:,} blobs"
    return Figure(table=_HAS, sync=pool.sync, what="has", size=size, unit="ms", values=values)


async def _measure_memory(pool: Pool, process: str, streams: int, size: int) -> list[Figure]:
    """The peak of the one worker or client, while ``size`` bytes each are streamed up, then down.

    Each client is a process of its own.
    """
    module = "holdfast.cli.bench.stream"
    command = [sys.executable, "-m", module, str(size), pool.url]
    told = await asyncio.gather(*(_hear(command) for _ in range(streams)))
    is_worker = process == "worker"
    peak = peak_resident_bytes(pool.worker_pids[0]) if is_worker else told[0]["peak_bytes"]
    streamed = streams * size / MIB
    return [
        Figure(
            table=_MEMORY,
            sync=pool.sync,
            what=process,
            size=f"{streams} x {size / MIB:g} MiB",
            unit=unit,
            values=[value],
        )
        for unit, value in (
            ("peak MiB", None if peak is None else peak / MIB),
            ("up MiB/s", streamed / max(each["up"] for each in told)),
            ("down MiB/s", streamed / max(each["down"] for each in told)),
        )
        if value is not None
    ]


async def _hear(command: Sequence[str]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *dies_with_this_process(command), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    said, error = await process.communicate()
    if process.returncode:
        raise UnavailableError(f"a client ended:\n{error.decode(errors='replace')[-600:]}")
    figures: dict[str, Any] = json.loads(said)
    return figures


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[NatsClient]:
    """nats-py's own connection: what others are measured on."""
    connection = await nats.connect(url)
    try:
        yield connection
    except NatsError as error:
        raise UnavailableError(f"nats-py: {error}") from error
    finally:
        await connection.close()


@asynccontextmanager
async def _echo(pool: Pool) -> AsyncIterator[None]:
    """The bare service, in a process of its own."""
    program = Path(__file__).with_name("echo.py")
    command = [sys.executable, "-P", str(program), str(SMALL_BYTES), pool.url]
    process = await asyncio.create_subprocess_exec(
        *dies_with_this_process(command), stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    try:
        if process.stdout is None or not await process.stdout.readline():
            raise UnavailableError("the bare service did not start")
        yield
    finally:
        await process.communicate()  # ends with its stdin


def _distinct_payloads() -> Iterator[bytes]:
    salt = secrets.token_hex(16)
    for number in itertools.count():
        yield f"{salt}:{number}:".encode().ljust(SMALL_BYTES, b".")


def _numbered(number: int) -> bytes:
    return b"blob %d" % number


def _half_present(index: int, blobs: int) -> Digest:
    """Even indexes are stored blobs, spread over all of them; odd ones never were."""
    if index % 2:
        return digest_of(b"missing %d" % index)
    return digest_of(_numbered(index * 7919 % blobs))
