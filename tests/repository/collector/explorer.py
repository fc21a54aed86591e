"""Every interleaving of small processes over one store, breadth first.

A process is a chain of generator functions. Each ``yield`` is one atomic operation on the store:
one message that a leader answers. Its local state is the function, its arguments, and what its
operations have returned since it began, so a state of the whole is a plain tuple.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import Any, Final, Protocol

type Local = tuple[str, tuple[Any, ...], tuple[Any, ...]]
"""Name of the function, its arguments, results so far."""

type Operation = Callable[[Any], Any]
type Next = tuple[str, tuple[Any, ...]]
type Steps = Generator[Operation, Any, Any]

BLOCKED: Final = object()
"""Returned by an operation that cannot happen now."""

END: Final[Next] = ("end", ())


class Process(Protocol):
    """``start`` names the first function."""

    start: Next


class World[Frozen: Hashable](Protocol):
    """A store that can be frozen."""

    def freeze(self) -> Frozen: ...


@dataclass(frozen=True, slots=True)
class Found:
    """The result of exploring: a complaint with the steps that lead to it, or none."""

    states: int
    complaint: str | None = None
    steps: tuple[str, ...] = ()


def explore(
    processes: list[Any],
    first: Any,
    thaw: Callable[[Any], Any],
    complain: Callable[[Any], str | None],
    *,
    limit: int,
) -> Found:
    """All states there are; ``complain`` judges the frozen store of each."""
    begin = (first, tuple(_settled(one, (*one.start, ())) for one in processes))
    came_from: dict[Any, tuple[Any, int] | None] = {begin: None}
    waiting = deque([begin])
    cache: dict[Any, Any] = {}
    judged: dict[Any, str | None] = {}
    while waiting:
        state = waiting.popleft()
        store, locals_ = state
        if store not in judged:
            judged[store] = complain(store)
        bad = judged[store] or next((one[1][0] for one in locals_ if _is_bad(one)), None)
        if bad is not None:
            return Found(len(came_from), bad, _trace(came_from, state, processes))
        for number, process in enumerate(processes):
            if locals_[number][0] == "end":
                continue
            stepped = _step(process, locals_[number], store, thaw, cache)
            if stepped is None:
                continue
            local, after = stepped
            reached = (after, (*locals_[:number], local, *locals_[number + 1 :]))
            if reached not in came_from:
                came_from[reached] = state, number
                waiting.append(reached)
        if len(came_from) > limit:
            raise AssertionError(f"more than {limit} states")
    return Found(len(came_from))


def _is_bad(local: Local) -> bool:
    return local[0] == "end" and bool(local[1])


def run_alone(process: Any, store: Any, thaw: Callable[[Any], Any]) -> Any:
    """The store once ``process`` has run to its end with nobody else about."""
    local = _settled(process, (*process.start, ()))
    while local[0] != "end":
        stepped = _step(process, local, store, thaw, {})
        if stepped is None:
            return store
        local, store = stepped
    return store


def _step(
    process: Any, local: Local, store: Any, thaw: Callable[[Any], Any], cache: dict[Any, Any]
) -> tuple[Local, Any] | None:
    key = (id(process), local, store)
    if key in cache:
        known: tuple[Local, Any] | None = cache[key]
        return known
    name, arguments, results = local
    generator = getattr(process, name)(*arguments)
    operation = next(generator)
    for result in results:
        operation = generator.send(result)
    world = thaw(store)
    result = operation(world)
    stepped: tuple[Local, Any] | None = None
    if result is not BLOCKED:
        try:
            generator.send(result)
            after: Local = (name, arguments, (*results, result))
        except StopIteration as stop:
            after = _settled(process, (*stop.value, ()))
        stepped = after, world.freeze()
    cache[key] = stepped
    return stepped


def _settled(process: Any, local: Local) -> Local:
    """Past all functions that end without an operation."""
    while local[0] != "end" and not local[2]:
        try:
            next(getattr(process, local[0])(*local[1]))
        except StopIteration as stop:
            local = (*stop.value, ())
        else:
            break
    return local


def _trace(came_from: dict[Any, Any], state: Any, processes: list[Any]) -> tuple[str, ...]:
    steps = []
    while came_from[state] is not None:
        before, number = came_from[state]
        name, _, results = before[1][number]
        steps.append(f"{processes[number].me}.{name}.{len(results)}")
        state = before
    return tuple(reversed(steps))
