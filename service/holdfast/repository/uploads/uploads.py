"""Uploads: a streamed put that survives the worker that owns it.

Every step that decides something is one compare-and-set on the upload's record. The owner writes
parts under a nuid of its own; a worker that takes over copies what is stored to a fresh nuid and
goes on. A former owner that wakes up finds another nuid in the record and removes what it wrote:
it alone ever writes there, so nothing of the blob can be hit. What may have become a blob is
claimed in the record first, and is removed only as `holdfast.repository.uploads.stagings` says.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from holdfast.domain.digest import Digest
from holdfast.domain.limits import MAX_BLOB_BYTES, UPLOAD_MEMORY_BYTES, UPLOAD_WINDOW_BYTES
from holdfast.domain.parts import PartSequence
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    TooLargeError,
    UnavailableError,
)
from holdfast.repository.ledger.observations import Observations
from holdfast.repository.ledger.ops import Ops
from holdfast.repository.read_threads import look_at
from holdfast.repository.uploads.record import (
    LIVE,
    UPLOADS,
    Claim,
    Result,
    State,
    UploadRecord,
    decode_upload,
    upload_key,
)
from holdfast.repository.uploads.stagings import Stagings
from holdfast.stores.ports import Attributes
from holdfast.transport.deadline import outliving_task

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Iterator
    from datetime import datetime

    from holdfast.stores.ports import BlobStore, RecordStore, StagedBlob, Stored

ENDED_TTL: Final = timedelta(hours=1)
"""How long the end of an upload may be asked for again."""

CONFIRM_SECONDS: Final = 15.0
"""How long an owner believes that it is one. A process that was stopped looks before it writes."""

SWEEPS_PER_LEASE: Final = 4
"""How often to call ``sweep``."""

_SWEEPS_THAT_COUNT: Final = 2
"""Between two looks at a record, so many intervals of sweeps count as time that it was seen."""

SETTLE_SECONDS: Final = 1.0
COPY_BEAT_SECONDS: Final = 2.0
TAKEOVER_SECONDS: Final = 10.0
_COPY_WINDOW: Final = 16

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
    """An upload that takes parts from ``next_part`` on, ``window`` bytes ahead of the acks."""

    upload: str
    part_size: int
    window: int
    next_part: int


@dataclass(slots=True, eq=False)
class _Upload:
    """An upload that this worker owns."""

    id: str
    record: UploadRecord
    revision: int
    staged: StagedBlob
    parts: PartSequence
    window: int
    confirmed_at: float
    beaten_at: float
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    writes: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    claims: set[Claim] = field(default_factory=set)
    """What may have become a blob, as this worker knows it, whatever becomes of the record."""

    commit: asyncio.Task[Result] | None = None
    broken: bool = False
    beaten_size: int = 0

    @property
    def nuid(self) -> str:
        return self.record.nuids[-1]


class UploadService:
    """The uploads of one worker. Single event loop; the record store arbitrates between workers."""

    def __init__(
        self,
        store: BlobStore,
        records: RecordStore,
        *,
        owner: str,
        part_size: int,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        limits: UploadLimits,
    ) -> None:
        """``owner`` names this worker; ``new_id`` gives fresh ids of 22 of A-Z a-z 0-9."""
        self._store = store
        self._records = records
        self._ops = Ops(records)
        self._owner = owner
        self._part_size = part_size
        self._new_id = new_id
        self._clock = clock
        self._monotonic = monotonic
        self._limits = limits
        self._uploads: dict[str, _Upload] = {}
        self._coming: list[int] = []
        self._takeovers: dict[str, asyncio.Task[Opened | Result]] = {}
        self._stagings = Stagings(store)
        self._observed = Observations(
            monotonic,
            max_gap_seconds=limits.lease_seconds * _SWEEPS_THAT_COUNT / SWEEPS_PER_LEASE,
        )

    @property
    def active(self) -> int:
        """How many uploads this worker owns."""
        return len(self._uploads)

    @property
    def lease_seconds(self) -> float:
        """How long an upload may be silent."""
        return self._limits.lease_seconds

    # --- opening ---

    async def open(
        self,
        *,
        size: int | None,
        digest: Digest | None,
        type: str,  # noqa: A002  (the wire's word)
        op_id: str | None,
    ) -> Opened | Result:
        """Begin an upload; or say that the announced ``digest`` is stored already.

        Raises TooLargeError, RateLimitedError, ConflictError (the ``op_id`` is another request's).
        """
        if size is not None and size > self._limits.max_blob_bytes:
            msg = f"a blob has at most {self._limits.max_blob_bytes} bytes"
            raise TooLargeError(msg)
        upload, repeated = self._new_id(), False
        if op_id is not None:
            upload, repeated = await self._ops.claim(op_id, upload)
        if repeated:
            with suppress(NotFoundError):
                return await self.resume(upload)
        if digest is not None:
            with suppress(NotFoundError):
                info = await self._store.stat(digest, sure=True)
                if not info.damaged:
                    return Result(digest=info.digest, size=info.size, created=False)
        record = UploadRecord(
            owner=self._owner,
            nuids=(self._new_id(),),
            part_size=self._part_size,
            type=type,
            created_at=self._clock().isoformat(),
            size=size,
            digest=digest,
            op_id=op_id,
        )
        value = msgspec.json.encode(record)
        with self._place() as window, suppress(ConflictError):
            revision = await self._records.put(upload_key(upload), value, expected=0)
            return _opened(self._own(upload, record, revision, window))
        return await self.resume(upload)  # a repeat of this request was quicker

    @contextmanager
    def _place(self, former: _Upload | None = None) -> Iterator[int]:
        """The window of one more upload, which has its place from before anything is awaited.

        It comes instead of ``former``. Raises RateLimitedError.
        """
        window = self._grant_window(former)
        self._coming.append(window)
        try:
            yield window
        finally:
            self._coming.remove(window)

    def _grant_window(self, former: _Upload | None) -> int:
        """Share the memory for windows, keeping a part for each upload that may yet come."""
        owned = [owned.window for owned in self._uploads.values() if owned is not former]
        taken = [*owned, *self._coming]
        free_places = self._limits.max_uploads - len(taken)
        free = self._limits.memory_bytes - sum(taken)
        if free_places < 1 or free < self._part_size:
            msg = "this worker has as many uploads as it can carry"
            raise RateLimitedError(msg)
        spare = free - self._part_size * max(free_places - 1, 0)
        return max(min(UPLOAD_WINDOW_BYTES, spare // 2), self._part_size)

    def _own(self, upload: str, record: UploadRecord, revision: int, window: int) -> _Upload:
        owned = _Upload(
            id=upload,
            record=record,
            revision=revision,
            staged=self._store.stage(record.nuids[-1], record.part_size),
            parts=PartSequence(record.part_size, self._limits.max_blob_bytes),
            window=window,
            confirmed_at=self._monotonic(),
            beaten_at=self._monotonic(),
        )
        self._uploads[upload] = owned
        return owned

    # --- parts ---

    async def part(self, upload: str, part: int, data: Buffer) -> int:
        """Store one part; returns its number once it is durable.

        Raises InvalidError, ConflictError, NotFoundError, TooLargeError, and what the store
        raises; after a store's failure the upload must be resumed.
        """
        owned = self._uploads.get(upload)
        if owned is None:
            raise await self._why_not_mine(upload)
        async with owned.turn:
            if owned.commit is None:
                await self._confirm(owned)
            if owned.broken or owned.commit is not None:
                raise ConflictError(_RESUME if owned.broken else _ENDED)
            if owned.parts.accept(part, data):
                owned.writes[part] = outliving_task(owned.staged.write(part, data))
                owned.writes[part].add_done_callback(look_at)
            write = owned.writes.get(part)
        if write is not None:
            await self._wait_written(owned, part, write)
        return part

    async def keep(self, upload: str) -> None:
        """Renew the lease, for a sender that has nothing to send yet. Raises as ``part``."""
        owned = self._uploads.get(upload)
        if owned is None:
            raise await self._why_not_mine(upload)
        async with owned.turn:
            await self._confirm(owned)
            if owned.broken or owned.commit is not None:
                raise ConflictError(_RESUME if owned.broken else _ENDED)
            if self._is_beat_due(owned):
                await self._change(owned, state=owned.record.state)

    async def _wait_written(self, owned: _Upload, part: int, write: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(write)
        except HoldfastError:
            owned.broken = True
            raise
        if owned.writes.get(part) is write:
            del owned.writes[part]

    async def _wait_all_written(self, owned: _Upload) -> None:
        """Every part that was taken is stored. Raises what the store raised, also unheard."""
        try:
            await asyncio.gather(*owned.writes.values())
        except HoldfastError:
            owned.broken = True
            raise
        owned.writes.clear()

    async def _confirm(self, owned: _Upload) -> None:
        """Look whether this worker still owns the upload, if it has not looked for a while."""
        if self._monotonic() - owned.confirmed_at >= CONFIRM_SECONDS:
            await self._look(owned)

    async def _look(self, owned: _Upload) -> None:
        """Raises ConflictError, having let go, when the upload is another's or has ended.

        Not while it is being committed: what that claims is not known before it ends.
        """
        now = self._monotonic()
        try:
            record = await self._records.get(upload_key(owned.id))
            current = decode_upload(record.value)
            if current.nuids[-1] != owned.nuid or current.state not in LIVE:
                await self._retire(owned)
                # Once more: whoever ended the upload since then did not see our last writes.
                record = await self._records.get(upload_key(owned.id))
                current = decode_upload(record.value)
                # While it goes on, parts acknowledged here count, and its end removes them.
                await self._let_go(owned, keep=current.state in LIVE)
                raise ConflictError(_TAKEN_OVER)
        except NotFoundError:
            await self._let_go(owned, keep=False)
            raise
        owned.revision, owned.record = record.revision, current
        owned.confirmed_at = now

    async def _retire(self, owned: _Upload) -> None:
        """Take no more parts, and wait until nothing is being written."""
        if self._uploads.get(owned.id) is owned:
            del self._uploads[owned.id]
        owned.broken = True
        if owned.writes:
            await asyncio.wait(owned.writes.values())
            owned.writes.clear()

    async def _let_go(self, owned: _Upload, *, keep: bool) -> None:
        """Stop being the owner; unless ``keep`` remove what was written here and is no blob's."""
        await self._retire(owned)
        if not keep:
            await self._stagings.remove_all([owned.nuid], owned.claims)
        log.info("upload_let_go", upload=owned.id, parts=owned.parts.count)

    async def _why_not_mine(self, upload: str) -> HoldfastError:
        record = decode_upload((await self._records.get(upload_key(upload))).value)
        if record.state in LIVE:
            return ConflictError(_RESUME)
        return ConflictError(_ENDED)

    # --- the end ---

    async def final(self, upload: str, parts: int, digest: Digest | None) -> Result:
        """Make the parts a blob. May be repeated: the answer is the same.

        Raises InvalidError (and the upload is gone: nothing is stored), ConflictError,
        NotFoundError, and what the store raises; then it may be repeated.
        """
        owned = self._uploads.get(upload)
        if owned is None:
            return await self._finished(upload, parts, digest)
        async with owned.turn:
            if owned.commit is None:
                await self._confirm(owned)
                if owned.broken:
                    raise ConflictError(_RESUME)
                await self._check_final(owned, parts, digest)
                owned.commit = outliving_task(self._commit(owned))
                owned.commit.add_done_callback(partial(_commit_ended, owned))
            elif parts != owned.parts.count:
                raise ConflictError(_ENDED)
            commit = owned.commit
        return await asyncio.shield(commit)

    async def _check_final(self, owned: _Upload, parts: int, digest: Digest | None) -> None:
        announced = Digest(owned.record.digest) if owned.record.digest is not None else None
        if parts != owned.parts.count:
            owned.parts.check_final(parts)
        try:
            owned.parts.check_final(parts, announced, digest, size=owned.record.size)
        except InvalidError:
            await self._end(owned, "failed")
            raise

    async def _finished(self, upload: str, parts: int, digest: Digest | None) -> Result:
        """The answer to a repeat that comes when the upload has ended."""
        record = decode_upload((await self._records.get(upload_key(upload))).value)
        if record.result is None:
            raise ConflictError(_RESUME if record.state in LIVE else _ENDED)
        same_parts = parts == -(-record.result.size // record.part_size)
        if not same_parts or (digest is not None and digest != record.result.digest):
            raise ConflictError(_ENDED)
        return record.result

    async def _commit(self, owned: _Upload) -> Result:
        await self._wait_all_written(owned)
        if owned.broken or owned.record.state not in LIVE:
            raise ConflictError(_RESUME)
        digest = owned.parts.digest
        stored = await self._publish(owned, digest)
        result = Result(digest=digest, size=owned.parts.size, created=stored.created)
        # A former owner that woke up may have made the blob: then it is its chunks that stay.
        keep = {owned.nuid, stored.info.generation}
        await self._stagings.remove_former(owned.record, keep=keep, digest=digest)
        try:
            await self._change(owned, state="committed", result=result)
        except HoldfastError:
            # The blob is there, which is what was promised; a repeat finds it by its digest.
            log.warning("upload_result_not_recorded", upload=owned.id)
        self._uploads.pop(owned.id, None)
        return result

    async def _publish(self, owned: _Upload, digest: Digest) -> Stored:
        """Make the parts the blob. What surely did not become one is claimed no longer."""
        mine: set[Claim] = set()

        async def claim(nuid: str) -> None:
            """Name and claim the parts, which shows that the upload is still ours."""
            one = Claim(nuid=nuid, digest=digest)
            if one not in owned.claims:  # else an attempt before this may yet be applied
                mine.add(one)
            owned.claims.add(one)
            *former, present = owned.record.nuids
            is_named = nuid in owned.record.nuids
            try:
                await self._change(
                    owned,
                    state="committing",
                    claims=tuple(dict.fromkeys((*owned.record.claims, one))),
                    nuids=owned.record.nuids if is_named else (*former, nuid, present),
                )
            except ConflictError as error:
                raise _LostError(_TAKEN_OVER) from error

        attributes = Attributes(
            type=owned.record.type,
            created_at=self._clock(),
            op_id=owned.record.op_id or owned.id,
        )
        try:
            return await owned.staged.commit(digest, owned.parts.size, attributes, claim=claim)
        except (OutcomeUnknownError, _LostError):
            raise
        except HoldfastError as error:
            owned.claims -= mine
            claims = tuple(c for c in owned.record.claims if c not in mine)
            await self._change(owned, state="open", claims=claims)
            if isinstance(error, ConflictError | CorruptError):  # what is in the way stays there
                await self._end(owned, "failed")
            raise

    async def _change(
        self,
        owned: _Upload,
        *,
        state: State,
        claims: tuple[Claim, ...] | None = None,
        nuids: tuple[str, ...] | None = None,
        result: Result | None = None,
    ) -> None:
        """Compare-and-set on the record. Raises ConflictError when it is another's by now."""
        record = msgspec.structs.replace(
            owned.record,
            state=state,
            claims=owned.record.claims if claims is None else claims,
            nuids=owned.record.nuids if nuids is None else nuids,
            result=result,
            beat=owned.record.beat + 1,
        )
        ttl = ENDED_TTL if state not in LIVE else None
        owned.revision = await self._records.put(
            upload_key(owned.id), msgspec.json.encode(record), expected=owned.revision, ttl=ttl
        )
        owned.record = record
        owned.confirmed_at = owned.beaten_at = self._monotonic()
        owned.beaten_size = owned.parts.size

    async def _end(self, owned: _Upload, state: State) -> None:
        """Give up an upload of our own."""
        await self._change(owned, state=state)
        await self._let_go(owned, keep=True)
        await self._stagings.remove_all(owned.record.nuids, owned.record.claims)

    # --- taking over ---

    async def resume(self, upload: str) -> Opened | Result:
        """Own the upload from here on; or the result, when it was committed.

        Raises NotFoundError (unknown or given up), RateLimitedError, UnavailableError (another
        worker is at it: ask again).
        """
        takeover = self._takeovers.get(upload)
        if takeover is None:
            owned = self._uploads.get(upload)
            if owned is not None and owned.commit is not None:
                return await asyncio.shield(owned.commit)
            takeover = outliving_task(self._go_on_or_take_over(upload))
            self._takeovers[upload] = takeover
            takeover.add_done_callback(look_at)
            takeover.add_done_callback(lambda _: self._takeovers.pop(upload, None))
        return await asyncio.shield(takeover)

    async def _go_on_or_take_over(self, upload: str) -> Opened | Result:
        owned = self._uploads.get(upload)
        if owned is not None and not owned.broken:
            with suppress(ConflictError):  # it is another's meanwhile
                commit = await self._catch_up(owned)
                if commit is None:
                    return _opened(owned)
                await asyncio.wait([commit])
                return commit.result()
        return await self._take_over(upload)

    async def _catch_up(self, owned: _Upload) -> asyncio.Task[Result] | None:
        """Have every part that was acknowledged, before saying as the owner which is wanted next.

        A resume that reached a worker late made it the owner while the client went on sending to
        the former one, which acknowledged parts for as long as it had not looked. Nor does a part
        count that is on its way to the store: the client forgets what is not wanted. Returns the
        commit, where one has been begun meanwhile.
        """
        async with owned.turn:
            if owned.commit is not None:
                return owned.commit
            await self._look(owned)
            await self._wait_all_written(owned)
            if len(owned.record.nuids) > 1:
                owned.broken = True  # until all of it is written
                await self._copy_parts(owned)
                await self._change(owned, state="open")
                owned.broken = False
        return None

    async def _take_over(self, upload: str) -> Opened | Result:
        present = await self._records.get(upload_key(upload))
        record = decode_upload(present.value)
        if record.result is not None:
            if len(record.nuids) > 1:  # who committed may not have come to this
                await self._stagings.remove_all(record.nuids, record.claims)
            return record.result
        if record.state not in LIVE:
            raise NotFoundError(_UNKNOWN)
        unchanged_seconds = self._observed.unchanged_seconds(present.key, present.revision)
        if record.state == "copying" and unchanged_seconds < TAKEOVER_SECONDS:
            msg = "another worker is taking the upload over"
            raise UnavailableError(msg)
        for claim in record.claims:
            result = await self._find_committed(upload, record, present.revision, claim)
            if result is not None:
                return result
        record = msgspec.structs.replace(
            record,
            owner=self._owner,
            nuids=(*record.nuids, self._new_id()),
            state="copying",
            beat=record.beat + 1,
        )
        value = msgspec.json.encode(record)
        former = self._uploads.get(upload)
        with self._place(former) as window:
            if former is not None:
                await self._retire(former)
            try:
                revision = await self._records.put(present.key, value, expected=present.revision)
            except ConflictError as error:
                msg = "another worker is taking the upload over"
                raise UnavailableError(msg) from error
            owned = self._own(upload, record, revision, window)
        try:
            async with owned.turn:
                await self._copy_parts(owned)
                await self._change(owned, state="open")
        except HoldfastError:
            await self._let_go(owned, keep=False)
            raise
        log.info("upload_taken_over", upload=upload, parts=owned.parts.count)
        return _opened(owned)

    async def _find_committed(
        self, upload: str, record: UploadRecord, revision: int, claim: Claim
    ) -> Result | None:
        """The result, if a former owner made the blob and could not say so.

        The owner may be alive, and only paused: what it wrote goes once the upload has ended.
        """
        try:
            info = await self._store.stat(Digest(claim.digest), sure=True)
        except NotFoundError:
            return None
        if info.damaged:
            return None
        created = info.generation in record.nuids
        result = Result(digest=info.digest, size=info.size, created=created)
        done = msgspec.structs.replace(record, state="committed", result=result)
        with suppress(ConflictError, UnavailableError, OutcomeUnknownError):
            value = msgspec.json.encode(done)
            await self._records.put(upload_key(upload), value, expected=revision, ttl=ENDED_TTL)
            await self._stagings.remove_former(record, keep={info.generation}, digest=info.digest)
        return result

    async def _copy_parts(self, owned: _Upload) -> None:
        """Write the parts that former owners stored under our nuid, hashing them.

        Each former staging holds a prefix of the same bytes; the longest counts.
        """
        beat_at = self._monotonic() + COPY_BEAT_SECONDS
        pending: set[asyncio.Task[None]] = set()
        for nuid in reversed(owned.record.nuids[:-1]):
            number = 0
            async for data in self._store.staged_parts(nuid):
                if number == owned.parts.count and owned.parts.accept(number, data):
                    write = asyncio.create_task(owned.staged.write(number, data))
                    write.add_done_callback(look_at)
                    owned.writes[number] = write  # whoever lets go waits for these too
                    pending.add(write)
                number += 1
                if len(pending) >= _COPY_WINDOW:
                    pending = await _wait_for_one(pending)
                if self._monotonic() >= beat_at:
                    await self._change(owned, state="copying")
                    beat_at = self._monotonic() + COPY_BEAT_SECONDS
        await asyncio.gather(*pending)
        owned.writes.clear()

    # --- giving up ---

    async def abort(self, upload: str) -> bool:
        """Give an upload up and remove its parts; False when it had ended already.

        Raises NotFoundError, ConflictError (it is being committed).
        """
        owned = self._uploads.get(upload)
        if owned is not None:
            async with owned.turn:
                with suppress(ConflictError):  # another worker's by now
                    if owned.commit is None:
                        await self._end(owned, "aborted")
                        return True
        present = await self._records.get(upload_key(upload))
        record = decode_upload(present.value)
        if record.state not in LIVE:
            return False
        if record.state == "committing" or (owned is not None and owned.commit is not None):
            msg = "the upload is being committed"
            raise ConflictError(msg)
        await self._close(present.key, present.revision, record, "aborted")
        return True

    async def _close(self, key: str, revision: int, record: UploadRecord, state: State) -> None:
        """End an upload that has no owner here, and remove what all its owners wrote."""
        ended = msgspec.structs.replace(record, state=state, beat=record.beat + 1)
        value = msgspec.json.encode(ended)
        await self._records.put(key, value, expected=revision, ttl=ENDED_TTL)
        await self._stagings.remove_all(record.nuids, record.claims)

    # --- in the background ---

    async def renew(self) -> None:
        """Renew the records of uploads that progressed, and look after those that did not.

        To be called every few seconds: after a pause of the process it finds out at once which
        uploads others have taken over. So it does of those that wait to be resumed, by anybody.
        """
        for owned in list(self._uploads.values()):
            if owned.turn.locked() or owned.commit is not None:
                continue
            async with owned.turn:
                with suppress(HoldfastError):
                    await self._confirm(owned)
                    if self._needs_beat(owned) and not owned.broken:
                        await self._change(owned, state=owned.record.state)

    def _needs_beat(self, owned: _Upload) -> bool:
        return owned.parts.size != owned.beaten_size and self._is_beat_due(owned)

    def _is_beat_due(self, owned: _Upload) -> bool:
        return self._monotonic() - owned.beaten_at >= self._limits.lease_seconds / 4

    async def sweep(self) -> int:
        """Turn uploads that nobody carries on into failures and free their space; how many.

        One counts as abandoned when this worker has itself seen its record unchanged for the
        whole lease, by its own monotonic clock, and knows of no progress of it.
        To be called ``SWEEPS_PER_LEASE`` times in each lease.
        """
        swept = 0
        seen: list[str] = []
        async for present in self._records.list_records(UPLOADS):
            try:
                record = decode_upload(present.value)
            except CorruptError:  # one bad record must not keep the others from being swept
                log.warning("upload_record_unreadable", key=present.key)
                continue
            if record.state not in LIVE:
                continue
            seen.append(present.key)
            unchanged_seconds = self._observed.unchanged_seconds(present.key, present.revision)
            if unchanged_seconds >= self._limits.lease_seconds and not self._goes_on(present.key):
                try:
                    await self._close(present.key, present.revision, record, "failed")
                except HoldfastError as error:
                    log.warning("upload_not_swept", key=present.key, code=error.code)
                else:
                    swept += 1
        self._observed.keep_only(seen)
        return swept

    def _goes_on(self, key: str) -> bool:
        """Whether it is ours, and we only did not come to say that it progresses."""
        for owned in self._uploads.values():
            if upload_key(owned.id) == key:
                progressed = owned.parts.size != owned.beaten_size
                return owned.commit is not None or (progressed and not owned.broken)
        return False

    async def aclose(self) -> None:
        """Let running writes settle, if they do so soon.

        The uploads stay open: other workers resume them, and what is still written is theirs to
        find or to remove.
        """
        running = [write for owned in self._uploads.values() for write in owned.writes.values()]
        commits = [owned.commit for owned in self._uploads.values() if owned.commit is not None]
        if running or commits:
            await asyncio.wait([*running, *commits], timeout=SETTLE_SECONDS)
        self._uploads.clear()


_RESUME: Final = "this worker does not own the upload: ask blob.resume"
_TAKEN_OVER: Final = "another worker has taken the upload over: ask blob.resume"
_ENDED: Final = "the upload has ended"
_UNKNOWN: Final = "no such upload"


def _opened(owned: _Upload) -> Opened:
    return Opened(
        upload=owned.id,
        part_size=owned.record.part_size,
        window=owned.window,
        next_part=owned.parts.count,
    )


class _LostError(ConflictError):
    """The upload is another's by now: of what was tried before nothing is known."""


def _commit_ended(owned: _Upload, commit: asyncio.Task[Result]) -> None:
    """What failed may be tried again, or given up, whether or not anybody waited for it."""
    look_at(commit)
    if owned.commit is commit and (commit.cancelled() or commit.exception() is not None):
        owned.commit = None


async def _wait_for_one(tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait until one of ``tasks`` is done; the others. Raises what it raised."""
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return pending
