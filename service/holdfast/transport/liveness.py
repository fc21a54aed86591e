"""When a connection is up and of no use: a server that is paused, cut off or alone.

A client sticks to such a server, for its socket stays open. There are two ways to notice. Where
nothing at all arrives while something is waited for, the server is asked for a sign of life. Where
it gives one but what is asked behind it stays unanswered, it may be cut off from the others: after
a while it is left, whether or not it was to blame. ``Liveness`` decides, and touches no socket;
``Watch`` does what was decided.

Why: docs/decisions.md, "Leaving a server that is of no use".
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final, override

from holdfast.deadline import outliving_task
from holdfast.transport.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.transport.nats_py import NatsClient
    from holdfast.transport.wire import Wire

SILENCE_SECONDS: Final = 2.0
"""Nothing has arrived for so long, though something is waited for: ask for a sign of life."""

SIGN_OF_LIFE_SECONDS: Final = 3.0
"""Time a server may take for it."""

UNANSWERED_SECONDS: Final = 6.0
"""Leave a server that passes on no answers for so long. Electing a leader takes 4 to 9, so that a
server may be left for nothing, which costs little."""

LEAST_SECONDS: Final = 1.0
"""Callers choose their deadlines: what was waited for less says nothing of the server."""

APART_SECONDS: Final = 10.0
"""Requests that stay unanswered further apart than this have nothing to do with each other."""

UNANSWERED_IN_A_ROW: Final = 3
"""Or after so many requests, one after the other, that nobody answered."""

FIRST_STAY_SECONDS: Final = 5.0
"""A server that was just turned to is not left before that; twice as long after each failure."""

LONGEST_STAY_SECONDS: Final = 60.0
_CATCH_UP_SECONDS: Final = 0.05


class Liveness:
    """The health of the server that a connection has, as far as it is known.

    ``monotonic`` gives seconds that only rise; ``leave`` is called with a reason, and has the
    connection go elsewhere if there is a better place: then it says so by ``left``.
    """

    def __init__(self, monotonic: Callable[[], float], leave: Callable[[str], None]) -> None:
        self._monotonic = monotonic
        self._leave = leave
        self._since = -math.inf
        self._in_a_row = 0
        self._unanswered_since = math.inf
        self._unanswered_at = -math.inf
        self._counted_at = -math.inf
        self._stay_seconds = FIRST_STAY_SECONDS
        self._stay_until = -math.inf

    def connected(self) -> None:
        """It is another server now, or the same anew."""
        self._since = self._monotonic()
        self._in_a_row = 0
        self._unanswered_since = math.inf

    def answered(self) -> None:
        """Somebody behind the server has answered as only those can who are not cut off.

        Reads prove nothing: a leader that lost the others goes on answering them.
        """
        self._in_a_row = 0
        self._unanswered_since = math.inf
        self._stay_seconds = FIRST_STAY_SECONDS

    def unanswered(self, asked_at: float) -> None:
        """Note that a request of ``asked_at`` got no answer in time.

        Requests that were under way together count as one, and those that gave nobody the time to
        answer do not count.
        """
        if self._monotonic() - asked_at < LEAST_SECONDS:
            return
        if asked_at >= max(self._counted_at, self._since):
            self._in_a_row += 1
            self._counted_at = self._monotonic()
        self.nobody(asked_at)

    def nobody(self, asked_at: float) -> None:
        """Note that the server answered a request of ``asked_at``: nobody is there for it now.

        So it is everywhere while a leader is being elected.
        """
        if asked_at < self._since:
            return  # asked of the server before
        now = self._monotonic()
        if now - self._unanswered_at > APART_SECONDS:
            self._unanswered_since, self._in_a_row = math.inf, min(self._in_a_row, 1)
        self._unanswered_at = now
        self._unanswered_since = min(self._unanswered_since, asked_at)
        silent_seconds = now - self._unanswered_since
        if self._in_a_row >= UNANSWERED_IN_A_ROW or silent_seconds >= UNANSWERED_SECONDS:
            self.go("requests stay unanswered")

    def go(self, reason: str) -> None:
        """Leave the server, unless it was turned to only now.

        It may turn out that there is no better one; that is looked for again a little later.
        """
        now = self._monotonic()
        if now >= self._stay_until:
            self._stay_until = now + FIRST_STAY_SECONDS
            self._leave(reason)

    def left(self) -> None:
        """It is being left. When all servers are alike, going round ever faster helps nobody."""
        self._stay_until = self._monotonic() + self._stay_seconds
        self._stay_seconds = min(self._stay_seconds * 2, LONGEST_STAY_SECONDS)


class Watch(Observer):
    """Looks whether a connection's server is alive, and has the connection leave one that is not.

    It observes the connection itself, and ends with it.
    """

    def __init__(self, client: NatsClient) -> None:
        """Watch over ``client`` from ``start`` on."""
        self.liveness = Liveness(time.monotonic, self._leave)
        self._client = client
        self._looking: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """A server has taken the connection for the first time."""
        self.liveness.connected()
        self._looking = asyncio.create_task(self._look())

    @override
    def reconnected(self, server: str) -> None:
        """Forget what was known of the server before."""
        self.liveness.connected()

    @override
    def server_stopping(self) -> None:
        """It is left before it stops."""
        self.liveness.go("the server is about to stop")

    @override
    def closed(self) -> None:
        """There is nothing to look at any more."""
        for task in (self._looking, self._leaving):
            if task is not None:
                task.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(SILENCE_SECONDS / 2)
            wire = self._client.wire
            if wire is None or not self._client.is_connected:
                continue
            silent_seconds = time.monotonic() - wire.received_at
            is_waited_for = any(one.is_waiting() for one in self._client.observers)
            if silent_seconds > SILENCE_SECONDS and is_waited_for:
                await self._demand_sign_of_life(wire)

    async def _demand_sign_of_life(self, wire: Wire) -> None:
        asked_at = time.monotonic()
        await self._client.ask_for_sign_of_life()
        await asyncio.sleep(SIGN_OF_LIFE_SECONDS)
        # Was it this process that was stopped? Then an answer waits to be read.
        await asyncio.sleep(_CATCH_UP_SECONDS)
        if wire.received_at < asked_at and self._client.wire is wire:
            self.liveness.go("the server gives no sign of life")

    def _leave(self, reason: str) -> None:
        if self._client.is_connected and (self._leaving is None or self._leaving.done()):
            # Not a part of the request that noticed: whatever comes over the new connection would
            # be done within that one's deadline.
            self._leaving = outliving_task(self._leave_for_another(reason))

    async def _leave_for_another(self, reason: str) -> None:
        """Drop the server and go to another one, if there is one that answers.

        Otherwise what is under way would be interrupted for nothing: with all others down, there
        is no quorum, and this server is not to blame.
        """
        client, wire = self._client, self._client.wire
        if await client.has_better_server() and client.wire is wire and client.is_connected:
            self.liveness.left()
            client.tell(lambda observer: observer.server_left(client.server_name, reason))
            await client.go_elsewhere()
