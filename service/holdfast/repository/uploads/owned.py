"""An upload that this worker owns: it takes parts, and makes them a blob in the end.

Every step that decides something is one compare-and-set on the upload's record. The owner writes
parts under a nuid of its own. A former owner that wakes up finds another nuid in the record and
removes what it wrote: it alone ever writes there, so nothing of the blob can be hit. Parts that
may have become a blob are claimed in the record first, and are removed only as
`holdfast.repository.uploads.stagings` says.

Why: docs/decisions.md, "Owners look whether they are still owners".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.deadline import deadline, look_at, shared_task
from holdfast.domain.digest import Digest
from holdfast.domain.limits import MAX_BLOB_BYTES, UPLOAD_MEMORY_BYTES
from holdfast.domain.parts import PartSequence
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
)
from holdfast.repository.ledger.lease import RENEWALS_PER_LEASE, Carried
from holdfast.repository.targets import RefusedDeliveryError
from holdfast.repository.uploads.record import (
    UPLOAD,
    Claim,
    Result,
    State,
    UploadRecord,
    at,
    claimed,
    committed,
    delivered,
    refused,
    without_claims,
)
from holdfast.repository.uploads.tails import UploadTail
from holdfast.stores.ports import Attributes, Stored

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable

    from holdfast.repository.ledger.ledger import Held, Ledger
    from holdfast.repository.targets import Targets
    from holdfast.repository.uploads.stagings import Stagings
    from holdfast.sources import Sources

CONFIRM_SECONDS: Final = 15.0
"""Seconds an owner believes that it is one. A process that was stopped looks before it writes."""

COPY_BEAT_SECONDS: Final = 2.0
_COPY_WINDOW: Final = 16

RESUME: Final = "this worker does not own the upload: ask blob.resume"
TAKEN_OVER: Final = "another worker has taken the upload over: ask blob.resume"
ENDED: Final = "the upload has ended"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """``max_uploads`` owned at once; ``memory_bytes`` for the windows of all of them."""

    max_uploads: int = 32
    memory_bytes: int = UPLOAD_MEMORY_BYTES
    max_blob_bytes: int = MAX_BLOB_BYTES
    lease_seconds: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An upload that takes parts from ``next_part`` on, ``window`` bytes ahead of the acks.

    It holds ``size`` bytes: those of the parts before it, and perhaps some of it.
    """

    upload: str
    part_size: int
    window: int
    next_part: int
    size: int


class OwnedUpload:
    """An upload of this worker. Its record is changed with the ``turn``, but for the commit."""

    def __init__(
        self,
        held: Held[UploadRecord],
        ledger: Ledger,
        stagings: Stagings,
        targets: Targets,
        *,
        window: int,
        limits: UploadLimits,
        sources: Sources,
        leave: Callable[[OwnedUpload], None],
    ) -> None:
        """``leave`` is called when it is not this worker's any more."""
        self.id = held.name
        self.window = window
        self.turn = asyncio.Lock()
        self.commit: asyncio.Task[Result] | None = None
        self.broken = False
        self.writes: dict[int, asyncio.Task[None]] = {}
        self._nuid = held.record.nuids[-1]
        self._carried = Carried(ledger, held, partial(_check_nuid, self._nuid))
        self._ledger = ledger
        self._stagings = stagings
        self._targets = targets
        self._staged = stagings.store.stage(self._nuid, held.record.part_size)
        self._parts = PartSequence(held.record.part_size, limits.max_blob_bytes)
        self._tail = UploadTail(
            stagings,
            held.record.part_size,
            change=self._change,
            new_id=sources.new_id,
        )
        self._claims: set[Claim] = set()
        """Claims that may have become a blob, as this worker knows, whatever the record says."""
        self._renew_seconds = limits.lease_seconds / RENEWALS_PER_LEASE
        self._sources = sources
        self._leave = leave
        self._confirmed_at = self._renewed_at = sources.monotonic()
        self._renewed_size = 0

    @property
    def opened(self) -> Opened:
        """Its size, next part and window."""
        return Opened(
            upload=self.id,
            part_size=self._record.part_size,
            window=self.window,
            next_part=self._parts.count,
            size=self.size,
        )

    @property
    def size(self) -> int:
        """The bytes it holds."""
        return self._parts.size + len(self._tail.data)

    @property
    def goes_on(self) -> bool:
        """Whether it progresses, though that may not be in its record yet."""
        return self.commit is not None or (self._progressed and not self.broken)

    @property
    def _progressed(self) -> bool:
        return self._parts.size != self._renewed_size

    @property
    def _record(self) -> UploadRecord:
        return self._carried.record

    # --- parts ---

    async def part(self, part: int, data: Buffer) -> None:
        """See `UploadService.part`."""
        async with self.turn:
            if self.commit is None:
                await self._confirm()
            self._check_open()
            self._take(part, data)
            write = self.writes.get(part)
        if write is not None:
            await self._wait_written(part, write)

    def _take(self, part: int, data: Buffer) -> None:
        """Begin to write a part, in the place of the tail, unless it is a repeat."""
        if self._parts.accept(part, data):
            self._tail.data = b""
            self.writes[part] = shared_task(self._staged.write(part, data))

    async def extend(self, part: int, at: int, data: Buffer) -> int:
        """See `UploadService.tail`."""
        async with self.turn:
            if self.commit is None:
                await self._confirm()
            self._check_open()
            joined = self._parts.joined(part, self._tail.data, at, data)
            if joined is not None and len(joined) == self._record.part_size:
                self._take(part, joined)
            elif joined is not None and joined is not self._tail.data:
                await self._store_tail(part, joined)
            write, size = self.writes.get(part), self.size
        if write is not None:
            await self._wait_written(part, write)
        return size

    async def _store_tail(self, part: int, data: bytes) -> None:
        await self._wait_all_written()
        try:
            await self._tail.store(part, data, self._record.tail)
        except HoldfastError:
            self.broken = True
            raise

    async def keep(self) -> int:
        """See `UploadService.keep`."""
        async with self.turn:
            await self._confirm()
            self._check_open()
            if self._is_renewal_due:
                await self._change()
            return self.size

    def _check_open(self) -> None:
        if self.broken or self.commit is not None:
            raise ConflictError(RESUME if self.broken else ENDED)

    async def _wait_written(self, part: int, write: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(write)
        except HoldfastError:
            self.broken = True
            raise
        if self.writes.get(part) is write:
            del self.writes[part]

    async def _wait_all_written(self) -> None:
        """Every part that was taken is stored. Raises what the store raised, also unheard."""
        try:
            await asyncio.gather(*self.writes.values())
        except HoldfastError:
            self.broken = True
            raise
        self.writes.clear()

    # --- the record ---

    async def _change(
        self, change: Callable[[UploadRecord], UploadRecord] = lambda record: record
    ) -> None:
        """Renew the record, with ``change``. Raises ConflictError when it is another's by now."""
        now = self._sources.monotonic()  # afterwards this process may have been stopped for an hour
        await self._carried.renew(change)
        self._confirmed_at = self._renewed_at = now
        self._renewed_size = self._parts.size

    @property
    def _is_renewal_due(self) -> bool:
        return self._sources.monotonic() - self._renewed_at >= self._renew_seconds

    async def renew(self) -> None:
        """Renew the record if the upload progressed; else look whether it is still ours."""
        if self.turn.locked() or self.commit is not None:
            return
        async with self.turn:
            # Others wait for their turn: an answer not heard by then is looked for the next time.
            with suppress(HoldfastError), deadline(CONFIRM_SECONDS):
                await self._confirm()
                if self._progressed and self._is_renewal_due and not self.broken:
                    await self._change()

    async def _confirm(self) -> None:
        """Look whether this worker still owns the upload, if it has not looked for a while."""
        if self._sources.monotonic() - self._confirmed_at >= CONFIRM_SECONDS:
            await self._look()

    async def _look(self) -> None:
        """Raises ConflictError, having let go, when the upload is another's or has ended.

        Not while it is being committed: the commit's claims are not known before it ends.
        """
        now = self._sources.monotonic()
        try:
            await self._carried.look()
        except ConflictError as error:
            await self.retire()
            # Once more: an end of the upload since then did not see our last writes.
            try:
                held = await self._ledger.get(UPLOAD, self.id)
            except NotFoundError:
                await self.let_go(keep=False)
                raise
            # While it goes on, parts acknowledged here count, and its end removes them.
            await self.let_go(keep=held.is_live)
            raise ConflictError(TAKEN_OVER) from error
        self._confirmed_at = now

    async def retire(self) -> None:
        """Take no more parts, and wait until nothing is being written."""
        self._leave(self)
        self.broken = True
        if self.writes:
            await asyncio.wait(self.writes.values())
            self.writes.clear()

    async def let_go(self, *, keep: bool) -> None:
        """Stop being the owner; unless ``keep`` remove what was written here and is no blob's."""
        await self.retire()
        if not keep:
            await self._stagings.remove_all([self._nuid, *self._tail.spares], self._claims)
        log.info("upload_let_go", upload=self.id, parts=self._parts.count)

    async def end(self, state: State) -> None:
        """Give the upload up. Raises ConflictError when it is another's by now."""
        await self._change(partial(at, state))
        await self._ended(f"the upload was {state}")

    async def _ended(self, reason: str) -> None:
        await self.let_go(keep=True)
        await self._stagings.remove_all(self._record.stagings, self._record.claims)
        if self._record.target is not None:
            await self._targets.fail(self._record.target, reason)

    # --- the blob ---

    async def final(self, parts: int, digest: Digest | None) -> Result:
        """See `UploadService.final`."""
        async with self.turn:
            if self.commit is None:
                await self._confirm()
                if self.broken:
                    raise ConflictError(RESUME)
                if self._tail.data and parts == self._parts.count + 1:
                    self._take(self._parts.count, self._tail.data)
                await self._check_final(parts, digest)
                self.commit = shared_task(self._commit())
                self.commit.add_done_callback(self._commit_ended)
            elif parts != self._parts.count:
                raise ConflictError(ENDED)
            commit = self.commit
        return await asyncio.shield(commit)

    async def _check_final(self, parts: int, digest: Digest | None) -> None:
        announced = Digest(self._record.digest) if self._record.digest is not None else None
        if parts != self._parts.count:
            self._parts.check_final(parts)
        try:
            self._parts.check_final(parts, announced, digest, size=self._record.size)
        except InvalidError:
            await self.end("failed")
            raise

    def _commit_ended(self, commit: asyncio.Task[Result]) -> None:
        """A failed commit may be tried again, or given up, whether or not anybody waited for it."""
        if self.commit is commit and (commit.cancelled() or commit.exception() is not None):
            self.commit = None

    async def _commit(self) -> Result:
        await self._wait_all_written()
        if self.broken or not self._carried.held.is_live:
            raise ConflictError(RESUME)
        digest, target = self._parts.digest, self._record.target
        try:
            if target is not None:
                await self._targets.promise(target, digest, self._parts.size)
            stored = await self._publish(digest)
            result = Result(digest=digest, size=self._parts.size, created=stored.created)
            if target is not None:
                result = delivered(result, await self._targets.commit(target))
        except RefusedDeliveryError as error:
            await self._change(partial(refused, error))
            await self._ended(error.detail)
            raise
        # A former owner that woke up may have made the blob: then it is its chunks that stay.
        keep = {self._nuid, stored.info.generation}
        await self._stagings.remove_former(self._record, keep=keep, digest=digest)
        try:
            await self._change(partial(committed, result))
        except HoldfastError:
            # The blob is there, which is what was promised; a repeat finds it by its digest.
            log.warning("upload_result_not_recorded", upload=self.id)
        self._leave(self)
        return result

    async def _publish(self, digest: Digest) -> Stored:
        """Make the parts the blob. Parts that surely did not become one are claimed no longer."""
        mine: set[Claim] = set()

        async def claim(nuid: str) -> None:
            """Name and claim the parts, which shows that the upload is still ours."""
            one = Claim(nuid=nuid, digest=digest)
            is_first = one not in self._claims  # else an attempt before this may yet be applied
            if is_first:
                mine.add(one)
            self._claims.add(one)
            try:
                await self._change(partial(claimed, one))
            except ConflictError as error:
                if is_first:
                    self._claims.discard(one)
                raise _LostError(TAKEN_OVER) from error

        attributes = Attributes(
            type=self._record.type,
            created_at=self._sources.clock(),
            op_id=self._record.op_id or self.id,
            pinned=self._record.target is None,
            touches=self._record.target is not None,
        )
        try:
            return await self._staged.commit(digest, self._parts.size, attributes, claim=claim)
        except (OutcomeUnknownError, _LostError):
            raise
        except HoldfastError as error:
            self._claims -= mine
            await self._change(partial(without_claims, mine))
            if isinstance(error, ConflictError | CorruptError):  # what is in the way stays there
                await self.end("failed")
            raise

    # --- what former owners have written ---

    async def catch_up(self) -> asyncio.Task[Result] | None:
        """Have every part that was acknowledged, before saying as the owner which is wanted next.

        A resume that reached a worker late made it the owner while the client went on sending to
        the former one, which acknowledged parts for as long as it had not looked. Nor does a part
        count that is on its way to the store: the client forgets what is not wanted. Returns the
        commit, where one has been begun meanwhile.
        """
        async with self.turn:
            if self.commit is not None:
                return self.commit
            await self._look()
            await self._wait_all_written()
            if len(self._record.nuids) > 1:
                self.broken = True  # until all of it is written
                await self._copy_parts()
                self.broken = False
        return None

    async def take_up(self) -> None:
        """Copy what former owners stored; where that fails, let go."""
        try:
            async with self.turn:
                await self._copy_parts()
        except HoldfastError:
            await self.let_go(keep=False)
            raise
        log.info("upload_taken_over", upload=self.id, parts=self._parts.count)

    async def _copy_parts(self) -> None:
        """Write the parts that former owners stored under our nuid, hashing them, and be open.

        Each former staging holds a prefix of the same bytes; the longest counts, and then the tail.
        """
        beat_at = self._sources.monotonic() + COPY_BEAT_SECONDS
        pending: set[asyncio.Task[None]] = set()
        for nuid in reversed(self._record.nuids[:-1]):
            number = 0
            async for data in self._stagings.store.staged_parts(nuid):
                if number == self._parts.count and self._parts.accept(number, data):
                    write = asyncio.create_task(self._staged.write(number, data))
                    write.add_done_callback(look_at)
                    self.writes[number] = write  # a release waits for these too
                    pending.add(write)
                number += 1
                if len(pending) >= _COPY_WINDOW:
                    pending = await _wait_for_one(pending)
                if self._sources.monotonic() >= beat_at:
                    await self._change(partial(at, "copying"))
                    beat_at = self._sources.monotonic() + COPY_BEAT_SECONDS
        await asyncio.gather(*pending)
        self.writes.clear()
        await self._tail.load(self._record.tail, self._parts.count)
        await self._change(partial(at, "open"))


class _LostError(ConflictError):
    """The upload is another's by now: of what was tried before nothing is known."""


def _check_nuid(nuid: str, record: UploadRecord) -> None:
    if record.nuids[-1] != nuid:
        raise ConflictError(TAKEN_OVER)


async def _wait_for_one(tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait until one of ``tasks`` is done; the others. Raises what it raised."""
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return pending
