"""One write of a name in the name's record: announced, promised, committed or failed.

Why: docs/decisions.md, "Versions are written before they are lost".
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from holdfast.domain.blob_names import name_key, version_key
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.repository.ledger.ledger import Beside, Held, Ledger
from holdfast.repository.names.record import (
    NAME,
    VERSION,
    NameRecord,
    Step,
    announced,
    committed,
    failed,
    made_by,
    promised,
    restated,
    superseded,
)
from holdfast.repository.targets import Named
from holdfast.stores.record_ports import Change, Delete, RecordStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast.repository.names.past import PastWrites
    from holdfast.repository.names.record import Announcement, Transition
    from holdfast.repository.names.rules import NameRules
    from holdfast.sources import Sources

log = structlog.get_logger(__name__)


class MadeBeforeError(Exception):
    """The write that is asked for was carried out before, and is not to be made again."""

    def __init__(self, made: Named) -> None:
        """``made`` is the answer."""
        super().__init__()
        self.made = made


class NameWrites:
    """Writes the records of names."""

    def __init__(
        self,
        records: RecordStore,
        rules: NameRules,
        past: PastWrites,
        *,
        worker: str,
        sources: Sources,
    ) -> None:
        """``worker`` is noted in each transition."""
        self.ledger = Ledger(records)
        self.past = past
        self._records = records
        self._rules = rules
        self._worker = worker
        self._sources = sources

    async def step(self, name: str, *, may_lose: bool = False) -> Step:
        """A step that this worker takes now.

        One that ``may_lose`` a version goes by the rules as they are at this moment.
        """
        if may_lose:
            await self._rules.read()
        keep = await self._rules.of(name)
        return Step(worker=self._worker, at=self._sources.clock(), keep=keep)

    async def look(self, name: str) -> Held[NameRecord] | None:
        """The record of ``name``, or None where there never was one. Raises CorruptError."""
        return await self.ledger.find(NAME, name_key(name))

    async def announce(
        self, name: str, one: Announcement, *, seen: Held[NameRecord] | None = None
    ) -> Held[NameRecord]:
        """The record with ``one`` in it, or with what came of it if it was announced before.

        Raises MadeBeforeError; ConflictError, NotFoundError (nothing to replace), RateLimitedError,
        UnavailableError: nothing will come of it.
        """
        with not_applied():
            if one.verb != "create" and seen is None:
                seen = await self.look(name)
            try:
                held = await self._announce(name, one, seen)
            except (ConflictError, NotFoundError):
                await self._check_past(await self.look(name), one.op)
                raise
            if made_by(held.record, one.op) is None:
                await self._check_past(held, one.op)
        return held

    async def _announce(
        self, name: str, one: Announcement, seen: Held[NameRecord] | None
    ) -> Held[NameRecord]:
        step = await self.step(name)

        def change(record: NameRecord | None) -> NameRecord:
            return announced(record, name, one, step)

        if seen is not None:
            return await self.update(seen, change)
        return await self.ledger.make(NAME, name_key(name), change, beside=self._noting)

    async def _check_past(self, held: Held[NameRecord] | None, op: str) -> None:
        """Raises MadeBeforeError, ConflictError; then what ``op`` has announced again is ended."""
        if held is None:
            return
        name = held.record.name
        try:
            made = await self.past.find(held.record, op)
        except HoldfastError as error:
            await self.fail(name, op, error.detail)
            raise
        if made is not None:
            await self.fail(name, op, "it was made before")
            raise MadeBeforeError(_named(held.record, made))

    async def update(
        self,
        held: Held[NameRecord],
        change: Callable[[NameRecord], NameRecord],
        *,
        beside: Beside[NameRecord] | None = None,
    ) -> Held[NameRecord]:
        """As `Ledger.update`. Steps that the record loses are noted before."""

        async def besides(
            present: Held[NameRecord] | None, wanted: Held[NameRecord]
        ) -> Sequence[Change]:
            await self._noting(present, wanted)
            return [] if beside is None else await beside(present, wanted)

        return await self.ledger.update(held, change, beside=besides)

    async def lose(
        self, held: Held[NameRecord], change: Callable[[NameRecord], NameRecord], step: Step
    ) -> Held[NameRecord]:
        """As `update`, of a step by which the name loses a version: it is kept before."""

        async def beside(present: Held[NameRecord] | None, _: object) -> Sequence[Change]:
            await self.keep_version(present, step)
            return []

        return await self.update(held, change, beside=beside)

    async def _noting(
        self, present: Held[NameRecord] | None, wanted: Held[NameRecord]
    ) -> Sequence[Change]:
        with not_applied():
            await self.past.note(None if present is None else present.record, wanted.record)
        return []

    async def promise(
        self, held: Held[NameRecord], op: str, digest: str, size: int
    ) -> Held[NameRecord]:
        """Have the announcement of ``op`` say its blob. Raises UnavailableError: it is gone."""
        with not_applied():
            return await self.update(held, lambda record: promised(record, op, digest, size))

    async def restate(self, held: Held[NameRecord], one: Announcement) -> Held[NameRecord]:
        """Have the announcement of a copy say what ``one`` does. Raises as `promise`."""
        with not_applied():
            return await self.update(held, lambda record: restated(record, one))

    async def commit(
        self, held: Held[NameRecord], op: str, *, beside: Beside[NameRecord] | None = None
    ) -> Named:
        """Give the name what ``op`` has announced; the announcement ends in any case.

        ``beside`` gives what else belongs into the same batch. Raises ConflictError and
        NotFoundError where the conditions do not hold any more, UnavailableError (the announcement
        is gone), OutcomeUnknownError.
        """
        with not_applied():
            step = await self.step(held.record.name, may_lose=held.record.content is not None)
        refusals: list[HoldfastError] = []

        def change(record: NameRecord) -> NameRecord:
            refusals.clear()
            try:
                return committed(record, op, step)
            except (ConflictError, NotFoundError) as error:
                refusals.append(error)
                return failed(record, op, error.detail, step)

        async def besides(
            present: Held[NameRecord] | None, wanted: Held[NameRecord]
        ) -> Sequence[Change]:
            if refusals:
                return []
            await self.keep_version(present, step)
            return [] if beside is None else await beside(present, wanted)

        made = await self.update(held, change, beside=besides)
        if refusals:
            raise refusals[0]
        await self.drop_versions(held.record, made.record, step)
        return named(made.record, op)

    async def fail(self, name: str, op: str, reason: str) -> None:
        """End the announcement of ``op`` without a blob, if it is there: its lapse may be later."""
        try:
            held = await self.look(name)
            if held is not None:
                step = await self.step(name)
                await self.update(held, lambda record: failed(record, op, reason, step))
        except HoldfastError as error:
            log.warning("name_not_failed", code=error.code)

    async def refuse(self, name: str, op: str, error: HoldfastError) -> Named:
        """The result of ``op``, if carried out after all; else it never will be: ``error``.

        Another worker, asked before, may have announced it and be about to commit it. Raises
        UnavailableError and OutcomeUnknownError, too.
        """
        held = await self.look(name)
        if held is None:
            raise error
        step = await self.step(name)
        held = await self.update(held, lambda record: failed(record, op, error.detail, step))
        made = made_by(held.record, op) or await self.past.find(held.record, op)
        if made is None:
            raise error
        return _named(held.record, made)

    async def keep_version(self, held: Held[NameRecord] | None, step: Step) -> None:
        """Write down the version that the record is about to lose, if it is to be kept."""
        former = None if held is None else superseded(held.record, step)
        if former is not None:
            key = version_key(former.name, former.version)
            with not_applied():
                await self.ledger.make(
                    VERSION, key, lambda found: found if found == former else former
                )

    async def drop_versions(self, before: NameRecord, after: NameRecord, step: Step) -> None:
        """Remove versions that do not count any more. The rest of them is the collector's."""
        gone = range(max(before.oldest, 1), min(after.oldest, after.version))
        if step.keep.versions > 1 and gone:
            deletes = [
                Delete(key=VERSION.key(version_key(after.name, version))) for version in gone
            ]
            with suppress(HoldfastError):
                await self._records.batch(deletes)


def named(record: NameRecord, op: str) -> Named:
    """The answer to ``op``, which was carried out. Raises OutcomeUnknownError."""
    made = made_by(record, op)
    if made is None:
        raise OutcomeUnknownError("so much was written since that nobody knows what came of it")
    return _named(record, made)


def _named(record: NameRecord, made: Transition) -> Named:
    return Named(name=record.name, digest=made.digest or "", size=made.size, version=made.version)


@contextmanager
def not_applied() -> Iterator[None]:
    """The outcome of a step before the commit may be unknown: that of the write is known."""
    try:
        yield
    except OutcomeUnknownError as error:
        raise UnavailableError(error.detail) from error
