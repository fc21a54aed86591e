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
    records: Sequence[Saved],
    stream: Callable[[str], AsyncGenerator[memoryview]],
    replay: Callable[[int], AsyncGenerator[LogCommand]],
) -> StateVerified:
    """All that is kept of a state, read: of ``records``, its saves, from the newest on.

    ``stream`` gives a blob, checked against its digest, and ``replay`` the log from an index on.
    """
    damaged: list[str] = []
    for record in records:
        try:
            async with aclosing(stream(record.digest)) as pieces:
                async for _ in pieces:
                    pass
        except (CorruptError, NotFoundError) as error:
            damaged.append(f"save {record.number}: {error.detail}")
    damaged += _broken_chain(records)
    commands = await _read_log(records, replay, damaged)
    return StateVerified(saves=len(records), commands=commands, damaged=damaged)


def _broken_chain(records: Sequence[Saved]) -> list[str]:
    """Saves that do not name the one before, of ``records`` from the newest on."""
    return [
        f"save {newer.number} is not of what save {older.number} has: {newer.previous}"
        for newer, older in itertools.pairwise(records)
        if newer.number == older.number + 1 and newer.previous != older.state_hash
    ]


async def _read_log(
    records: Sequence[Saved],
    replay: Callable[[int], AsyncGenerator[LogCommand]],
    damaged: list[str],
) -> int:
    """The count of commands behind the oldest save, or from the first one on."""
    count = 0
    from_index = records[-1].last_applied_index + 1 if records else 1
    try:
        async with aclosing(replay(from_index)) as log:
            async for _ in log:
                count += 1
    except CorruptError as error:
        damaged.append(f"log: {error.detail}")
    except NotFoundError as error:
        if not records:
            raise
        damaged.append(f"log: {error.detail}")
    return count
