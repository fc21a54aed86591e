"""Time and identifiers as one value, passed to their users: nobody below the root draws any.

``bootstrap.sources`` has those of a process; a test has its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def utc_now() -> datetime:
    """The wall clock, for a process's root and its commands; whatever is below is passed one."""
    return datetime.now(UTC)  # noqa: TID251  (here the clock enters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where time and identifiers come from.

    ``clock`` is the time of day, with its zone; ``monotonic`` gives seconds that only rise.
    ``new_id`` gives 22 of A-Z a-z 0-9, in form a nuid, which no other process makes; ``new_uuid``
    a UUID of version 7.
    """

    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    new_id: Callable[[], str]
    new_uuid: Callable[[], str]
