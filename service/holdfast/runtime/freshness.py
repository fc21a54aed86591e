"""The age that a request may have on arrival.

It may have lain in the socket of a worker that was stopped or cut off, while its client asked
another one, which refused it: taken up now, it would be done after all. A request
behind the answer to a PING was sent after that PING: none is older than the last answered PING.

Why: docs/decisions.md, "No change is begun for a caller that may have given up".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.errors import UnavailableError

if TYPE_CHECKING:
    from holdfast.transport.connection import Connection

PROVE_SECONDS: Final = 0.2
"""Seconds between PINGs: a client that waits no longer for a change is refused."""

_ANSWER_SECONDS: Final = 1


class Freshness:
    """The age of a worker's requests. To be made before it subscribes."""

    def __init__(self, connection: Connection) -> None:
        """For a connection that is open."""
        self._connection = connection
        self._asked_at = asyncio.get_running_loop().time()

    async def prove(self) -> None:
        """Ask the server for a sign of life. To be called every ``PROVE_SECONDS``."""
        asked_at = asyncio.get_running_loop().time()
        with suppress(UnavailableError):
            await self._connection.wait_flushed(_ANSWER_SECONDS)
            self._asked_at = asked_at

    @property
    def most_seconds(self) -> float:
        """The age that a request arriving now may have."""
        return asyncio.get_running_loop().time() - self._asked_at
