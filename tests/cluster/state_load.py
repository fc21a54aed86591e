"""Clients that append to states, save, trim and read them at once, and what they were answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Final

from tests.state_histories import Seen, StateCall

from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from tests.state_histories import StateVerb

    from holdfast.client import Client
    from holdfast.client.states.values import LogCommand
    from holdfast.protocol.states import ExpectedIndex

STATES: Final = 4
"""So many are written at one time."""

CALLS_EACH: Final = 400
"""After so many calls for each of them others take their place."""

TASKS: Final = 4
"""Of each client: what they append to one state goes together."""

_SHARES: Final[dict[StateVerb, int]] = {"append": 12, "look": 3, "latest": 3, "save": 2, "trim": 1}
_RETRY_SECONDS: Final = 0.2


class StateLoad:
    """The clients' calls, on states that others write as well, until there are ``calls``."""

    def __init__(self, seed: int, calls: int) -> None:
        self.seed = seed
        self.wanted = calls
        self.calls: list[StateCall] = []
        self.seen: dict[str, Seen] = defaultdict(Seen)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._ids = count(1)
        self._ends: dict[str, int] = defaultdict(int)
        self._saved: dict[str, int] = defaultdict(int)
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._followed: dict[str, int] = defaultdict(int)
        """Up to there all that is in the log was looked at. Writers note what is theirs sooner."""
        self._newest_hlc: str | None = None
        """Of all logs: what is appended next, to whichever, comes after it."""

    @property
    def is_over(self) -> bool:
        """Whether there were as many calls as are wanted."""
        return len(self.calls) >= self.wanted

    async def run(self, clients: list[Client]) -> None:
        """All clients at once; the first one follows the logs besides."""
        await asyncio.gather(
            *(
                self._write(client, clients[0], f"c{number}.{task}")
                for number, client in enumerate(clients)
                for task in range(TASKS)
            )
        )

    async def read_all(self, client: Client) -> None:
        """Until all that is in each log was seen."""
        for name in sorted(self._followers):
            page = await client.states.page(name, await client.states.first_index(name), limit=1)
            while self._looked_at(name) < page.last_index:  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(_RETRY_SECONDS)
            self._followers[name].cancel()
            with suppress(asyncio.CancelledError):
                await self._followers[name]

    def _looked_at(self, name: str) -> int:
        """How far the log was followed. Raises what ended its follower."""
        if self._followers[name].done():
            self._followers[name].result()
        return self._followed[name]

    async def _write(self, client: Client, follower: Client, who: str) -> None:
        rng = random.Random(f"{self.seed} {who}")  # noqa: S311  (to be repeatable)
        while not self.is_over:
            generation = len(self.calls) // (CALLS_EACH * STATES)
            name = f"g{generation}/s{rng.randrange(STATES)}"
            [verb] = rng.choices([*_SHARES], [*_SHARES.values()])
            if not self._ends[name] and verb != "append":
                continue
            await self._call(client, self._next(rng, name, verb, who))
            if name not in self._followers and self._ends[name]:
                following = asyncio.create_task(self._follow(follower, name))
                self._followers[name] = following

    def _next(self, rng: random.Random, name: str, verb: StateVerb, who: str) -> StateCall:
        call = StateCall(verb=verb, name=name, start=time.monotonic(), client=who)
        end, saved = self._ends[name], self._saved[name]
        match verb:
            case "append":
                many = 3 if rng.random() < 0.1 else 1
                commands = tuple(f"{who} {next(self._ids)}" for _ in range(many))
                expects = rng.random() < 0.2
                return replace(call, commands=commands, asked=end if expects and end else None)
            case "save":
                return replace(call, asked=rng.randint(max(saved - 2, 1), end))
            case "trim":
                return replace(call, asked=min(max(saved - rng.randint(-2, 20), 1), end))
            case _:
                return call

    async def _call(self, client: Client, asked: StateCall) -> None:
        """Do it, and write down what came of it."""
        try:
            answered = await self._ask(client, asked)
        except ConflictError as error:
            told = "race" if error.index is None else "conflict"
            answered = replace(asked, outcome=told, index=error.index)  # type: ignore[arg-type]
        except InvalidError as error:
            if asked.verb != "save":
                self.wrong.append(f"{asked}: {error.detail}")
                return
            answered = replace(asked, outcome="invalid")
        except (UnavailableError, RateLimitedError):
            answered = replace(asked, outcome="unavailable")
        except OutcomeUnknownError:
            answered = asked
        except HoldfastError as error:
            self.wrong.append(f"{asked}: {error.code}: {error.detail}")
            return
        self.counts[f"{asked.verb} {answered.outcome}"] += 1
        if answered.outcome != "unknown":
            answered = replace(answered, end=time.monotonic())
        if not (answered.outcome == "unknown" and answered.verb in {"look", "latest"}):
            self.calls.append(answered)

    async def _ask(self, client: Client, asked: StateCall) -> StateCall:
        states, name = client.states, asked.name
        done = replace(asked, outcome="ok")
        match asked.verb:
            case "append":
                return await self._append(client, done)
            case "look":
                return replace(done, index=await self._last_index(client, name))
            case "latest":
                try:
                    record = await states.record(name)
                except NotFoundError:
                    return done
                return replace(done, number=record.number, index=record.last_applied_index)
            case "save":
                saved = await states.save(
                    name, {"at": asked.asked}, last_applied_index=asked.asked or 0
                )
                self._saved[name] = max(self._saved[name], saved.last_applied_index)
                return replace(done, number=saved.number)
            case _:
                trimmed = await states.trim(name, asked.asked or 0)
                return replace(done, index=trimmed.trimmed_through)

    async def _last_index(self, client: Client, name: str) -> int:
        """The last command of the log."""
        index = self._ends[name] + 1
        while True:
            try:
                return (await client.states.page(name, index, limit=1)).last_index
            except NotFoundError as error:  # trimmed meanwhile
                if error.index is None:
                    raise
                index = error.index

    async def _append(self, client: Client, asked: StateCall) -> StateCall:
        expected: ExpectedIndex = "any" if asked.asked is None else asked.asked
        states, name, hlc = client.states, asked.name, self._newest_hlc
        if len(asked.commands) > 1:
            placed = await states.append_many(
                name, asked.commands, expected_index=expected, hlc=hlc
            )
        else:
            command = asked.commands[0]
            placed = [await states.append(name, command, expected_index=expected, hlc=hlc)]
        if hlc is not None and placed[0].hlc <= hlc:
            self.wrong.append(f"{asked} came at {placed[0].hlc}, and not after {hlc}")
        self._newest_hlc = max(self._newest_hlc or "", placed[-1].hlc)
        indexes = [position.index for position in placed]
        if indexes != [*range(indexes[0], indexes[0] + len(asked.commands))]:
            self.wrong.append(f"{asked} was answered {indexes}")
        for position, command in zip(placed, asked.commands, strict=True):
            self.seen[name].note(position.index, command, position.hlc)
        self._ends[name] = max(self._ends[name], indexes[-1])
        return replace(asked, index=indexes[0])

    async def _follow(self, client: Client, name: str) -> None:
        """Look at every command, for ever; what is trimmed before it is seen is missed."""
        while True:
            try:
                async for one in client.states.follow(name, self._followed[name] + 1):
                    self._see(name, one, self._followed[name] + 1)
                    self._followed[name] = one.index
            except NotFoundError as error:
                if error.index is not None:
                    self.seen[name].missed |= {*range(self._followed[name] + 1, error.index)}
                    self._followed[name] = error.index - 1
            except (UnavailableError, OutcomeUnknownError):
                pass
            await asyncio.sleep(_RETRY_SECONDS)

    def _see(self, name: str, one: LogCommand, expected: int) -> None:
        if one.index != expected:
            self.wrong.append(f"{name}: command {one.index} was told instead of {expected}")
        self.seen[name].note(one.index, one.command, one.hlc)
