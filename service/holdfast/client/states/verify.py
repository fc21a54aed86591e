"""A state read back: every save against its hash, and every command of the log."""

from __future__ import annotations

import itertools
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from holdfast.errors import CorruptError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from holdfast.client.states.values import LogCommand
    from holdfast.protocol.states import Saved


class StateVerified(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of saves and commands read, and the ``damaged``, a sentence each."""

    saves: int
    commands: int
    damaged: list[str]


async def verified(
    saves: Callable[[], AsyncGenerator[Saved]],
    stream: Callable[[str], AsyncGenerator[memoryview]],
    replay: Callable[[int], AsyncGenerator[LogCommand]],
) -> StateVerified:
    """All that is kept of a state, read: its ``saves``, from the newest on, and its log.

    ``stream`` gives a blob, checked against its digest, and ``replay`` the log from an index on.
    """
    records = [record async for record in saves()]
    damaged: list[str] = []
    for record in records:
        try:
            async with aclosing(stream(record.digest)) as pieces:
                async for _ in pieces:
                    pass
        except (CorruptError, NotFoundError) as error:
            damaged.append(f"save {record.number}: {error.detail}")
    damaged += _broken_chain(records)
    commands = await _read_log(saves, min(map(_index, records), default=0), replay, damaged)
    return StateVerified(saves=len(records), commands=commands, damaged=damaged)


def _broken_chain(records: Sequence[Saved]) -> list[str]:
    """Saves that do not name the one before, of ``records`` from the newest on."""
    return [
        f"save {newer.number} is not of what save {older.number} has: {newer.previous}"
        for newer, older in itertools.pairwise(records)
        if newer.number == older.number + 1 and newer.previous != older.state_hash
    ]


async def _read_log(
    saves: Callable[[], AsyncGenerator[Saved]],
    index: int,
    replay: Callable[[int], AsyncGenerator[LogCommand]],
    damaged: list[str],
) -> int:
    """The count of commands behind ``index``, or from the first one on that is left."""
    count = 0
    while True:
        try:
            async with aclosing(replay(index + 1)) as log:
                async for one in log:
                    index = one.index
                    count += 1
        except CorruptError as error:
            damaged.append(f"log: {error.detail}")
        except NotFoundError as error:
            if error.index is None or error.index <= index + 1:
                raise
            index = error.index - 1  # it was trimmed up to there, behind a save
            if index > max([_index(record) async for record in saves()], default=0):
                damaged.append(f"log: {error.detail}, and no save leads up to there")
            continue
        return count


def _index(record: Saved) -> int:
    return record.last_applied_index
