"""Uploads: a streamed put that survives the worker that owns it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    TooLargeError,
)
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE, Lapses, Watched
from holdfast.repository.ledger.ledger import Held, Ledger
from holdfast.repository.ledger.ops import Ops
from holdfast.repository.targets import NewTarget, Targets, UploadTarget
from holdfast.repository.uploads.owned import ENDED, RESUME, Opened, OwnedUpload, UploadLimits
from holdfast.repository.uploads.record import UPLOAD, Result, State, UploadRecord, at, delivered
from holdfast.repository.uploads.stagings import Stagings
from holdfast.repository.uploads.table import UploadTable
from holdfast.repository.uploads.takeover import Takeovers, check_found

if TYPE_CHECKING:
    from collections.abc import Buffer

    from holdfast.sources import Sources
    from holdfast.stores.ports import BlobStore
    from holdfast.stores.record_ports import RecordStore

SETTLE_SECONDS: Final = 1.0


class UploadService:
    """The uploads of one worker. Single event loop; the record store arbitrates between workers."""

    def __init__(
        self,
        store: BlobStore,
        records: RecordStore,
        *,
        owner: str,
        part_size: int,
        sources: Sources,
        limits: UploadLimits,
        targets: Targets,
    ) -> None:
        """``owner`` names this worker; ``targets`` are the names that blobs may be for."""
        self._store = store
        self._ledger = Ledger(records)
        self._ops = Ops(records)
        self._owner = owner
        self._part_size = part_size
        self._sources = sources
        self._limits = limits
        self._stagings = Stagings(store)
        self._targets = targets
        self._table = UploadTable(limits, part_size=part_size)
        watched = Watched(
            kind=UPLOAD,
            lease_seconds=lambda _record: limits.lease_seconds,
            is_ours=self._goes_on,
            give_up=self._give_up,
        )
        self._lapses = Lapses(
            self._ledger,
            [watched],
            monotonic=sources.monotonic,
            sweep_seconds=limits.lease_seconds / SWEEPS_PER_LEASE,
        )
        self._takeovers = Takeovers(
            self._ledger,
            self._table,
            self._stagings,
            targets,
            owner=owner,
            own=self._own,
            unchanged_seconds=self._lapses.unchanged_seconds,
            new_id=sources.new_id,
        )

    @property
    def active(self) -> int:
        """The number of owned uploads."""
        return len(self._table)

    @property
    def lease_seconds(self) -> float:
        """Seconds an upload may be silent."""
        return self._limits.lease_seconds

    async def open(
        self,
        *,
        size: int | None,
        digest: Digest | None,
        type: str,  # noqa: A002  (the wire's word)
        op_id: str | None,
        new: NewTarget | None = None,
        note: str = "",
    ) -> Opened | Result:
        """Begin an upload; or say that the announced ``digest`` is stored already.

        ``note`` is kept with it, for `look`. With ``new`` it is for a name, which has the blob when
        the upload has ended. Raises TooLargeError, RateLimitedError, ConflictError (the ``op_id``
        is another request's), and what `Targets.announce` does.
        """
        if size is not None and size > self._limits.max_blob_bytes:
            raise TooLargeError(f"a blob has at most {self._limits.max_blob_bytes} bytes")
        upload, repeated = await self._ops.claim(op_id, self._sources.new_id())
        if repeated:
            with suppress(NotFoundError):
                return await self.resume(upload)
        target = None
        if new is not None:
            target = UploadTarget(name=new.name, op=op_id or upload)
            made = await self._targets.announce(new, target.op, upload)
            if made is not None:
                result = Result(digest=made.digest, size=made.size, created=False)
                return delivered(result, made)
        record = UploadRecord(
            owner=self._owner,
            nuids=(self._sources.new_id(),),
            part_size=self._part_size,
            type=type,
            created_at=self._sources.clock().isoformat(),
            size=size,
            digest=digest,
            op_id=op_id,
            target=target,
            note=note,
        )
        try:
            opened = await self._begin(upload, record)
        except HoldfastError as error:
            if target is not None and not isinstance(error, OutcomeUnknownError):
                await self._targets.fail(target, error.detail)
            raise
        return opened or await self.resume(upload)

    async def _begin(self, upload: str, record: UploadRecord) -> Opened | Result | None:
        """The upload, or its result at once; None where a repeat of the request was quicker."""
        if record.digest is not None:
            result = await self._present(Digest(record.digest), record.target)
            if result is not None:
                return result
        with self._table.place() as window, suppress(ConflictError):
            held = await self._ledger.begin(UPLOAD, upload, record)
            return self._own(held, window).opened
        return None

    async def _present(self, digest: Digest, target: UploadTarget | None) -> Result | None:
        """The result of an upload of which nothing has to be sent."""
        with suppress(NotFoundError):
            info = await self._store.stat(digest, sure=True)
            if info.damaged:
                return None
            result = Result(digest=info.digest, size=info.size, created=False)
            if target is None:
                return result if info.pinned else None  # a commit pins it
            named = await self._targets.commit_present(target, digest, info.size)
            return None if named is None else delivered(result, named)
        return None

    def _own(self, held: Held[UploadRecord], window: int) -> OwnedUpload:
        owned = OwnedUpload(
            held,
            self._ledger,
            self._stagings,
            self._targets,
            window=window,
            limits=self._limits,
            sources=self._sources,
            leave=self._table.drop,
        )
        self._table[owned.id] = owned
        return owned

    async def part(self, upload: str, part: int, data: Buffer) -> int:
        """Store one part; returns its number once it is durable.

        Raises InvalidError, ConflictError, NotFoundError, TooLargeError, and what the store
        raises; after a store's failure the upload must be resumed.
        """
        await (await self._mine(upload)).part(part, data)
        return part

    async def tail(self, upload: str, part: int, at: int, data: Buffer) -> int:
        """Store ``data`` as bytes from ``at`` on of a part that need not become whole by them.

        Returns how many bytes the upload holds, all of them durable. Those that it held before may
        come again. Raises as ``part``.
        """
        return await (await self._mine(upload)).extend(part, at, data)

    async def keep(self, upload: str) -> int:
        """Renew the lease, for a sender that has nothing to send yet; how many bytes are held.

        Raises as ``part``.
        """
        return await (await self._mine(upload)).keep()

    async def look(self, upload: str) -> UploadRecord:
        """The record of an upload that goes on or has come to its blob, of any owner.

        Raises NotFoundError (unknown or given up), ConflictError (its name does not get the blob).
        """
        held = await self._ledger.get(UPLOAD, upload)
        check_found(held)
        return held.record

    async def _mine(self, upload: str) -> OwnedUpload:
        """Raises NotFoundError, ConflictError."""
        owned = self._table.get(upload)
        if owned is None:
            held = await self._ledger.get(UPLOAD, upload)
            raise ConflictError(RESUME if held.is_live else ENDED)
        return owned

    async def final(self, upload: str, parts: int, digest: Digest | None) -> Result:
        """Make the parts a blob. May be repeated: the answer is the same.

        Raises InvalidError (and the upload is gone: nothing is stored), ConflictError,
        NotFoundError, and what the store raises; then it may be repeated.
        """
        owned = self._table.get(upload)
        if owned is None:
            return await self._finished(upload, parts, digest)
        return await owned.final(parts, digest)

    async def _finished(self, upload: str, parts: int, digest: Digest | None) -> Result:
        """The answer to a repeat that comes when the upload has ended."""
        held = await self._ledger.get(UPLOAD, upload)
        held.record.check_not_refused()
        result = held.record.result
        if result is None:
            raise ConflictError(RESUME if held.is_live else ENDED)
        same_parts = parts == -(-result.size // held.record.part_size)
        if not same_parts or (digest is not None and digest != result.digest):
            raise ConflictError(ENDED)
        return result

    async def resume(self, upload: str) -> Opened | Result:
        """Own the upload from here on; or the result, when it was committed.

        Raises NotFoundError (unknown or given up), RateLimitedError, UnavailableError (another
        worker is at it: ask again).
        """
        return await self._takeovers.resume(upload)

    async def is_live(self, upload: str) -> bool:
        """Whether somebody may carry the upload on."""
        held = await self._ledger.find(UPLOAD, upload)
        return held is not None and held.is_live

    async def abort(self, upload: str) -> bool:
        """Give an upload up and remove its parts; False when it had ended already.

        Raises NotFoundError, ConflictError (it is being committed).
        """
        owned = self._table.get(upload)
        if owned is not None:
            async with owned.turn:
                with suppress(ConflictError):  # another worker's by now
                    if owned.commit is None:
                        await owned.end("aborted")
                        return True
        held = await self._ledger.get(UPLOAD, upload)
        if not held.is_live:
            return False
        is_ours = owned is not None and owned.commit is not None
        if held.record.state == "committing" or is_ours:
            raise ConflictError("the upload is being committed")
        await self._close("aborted", held)
        return True

    async def _close(self, state: State, held: Held[UploadRecord]) -> None:
        """End an upload that has no owner here, and remove what all its owners wrote."""
        ended = await self._ledger.take(held, partial(at, state))
        await self._stagings.remove_all(ended.record.stagings, ended.record.claims)
        if ended.record.target is not None:
            await self._targets.fail(ended.record.target, f"the upload was {state}")

    async def _give_up(self, held: Held[UploadRecord]) -> None:
        """End an upload that nobody carries on: well, if its blob for a name is there."""
        if held.record.target is None or await self._takeovers.find_committed(held) is None:
            await self._close("failed", held)

    # --- in the background ---

    async def renew(self) -> None:
        """Renew the records of uploads that progressed, and look after those that did not.

        To be called every few seconds: after a pause of the process it finds out at once which
        uploads others have taken over. So it does of those that wait to be resumed, by anybody.
        """
        for owned in list(self._table.values()):
            await owned.renew()

    async def sweep(self) -> int:
        """Turn uploads that nobody carries on into failures and free their space; how many.

        To be called ``SWEEPS_PER_LEASE`` times in each lease.
        """
        return await self._lapses.sweep()

    def _goes_on(self, held: Held[UploadRecord]) -> bool:
        owned = self._table.get(held.name)
        return owned is not None and owned.goes_on

    async def aclose(self) -> None:
        """Let running writes settle, if they do so soon.

        The uploads stay open: other workers resume them, and what is still written is theirs to
        find or to remove.
        """
        owned = self._table.values()
        running = [write for one in owned for write in one.writes.values()]
        commits = [one.commit for one in owned if one.commit is not None]
        if running or commits:
            await asyncio.wait([*running, *commits], timeout=SETTLE_SECONDS)
        self._table.clear()
