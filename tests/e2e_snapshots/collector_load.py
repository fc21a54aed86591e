"""Callers of everything that a collection looks at, and what each may find by what it was told."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

from nats.errors import NoRespondersError
from tests.e2e_snapshots.site import RefusedError
from tests.e2e_snapshots.trees import contents

from holdfast.domain.digest import digest_of
from holdfast.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from tests.e2e_snapshots.site import Site

    from holdfast.client.client import Client

MANY: Final = 16
FEW: Final = 3
SNAPSHOTS: Final = 6
"""While there are more of these, some are deleted."""

_SIZES: Final = (10, 2000, 5000, 60_000, 700_000, 1_500_000)
_UPLOAD_BYTES: Final = 3_000_000
_BLOCK_BYTES: Final = 300_000
_COLLECT_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.1

type Outcome = Literal["done", "not done", "unknown"]


class GivenUpError(Exception):
    """Of an upload whose sender sends no more."""


class Load:
    """The calls, and their answers.

    A name or a state has one of the bytes that are noted for it; None: there is none.
    """

    def __init__(self, site: Site, client: Client, chance: random.Random) -> None:
        self.site = site
        self.client = client
        self.chance = chance
        self.told: Counter[str] = Counter()
        self.names: dict[str, set[bytes | None]] = {}
        self.states: dict[str, set[bytes | None]] = {}
        self.pinned: list[str] = []
        self.deleted: list[str] = []
        self.snapshots: dict[str, dict[bytes, str]] = {}
        self.contents = [chance.randbytes(size) for size in _SIZES]
        self.is_over = False

    def tasks(self, nodes: Sequence[str]) -> list[Coroutine[None, None, None]]:
        """Eight writers, two who delete what others wrote, and two who collect."""
        return [
            *(self.write_snapshots(node) for node in nodes),
            *(self.write_names(number) for number in range(2)),
            self.put_blobs(),
            self.upload(),
            self.write_states(),
            self.delete_snapshots(),
            self.delete_blobs(),
            self.collect(),
            self.collect(),
        ]

    async def outcome(self, verb: str, doing: Awaitable[object]) -> Outcome:
        """How it ended, which is counted."""
        outcome: Outcome = "done"
        code = "ok"
        try:
            await doing
        except OutcomeUnknownError as error:
            outcome, code = "unknown", error.code
        except (ConflictError, NotFoundError, UnavailableError, RateLimitedError) as error:
            outcome, code = "not done", error.code
        self.told[f"{verb}: {code}"] += 1
        return outcome

    async def pause(self) -> None:
        """A moment for others."""
        await asyncio.sleep(self.chance.random() * _PAUSE_SECONDS)

    # --- names ---

    async def write_names(self, number: int) -> None:
        """Names of this task's own, whose bytes other tasks' names have, too."""
        while not self.is_over:
            name, source = (f"t{number}/{self.chance.randrange(3)}" for _ in range(2))
            await self._change_name(name, source)
            await self.check_name(name)
            await self.pause()

    async def _change_name(self, name: str, source: str) -> None:
        names, data = self.client.names, self.chance.choice(self.contents)
        had = self.names.setdefault(name, {None})
        new: set[bytes | None] = {data}
        verb = self.chance.choice(("create", "replace", "copy", "delete"))
        doing: Awaitable[object]
        match verb:
            case "create":
                doing = names.create(name, data)
            case "copy" if name != source:
                doing, new = names.copy(name, source=source), self.names.get(source, had) - {None}
            case "delete":
                doing, new = names.delete(name), {None}
            case _:
                doing = names.replace(name, data)
        outcome = await self.outcome(f"{verb} name", doing)
        self.names[name] = _after(had, new, outcome)

    async def check_name(self, name: str) -> None:
        """It has what it may have by what was told."""
        found = await self._found(lambda: self.client.names.get(name))
        assert found is _NOBODY_KNOWS or found in self.names[name], f"{name} has {_head(found)}"

    async def _found(self, read: Callable[[], Awaitable[object]]) -> object:
        """The bytes that are there; None: there are none."""
        try:
            return bytes(await read())  # type: ignore[call-overload]
        except NotFoundError:
            return None
        except UnavailableError:
            return _NOBODY_KNOWS

    # --- states ---

    async def write_states(self) -> None:
        """Append to states and save them; small saves lie in a message, others are blobs."""
        for name in ("s/0", "s/1"):
            self.states[name] = {None}
        while not self.is_over:
            name = self.chance.choice([*self.states])
            if self.chance.random() < 0.1:
                await self._remove_state(name)
            else:
                await self._save_state(name)
            await self.check_state(name)
            await self.pause()

    async def _save_state(self, name: str) -> None:
        states = self.client.states
        try:
            position = await states.append(name, {"number": self.chance.randrange(1000)})
        except (OutcomeUnknownError, UnavailableError, RateLimitedError) as error:
            self.told[f"append: {error.code}"] += 1
            return
        data = self.chance.randbytes(self.chance.choice(_SIZES))
        saving = states.save(name, data, last_applied_index=position.index)
        outcome = await self.outcome("save", saving)
        self.states[name] = _after(self.states[name], {data}, outcome)

    async def _remove_state(self, name: str) -> None:
        outcome = await self.outcome("remove state", self.client.states.remove(name))
        self.states[name] = _after(self.states[name], {None}, outcome)

    async def check_state(self, name: str) -> None:
        """Its newest save has what it may have by what was told."""
        found = await self._found(lambda: self._newest(name))
        assert found is _NOBODY_KNOWS or found in self.states[name], f"{name} has {_head(found)}"

    async def _newest(self, name: str) -> object:
        saved = await self.client.states.latest(name)
        assert saved is not None
        assert not saved.fell_back, f"{name}: newer saves are damaged"
        return saved.state

    # --- blobs ---

    async def put_blobs(self) -> None:
        """Plain puts, of bytes that nobody else has."""
        while not self.is_over:
            data = self.chance.randbytes(self.chance.choice((100, 3000, 90_000, 900_000)))
            if await self.outcome("put", self.client.put(data)) == "done":
                self.pinned.append(digest_of(data))
            await self.pause()

    async def upload(self) -> None:
        """Puts in parts that take their time. One in five is given up in the middle."""
        while not self.is_over:
            data = self.chance.randbytes(_UPLOAD_BYTES)
            is_given_up = self.chance.random() < 0.2
            try:
                put = self.client.put(self._blocks(data, is_given_up=is_given_up))
                if await self.outcome("upload", put) == "done":
                    self.pinned.append(digest_of(data))
            except GivenUpError:
                self.told["upload: given up"] += 1

    async def _blocks(self, data: bytes, *, is_given_up: bool) -> AsyncIterator[bytes]:
        for start in range(0, len(data), _BLOCK_BYTES):
            if is_given_up and start > len(data) // 2:
                raise GivenUpError
            yield data[start : start + _BLOCK_BYTES]
            await self.pause()

    async def delete_blobs(self) -> None:
        """Delete by the digest what is pinned, and what is kept for names alone, which have it."""
        while not self.is_over:
            await self.pause()
            if not self.pinned or self.chance.random() < 0.3:
                digest = digest_of(self.chance.choice(self.contents))
                await self.outcome("delete of a name's", self.client.delete(digest))
                continue
            pinned = self.pinned.pop(self.chance.randrange(len(self.pinned)))
            outcome = await self.outcome("delete blob", self.client.delete(pinned))
            if outcome == "done":
                self.deleted.append(pinned)
            elif outcome == "not done":
                self.pinned.append(pinned)

    # --- snapshots ---

    def change(self, app: Path, count: int) -> dict[bytes, str]:
        """One file gets bytes that others have, and so many small ones bytes of their own.

        These share a pack, of which soon nothing but a part is needed. Returns what the app has.
        """
        (app / str(self.chance.randrange(4))).write_bytes(self.chance.choice(self.contents[1:]) * 2)
        for number in self.chance.sample(range(MANY), count):
            (app / f"small{number}").write_bytes(self.chance.randbytes(6000))
        return contents(app)

    async def write_snapshots(self, node: str) -> None:
        """Snapshots of a node's app, whose files other nodes' apps have, too."""
        app = f"app-{node}"
        count = MANY
        while not self.is_over:
            tree = await asyncio.to_thread(self.change, self.site.apps / node / app, count)
            count = FEW
            with suppress(RefusedError, TimeoutError, NoRespondersError):
                record = await self._asked("snapshot", self.site.create(app))
                if record["state"] == "ok":
                    found = await self._asked("verify", self.site.verified(record["key"]))
                    assert found["damaged"] == [], record
                    self.snapshots[record["key"]] = tree
            await self.pause()

    async def delete_snapshots(self) -> None:
        """Delete some while others are made of what is changed in them."""
        while not self.is_over:
            await self.pause()
            if len(self.snapshots) > SNAPSHOTS:
                key = self.chance.choice([*self.snapshots])
                del self.snapshots[key]
                with suppress(RefusedError, TimeoutError, NoRespondersError):
                    await self._asked("delete snapshot", self.site.ask("snapshot.delete", key=key))

    async def _asked[T](self, verb: str, doing: Awaitable[T]) -> T:
        """Ask; the answer. How it ended is counted."""
        code = "ok"
        try:
            return await doing
        except RefusedError as error:
            code = error.code
            raise
        except (TimeoutError, NoRespondersError) as error:
            code = type(error).__name__
            raise
        finally:
            self.told[f"{verb}: {code}"] += 1

    # --- collections ---

    async def collect(self) -> None:
        """Ask for collections beside those that workers do by themselves."""
        while not self.is_over:
            with suppress(UnavailableError, TimeoutError):  # who was asked may have been killed
                async with asyncio.timeout(_COLLECT_SECONDS):
                    report = await self.client.collect()
                for space in report.spaces:
                    self.told["collected"] += space.removed
                    self.told["repacked"] += space.repacked
                    self.told["orphan copies"] += space.orphans
            await self.pause()


_NOBODY_KNOWS: Final = object()


def _head(found: object) -> object:
    return found[:8] if isinstance(found, bytes) else found


def _after(had: set[bytes | None], new: set[bytes | None], outcome: Outcome) -> set[bytes | None]:
    """The values that may be there after a change to one of ``new`` that ended so."""
    return {"done": new, "not done": had, "unknown": had | new}[outcome]
