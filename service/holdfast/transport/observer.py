"""The events of a connection, and those who are told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import override


@dataclass(frozen=True, slots=True)
class Denied:
    """The server does not let this user ``publish`` or subscribe to ``subject`` (lower case)."""

    publish: bool
    subject: str


class Observer:
    """Is told how a connection fares (``Connection.observe``), on the event loop's thread.

    Override what is of interest; it must be quick and must not raise. ``server`` is a name.
    """

    def disconnected(self, server: str) -> None:
        """The connection to ``server`` is lost; another is looked for."""

    def reconnected(self, server: str) -> None:
        """``server`` has taken the connection, after one was lost."""

    def server_left(self, server: str, reason: str) -> None:
        """``server`` is given up for being of no use."""

    def server_stopping(self) -> None:
        """The server says that it is about to stop."""

    def denied(self, denied: Denied) -> None:
        """The server refused a publish or a subscription. ``failed`` follows."""

    def failed(self, problem: Exception) -> None:
        """There was an error that has no other taker, also while connecting."""

    def closed(self) -> None:
        """It is closed for good: nothing comes any more."""

    def is_waiting(self) -> bool:
        """Whether a server that sends nothing is to be asked for a sign of life."""
        return False


@dataclass(slots=True)
class Counters(Observer):
    """Counts of what happened to a connection since it was made.

    ``left`` are servers that were given up for being of no use, ``violations`` denied publishes
    and subscriptions, ``unsent`` messages refused because not connected or too much was waiting.
    """

    disconnects: int = 0
    reconnects: int = 0
    left: int = 0
    violations: int = 0
    unsent: int = 0

    @override
    def disconnected(self, server: str) -> None:
        self.disconnects += 1

    @override
    def reconnected(self, server: str) -> None:
        self.reconnects += 1

    @override
    def server_left(self, server: str, reason: str) -> None:
        self.left += 1

    @override
    def denied(self, denied: Denied) -> None:
        self.violations += 1
