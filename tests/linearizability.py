"""Whether a history of calls is linearizable: each as if done at one moment while it lasted.

The search is that of Wing and Gong, which remembers where it has been as Lowe's does. It knows
nothing of what is called: a model says which states may follow a call that was answered so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

CallT = TypeVar("CallT", bound="Call")
CallT_contra = TypeVar("CallT_contra", bound="Call", contravariant=True)
StateT = TypeVar("StateT", bound="Hashable")

NEVER: Final = math.inf
MOST_PLACES: Final = 2_000_000
"""How many places the search visits before it gives up."""


class Call(Protocol):
    """One call. ``end`` is infinite when it may take effect at any time, or never."""

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...

    @property
    def only_looks(self) -> bool:
        """Whether it surely changed nothing."""
        ...


class Model(Protocol[CallT_contra, StateT]):
    """The call."""

    def after(self, state: StateT, call: CallT_contra) -> Iterable[StateT]:
        """The states that may follow. None, if it was not answered so in ``state``."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict(Generic[CallT, StateT]):
    """``order`` is the longest that was found: of all that ended, if ``is_linearizable``.

    ``state`` is the one behind it, and ``stuck`` what could not be next there.
    """

    is_linearizable: bool
    order: Sequence[CallT]
    state: StateT
    stuck: Sequence[CallT]

    def __str__(self) -> str:
        last = "\n".join(f"  {call}" for call in self.order[-10:])
        stuck = "\n".join(f"  {call}" for call in self.stuck)
        return f"after\n{last}\nit is {self.state}, which explains none of\n{stuck}"


def judge(
    calls: Iterable[CallT], model: Model[CallT, StateT], state: StateT
) -> Verdict[CallT, StateT]:
    """Look for an order of ``calls``, from ``state`` on. Raises TimeoutError of a hopeless one."""
    search = _Search([*calls], model)
    return search.run(state)


@dataclass(slots=True)
class _Place(Generic[StateT]):
    """How far the search is: what was ``done``, as bits, last the call ``by`` which it came."""

    done: int
    state: StateT
    first: int
    by: int = -1
    ways: Iterator[_Place[StateT]] = field(default_factory=lambda: iter(()))


class _Search(Generic[CallT, StateT]):
    """Calls have numbers in the order in which they began: first those that ended."""

    def __init__(self, calls: list[CallT], model: Model[CallT, StateT]) -> None:
        calls.sort(key=lambda call: call.start)
        self._model = model
        self._ended = [call for call in calls if call.end != NEVER]
        self._calls = [*self._ended, *(call for call in calls if call.end == NEVER)]
        self._all_ended = (1 << len(self._ended)) - 1

    def run(self, state: StateT) -> Verdict[CallT, StateT]:
        """Depth first, from ``state`` on."""
        path = [self._enter(_Place(0, state, 0))]
        longest = [*path]
        seen: set[tuple[int, StateT]] = set()
        while path:
            here = path[-1]
            if here.done & self._all_ended == self._all_ended:
                return Verdict(True, self._order(path), here.state, ())
            place = next(here.ways, None)
            if place is None:
                longest = [*path] if len(path) > len(longest) else longest
                path.pop()
            elif (place.done, place.state) not in seen:
                seen.add((place.done, place.state))
                path.append(self._enter(place))
            if len(seen) > MOST_PLACES:
                msg = f"no order was found at {MOST_PLACES} places"
                raise TimeoutError(msg)
        last = longest[-1]
        stuck = [self._calls[number] for number in self._next(last)]
        return Verdict(False, self._order(longest), last.state, stuck)

    def _order(self, path: list[_Place[StateT]]) -> list[CallT]:
        return [self._calls[place.by] for place in path if place.by >= 0]

    def _enter(self, place: _Place[StateT]) -> _Place[StateT]:
        while place.done >> place.first & 1:
            place.first += 1
        place.ways = self._ways(place)
        return place

    def _ways(self, place: _Place[StateT]) -> Iterator[_Place[StateT]]:
        """What may be next. A call that only looks is next at once: no other loses by that."""
        numbers = [*self._next(place)]
        for number in numbers:
            call = self._calls[number]
            if call.only_looks and place.state in self._model.after(place.state, call):
                yield self._behind(place, number, place.state)
                return
        for number in numbers:
            call = self._calls[number]
            if not call.only_looks:
                for state in self._model.after(place.state, call):
                    yield self._behind(place, number, state)

    def _behind(self, place: _Place[StateT], number: int, state: StateT) -> _Place[StateT]:
        return _Place(place.done | 1 << number, state, place.first, number)

    def _next(self, place: _Place[StateT]) -> Iterator[int]:
        """The calls not done that began before any other of them had ended."""
        soonest = NEVER
        some: list[int] = []
        for number in range(place.first, len(self._ended)):
            call = self._ended[number]
            if call.start > soonest:
                break
            if not place.done >> number & 1:
                soonest = min(soonest, call.end)
                some.append(number)
        some.sort(key=lambda number: self._ended[number].end)
        yield from (number for number in some if self._ended[number].start <= soonest)
        for number in range(max(place.first, len(self._ended)), len(self._calls)):
            if self._calls[number].start > soonest:
                return
            if not place.done >> number & 1:
                yield number
