"""Times on the wire: RFC 3339 in UTC, ending in ``Z``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from holdfast.errors import InvalidError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_NS: Final = 1_000_000_000
_FIRST_NS: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) * _NS
_LAST_NS: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) * _NS


def wire_time(at: datetime) -> str:
    """``at``, to the microsecond. Raises OverflowError where it is in no year from 1 to 9999."""
    return as_utc(at.astimezone(UTC).isoformat(timespec="microseconds"))


def asked_time(at: datetime | str | None) -> str | None:
    """A time of a caller as it is sent. Raises InvalidError for one without a time zone."""
    if not isinstance(at, datetime):
        return at
    if at.tzinfo is None:
        msg = "a time needs a time zone"
        raise InvalidError(msg)
    try:
        return wire_time(at)
    except OverflowError:
        msg = "a time is between the years 1 and 9999 in UTC"
        raise InvalidError(msg) from None


def as_utc(text: str) -> str:
    """A time in UTC as ``datetime`` writes it and records have it, as the wire has it."""
    return text.replace("+00:00", "Z")


def nanosecond_time(mtime_ns: int) -> str:
    """A time of a file; years before 1 or after 9999 become the nearest there is."""
    seconds, nanoseconds = divmod(max(min(mtime_ns, _LAST_NS), _FIRST_NS), _NS)
    at = _EPOCH + timedelta(seconds=seconds)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z".rjust(30, "0")


def parse_time(text: str) -> datetime | None:
    """A time of a request, which is in UTC unless it says otherwise; None where it is none."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def parse_zoned_time(text: str) -> datetime | None:
    """A time in UTC, of which ``text`` says the zone as RFC 3339 has it; None where it is none."""
    if _RFC3339.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):  # at the edge of time there is no other zone
        return None


def told_time(text: str | None, what: str) -> datetime | None:
    """As ``parse_zoned_time``; None of None. Raises InvalidError that says ``what`` is none."""
    if text is None:
        return None
    at = parse_zoned_time(text)
    if at is None:
        raise InvalidError(f"{what} is a time as RFC 3339 has it, with its zone")
    return at
