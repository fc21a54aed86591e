"""Clients and workers that take turns as a seed has it, and write down what was answered.

Each call to a store is a turn: of a client's request at some worker, which may be held up for long,
or for ever, or not hear that it has written something. A client that waits in vain asks another
worker. Leases lapse, and blobs that no name needs are removed, between any two turns.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, override

from tests.contracts.blob_store import some_bytes
from tests.name_histories import NameCall
from tests.repository.names.gated import Gate, GatedPool
from tests.repository.pool import PART_BYTES, TYPE, finish, send

from holdfast.deadline import deadline, look_at
from holdfast.domain.blob_names import Conditions, Said
from holdfast.domain.digest import digest_of
from holdfast.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)
from holdfast.repository.targets import NewTarget
from holdfast.repository.uploads.record import Result

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.name_histories import Outcome, Verb
    from tests.repository.names.pool import NamesWorker

    from holdfast.repository.names.record import NameRecord
    from holdfast.repository.targets import Named

NAMES: Final = ("a", "b")
_VERBS: Final[tuple[Verb, ...]] = ("create", "replace", "copy", "rename", "delete", "read")
_TURN_SECONDS: Final = 5.0
"""Longer than anybody waits of himself."""

_ATTEMPTS: Final = 3
_SHARED: Final = 2
"""So many blobs are written again and again."""


class _Jump(selectors.DefaultSelector):
    """Waits no time: says how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.seconds += timeout or 0.0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes as soon as nothing is left to do at the present one."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    @override
    def time(self) -> float:
        """Seconds from its beginning on."""
        return self._jump.seconds


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """One request to one worker."""

    gate: Gate
    task: asyncio.Task[NameCall]
    until: int
    """The turn up to which its client waits for the answer."""
    asleep_until: int = 0
    is_dead: bool = False


@dataclass(slots=True, kw_only=True)
class _Client:
    """One who asks one thing after another."""

    name: str
    left: int
    asked: NameCall | None = None
    data: bytes = b""
    is_streamed: bool = False
    attempts: list[_Attempt] = field(default_factory=list)
    may_be_done: bool = False


class Simulation:
    """One run."""

    def __init__(self, seed: int, *, clients: int, requests: int) -> None:
        """Each of the clients makes so many requests."""
        self._rng = random.Random(seed)  # noqa: S311  (to be repeatable)
        self.pool = GatedPool()
        self._clients = [_Client(name=f"c{n}", left=requests) for n in range(clients)]
        self._alive: list[_Attempt] = []
        self._dead: list[asyncio.Task[NameCall]] = []
        self._turn = 0
        self._workers = 0
        self.calls: list[NameCall] = []
        self.codes: Counter[str] = Counter()
        self.pending: list[NameRecord] = []
        """Names that are pending when all leases have passed."""

    async def run(self) -> None:
        """Take turns until nobody is left who will do anything; then leases lapse."""
        while self._alive or any(client.left or client.asked for client in self._clients):
            self._turn += 1
            self.pool.time.advance(1)
            await self._take_turn()
            await asyncio.sleep(_TURN_SECONDS)
            self._look_at_answers()
        await self._bury()
        for _ in range(2):  # an upload that ends begins the lease of others of its name anew
            await self.pool.lapse()
        await self.pool.look_for_garbage()
        self.pool.collect()
        await self._read_all()
        self.pending = [record for record in await self.pool.name_records() if record.pending]

    async def _bury(self) -> None:
        for task in self._dead:
            task.cancel()
        await asyncio.gather(*self._dead, return_exceptions=True)

    # --- turns ---

    async def _take_turn(self) -> None:
        event = self._rng.random()
        if event < 0.06:
            await self.pool.look_for_garbage()
        elif event < 0.12:
            self.pool.collect()
        elif event < 0.13:
            await self.pool.lapse()
        elif event < 0.3:
            self._ask()
        else:
            self._let_go()

    def _ask(self) -> None:
        idle = [client for client in self._clients if client.left and client.asked is None]
        if idle:
            client = self._rng.choice(idle)
            client.left -= 1
            client.asked, client.is_streamed = self._request(client)
            seed = self._turn if self._rng.random() < 0.6 else -self._rng.randrange(_SHARED)
            client.data = some_bytes(PART_BYTES + 1 if client.is_streamed else 9, seed=seed)
            client.may_be_done = False
            self._attempt(client)

    def _request(self, client: _Client) -> tuple[NameCall, bool]:
        verb = self._rng.choice(_VERBS)
        name, source = self._rng.sample(NAMES, 2)
        conditions = Conditions()
        if verb != "read" and self._rng.random() < 0.3:
            if verb == "copy" or verb == "rename":
                conditions = Conditions(if_absent=self._rng.random() < 0.5)
            elif verb != "create":
                conditions = Conditions(if_version=self._rng.randint(1, 4))
        call = NameCall(
            verb=verb,
            name=name,
            source=source if verb in {"copy", "rename"} else None,
            start=self._turn,
            client=client.name,
            conditions=conditions,
        )
        return call, verb in {"create", "replace"} and self._rng.random() < 0.3

    def _attempt(self, client: _Client) -> None:
        """Ask a worker, perhaps one that will be held up or die."""
        assert client.asked is not None
        self._workers += 1
        gate = Gate()
        worker = self.pool.gated(f"w{self._workers}", gate)
        turns = self._rng.choice((30, 60, 120))
        doing = self._do(worker, client, client.asked, f"{client.name}-{client.left} asked")
        with deadline(turns * _TURN_SECONDS):
            task = asyncio.get_running_loop().create_task(doing)
        task.add_done_callback(look_at)
        attempt = _Attempt(gate=gate, task=task, until=self._turn + turns)
        client.attempts.append(attempt)
        self._alive.append(attempt)

    def _let_go(self) -> None:
        awake = [a for a in self._alive if a.gate.held and a.asleep_until <= self._turn]
        if not awake:
            return
        attempt = self._rng.choice(awake)
        event = self._rng.random()
        if event < 0.03:
            attempt.is_dead = True
        elif event < 0.1:
            attempt.asleep_until = self._turn + self._rng.choice((10, 50, 200))
        else:
            is_heard = self._rng.random() > 0.1
            attempt.gate.let_go(self._rng.randrange(len(attempt.gate.held)), is_heard=is_heard)

    # --- requests and answers ---

    async def _do(
        self, worker: NamesWorker, client: _Client, asked: NameCall, op_id: str
    ) -> NameCall:
        said = Said(type=TYPE, conditions=asked.conditions)
        match asked.verb:
            case "create" | "replace" if client.is_streamed:
                new = NewTarget(name=asked.name, verb=asked.verb, said=said)
                return await self._stream(worker, client.data, asked, new, op_id)
            case "create":
                making = worker.create(asked.name, client.data, op_id=op_id, said=said)
            case "replace":
                making = worker.replace(asked.name, client.data, op_id=op_id, said=said)
            case "copy":
                making = worker.names.copy(
                    asked.name,
                    source=asked.source,
                    version=None,
                    digest=None,
                    conditions=asked.conditions,
                    op_id=op_id,
                )
            case "rename":
                making = worker.names.rename(
                    asked.name, asked.source or "", conditions=asked.conditions, op_id=op_id
                )
            case "delete":
                return await self._delete(worker, asked, op_id)
            case _:
                return await self._read(worker, asked)
        return await self._answered(making, asked)

    async def _answered(self, making: Awaitable[Named], asked: NameCall) -> NameCall:
        made = await making
        return replace(asked, outcome="ok", digest=made.digest, version=made.version)

    async def _delete(self, worker: NamesWorker, asked: NameCall, op_id: str) -> NameCall:
        was_there = await worker.names.delete(asked.name, conditions=asked.conditions, op_id=op_id)
        return replace(asked, outcome="ok", verb="delete" if was_there else "read")

    async def _read(self, worker: NamesWorker, asked: NameCall) -> NameCall:
        digest, found, content = await worker.names.read(asked.name)
        assert found is not None
        assert digest_of(content.data) == digest
        return replace(asked, outcome="ok", digest=digest, version=found.version)

    async def _stream(
        self, worker: NamesWorker, data: bytes, asked: NameCall, new: NewTarget, op_id: str
    ) -> NameCall:
        uploads = worker.uploads
        try:
            state = await uploads.open(size=None, digest=None, type=TYPE, op_id=op_id, new=new)
            if not isinstance(state, Result):
                await send(uploads, state.upload, data, start=state.next_part)
                state = await finish(uploads, state.upload, data)
        except NotFoundError as error:
            if "no such upload" in error.detail:  # it was given up meanwhile
                raise OutcomeUnknownError from error
            raise
        return replace(asked, outcome="ok", digest=state.digest, version=state.version)

    def _look_at_answers(self) -> None:
        for attempt in [*self._alive]:
            if attempt.task.done() or attempt.is_dead:
                self._alive.remove(attempt)
                self._dead.append(attempt.task)
        for client in self._clients:
            if client.asked is None:
                continue
            attempt = client.attempts[-1]
            if attempt.task.done():
                self._take_answer(client, client.asked, attempt.task)
            elif self._turn >= attempt.until:
                client.may_be_done = True
                self._repeat(client, client.asked)

    def _take_answer(self, client: _Client, asked: NameCall, task: asyncio.Task[NameCall]) -> None:
        try:
            self._end(client, task.result())
        except NotFoundError:
            outcome: Outcome = "ok" if asked.verb == "read" else "not_found"
            self._end(client, replace(asked, outcome=outcome))
        except ConflictError as error:
            if error.version is None and client.is_streamed:  # another worker has the upload
                client.may_be_done = True
                self._repeat(client, asked)
                return
            lost: Outcome = "race" if error.version is None else "conflict"
            self._end(
                client, replace(asked, outcome=lost, version=error.version, note=error.detail)
            )
        except (UnavailableError, RateLimitedError, OutcomeUnknownError) as error:
            client.may_be_done |= isinstance(error, OutcomeUnknownError)
            self._repeat(client, asked)

    def _repeat(self, client: _Client, asked: NameCall) -> None:
        if len(client.attempts) < _ATTEMPTS:
            self._attempt(client)
            return
        digest = None if asked.source is not None else digest_of(client.data)
        outcome: Outcome = "unknown" if client.may_be_done else "unavailable"
        self._end(client, replace(asked, outcome=outcome, digest=digest))

    def _end(self, client: _Client, answered: NameCall) -> None:
        client.asked, client.attempts = None, []
        if answered.verb == "read" and answered.outcome != "ok":
            return
        if answered.outcome != "unknown":
            answered = replace(answered, end=self._turn + 0.5)
        self.codes[f"{answered.verb} {answered.outcome}"] += 1
        self.calls.append(answered)

    async def _read_all(self) -> None:
        """Read every name in the end."""
        for name in NAMES:
            self._turn += 1
            asked = NameCall(verb="read", name=name, start=self._turn, end=self._turn + 0.5)
            asked = replace(asked, outcome="ok", client="the end")
            try:
                self.calls.append(await self._read(self.pool.worker("z"), asked))
            except NotFoundError:
                self.calls.append(asked)


def run(simulation: Simulation) -> None:
    """Run it, in no time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(simulation.run())
