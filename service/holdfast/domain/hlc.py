"""Hybrid logical clocks (Kulkarni et al., 2014): times that only rise, however clocks differ.

A time is milliseconds since 1970 and a counter that tells apart what happens in one of them. Where
the counter is full it carries into the milliseconds. As texts of fixed width times sort as they
follow on each other.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_COUNTER: Final = 0xFFFF
MAX_DRIFT: Final = timedelta(seconds=60)
"""The most that clocks which work together may differ."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MAX_MILLISECONDS: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_TIMES: Final = 1024
_TEXT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z-([0-9a-f]{4})", re.ASCII)


class Hlc(NamedTuple):
    """One time. They compare as they follow on each other."""

    milliseconds: int
    counter: int

    def __str__(self) -> str:
        """The time as text: ``2026-11-29T23:00:00.000Z-0001``."""
        return f"{_time_text(self.milliseconds)}-{self.counter:04x}"

    @property
    def at(self) -> datetime:
        """The time of day in it."""
        return _EPOCH + self.milliseconds * _MILLISECOND

    def advanced(self, steps: int) -> Hlc:
        """The time so many steps later."""
        counter = self.counter + steps
        if counter <= MAX_COUNTER:
            return Hlc(self.milliseconds, counter)
        carried, counter = divmod(counter, MAX_COUNTER + 1)
        return Hlc(min(self.milliseconds + carried, _MAX_MILLISECONDS), counter)

    def texts(self, steps: range) -> Sequence[str]:
        """The times that are so many steps later, as texts."""
        if self.counter + steps.stop > MAX_COUNTER + 1:
            return [str(self.advanced(step)) for step in steps]
        text, counter = _time_text(self.milliseconds), self.counter
        return [f"{text}-{counter + step:04x}" for step in steps]


ZERO: Final = Hlc(0, 0)


@functools.lru_cache(maxsize=_TIMES)
def _time_text(milliseconds: int) -> str:
    """The time of day as text: commands that are appended together share it."""
    at = _EPOCH + milliseconds * _MILLISECOND
    return f"{at.isoformat(timespec='milliseconds')[:-6]}Z"


@functools.lru_cache(maxsize=_TIMES)
def _milliseconds(text: str) -> int:
    """The milliseconds since 1970 until a time of day without its zone. Raises ValueError."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND


def parse_hlc(text: str) -> Hlc:
    """The time that ``text`` spells. Raises InvalidError."""
    found = _TEXT.fullmatch(text)
    try:
        if found is not None:
            return Hlc(_milliseconds(found[1]), int(found[2], 16))
    except ValueError:
        pass
    raise InvalidError("an hlc is as an answer has it: 2026-11-29T23:00:00.000Z-0001")


def later(now: datetime, *seen: Hlc) -> Hlc:
    """A time later than all that were ``seen``, and not before ``now``."""
    latest = max(seen, default=ZERO)
    present = Hlc((now - _EPOCH) // _MILLISECOND, 0)
    return max(present, latest.advanced(1))


def check_drift(hlc: Hlc, now: datetime) -> None:
    """Raises InvalidError, with both times, of one that is too far ahead of ``now``."""
    if hlc.at - now > MAX_DRIFT:
        raise InvalidError(f"the hlc {hlc} is more than {MAX_DRIFT} ahead of {now.isoformat()}")
