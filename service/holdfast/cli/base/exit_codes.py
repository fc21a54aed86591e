"""The exit statuses. Scripts depend on these numbers: they never change meaning.

====  =============================================================
   0  done
   1  failed in some other way
   2  wrong usage, or a request that can never succeed
   3  not found
   4  conflict
   5  stored data is corrupt
   6  unavailable, busy, or outcome unknown: try again
   7  forbidden
   8  no room: the store's quota is used up
 130  interrupted (Ctrl-C, SIGTERM)
 141  the reader of the output went away
====  =============================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.errors import HoldfastError

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
CONFLICT: Final = 4
CORRUPT: Final = 5
UNAVAILABLE: Final = 6
FORBIDDEN: Final = 7
NO_ROOM: Final = 8
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

EXIT_CODES: Final[Mapping[str, int]] = {
    "invalid": USAGE,
    "too_large": USAGE,
    "not_found": NOT_FOUND,
    "conflict": CONFLICT,
    "corrupt": CORRUPT,
    "unavailable": UNAVAILABLE,
    "rate_limited": UNAVAILABLE,
    "outcome_unknown": UNAVAILABLE,
    "forbidden": FORBIDDEN,
    "quota_exceeded": NO_ROOM,
    "internal": FAILURE,
}


def exit_code_of(error: HoldfastError) -> int:
    """The exit status that tells of ``error``."""
    return EXIT_CODES.get(error.code, FAILURE)
