"""The body of a failed answer: problem details (RFC 9457) with holdfast's code."""

from __future__ import annotations

from holdfast.errors import HoldfastError, error_for
from holdfast.protocol.message import Reply


class Problem(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """A failure. ``retryable``: the same request may succeed later, unchanged."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    retryable: bool


def problem_of(error: HoldfastError) -> Problem:
    """``error`` as it travels."""
    return Problem(
        type=f"urn:holdfast:error:{error.code}",
        title=error.title,
        status=error.status,
        code=error.code,
        detail=error.detail.encode(errors="replace").decode(),  # a lone surrogate cannot travel
        retryable=error.retryable,
    )


def error_of(problem: Problem) -> HoldfastError:
    """The exception that ``problem`` tells of."""
    return error_for(problem.code, problem.detail)
