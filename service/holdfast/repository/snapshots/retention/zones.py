"""Time zones, from the package ``tzdata`` and from nowhere else.

Its version is pinned with this program's, so all workers of one release have the same zones. Those
of the machine are not used: of two machines with different ones each would remove what the other
keeps.

Why: docs/decisions.md, "Time zones are a package".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

_PACKAGE: Final = "tzdata"


@dataclass(frozen=True, slots=True)
class TimeZones:
    """Zones by their names, such as ``Europe/Berlin``; ``version`` is of all of them.

    ``find`` raises InvalidError where there is no such zone.
    """

    version: str
    find: Callable[[str], tzinfo]

    def is_older_than(self, other: str) -> bool:
        """Whether others know zones of a later version."""
        return _numbers(self.version) < _numbers(other)


def packaged_zones() -> TimeZones:
    """Those that came with this program."""
    return TimeZones(version(_PACKAGE), _find)


@cache
def _find(name: str) -> tzinfo:
    if name not in _names():
        raise InvalidError(f"there is no time zone {name!r}: UTC, or such as Europe/Berlin")
    with files(_PACKAGE).joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@cache
def _names() -> frozenset[str]:
    return frozenset(files(_PACKAGE).joinpath("zones").read_text().split())


def _numbers(text: str) -> tuple[int, ...]:
    """``2026.6`` as (2026, 6); what is no version is the oldest."""
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
