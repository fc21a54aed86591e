"""Changes as they happen: a watch that any worker carries on where another left it.

A worker tells up to a credit of events, and for as long as its lease: then, or when it falls
silent, any worker is asked to go on. So nothing piles up before a slow reader, and a worker that
dies is not missed. Repeated events are dropped here.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from holdfast.client.told import carried_on, told
from holdfast.errors import InternalError
from holdfast.protocol.watch import WATCH, WatchChanges, WatchEvent, WatchHead, WatchKind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.client.requests import Requester
    from holdfast.transport.message import Message


class News:
    """Events that were had already, by revisions."""

    def __init__(self) -> None:
        """None."""
        self._position = -1
        self._beyond: set[int] = set()

    def is_new(self, revision: int) -> bool:
        """Whether the event was not had before. It is from now on."""
        if revision <= self._position or revision in self._beyond:
            return False
        self._beyond.add(revision)
        return True

    def passed(self, position: int) -> None:
        """All events up to ``position`` were had."""
        if position > self._position:
            self._position = position
            self._beyond = {revision for revision in self._beyond if revision > position}


async def watched(requester: Requester, request: WatchChanges) -> AsyncGenerator[WatchEvent]:
    """The events that ``request`` asks for, each once, for ever. See ``Client.watch``."""
    news = News()

    def ask() -> AsyncGenerator[tuple[WatchHead, Message]]:
        return told(requester, WATCH, request, WatchHead)

    async with aclosing(carried_on(requester, ask)) as messages:
        async for head, message in messages:
            for event in _events(message):
                if news.is_new(int(event.sequence)):
                    yield event
            news.passed(head.position)
            request = replace(request, since=None, cursor=head.cursor)


async def position(requester: Requester, kind: WatchKind) -> int:
    """Where a watch would begin. See ``Client.position``."""
    head, _ = await requester.ask_for_bytes(WATCH, WatchChanges(kind=kind, credit=0), 0)
    return head.position


def _events(message: Message) -> list[WatchEvent]:
    try:
        return msgspec.json.decode(message.data, type=list[WatchEvent])
    except msgspec.MsgspecError as error:
        raise InternalError(f"the answer holds no events: {error}") from error
