"""Names as targets of uploads: `holdfast.repository.targets` for what each method promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.domain.blob_names import check_blob_name
from holdfast.errors import ConflictError, NotFoundError
from holdfast.repository.names.record import NameRecord, announcing, made_by
from holdfast.repository.names.writes import MadeBeforeError, NameWrites, named
from holdfast.repository.targets import (
    GivenUpError,
    Named,
    NewTarget,
    RefusedDeliveryError,
    UploadTarget,
)

if TYPE_CHECKING:
    from holdfast.domain.digest import Digest
    from holdfast.repository.ledger.ledger import Held
    from holdfast.repository.names.bytes import NamedBytes
    from holdfast.sources import Sources


class NameTargets:
    """The `Targets` of a deployment."""

    def __init__(self, writes: NameWrites, stored: NamedBytes, sources: Sources) -> None:
        """``stored`` touches blobs."""
        self._writes = writes
        self._stored = stored
        self._sources = sources

    async def announce(self, new: NewTarget, op: str, upload: str) -> Named | None:
        """See `Targets.announce`."""
        check_blob_name(new.name)
        new.said.check(new.verb)
        one = announcing(new.verb, new.said, op=op, at=self._sources.clock(), upload=upload)
        try:
            held = await self._writes.announce(new.name, one)
        except MadeBeforeError as error:
            return error.made
        return named(held.record, op) if made_by(held.record, op) is not None else None

    async def promise(self, target: UploadTarget, digest: Digest, size: int) -> None:
        """See `Targets.promise`."""
        try:
            await self._writes.promise(await self._held(target), target.op, digest, size)
        except GivenUpError as error:
            raise RefusedDeliveryError(error.detail) from error

    async def commit(self, target: UploadTarget) -> Named:
        """See `Targets.commit`."""
        try:
            return await self._writes.commit(await self._held(target), target.op)
        except ConflictError as error:
            raise RefusedDeliveryError(error.detail, version=error.version) from error
        except NotFoundError as error:
            raise RefusedDeliveryError(error.detail, version=0) from error
        except GivenUpError as error:
            raise RefusedDeliveryError(error.detail) from error

    async def commit_present(self, target: UploadTarget, digest: Digest, size: int) -> Named | None:
        """See `Targets.commit_present`."""
        await self.promise(target, digest, size)
        return await self.commit(target) if await self._stored.touch(digest) else None

    async def fail(self, target: UploadTarget, reason: str) -> None:
        """See `Targets.fail`."""
        await self._writes.fail(target.name, target.op, reason)

    async def _held(self, target: UploadTarget) -> Held[NameRecord]:
        held = await self._writes.look(target.name)
        if held is None:
            raise GivenUpError
        return held
