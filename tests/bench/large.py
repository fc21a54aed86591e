"""One large blob put and read by every client in turn, each in a process of its own."""

from __future__ import annotations

import os
import secrets
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from tests.bench.processes import ProcessError, start_client

from holdfast.cli.bench.blobs import large_figures
from holdfast.cli.bench.report import HOLDFAST
from holdfast.domain.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.bench.contenders import Contender
    from tests.bench.processes import ClientProcess

    from holdfast.cli.bench.pool import Pool
    from holdfast.cli.bench.report import Figure

    Say = Callable[[str], None]

_WARM_UP_BYTES: Final = MIB


async def measure_large(
    pool: Pool, contenders: Sequence[Contender], *, size: int, rounds: int, say: Say
) -> tuple[list[Figure], list[str]]:
    """Put, get and delete of one blob by every contender in turn; and who could not.

    Each begins a round once (nearly) as often as the others, for the first one meets a rested
    machine. Content is new in each put, the same size for all. Raises ProcessError when holdfast
    itself cannot.
    """
    source = write_random(pool.directory / "large", size)
    warm_up = write_random(pool.directory / "warm-up", min(size, _WARM_UP_BYTES))
    taken: dict[tuple[str, str], list[float]] = {}
    problems: list[str] = []
    async with AsyncExitStack() as stack:
        clients: list[ClientProcess] = []
        for contender in contenders:
            try:
                client = await stack.enter_async_context(
                    start_client(pool, contender.name, contender.command)
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
    whole = {kind: seconds for kind, seconds in taken.items() if len(seconds) == rounds}
    return large_figures(pool.sync, size, whole), problems


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
