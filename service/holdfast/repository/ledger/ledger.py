"""Typed records that change by compare-and-set, and end once.

A change is a pure function of the record. Where another writer was first it is asked again, of the
record as it is then. A write whose outcome is not known is sent again as it is, until it is
acknowledged or refused: one that was late is refused itself by then. If it was refused, and is what
is there, it was applied. If it was refused and something else is there, the change is asked again:
so it must bear to meet a record that it was applied to before. A missing record tells nothing.

Why: docs/decisions.md, "A change of a record is a function, and is asked again".
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec
import structlog

from holdfast.deadline import seconds_left
from holdfast.errors import (
    ConflictError,
    CorruptError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.stores.record_ports import MAX_GET_MANY, Change, Delete, Put, Record
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from holdfast.stores.record_ports import Changed, RecordStore

SETTLE_SECONDS: Final = 120.0
"""Seconds a write is sent again, if no deadline comes before. A job's end must outlast what its
store's servers need to come back."""

FIRST_WAIT_SECONDS: Final = 0.05
LONGEST_WAIT_SECONDS: Final = 4.0
MAX_OVERTAKEN: Final = 8
"""Attempts before a change that others overtake is given up."""

PRESENT: Final = b"1"
"""The value of a key that finds a record."""

_TOO_LATE: Final = "the request's time was over before the store was asked to write"
RecordT = TypeVar("RecordT", bound=msgspec.Struct)
FenceT = TypeVar("FenceT", bound=msgspec.Struct)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordKind(Generic[RecordT]):
    """One kind of record, as the ledger knows it; each record has a name of its own.

    It lies under ``prefix`` and its name. ``finders`` are keys that are there for as long as it is.
    With ``live_prefix`` one below that says that it is live; without, all of a kind are looked at.
    ``name`` is what a record says of itself, if it does: one that lies elsewhere is unreadable.
    ``renewed`` gives a live record at its next beat. With ``ttl`` it goes away by itself. Programs
    that read the bucket themselves take one that ``is_grave`` for deleted. ``located`` is a record
    that knows at which revision it was written. A change of one is given up when others were first
    ``overtaken`` times.
    """

    noun: str
    form: type[RecordT]
    prefix: str
    live_prefix: str = ""
    is_live: Callable[[RecordT], bool] = lambda _record: True
    renewed: Callable[[RecordT], RecordT] = lambda record: record
    name: Callable[[RecordT], str] | None = None
    finders: Callable[[RecordT], Sequence[str]] = lambda _record: ()
    ttl: Callable[[RecordT], timedelta | None] = lambda _record: None
    is_grave: Callable[[RecordT], bool] = lambda _record: False
    located: Callable[[RecordT, int], RecordT] = lambda record, _revision: record
    overtaken: int = MAX_OVERTAKEN

    def key(self, name: str) -> str:
        """The key of a record."""
        return f"{self.prefix}.{name}"

    def lies_at(self, key: str) -> bool:
        """Whether a record of this kind may lie at ``key``, and none of another kind."""
        return key.startswith(f"{self.prefix}.")

    def name_at(self, key: str) -> str:
        """The name of the record that lies at ``key``."""
        return key.removeprefix(f"{self.prefix}.")

    def live_key(self, name: str) -> str:
        """The key that says that a record is live."""
        return f"{self.live_prefix}.{name}"

    def read(self, found: Record) -> Held[RecordT]:
        """Raises CorruptError."""
        try:
            record = msgspec.json.decode(found.value, type=self.form)
        except msgspec.MsgspecError as error:
            raise CorruptError("the record is unreadable") from error
        name = self.name_at(found.key)
        if self.name is not None and self.name(record) != name:
            raise CorruptError("the record is another's")
        return self.held(name, record, found.revision)

    def of(self, found: Record | Changed) -> Held[RecordT] | None:
        """As `read`; None of another kind's record, and of a removal. Raises CorruptError."""
        if found.value is None or not self.lies_at(found.key):
            return None
        return self.read(Record(key=found.key, value=found.value, revision=found.revision))

    def held(self, name: str, record: RecordT, revision: int) -> Held[RecordT]:
        """``record`` as it was read or written."""
        return Held(self, name, self.located(record, revision), revision)


@dataclass(frozen=True, slots=True)
class Held(Generic[RecordT]):
    """A record as it was read or written."""

    kind: RecordKind[RecordT]
    name: str
    record: RecordT
    revision: int

    @property
    def key(self) -> str:
        """The record's key."""
        return self.kind.key(self.name)

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.kind.is_live(self.record)

    def check_live(self) -> None:
        """Raises ConflictError when it has ended."""
        if not self.is_live:
            raise ConflictError(f"the {self.kind.noun} has ended")


Beside = Callable[[Held[RecordT] | None, Held[RecordT]], Awaitable[Sequence[Change]]]
"""Further writes, given a record as it is (None: there is none) and as it is to be."""


class Ledger:
    """The records of one bucket, of all kinds."""

    def __init__(self, records: RecordStore) -> None:
        """The store of that bucket."""
        self._records = records

    async def get(
        self, kind: RecordKind[RecordT], name: str, *, sure: bool = False
    ) -> Held[RecordT]:
        """The record, ``sure`` as in `RecordStore.get`. Raises NotFoundError, CorruptError."""
        try:
            return kind.read(await self._records.get(kind.key(name), sure=sure))
        except NotFoundError as error:
            raise NotFoundError(f"no such {kind.noun}") from error

    async def find(self, kind: RecordKind[RecordT], name: str) -> Held[RecordT] | None:
        """As `get`; None where there is no such record."""
        try:
            return await self.get(kind, name)
        except NotFoundError:
            return None

    async def reread(self, held: Held[RecordT]) -> Held[RecordT]:
        """The record as it is now. Raises ConflictError when it was removed, CorruptError."""
        try:
            return await self.get(held.kind, held.name)
        except NotFoundError as error:
            raise ConflictError(f"the {held.kind.noun} was removed") from error

    async def written_at(self, held: Held[RecordT]) -> datetime:
        """When ``held`` was written, by the store's clock. Raises ConflictError: changed since."""
        page = await self._records.changes(held.revision - 1, limit=1)
        if not page.changes or page.changes[0].revision != held.revision:
            raise ConflictError(_overtaken(held))
        return page.changes[0].at

    async def get_many(
        self, kind: RecordKind[RecordT], names: Sequence[str]
    ) -> tuple[dict[str, Held[RecordT]], list[str]]:
        """The records that are there, by their names, and the names of those that are unreadable.

        As in `RecordStore.get_many` one may be as it was a moment ago.
        """
        found, unreadable = {}, []
        for some in batched(names, MAX_GET_MANY):
            for record in await self._records.get_many([kind.key(name) for name in some]):
                try:
                    held = kind.read(record)
                    found[held.name] = held
                except CorruptError:  # one bad record must not hide the others
                    unreadable.append(kind.name_at(record.key))
        return found, unreadable

    async def live(self, kind: RecordKind[RecordT]) -> AsyncIterator[Held[RecordT]]:
        """Every live record that can be read; one that cannot hides no other."""
        async for record in self._perhaps_live(kind):
            try:
                held = kind.read(record)
            except CorruptError:
                log.warning("record_unreadable", key=record.key)
                continue
            if held.is_live:
                yield held

    async def _perhaps_live(self, kind: RecordKind[RecordT]) -> AsyncIterator[Record]:
        # Not listed with their values: a store need not go on behind one that it cannot read.
        if kind.live_prefix:
            keys = [kind.key(".".join(tail)) for tail in await self.tails(kind.live_prefix)]
        else:
            keys = await self._records.list_keys(kind.prefix)
        for some in batched(keys, MAX_GET_MANY):
            for record in await self._records.get_many(some):
                yield record

    async def tails(self, prefix: str) -> list[list[str]]:
        """The tokens after ``prefix`` of every key that starts with it."""
        skip = len(prefix) + 1
        return [key[skip:].split(".") for key in await self._records.list_keys(prefix)]

    async def begin(self, kind: RecordKind[RecordT], name: str, record: RecordT) -> Held[RecordT]:
        """Write a new record and all that finds it, in one step.

        Raises ConflictError when there is one, UnavailableError, OutcomeUnknownError.
        """
        held = Held(kind, name, record, 0)
        finders = [*kind.finders(record)]
        if kind.live_prefix and held.is_live:
            finders.insert(0, kind.live_key(name))
        return await self._settle(
            held, [Put(key=key, value=PRESENT, expected=0) for key in finders]
        )

    async def update(
        self,
        held: Held[RecordT],
        change: Callable[[RecordT], RecordT],
        *,
        beside: Beside[RecordT] | None = None,
        is_patient: bool = False,
    ) -> Held[RecordT]:
        """The record as ``change`` makes it. One that it returns as it got it is unchanged.

        ``change`` is a pure function, may be asked several times, and raises what refuses. One that
        has ended is changed no more; a change to that state ends it. ``beside`` is awaited before
        each write, with the record as it is and as it is to be: it gives the rest of that batch.
        ``is_patient``: a write that surely was not made is sent again, too. Raises
        ConflictError when the record has ended, was removed or kept changing, UnavailableError,
        OutcomeUnknownError.
        """
        return await self._update(held, change, beside, is_patient=is_patient, is_known=True)

    async def amend(
        self, held: Held[RecordT], change: Callable[[RecordT], RecordT]
    ) -> Held[RecordT]:
        """As `update`, of a record that may have ended; ``change`` neither ends nor revives it."""
        return await self._update(held, change, None, is_known=True, is_amended=True)

    async def make(
        self,
        kind: RecordKind[RecordT],
        name: str,
        change: Callable[[RecordT | None], RecordT],
        *,
        beside: Beside[RecordT] | None = None,
    ) -> Held[RecordT]:
        """As `update`, of a record that is believed not to be there; ``change`` is given None then.

        A record of that kind is never removed.
        """
        first = Held(kind, name, change(None), 0)
        is_known = True
        try:
            return await self._settle(first, [] if beside is None else await beside(None, first))
        except ConflictError as conflict:
            is_known = not isinstance(conflict, _OverwrittenError)
        present = await self.reread(first)
        return await self._update(present, change, beside, is_known=is_known)

    async def _update(
        self,
        held: Held[RecordT],
        change: Callable[[RecordT], RecordT],
        beside: Beside[RecordT] | None,
        *,
        is_patient: bool = False,
        is_known: bool,
        is_amended: bool = False,
    ) -> Held[RecordT]:
        """See `update`, `amend`. ``is_known``: nothing that was tried before may be applied."""
        for _ in range(held.kind.overtaken):
            try:
                if not is_amended:
                    held.check_live()
                record = change(held.record)
                if record is held.record:
                    return held
                wanted = Held(held.kind, held.name, record, held.revision)
                ends = held.is_live and not wanted.is_live
                others = _unmark(held.kind, held.name) if ends else []
                if beside is not None:
                    others = [*others, *await beside(held, wanted)]
                try:
                    return await self._settle(wanted, others, is_patient=is_patient)
                except ConflictError as conflict:
                    is_known = is_known and not isinstance(conflict, _OverwrittenError)
                    held = await self.reread(held)
            except UnavailableError as error:
                if is_known:
                    raise
                raise OutcomeUnknownError(_unheard(held)) from error
        raise ConflictError(_overtaken(held))

    async def take(
        self, held: Held[RecordT], change: Callable[[RecordT], RecordT]
    ) -> Held[RecordT]:
        """As `update`, but of the record as it is in ``held``, else ConflictError.

        For a worker that takes it from another, or ends it for another that may have carried it on.
        """

        def unless_changed(record: RecordT) -> RecordT:
            if record != held.record:
                raise ConflictError(f"the {held.kind.noun} has changed")
            return change(record)

        return await self.update(held, unless_changed)

    async def replace(
        self, kind: RecordKind[RecordT], name: str, wanted: RecordT, *, expected: int | None
    ) -> Held[RecordT]:
        """Have the record be ``wanted``, whether there is one or not; as it is where it is so.

        ``expected`` is the revision of what may be replaced (0: nothing), None: whatever is there.
        Raises ConflictError, and what `update` does.
        """

        def replaced(found: RecordT | None) -> RecordT:
            return found if found == wanted else wanted

        held = await self.find(kind, name)
        if held is not None and held.record == wanted:
            return held
        revision = 0 if held is None else held.revision
        if expected not in {None, revision}:
            raise ConflictError(_replaced(kind, revision))
        if held is None:
            held = await self.make(kind, name, lambda found: found or wanted)
        elif expected is None:
            held = await self.update(held, replaced)
        else:
            held = await self.take(held, replaced)
        if held.record != wanted:
            raise ConflictError(_replaced(kind, held.revision))
        return held

    async def remove(self, held: Held[RecordT], *, beside: Sequence[Change] = ()) -> None:
        """Remove a record, as it is by now, with all that finds it; ``beside`` in the same step.

        The record is removed for good. Its finders need not be: they are compared with the record.
        Raises NotFoundError when another was quicker, ConflictError when it kept changing.
        """
        for _ in range(MAX_OVERTAKEN):
            try:
                await self._remove(held, beside)
            except ConflictError:
                held = await self.get(held.kind, held.name)
            else:
                return
        raise ConflictError(_overtaken(held))

    async def remove_behind(self, held: Held[RecordT], fence: Held[FenceT]) -> Held[FenceT]:
        """As `remove`, of a record that is as in ``held``, while ``fence`` is as it is there.

        It is written once more, as it was: the next removal is behind what this returns. Raises
        ConflictError, and nothing is removed.
        """
        value = msgspec.json.encode(fence.record)
        put = Put(key=fence.key, value=value, expected=fence.revision)
        revision = await self._remove(held, [put])
        return fence.kind.held(fence.name, fence.record, revision)

    async def _remove(self, held: Held[RecordT], beside: Sequence[Change]) -> int:
        """The revision of the first of ``beside``; 0 where there is none. Raises ConflictError."""
        changes = [
            *beside,
            Delete(key=held.key, expected=held.revision, for_good=True),
            *(Delete(key=key) for key in held.kind.finders(held.record)),
            *_unmark(held.kind, held.name),
        ]
        revisions = await self._records.batch(changes)
        return revisions[0] if beside else 0

    async def remove_unreadable(self, kind: RecordKind[RecordT], name: str) -> None:
        """Remove a record that cannot be read. Its finders, which nobody knows, find nothing.

        Its revision is not asked for: it may be the store that cannot read it.
        """
        delete = Delete(key=kind.key(name), for_good=True)
        await self._records.batch([delete, *_unmark(kind, name)])

    async def _settle(
        self, wanted: Held[RecordT], others: Sequence[Change], *, is_patient: bool = False
    ) -> Held[RecordT]:
        """Write ``wanted`` over its revision, and ``others`` with it, until the outcome is known.

        Raises ConflictError: it was not written, or something was written over it since. Not begun
        once the request's time is over: its caller asks another worker by then, and what that
        answers must stay so. It was made of a record read before, so it lands late on nothing else.
        """
        if seconds_left(math.inf) <= 0:
            raise UnavailableError(_TOO_LATE)
        backoff = Backoff(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, within_seconds=SETTLE_SECONDS)
        is_known = True
        while True:
            try:
                return wanted.kind.held(
                    wanted.name, wanted.record, await self._write(wanted, others)
                )
            except ConflictError:
                if is_known:
                    raise
                found = await self._look_for(wanted)
                if found.record != wanted.kind.located(wanted.record, found.revision):
                    raise _OverwrittenError(_overtaken(wanted)) from None
                return found
            except (OutcomeUnknownError, UnavailableError) as error:
                is_known = is_known and not isinstance(error, OutcomeUnknownError)
                if is_known and not is_patient:
                    raise
                if not await backoff.wait():
                    if is_known:
                        raise
                    raise OutcomeUnknownError(error.detail) from error

    async def _write(self, wanted: Held[RecordT], others: Sequence[Change]) -> int:
        key, expected, ttl = wanted.key, wanted.revision, wanted.kind.ttl(wanted.record)
        value = msgspec.json.encode(wanted.record)
        grave = wanted.kind.is_grave(wanted.record)
        if not others:
            return await self._records.put(key, value, expected=expected, ttl=ttl, grave=grave)
        put = Put(key=key, value=value, expected=expected, ttl=ttl, grave=grave)
        return (await self._records.batch([put, *others]))[0]

    async def _look_for(self, wanted: Held[RecordT]) -> Held[RecordT]:
        """The record under the key of ``wanted``, whose write was not answered and may be gone."""
        try:
            return await self.get(wanted.kind, wanted.name)
        except (NotFoundError, UnavailableError) as error:
            raise OutcomeUnknownError(_unheard(wanted)) from error


class _OverwrittenError(ConflictError):
    """Something else lies where ours, of which nothing was heard, may have been for a while."""


def _unheard(held: Held[RecordT]) -> str:
    return f"the store did not say whether it has written the {held.kind.noun}"


def _replaced(kind: RecordKind[RecordT], revision: int) -> str:
    return f"the record of the {kind.noun} was changed: it has revision {revision}"


def _overtaken(held: Held[RecordT]) -> str:
    return f"the {held.kind.noun}'s record kept changing"


def _unmark(kind: RecordKind[RecordT], name: str) -> list[Change]:
    """The deletion of the key that says that a record is live."""
    return [Delete(key=kind.live_key(name))] if kind.live_prefix else []
