"""The client without ``await`` is the one with it: nothing is missing or told otherwise."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.client import Client, SyncClient, connect, connect_sync
from holdfast.client.blocking import Blocking, iterating
from holdfast.client.from_thread import DaemonThread
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
from holdfast.errors import InvalidError, OutcomeUnknownError
from holdfast.tracing import TRACE, TraceStep

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


async def held_up(begun: threading.Event) -> None:
    """A call that takes no notice of being cancelled."""
    begun.set()
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


def test_closing_ends_the_calls_of_other_threads_whatever_these_wait_for() -> None:
    thread, begun = LoopThread(), threading.Event()
    with ThreadPoolExecutor(1) as other:
        calling = other.submit(thread.run, held_up(begun))
        begun.wait()

        thread.close()

        with pytest.raises(OutcomeUnknownError, match="closed"):
            calling.result(20)


def test_a_callback_that_would_wait_for_its_own_thread_is_told_so() -> None:
    async def calls_back() -> None:
        thread.run(asyncio.sleep(0))

    with closing(LoopThread()) as thread, pytest.raises(InvalidError, match="callback"):
        thread.run(calls_back())


def test_an_iterator_that_the_thread_collects_as_garbage_is_closed() -> None:
    numbers = Numbers()
    with closing(LoopThread()) as thread:
        held = [SyncNumbers(numbers, thread).count()]
        next(held[0])

        async def collect() -> None:
            held.clear()

        thread.run(collect())
        thread.run(asyncio.sleep(0))

    assert numbers.is_closed


async def test_work_of_a_thread_has_the_context_of_the_call() -> None:
    """A trace goes on in what an iterable of blobs asks for."""
    thread = DaemonThread("items")
    TRACE.set(step := TraceStep.first())

    try:
        assert await thread.do(TRACE.get) is step
    finally:
        thread.end()
