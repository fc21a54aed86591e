"""The client without ``await`` is the one with it: nothing is missing or told otherwise."""

from __future__ import annotations

import inspect
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.client import Client, SyncClient, connect, connect_sync
from holdfast.client.blocking import Blocking, iterating
from holdfast.client.loop_thread import LoopThread
from holdfast.client.names import Names
from holdfast.client.snapshots.api import Snapshots
from holdfast.client.snapshots.retention import SnapshotRetention
from holdfast.client.states.api import States
from holdfast.client.states.machine import StateMachine
from holdfast.client.sync import (
    SyncNames,
    SyncSnapshotRetention,
    SyncSnapshots,
    SyncStateMachine,
    SyncStates,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

PAIRS: tuple[tuple[type[Any], type[Any]], ...] = (
    (Client, SyncClient),
    (Names, SyncNames),
    (Snapshots, SyncSnapshots),
    (SnapshotRetention, SyncSnapshotRetention),
    (States, SyncStates),
    (StateMachine, SyncStateMachine),
)
RENAMED = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}
CALLS = [
    pytest.param(getattr(theirs, name), getattr(ours, name, None), id=f"{ours.__name__}.{name}")
    for theirs, ours in PAIRS
    for name, value in vars(theirs).items()
    if callable(value) and not name.startswith("_") and name not in RENAMED
]


def names(of: type[Any]) -> set[str]:
    """The public methods."""
    private = {name for name in vars(of) if name.startswith("_") and name not in RENAMED}
    return {RENAMED.get(name, name) for name in set(vars(of)) - private}


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_every_method_is_there_and_no_other(theirs: type[Any], ours: type[Any]) -> None:
    own = {name for name in vars(ours) if not name.startswith("_") or name in RENAMED.values()}

    assert own == names(theirs)


@pytest.mark.parametrize(
    ("theirs", "ours"), [*CALLS, pytest.param(connect, connect_sync, id="connect_sync")]
)
def test_a_method_has_the_same_arguments_and_docstring_and_what_the_other_gives(
    theirs: Callable[..., Any], ours: Callable[..., Any]
) -> None:
    signature = inspect.signature(theirs)
    given = {"Client": "SyncClient", "StateMachine": "SyncStateMachine"}.get(
        signature.return_annotation
    )
    given = given or signature.return_annotation.removeprefix("Async")

    assert ours.__doc__
    assert ours.__doc__ == theirs.__doc__
    assert inspect.signature(ours) == signature.replace(return_annotation=given)
    assert not inspect.iscoroutinefunction(ours)
    assert not inspect.isasyncgenfunction(ours)


class Numbers:
    """Counts until it is closed."""

    is_closed = False

    async def count(self) -> AsyncGenerator[int]:
        """One number after the other."""
        try:
            for number in range(9):
                yield number
        finally:
            self.is_closed = True


class SyncNumbers(Blocking[Numbers]):
    count = iterating(Numbers.count)


def test_whoever_stops_in_the_middle_has_the_iterator_closed() -> None:
    numbers = Numbers()
    with closing(LoopThread()) as thread:
        found = SyncNumbers(numbers, thread).count()

        assert [next(found), next(found)] == [0, 1]
        assert not numbers.is_closed
        found.close()

        assert numbers.is_closed
