"""Watchers and writers of names, for tests in which something goes wrong meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import aclosing
from typing import TYPE_CHECKING

from holdfast.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.client import Client
    from holdfast.protocol.watch import WatchEvent, WatchKind

SECONDS = 60.0


def types(events: list[WatchEvent]) -> list[str]:
    return [event.type.removeprefix("holdfast.") for event in events]


class Watcher:
    """Takes what is told, in a task of its own."""

    def __init__(self, client: Client, kind: WatchKind, since: int, prefix: str = "") -> None:
        self.had: list[WatchEvent] = []
        self.prefix = prefix
        self.task = asyncio.create_task(self._take(client, kind, since, prefix))
        self._news = asyncio.Event()

    async def _take(self, client: Client, kind: WatchKind, since: int, prefix: str) -> None:
        async with aclosing(client.watch(kind, since=since, prefix=prefix)) as events:
            async for event in events:
                self.had.append(event)
                self._news.set()

    async def wait_for(self, count: int) -> list[WatchEvent]:
        """The events, once there are ``count``."""
        async with asyncio.timeout(SECONDS):
            while len(self.had) < count:
                assert not self.task.done(), self.task.exception()
                self._news.clear()
                await self._news.wait()
        return self.had

    async def wait_for_type(self, type_: str) -> None:
        """Until an event of that type has come."""
        while type_ not in types(self.had):
            await self.wait_for(len(self.had) + 1)

    async def wait_for_last(self, count: int) -> None:
        """Until ``count`` steps of names called last have come."""
        while sum(event.subject.endswith("/last") for event in self.had) < count:
            await self.wait_for(len(self.had) + 1)

    async def stop(self) -> None:
        """Watch no more."""
        self.task.cancel()
        await asyncio.wait([self.task])


async def write_until(client: Client, stop: asyncio.Event, names: list[str]) -> None:
    """Create, replace and delete some names until told to stop.

    Each takes fewer steps than its record keeps while a dead worker is waited for.
    """
    rng = random.Random(1)  # noqa: S311  (test data, not secrets)
    while not stop.is_set():
        name = rng.choice(names)
        try:
            if rng.random() < 0.2:
                await client.names.delete(name)
            else:
                await client.names.put(name, rng.randbytes(8))
        except (ConflictError, NotFoundError):
            pass  # there is none
        await asyncio.sleep(0.01)


async def check_complete(client: Client, watchers: Sequence[Watcher]) -> None:
    """All had the same steps of each name, in order, up to the last that its history has.

    The first watches all of them.
    """
    told = steps_of(watchers[0])
    for name in told:
        history = await client.names.history(name)
        kept = [step.at for step in reversed(history.transitions)]
        ours = [event.time for event in watchers[0].had if event.subject == name]
        assert ours[-len(kept) :] == kept
    for watcher in watchers:
        had = steps_of(watcher)
        assert had == {n: steps for n, steps in told.items() if n.startswith(watcher.prefix)}
        assert all(steps == sorted(set(steps)) for steps in had.values())
        assert not any("missed" in event.data for event in watcher.had)


def steps_of(watcher: Watcher) -> dict[str, list[str]]:
    """The sequences of the events of each name, as they came."""
    had: dict[str, list[str]] = defaultdict(list)
    for event in watcher.had:
        had[event.subject].append(event.sequence)
    return had
