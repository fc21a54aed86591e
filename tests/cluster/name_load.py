"""Clients that write names at once, and what they were answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tests.name_histories import NameCall

from holdfast.domain.blob_names import Conditions
from holdfast.domain.digest import digest_of
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.name_histories import Outcome, Verb

    from holdfast.client import Client
    from holdfast.protocol.names import NameStored

PAIRS: Final = 4
"""So many pairs of names are written at one time, each of which is renamed to the other."""

CALLS_EACH: Final = 40
"""After so many calls for each pair others take their place."""

STREAMED_BYTES: Final = 1_500_000
_VERBS: Final[tuple[Verb, ...]] = (
    "create",
    "create",
    "replace",
    "replace",
    "copy",
    "rename",
    "delete",
    "read",
    "read",
)


class NameLoad:
    """The clients' calls, on names that others write as well."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.calls: list[NameCall] = []
        self.names: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.stopping = asyncio.Event()

    async def write(self, client: Client, who: str) -> None:
        """One caller, until told to stop."""
        rng = random.Random(f"{self.seed} {who}")  # noqa: S311  (to be repeatable)
        while not self.stopping.is_set():
            await self.call(client, self._next(rng, who), rng)

    def _next(self, rng: random.Random, who: str) -> NameCall:
        generation = len(self.calls) // (CALLS_EACH * PAIRS)
        pair = f"g{generation}/{rng.randrange(PAIRS)}"
        name, source = rng.sample([f"{pair}/a", f"{pair}/b"], 2)
        verb = rng.choice(_VERBS)
        conditions = Conditions()
        if verb in {"replace", "delete"} and rng.random() < 0.4:
            conditions = Conditions(if_version=rng.randint(1, 12))
        elif verb in {"copy", "rename"} and rng.random() < 0.3:
            conditions = Conditions(if_absent=True)
        return NameCall(
            verb=verb,
            name=name,
            source=source if verb in {"copy", "rename"} else None,
            start=time.monotonic(),
            client=who,
            conditions=conditions,
        )

    async def call(self, client: Client, asked: NameCall, rng: random.Random) -> None:
        """Do it, and write down what came of it."""
        self.names.add(asked.name)
        size = STREAMED_BYTES if rng.random() < 0.1 else 100
        data = rng.randbytes(size)
        brings = asked.verb in {"create", "replace"}
        try:
            answered = await self._ask(client, asked, data)
        except ConflictError as error:
            lost: Outcome = "race" if error.version is None else "conflict"
            answered = replace(asked, outcome=lost, version=error.version, note=error.detail)
        except NotFoundError:
            missed: Outcome = "ok" if asked.verb == "read" else "not_found"
            answered = replace(asked, outcome=missed)
        except (UnavailableError, RateLimitedError):
            answered = replace(asked, outcome="unavailable")
        except OutcomeUnknownError:
            answered = replace(asked, digest=digest_of(data) if brings else None)
        except HoldfastError as error:
            self.wrong.append(f"{asked}: {error.code}: {error.detail}")
            return
        self.counts[f"{asked.verb} {answered.outcome}"] += 1
        if answered.outcome != "unknown":
            answered = replace(answered, end=time.monotonic())
        if asked.verb != "read" or answered.outcome == "ok":
            self.calls.append(answered)

    async def _ask(self, client: Client, asked: NameCall, data: bytes) -> NameCall:
        said = asked.conditions
        names = client.names
        match asked.verb:
            case "read":
                digest = digest_of(await names.get(asked.name))
                return replace(asked, outcome="ok", digest=digest)
            case "delete":
                was_there = await names.delete(asked.name, if_version=said.if_version)
                return replace(asked, outcome="ok", verb="delete" if was_there else "read")
            case "create":
                making: Awaitable[NameStored] = names.create(asked.name, data)
            case "replace":
                making = names.replace(asked.name, data, if_version=said.if_version)
            case "copy":
                making = names.copy(asked.name, source=asked.source, if_absent=said.if_absent)
            case _:
                source = asked.source or ""
                making = names.rename(asked.name, source=source, if_absent=said.if_absent)
        made = await making
        return replace(asked, outcome="ok", digest=made.digest, version=made.version)

    async def read_all(self, client: Client) -> None:
        """Read the content of every name in the end: all of it is there."""
        names = sorted(self.names)
        rng = random.Random(0)  # noqa: S311  (not used)

        def reading(name: str) -> NameCall:
            return NameCall(verb="read", name=name, start=time.monotonic(), client="the end")

        for name in names:
            await self.call(client, reading(name), rng)


async def wait_until(condition: Callable[[], Awaitable[bool]], timeout_seconds: float) -> None:
    """Wait for what no event tells of. Raises TimeoutError."""
    async with asyncio.timeout(timeout_seconds):
        while not await condition():  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.5)
