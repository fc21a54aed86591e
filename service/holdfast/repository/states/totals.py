"""Totals of a worker's work on states since it began, for its watchers."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

GROUP_SIZES: Final = (1, 4, 16, 64, 256, 1000)
"""Commands of a group: up to each of these they are counted together."""


@dataclass(slots=True)
class StateTotals:
    """``requests`` to append were answered with a place, repeats among them.

    They, or others whose outcome is not known, made groups: ``sizes`` counts those with up to so
    many commands as `GROUP_SIZES` says, ``commands`` all that are in them, ``bytes`` the groups'.
    ``replays`` are pages of commands that were told, ``followers`` those who follow a log now.
    """

    requests: int = 0
    commands: int = 0
    bytes: int = 0
    sizes: list[int] = field(default_factory=lambda: [0] * len(GROUP_SIZES))
    saves: int = 0
    replays: int = 0
    followers: int = 0

    def note_group(self, commands: int, size: int) -> None:
        """A group of so many commands, of ``size`` bytes, is in the log."""
        self.commands += commands
        self.bytes += size
        self.sizes[min(bisect_left(GROUP_SIZES, commands), len(GROUP_SIZES) - 1)] += 1
