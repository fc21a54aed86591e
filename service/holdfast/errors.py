"""Every failure a caller of holdfast can meet: a short closed list.

One class per thing a caller would do differently. The code and the status are part of the wire;
once released, a code never changes its meaning. Foreign exceptions are translated into these where
they enter the process, with the cause chained.
"""

from __future__ import annotations

from typing import ClassVar, Final


class HoldfastError(Exception):
    """Root of all failures that holdfast reports.

    ``detail`` is a sentence for the person who reads the answer. It travels over the wire, so it
    names what the caller sent and never anything internal.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title


class InvalidError(HoldfastError):
    """The request can never succeed as it was sent."""

    code = "invalid"
    status = 400
    title = "Invalid request"


class ForbiddenError(HoldfastError):
    """The caller may not do this."""

    code = "forbidden"
    status = 403
    title = "Forbidden"


class NotFoundError(HoldfastError):
    """The target is surely not there. Never raised because a store could not be reached."""

    code = "not_found"
    status = 404
    title = "Not found"

    def __init__(self, detail: str = "", *, index: int | None = None) -> None:
        """``index``: the first command that a log still has, where those before it are gone."""
        super().__init__(detail)
        self.index = index


class ConflictError(HoldfastError):
    """Another writer was first, or the state does not allow this step."""

    code = "conflict"
    status = 409
    title = "Conflict"

    def __init__(
        self, detail: str = "", *, version: int | None = None, index: int | None = None
    ) -> None:
        """In the way is the ``version`` of a name (0: it has no blob), or ``index`` of a log."""
        super().__init__(detail)
        self.version = version
        self.index = index


class TooLargeError(HoldfastError):
    """A named limit on size or count is exceeded."""

    code = "too_large"
    status = 413
    title = "Too large"


class RateLimitedError(HoldfastError):
    """This worker is at its limit of concurrent work; nothing was done."""

    code = "rate_limited"
    status = 429
    title = "Too many requests"
    retryable = True


class InternalError(HoldfastError):
    """A bug. The worker's log has the whole story under the request's id."""


class CorruptError(HoldfastError):
    """Stored bytes do not match what was recorded about them. They were not served."""

    code = "corrupt"
    status = 500
    title = "Stored data is corrupt"

    def __init__(self, detail: str = "", *, index: int | None = None) -> None:
        """``index``: the first command that a log has lost, or that cannot be read."""
        super().__init__(detail)
        self.index = index


class UnavailableError(HoldfastError):
    """A store or worker could not be reached. Surely not applied: safe to repeat."""

    code = "unavailable"
    status = 503
    title = "Unavailable"
    retryable = True


class OutcomeUnknownError(HoldfastError):
    """May have been applied. Repeat with the same ``Op-Id``, or read to find out."""

    code = "outcome_unknown"
    status = 504
    title = "Outcome unknown"
    retryable = True


class QuotaExceededError(HoldfastError):
    """The store's configured capacity is used up; nothing was stored."""

    code = "quota_exceeded"
    status = 507
    title = "Quota exceeded"


ERRORS: Final[tuple[type[HoldfastError], ...]] = (
    InvalidError,
    ForbiddenError,
    NotFoundError,
    ConflictError,
    TooLargeError,
    RateLimitedError,
    InternalError,
    CorruptError,
    UnavailableError,
    OutcomeUnknownError,
    QuotaExceededError,
)

_BY_CODE: Final = {error.code: error for error in ERRORS}


def error_for(
    code: str, detail: str, *, version: int | None = None, index: int | None = None
) -> HoldfastError:
    """The exception for a wire ``code``; a code this version does not know is an InternalError."""
    if code == ConflictError.code:
        return ConflictError(detail, version=version, index=index)
    if code == NotFoundError.code:
        return NotFoundError(detail, index=index)
    if code == CorruptError.code:
        return CorruptError(detail, index=index)
    return _BY_CODE.get(code, InternalError)(detail)
