"""Clients that append to states which others remove and begin anew, and what they were answered.

Each log has a lineage. What is judged: a command of a log has one index of its own; what is meant
for a log goes to that one or nowhere; and a log that was removed is never appended to again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

from holdfast.errors import (
    ConflictError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.client import Client

NAMES: Final = ("removed/1", "removed/2")
_PAUSE_SECONDS: Final = 0.5
_REFUSED: Final = (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)


@dataclass(frozen=True, slots=True)
class Told:
    """An append that was acknowledged: where the command is in which log."""

    lineage: str
    index: int
    command: str
    meant_for: str | None
    start: float
    end: float


class RemovalLoad:
    """The clients' calls on two states, for as long as they were asked to."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._told: dict[str, list[Told]] = {name: [] for name in NAMES}
        self._removed: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
        self._ids = count(1)

    async def run(self, clients: list[Client], is_over: Callable[[], bool]) -> None:
        """One task of each client, until it ``is_over``."""
        await asyncio.gather(
            *(self._write(client, number, is_over) for number, client in enumerate(clients))
        )

    async def _write(self, client: Client, number: int, is_over: Callable[[], bool]) -> None:
        rng = random.Random(f"{self.seed} removals {number}")  # noqa: S311  (to be repeatable)
        while not is_over():
            name = rng.choice(NAMES)
            is_removal = rng.random() < 0.1
            what = "remove" if is_removal else "append"
            try:
                await (
                    self._remove(client, name) if is_removal else self._append(client, name, rng)
                )
            except _REFUSED as error:
                self.counts[f"{what} {error.code}"] += 1
            except HoldfastError as error:
                self.wrong.append(f"{what} {name}: {error.code}: {error.detail}")
            else:
                self.counts[f"{what} ok"] += 1
            await asyncio.sleep(rng.random() * _PAUSE_SECONDS)

    async def _remove(self, client: Client, name: str) -> None:
        start = time.monotonic()
        if await client.states.remove(name):
            self._removed[name].append((start, time.monotonic()))

    async def _append(self, client: Client, name: str, rng: random.Random) -> None:
        told, command, start = self._told[name], f"{next(self._ids)}", time.monotonic()
        meant_for = rng.choice(told[-8:]).lineage if told and rng.random() < 0.5 else None
        placed = await client.states.append(name, command, lineage=meant_for, ordered=False)
        if placed.lineage is not None:  # else it was found in a log that has ended since
            end = time.monotonic()
            told.append(Told(placed.lineage, placed.index, command, meant_for, start, end))

    def violations(self) -> list[str]:
        """Why the answers cannot have been so."""
        found = list(self.wrong)
        for name, told in self._told.items():
            places = Counter((one.lineage, one.index) for one in told)
            found += [
                f"{name}: {place} was told {many} times"
                for place, many in places.items()
                if many > 1
            ]
            found += [
                f"{name}: meant for another log: {one}"
                for one in told
                if one.meant_for is not None and one.lineage != one.meant_for
            ]
            for start, end in self._removed[name]:
                before = {one.lineage for one in told if one.end < start}
                found += [
                    f"{name}: removed from {start:.3f} to {end:.3f}: {one}"
                    for one in told
                    if one.start > end and one.lineage in before
                ]
        return found
