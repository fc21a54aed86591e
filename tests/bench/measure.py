"""The measurements, one function each: what is asked of which process, and in which order."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.contenders import OURS
from tests.bench.figures import (
    HOLDFAST,
    HasFigure,
    LargeFigure,
    MemoryFigure,
    SmallFigure,
    small_figures,
)
from tests.bench.machine import peak_resident_bytes
from tests.bench.processes import ProcessError

from holdfast.domain.limits import MAX_DIGESTS_PER_HAS, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.contenders import Contender
    from tests.bench.figures import Action
    from tests.bench.processes import ClientProcess, Pool

    Say = Callable[[str], None]

_WARM_UP_BYTES: Final = MIB
_ECHO: Final = Path(__file__).parent / "echo.py"


async def measure_large(
    pool: Pool, contenders: Sequence[Contender], *, size: int, rounds: int, say: Say
) -> tuple[list[LargeFigure], list[str]]:
    """Put, get and delete of one blob by every contender in turn; and who could not.

    Each begins a round once (nearly) as often as the others, for the first one meets a rested
    machine. Content is new in each put, the same size for all. Raises ProcessError when holdfast
    itself cannot.
    """
    source = write_random(pool.directory / "large", size)
    warm_up = write_random(pool.directory / "warm-up", min(size, _WARM_UP_BYTES))
    taken: dict[tuple[str, Action], list[float]] = {}
    problems: list[str] = []
    async with AsyncExitStack() as stack:
        clients: list[ClientProcess] = []
        for contender in contenders:
            try:
                client = await stack.enter_async_context(
                    pool.client(contender.name, contender.command)
                )
                await check_content(client, warm_up)
            except ProcessError as error:
                _give_up(contender.name, error, problems)
            else:
                clients.append(client)
        for number in range(rounds):
            say(f"{pool.sync} sync: one blob of {size / MIB:g} MiB, round {number + 1}/{rounds}")
            for client in _rotated(clients, number):
                try:
                    put, get = await _put_and_get(client, source)
                except ProcessError as error:
                    _give_up(client.name, error, problems)
                    clients.remove(client)
                    continue
                taken.setdefault((client.name, "put"), []).append(put)
                taken.setdefault((client.name, "get"), []).append(get)
    figures = [
        LargeFigure(sync=pool.sync, action=action, client=name, size=size, seconds=seconds)
        for (name, action), seconds in taken.items()
        if len(seconds) == rounds
    ]
    return figures, problems


async def measure_small(
    pool: Pool, *, size: int, requests: int, in_flight: int
) -> list[SmallFigure]:
    """Gets and puts of ``size`` bytes through a worker, and bare requests of that size, in turn."""
    echo = [sys.executable, "-P", str(_ECHO)]
    async with (
        pool.client("echo", [*echo, str(size)]),
        pool.client(OURS.name, OURS.command) as client,
    ):
        answer = await client.ask(
            "small", size=size, requests=requests, in_flight=in_flight, salt=_salt()
        )
    return small_figures(answer, sync=pool.sync, size=size, requests=requests, in_flight=in_flight)


async def measure_has(pool: Pool, *, blobs: int, requests: int, say: Say) -> HasFigure:
    """``has`` of as many digests as one request may name, on a store filled with ``blobs``."""
    async with pool.client(OURS.name, OURS.command) as client:
        fill_seconds = 0.0
        step = 10_000
        for first in range(0, blobs, step):
            say(f"{pool.sync} sync: filling the store, {first:,} of {blobs:,} blobs")
            filled = await client.ask("fill", first=first, count=min(step, blobs - first))
            fill_seconds += filled["seconds"]
        answer = await client.ask(
            "has", blobs=blobs, digests=MAX_DIGESTS_PER_HAS, requests=requests
        )
    return HasFigure(
        sync=pool.sync,
        blobs=blobs,
        digests=MAX_DIGESTS_PER_HAS,
        seconds=answer["seconds"],
        fill_seconds=fill_seconds,
    )


async def measure_worker_memory(pool: Pool, *, streams: int, size: int) -> MemoryFigure:
    """The one worker's peak, while ``streams`` clients stream ``size`` bytes each up, then down."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(pool.client(f"{HOLDFAST}-{number}", OURS.command))
            for number in range(streams)
        ]
        up = await asyncio.gather(
            *(client.ask("stream_up", size=size, salt=_salt()) for client in clients)
        )
        down = await asyncio.gather(
            *(
                client.ask("stream_down", key=stored["key"])
                for client, stored in zip(clients, up, strict=True)
            )
        )
    return MemoryFigure(
        process="worker",
        streams=streams,
        size=size,
        peak_bytes=peak_resident_bytes(pool.workers[0].pid),
        up_seconds=max(stored["seconds"] for stored in up),
        down_seconds=max(read["seconds"] for read in down),
    )


async def measure_client_memory(pool: Pool, *, size: int) -> MemoryFigure:
    """A client's peak, while it puts ``size`` generated bytes and reads them back."""
    async with pool.client(OURS.name, OURS.command) as client:
        up = await client.ask("stream_up", size=size, salt=_salt())
        down = await client.ask("stream_down", key=up["key"])
        peak = await client.ask("peak")
    return MemoryFigure(
        process="client",
        streams=1,
        size=size,
        peak_bytes=peak["bytes"],
        up_seconds=up["seconds"],
        down_seconds=down["seconds"],
    )


async def check_content(client: ClientProcess, source: Path) -> None:
    """Put and read back once, outside the clock. Raises ProcessError when the bytes differ."""
    stored = await client.ask("put", source=str(source), salt=_salt())
    read = await client.ask("sum", key=stored["key"])
    if read["sha256"] != stored["sha256"]:
        raise client.failure("read other bytes than it had put")
    await client.ask("delete", key=stored["key"])


async def _put_and_get(client: ClientProcess, source: Path) -> tuple[float, float]:
    stored = await client.ask("put", source=str(source), salt=_salt())
    read = await client.ask("get", key=stored["key"])
    await client.ask("delete", key=stored["key"])
    return stored["seconds"], read["seconds"]


def write_random(path: Path, size: int) -> Path:
    """A file of ``size`` random bytes: nothing on the way can compress it."""
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))
    return path


def _give_up(name: str, error: ProcessError, problems: list[str]) -> None:
    if name == HOLDFAST:
        raise error
    problems.append(str(error))


def _rotated(clients: Sequence[ClientProcess], by: int) -> list[ClientProcess]:
    at = by % max(1, len(clients))
    return [*clients[at:], *clients[:at]]


def _salt() -> str:
    return secrets.token_hex(16)
