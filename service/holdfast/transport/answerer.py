"""The nats-server that answered a request: the trace tells the way that the request went.

Only the server to which this process is connected tells it: it passed the request on to another, or
it has answered itself. Nothing is told to a user who may not publish to its own inbox.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from holdfast.transport.inbox import Inbox
    from holdfast.transport.message import Message

TRACE_TO: Final = "Nats-Trace-Dest"
_PATIENCE_SECONDS: Final = 0.5
_FROM_CLIENT: Final = 0
_TO_SERVER: Final = 1


class _Hop(msgspec.Struct, frozen=True):
    type: str = ""
    kind: int = -1
    name: str = ""


class _Server(msgspec.Struct, frozen=True):
    name: str


class _Told(msgspec.Struct, frozen=True):
    server: _Server
    events: list[_Hop] = []


class Trace:
    """The trace of one request, which is sent with these ``headers``. Close it."""

    def __init__(self, inbox: Inbox) -> None:
        """The trace comes to ``inbox``."""
        self._answerer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._mailbox = inbox.open(self._receive)
        self.headers = {TRACE_TO: self._mailbox.subject}

    async def answerer(self) -> str:
        """The name of the server that has answered; empty where that is not told."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._answerer
        return ""

    def close(self) -> None:
        """Ignore what still comes."""
        self._mailbox.close()

    def _receive(self, message: Message) -> None:
        name = answerer_told(message.data)
        if name is not None and not self._answerer.done():
            self._answerer.set_result(name)


def answerer_told(told: bytes | memoryview) -> str | None:
    """The server that answered, by one's trace ``told``; None where another is to tell."""
    try:
        way = msgspec.json.decode(told, type=_Told)
    except msgspec.MsgspecError:
        return None
    came, *went = way.events or [_Hop()]
    if (came.type, came.kind) != ("in", _FROM_CLIENT):
        return None
    onward = [hop for hop in went if hop.type == "eg"]
    if not onward:
        return way.server.name
    return onward[0].name if len(onward) == 1 and onward[0].kind == _TO_SERVER else ""
