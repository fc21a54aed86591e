"""The body of a failed answer: problem details (RFC 9457) with holdfast's code."""

from __future__ import annotations

from holdfast.errors import ConflictError, HoldfastError, NotFoundError, error_for
from holdfast.protocol.message import Reply, ToldCount


class Problem(Reply, frozen=True, kw_only=True):
    """A failure. ``retryable``: the same request may succeed later, unchanged.

    ``version`` is what a name has (0: no blob) where a condition of the request did not hold, and
    ``index`` what a log has: of a conflict its last command or that of the newest save, of what is
    not found the first command that is still there, which is told as ``first_index`` too.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    retryable: bool
    version: ToldCount | None = None
    index: ToldCount | None = None
    first_index: ToldCount | None = None


def problem_of(error: HoldfastError) -> Problem:
    """``error`` as it travels."""
    return Problem(
        type=f"urn:holdfast:error:{error.code}",
        title=error.title,
        status=error.status,
        code=error.code,
        detail=error.detail.encode(errors="replace").decode(),  # a lone surrogate cannot travel
        retryable=error.retryable,
        version=error.version if isinstance(error, ConflictError) else None,
        index=error.index if isinstance(error, ConflictError | NotFoundError) else None,
        first_index=error.index if isinstance(error, NotFoundError) else None,
    )


def error_of(problem: Problem) -> HoldfastError:
    """The exception that ``problem`` tells of."""
    return error_for(problem.code, problem.detail, version=problem.version, index=problem.index)
