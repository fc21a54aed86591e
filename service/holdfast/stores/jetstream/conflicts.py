"""A compare-and-set that is refused again and again, and its outcome as known.

A refusal says that this attempt was not applied. It says nothing of one before that timed out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from holdfast.deadline import seconds_left
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.transport.backoff import Backoff
from holdfast.transport.jetstream_messages import WRITE_IN_FLIGHT

if TYPE_CHECKING:
    from types import TracebackType

    from holdfast.transport.jetstream_messages import RefusedError

UNKNOWN: Final = "the store did not say whether it has the data"
_MOST: Final = 8
"""Conflicts with records that others have changed; and writes under way that were met."""

_WAIT_SECONDS: Final = 0.02
_LONGEST_WAIT_SECONDS: Final = 0.5


class Certainty:
    """Whether nothing of a change was ever stored; ``unknown`` is said where that is not certain.

    ``certain`` is taken back when an attempt is not answered. In its context a change that may have
    been applied stays unknown, whatever fails afterwards.
    """

    def __init__(self, unknown: str = UNKNOWN) -> None:
        self.certain = True
        self._unknown = unknown

    def __enter__(self) -> None:
        """Begin: the attempts are judged at the end."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raises OutcomeUnknownError in place of what says that nothing was applied."""
        if isinstance(error, UnavailableError | QuotaExceededError) and not self.certain:
            raise OutcomeUnknownError(self._unknown) from error

    def or_unknown(self, error: HoldfastError) -> HoldfastError:
        """``error``, which says that nothing was applied, if that is certain."""
        return error if self.certain else OutcomeUnknownError(self._unknown)


class Conflicts(Certainty):
    """Refusals of a compare-and-set, until one gives up.

    ``tried`` is what may have been stored, as ``trying``, the write at hand, was named. ``met`` is
    the sequence that a touch was to replace. One that is refused twice at the same sequence meets a
    write that nobody can read yet, or ever will.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trying = self.tried = ""
        self.met: float = math.inf
        self._backoff: Backoff | None = None  # hardly ever needed
        self._in_flight = False
        self._refused_at = -1
        self._overtaken = self._met_in_flight = 0

    def are_too_many(self) -> bool:
        """Whether it is time to give up, with `failure`."""
        return max(self._overtaken, self._met_in_flight) >= _MOST

    def note(self, refused: RefusedError, sequence: int) -> None:
        """One more, of a write over the record at ``sequence``.

        Raises what was refused for another reason than a conflict.
        """
        if not refused.certain:
            self.certain, self.tried = False, self.trying
        if not refused.conflict:
            raise refused.translate() from refused
        is_hidden = sequence == self._refused_at
        self._in_flight = is_hidden or refused.error.err_code == WRITE_IN_FLIGHT
        self._refused_at = sequence
        self._met_in_flight += self._in_flight
        self._overtaken += not self._in_flight

    async def wait(self) -> None:
        """Give the other writer time, if it is not done. Raises `failure` when there is none."""
        is_done = self.certain and not self._in_flight
        if seconds_left(math.inf) <= 0 or not (is_done or await self._wait()):
            raise self.failure()

    async def _wait(self) -> bool:
        if self._backoff is None:
            self._backoff = Backoff(_WAIT_SECONDS, _LONGEST_WAIT_SECONDS)
        return await self._backoff.wait()

    def failure(self) -> HoldfastError:
        """The error to report."""
        if self._in_flight:
            return self.or_unknown(UnavailableError("another write is under way and does not end"))
        return self.or_unknown(ConflictError("other writers kept changing the blob"))
