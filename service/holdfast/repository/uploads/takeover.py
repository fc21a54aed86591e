"""Going on with uploads whose owner is gone, or is this worker itself.

A worker that takes over writes a nuid of its own into the record, copies what is stored to it, and
goes on. Parts that a former owner has claimed may be the blob already: then that is the result.

Why: docs/decisions.md, "Takeover by copying".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.deadline import shared_task
from holdfast.domain.digest import Digest
from holdfast.errors import ConflictError, NotFoundError, OutcomeUnknownError, UnavailableError
from holdfast.repository.targets import Named, RefusedDeliveryError, Targets, UploadTarget
from holdfast.repository.uploads.record import (
    UPLOAD,
    Claim,
    Result,
    UploadRecord,
    committed,
    delivered,
    refused,
    taken_over,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.repository.ledger.ledger import Held, Ledger
    from holdfast.repository.uploads.owned import Opened, OwnedUpload
    from holdfast.repository.uploads.stagings import Stagings
    from holdfast.repository.uploads.table import UploadTable

TAKEOVER_SECONDS: Final = 10.0
"""Seconds a worker that takes an upload over may seem to do nothing."""

_BUSY: Final = "another worker is taking the upload over"


def check_found(held: Held[UploadRecord]) -> None:
    """Raises NotFoundError, ConflictError of an upload that ended without its blob."""
    held.record.check_not_refused()
    if held.record.result is None and not held.is_live:
        raise NotFoundError("no such upload")


class Takeovers:
    """Uploads that this worker resumes; at most one resumption of each at a time."""

    def __init__(
        self,
        ledger: Ledger,
        table: UploadTable,
        stagings: Stagings,
        targets: Targets,
        *,
        owner: str,
        own: Callable[[Held[UploadRecord], int], OwnedUpload],
        unchanged_seconds: Callable[[Held[UploadRecord]], float],
        new_id: Callable[[], str],
    ) -> None:
        """``own`` makes an upload this worker's, with a window of so many bytes.

        ``unchanged_seconds`` says for how long a record was seen as it is.
        """
        self._ledger = ledger
        self._table = table
        self._stagings = stagings
        self._targets = targets
        self._owner = owner
        self._own = own
        self._unchanged_seconds = unchanged_seconds
        self._new_id = new_id
        self._running: dict[str, asyncio.Task[Opened | Result]] = {}

    async def resume(self, upload: str) -> Opened | Result:
        """See `UploadService.resume`."""
        owned = self._table.get(upload)
        if upload not in self._running and owned is not None and owned.commit is not None:
            with suppress(ConflictError):  # it is another's meanwhile
                return await asyncio.shield(owned.commit)
        return await asyncio.shield(self._running.get(upload) or self._begin(upload))

    def _begin(self, upload: str) -> asyncio.Task[Opened | Result]:
        running = shared_task(self._go_on_or_take_over(upload))
        self._running[upload] = running
        running.add_done_callback(lambda _: self._running.pop(upload, None))
        return running

    async def _go_on_or_take_over(self, upload: str) -> Opened | Result:
        owned = self._table.get(upload)
        if owned is not None and not owned.broken:
            with suppress(ConflictError):  # it is another's meanwhile
                commit = await owned.catch_up()
                if commit is None:
                    return owned.opened
                await asyncio.wait([commit])
                return commit.result()
        return await self._take_over(upload)

    async def _take_over(self, upload: str) -> Opened | Result:
        held = await self._ledger.get(UPLOAD, upload)
        record = held.record
        if record.result is not None:
            if len(record.stagings) > 1:  # who committed may not have come to this
                await self._stagings.remove_all(record.stagings, record.claims)
            return record.result
        check_found(held)
        if self._unchanged_seconds(held) < TAKEOVER_SECONDS and record.state == "copying":
            raise UnavailableError(_BUSY)
        result = await self.find_committed(held)
        if result is not None:
            return result
        former = self._table.get(upload)
        with self._table.place(former) as window:
            if former is not None:
                await former.retire()
            try:
                held = await self._ledger.take(
                    held, partial(taken_over, self._owner, self._new_id())
                )
            except ConflictError as error:
                raise UnavailableError(_BUSY) from error
            owned = self._own(held, window)
        try:
            await owned.take_up()
        except ConflictError as error:  # yet another was quicker
            raise UnavailableError(_BUSY) from error
        return owned.opened

    async def find_committed(self, held: Held[UploadRecord]) -> Result | None:
        """The result, if a former owner made the blob and could not say so.

        The owner may be alive, and only paused: what it wrote goes once the upload has ended. A
        name that the blob is for has it then, too. Raises RefusedDeliveryError: the upload failed.
        """
        for claim in held.record.claims:
            result = await self._find_claimed(held, claim)
            if result is not None:
                return result
        return None

    async def _find_claimed(self, held: Held[UploadRecord], claim: Claim) -> Result | None:
        try:
            info = await self._stagings.store.stat(Digest(claim.digest), sure=True)
        except NotFoundError:
            return None
        if info.damaged:
            return None
        if held.record.target is None and (info.deleted or not info.pinned):  # a commit pins it
            return None
        created = info.generation in held.record.nuids
        result = Result(digest=info.digest, size=info.size, created=created)
        if held.record.target is not None:
            named = await self._give(held, held.record.target, result)
            if named is None:
                return None
            result = delivered(result, named)
        with suppress(ConflictError, UnavailableError, OutcomeUnknownError):
            await self._ledger.take(held, partial(committed, result))
            await self._stagings.remove_former(
                held.record, keep={info.generation}, digest=info.digest
            )
        return result

    async def _give(
        self, held: Held[UploadRecord], target: UploadTarget, result: Result
    ) -> Named | None:
        """Have the name have the blob; None where that went away meanwhile."""
        try:
            return await self._targets.commit_present(target, Digest(result.digest), result.size)
        except RefusedDeliveryError as error:
            await self._ledger.take(held, partial(refused, error))
            raise
