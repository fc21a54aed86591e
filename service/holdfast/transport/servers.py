"""Which server a connection goes to when it has lost the one it had.

nats-py shuffles the servers and may come back to the one that was just left for not answering.
Here the one tried longest ago comes first, so each is tried before any is tried again, and one that
was left on purpose comes last for a while.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nats.aio.client import Server

FIRST_WAIT_SECONDS: Final = 0.25
"""Between two attempts at one server; doubled with each failure."""

LONGEST_WAIT_SECONDS: Final = 2.0
AVOIDED_SECONDS: Final = 30.0
"""How long a server that was left counts as worse than any other."""


class ServerChoice:
    """The next server for one connection. ``monotonic`` gives seconds that only rise."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._tried_at: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._left_at: dict[str, float] = {}

    def leave(self, address: str) -> None:
        """The server at ``address`` is connected and of no use."""
        self._left_at[address] = self._monotonic()

    def connected(self, address: str) -> None:
        """The server at ``address`` has taken the connection."""
        self._failures.pop(address, None)

    def next(self, servers: Sequence[Server], info: Mapping[str, Any]) -> tuple[Server, float]:
        """The server to try and the seconds to wait before that (nats-py's handler)."""
        del info
        now = self._monotonic()
        chosen = min(servers, key=lambda server: self._rank(server.uri.netloc, now))
        address = chosen.uri.netloc
        wait_seconds = max(0.0, self._tried_at.get(address, -math.inf) + self._pause(address) - now)
        self._tried_at[address] = now + wait_seconds
        self._failures[address] = self._failures.get(address, 0) + 1
        return chosen, wait_seconds

    def _rank(self, address: str, now: float) -> tuple[bool, float, float]:
        avoided = now - self._left_at.get(address, -math.inf) < AVOIDED_SECONDS
        return avoided, self._tried_at.get(address, -math.inf), random.random()  # noqa: S311

    def _pause(self, address: str) -> float:
        """After the first attempt, with jitter: all clients of a dead server come back at once."""
        failures = self._failures.get(address, 0)
        if not failures:
            return 0.0
        doubled: float = FIRST_WAIT_SECONDS * 2 ** min(failures, 8)
        pause_seconds = min(doubled, LONGEST_WAIT_SECONDS)
        return pause_seconds * (0.5 + random.random() / 2)  # noqa: S311  (jitter)
