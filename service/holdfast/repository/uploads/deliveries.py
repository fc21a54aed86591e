"""An upload's steps for the name that its blob is for, if there is one.

Why: docs/decisions.md, "The end of a streamed write".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from holdfast.errors import ConflictError, InvalidError, NotFoundError
from holdfast.repository.targets import GivenUpError, NewTarget, Targets, UploadTarget
from holdfast.repository.uploads.record import Result

if TYPE_CHECKING:
    from holdfast.domain.digest import Digest


class RefusedDeliveryError(ConflictError):
    """The name does not get the blob, now or later: the upload has failed."""


class Deliveries:
    """Speaks for uploads to the names of a deployment. Uploads without a name need nothing."""

    def __init__(self, targets: Targets | None) -> None:
        """None where there are no names."""
        self._targets = targets

    async def announce(self, new: NewTarget, op: str, upload: str) -> UploadTarget | Result:
        """The target of an upload that may be begun, or the result that it had before.

        Raises as `Targets.announce`.
        """
        if self._targets is None:
            raise InvalidError("there are no names here")
        given = await self._targets.announce(new, op, upload)
        if given is None:
            return UploadTarget(name=new.name, op=op)
        return Result(
            digest=given.digest,
            size=given.size,
            created=False,
            name=new.name,
            version=given.version,
        )

    async def promise(self, target: UploadTarget | None, digest: Digest, size: int) -> None:
        """To be awaited before the blob's record is published. Raises RefusedDeliveryError."""
        if self._targets is not None and target is not None:
            try:
                await self._targets.promise(target, digest, size)
            except GivenUpError as error:
                raise RefusedDeliveryError(error.detail) from error

    async def give(self, target: UploadTarget | None, result: Result) -> Result:
        """The result once the name has the blob, which is there and was touched after the promise.

        Raises RefusedDeliveryError, UnavailableError, OutcomeUnknownError.
        """
        if self._targets is None or target is None:
            return result
        try:
            given = await self._targets.commit(target)
        except ConflictError as error:
            raise RefusedDeliveryError(error.detail, version=error.version) from error
        except NotFoundError as error:
            raise RefusedDeliveryError(error.detail, version=0) from error
        except GivenUpError as error:
            raise RefusedDeliveryError(error.detail) from error
        return replace(result, name=target.name, version=given.version)

    async def give_present(self, target: UploadTarget, digest: Digest, size: int) -> Result | None:
        """As `promise` and `give`, of a blob that is there already; None if it is not."""
        await self.promise(target, digest, size)
        if self._targets is None or not await self._targets.touch(digest):
            return None
        return await self.give(target, Result(digest=digest, size=size, created=False))

    async def fail(self, target: UploadTarget | None, reason: str) -> None:
        """To be awaited once the upload has ended without a blob."""
        if self._targets is not None and target is not None:
            await self._targets.fail(target, reason)
