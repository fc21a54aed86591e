"""The target of an upload's blob beside the store: a name that is to have it.

Uploads know names by this port only. The order of an upload's end: the digest is promised, the blob
is made (or touched, if it was there), the name has it, and then the upload has ended. So a worker
that answers that an upload is committed knows that its name is.

Why: docs/decisions.md, "The end of a streamed write".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from holdfast.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from holdfast.domain.blob_names import Said, Verb
    from holdfast.domain.digest import Digest


class GivenUpError(UnavailableError):
    """The announcement is gone: others took it for abandoned. Nothing came of it."""


class RefusedDeliveryError(ConflictError):
    """The name does not get the blob, now or later: the upload has failed."""


class UploadTarget(msgspec.Struct, frozen=True, kw_only=True):
    """The name of an open upload, and the write ``op`` that it announced there."""

    name: str
    op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTarget:
    """A name that an upload is to be opened for."""

    name: str
    verb: Verb
    said: Said


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The answer to a write: the name has this blob, as this version."""

    name: str
    digest: str
    size: int
    version: int


class Targets(Protocol):
    """The names of a deployment, for uploads.

    All of it may be repeated. RefusedDeliveryError says that the conditions of the write do not
    hold any more, or that it was given up: nothing is announced then.
    """

    async def announce(self, new: NewTarget, op: str, upload: str) -> Named | None:
        """Announce the write, before the upload is begun; what came of it, if it was made before.

        Raises InvalidError, ConflictError, NotFoundError, RateLimitedError, UnavailableError.
        """

    async def promise(self, target: UploadTarget, digest: Digest, size: int) -> None:
        """Say which blob it will be, before its record is published.

        Raises RefusedDeliveryError, ConflictError (it kept changing), UnavailableError.
        """

    async def commit(self, target: UploadTarget) -> Named:
        """Have the name have the blob that was promised, and is there, touched after that.

        Raises RefusedDeliveryError, UnavailableError, OutcomeUnknownError.
        """

    async def commit_present(self, target: UploadTarget, digest: Digest, size: int) -> Named | None:
        """As `promise` and `commit`, of a blob that is there already; None if it is not."""

    async def fail(self, target: UploadTarget, reason: str) -> None:
        """End the announcement without a blob; where that fails, its lapse does."""
