"""The commands of a log, and further ones as they come: any worker goes on for another."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.client.states.values import LogCommand, command_of
from holdfast.client.told import carried_on, told
from holdfast.errors import InternalError, NotFoundError
from holdfast.protocol.states import (
    FOLLOW_LOG,
    MAX_REPLAYED,
    REPLAY_LOG,
    FollowHead,
    FollowLog,
    LogEntry,
    LogPage,
    ReplayLog,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from holdfast.client.requests import Requester
    from holdfast.transport.message import Message

PAGE: Final = 1000
CREDIT: Final = 1024
"""Commands that may come before they are taken here."""


class ReadLog:
    """The log of a name, as one reads it, in many requests, which are told if it is another.

    ``known`` is the last command that is had from elsewhere: from one's own appends, or a save.
    """

    __slots__ = ("known", "lineage", "name")

    def __init__(self, name: str, lineage: str | None = None) -> None:
        """Nothing of it was read, but what may have told the ``lineage``."""
        self.name = name
        self.lineage = lineage
        self.known = 0

    def know(self, index: int) -> None:
        """Command ``index`` is had, of the log that has the lineage."""
        self.known = max(self.known, index)


async def log_page(requester: Requester, log: ReadLog, from_index: int, limit: int) -> LogPage:
    """Up to ``limit`` commands. Raises as ``States.page``."""
    request = ReplayLog(name=log.name, from_index=from_index, limit=limit, lineage=log.lineage)
    page = await requester.ask(REPLAY_LOG, request)
    await adopt(requester, log, page.lineage, from_index - 1)
    return page


async def adopt(requester: Requester, log: ReadLog, lineage: str | None, checked: int = 0) -> None:
    """Read on in the log that has ``lineage``, if it has all that is known of the one before.

    A worker has compared the commands up to ``checked``. Raises ConflictError where one behind
    them is not in the log any more, and else as ``States.page``.
    """
    while lineage and log.lineage not in (None, lineage) and log.known > checked:
        checked = log.known
        request = ReplayLog(name=log.name, from_index=checked + 1, limit=1, lineage=log.lineage)
        try:
            await requester.ask(REPLAY_LOG, request)
        except NotFoundError as error:
            if error.index is None:
                raise  # else what is behind them was trimmed
    log.lineage = lineage or log.lineage


async def replayed(
    requester: Requester, log: ReadLog, from_index: int
) -> AsyncGenerator[Sequence[LogCommand]]:
    """The commands from ``from_index`` to the end, as many at a time as come.

    Raises what workers answer: see ``States.replay``.
    """
    is_over = False
    while not is_over:
        page = await log_page(requester, log, from_index, MAX_REPLAYED)
        is_over = page.next_index > page.last_index
        if not (page.entries or is_over):
            msg = f"the answer has no commands from {from_index} on, and does not end there"
            raise InternalError(msg)
        from_index = page.next_index
        yield [command_of(entry, page.lineage) for entry in page.entries]


async def followed(
    requester: Requester, log: ReadLog, from_index: int
) -> AsyncGenerator[Sequence[LogCommand]]:
    """The commands from ``from_index`` on, each once and in order, as many at a time as come.

    Raises what workers answer: see ``States.follow``.
    """
    next_index = from_index

    def ask() -> AsyncGenerator[tuple[FollowHead, Message]]:
        request = FollowLog(
            name=log.name, from_index=next_index, credit=CREDIT, lineage=log.lineage
        )
        return told(requester, FOLLOW_LOG, request, FollowHead)

    async with aclosing(carried_on(requester, ask)) as messages:
        async for head, message in messages:
            told_now = _commands(message, head.lineage)
            commands = [one for one in told_now if one.index >= next_index]
            expected = range(next_index, next_index + len(commands))
            if [one.index for one in commands] != list(expected):
                msg = f"the answer has not the commands from {next_index} on, without gaps"
                raise InternalError(msg)
            before = next_index - 1
            next_index = max(next_index + len(commands), head.next_index)
            await adopt(requester, log, head.lineage, before)
            if commands:
                yield commands


def _commands(message: Message, lineage: str | None) -> list[LogCommand]:
    try:
        entries = msgspec.json.decode(message.data or b"[]", type=list[LogEntry])
    except (msgspec.MsgspecError, ValueError) as error:
        raise InternalError(f"the answer holds no commands: {error}") from error
    return [command_of(entry, lineage) for entry in entries]
