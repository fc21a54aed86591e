"""Whether a group of commands waits for the callers of the one before.

Callers who send one command after another come again once they are answered. If a group begins
before they do, they fall into two that take turns, and each group costs replicated servers as much
as one of all. So the next group waits until as many have come as were under way when the last one
ended: no longer than a few times what that one took, and not where a group costs next to nothing.
Where that was in vain, for these callers come as they please, the next groups do not wait.

Why: docs/decisions.md, "Commands that come together are one message".
"""

from __future__ import annotations

from typing import Final

LEAST_SECONDS: Final = 0.001
"""Nobody waits behind a group that took less."""

MOST_SECONDS: Final = 0.01
"""The longest wait."""

TIMES: Final = 3.0
"""What the last group took, so many times, is the longest wait behind it."""

_GROUPS_WITHOUT: Final = 16
_MOST_GROUPS_WITHOUT: Final = 1024
"""Begun without a wait after one in vain: the first number, then twice as many, up to the other."""


class Convoy:
    """The callers of one log."""

    def __init__(self) -> None:
        self._awaited = 0
        self._without = 0
        self._next_without = _GROUPS_WITHOUT

    def ended(self, callers: int, seconds: float) -> float | None:
        """A group took ``seconds``, and ``callers`` were under way; how long the next one waits."""
        if callers < 2 or seconds < LEAST_SECONDS:
            return None
        if self._without:
            self._without -= 1
            return None
        self._awaited = callers
        return min(seconds * TIMES, MOST_SECONDS)

    def waits(self, callers: int, *, is_full: bool = False) -> bool:
        """Whether a group of ``callers`` is to begin later; none that ``is_full`` is."""
        if callers < self._awaited and not is_full:
            return True
        if callers and self._awaited:
            self._next_without = _GROUPS_WITHOUT
        self._awaited = 0
        return False

    def give_up(self, callers: int) -> None:
        """Nobody is waited for any more, and ``callers`` have come."""
        if callers and self._awaited:
            self._without = self._next_without
            self._next_without = min(self._next_without * 2, _MOST_GROUPS_WITHOUT)
        self._awaited = 0
