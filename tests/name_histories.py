"""The calls on names and their answers, and whether that can have been so.

Each name is judged by itself, those that are renamed to one another together. A copy reads its
source at one moment and writes its target at another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from tests.linearizability import NEVER, Verdict, judge

from holdfast.domain.blob_names import Conditions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

type Verb = Literal["create", "replace", "copy", "rename", "delete", "read"]
type Outcome = Literal["ok", "conflict", "race", "not_found", "unavailable", "unknown"]
type Content = tuple[int, str | None]
"""The version of a name, which goes on counting over deletions, and its digest if it has a blob."""

FREE: Final[Content] = (0, None)
NO_CONDITIONS: Final = Conditions()
_TELLING: Final[frozenset[Verb]] = frozenset({"read", "copy", "rename"})
UNSEEN: Final = "a digest that nobody was told"


@dataclass(frozen=True, slots=True, kw_only=True)
class NameCall:
    """One call. ``end`` is infinite where the outcome is not known.

    ``digest`` and ``version`` are those that the name got, or had (a read, a conflict); None where
    it has no blob, or is not told. ``may_bring`` are the digests of a copy that was not answered.
    """

    verb: Verb
    name: str
    start: float
    end: float = NEVER
    outcome: Outcome = "unknown"
    source: str | None = None
    digest: str | None = None
    version: int | None = None
    conditions: Conditions = NO_CONDITIONS
    client: str = ""
    note: str = ""
    may_bring: tuple[str, ...] = ()

    @property
    def only_looks(self) -> bool:
        """Whether it surely changed nothing."""
        return self.verb == "read" or self.outcome not in {"ok", "unknown"}

    @property
    def names(self) -> set[str]:
        """The names that it needs at one moment."""
        is_rename = self.verb == "rename" and self.source is not None
        return {self.name, self.source or ""} if is_rename else {self.name}

    def __str__(self) -> str:
        told = f"{self.outcome} version {self.version} digest {(self.digest or 'none')[:8]}"
        of = f" from {self.source}" if self.source else ""
        took = f"{self.start:.3f} to {self.end:.3f} s"
        asked = f"{self.client}: {self.verb} {self.name}{of} {self.conditions}"
        return f"{took} {asked}: {told} {self.note}"


class NameModel:
    """Some names at once, each with its version and digest."""

    def __init__(self, names: Iterable[str]) -> None:
        self._places = {name: place for place, name in enumerate(sorted(names))}

    @property
    def start(self) -> tuple[Content, ...]:
        """None of them was ever written."""
        return (FREE,) * len(self._places)

    def after(self, state: tuple[Content, ...], call: NameCall) -> Iterator[tuple[Content, ...]]:
        """The states that may follow. None, if ``call`` was not answered so in ``state``."""
        here = state[self._places[call.name]]
        if call.verb == "read":
            if _is_as_told(here, call):
                yield state
        elif call.only_looks:
            if self._is_refused_so(state, here, call):
                yield state
        elif self._refusals(state, here, call) == set():
            yield from self._changed(state, here, call)

    def _is_refused_so(self, state: tuple[Content, ...], here: Content, call: NameCall) -> bool:
        told = here[0] if here[1] is not None else 0
        is_so = call.outcome != "conflict" or call.version == told
        return is_so and call.outcome in {"race", *self._refusals(state, here, call)}

    def _refusals(self, state: tuple[Content, ...], here: Content, call: NameCall) -> set[Outcome]:
        """How the call may be refused in ``state``; if at all, it cannot succeed."""
        version, digest = here
        found: set[Outcome] = set()
        fails = call.conditions.failure(version if digest is not None else 0, digest)
        if fails is not None or (call.verb == "create" and digest is not None):
            found.add("conflict")
        if call.verb == "replace" and digest is None:
            found |= {"not_found", "conflict"}  # the latter when it had been there meanwhile
        if call.verb == "rename" and self._source(state, call)[1] is None:
            found.add("not_found")
        return found

    def _changed(
        self, state: tuple[Content, ...], here: Content, call: NameCall
    ) -> Iterator[tuple[Content, ...]]:
        version, digest = here
        if call.verb == "delete":
            if digest is not None:
                yield self._with(state, call.name, (version, None))
            return
        brought: Iterable[str | None] = call.may_bring or (call.digest,)
        if call.verb == "rename":
            brought = (self._source(state, call)[1],)
        for one in brought:
            now = (version + 1, one)
            if call.outcome == "unknown" or _is_as_told(now, call):
                yield self._moved(self._with(state, call.name, now), call)

    def _moved(self, state: tuple[Content, ...], call: NameCall) -> tuple[Content, ...]:
        """``state`` without the source of a rename."""
        if call.verb != "rename" or call.source is None:
            return state
        return self._with(state, call.source, (self._source(state, call)[0], None))

    def _source(self, state: tuple[Content, ...], call: NameCall) -> Content:
        return state[self._places[call.source or ""]]

    def _with(self, state: tuple[Content, ...], name: str, content: Content) -> tuple[Content, ...]:
        place = self._places[name]
        return (*state[:place], content, *state[place + 1 :])


def _is_as_told(content: Content, call: NameCall) -> bool:
    version, digest = content
    return digest == call.digest and call.version in {None, version if digest is not None else 0}


def violations(calls: Sequence[NameCall]) -> list[str]:
    """Why the answers cannot have been so, for each name, or names, of which they cannot."""
    found = []
    for names, some in _by_names([*_split(calls)]):
        model = NameModel(names)
        told = [_completed(call, some) for call in some if call.outcome != "unavailable"]
        verdict: Verdict[NameCall, tuple[Content, ...]] = judge(told, model, model.start)
        if not verdict.is_linearizable:
            found.append(f"{sorted(names)}: {verdict}")
    return found


def _split(calls: Sequence[NameCall]) -> Iterator[NameCall]:
    """Copies as a look at their source and a write of their target."""
    for call in calls:
        if call.verb == "copy" and call.source is not None and call.outcome == "not_found":
            yield replace(call, verb="read", name=call.source, source=None, digest=None)
            continue
        if call.verb == "copy" and call.source is not None and call.outcome == "ok":
            yield replace(call, verb="read", name=call.source, source=None, version=None)
        yield call


def _by_names(calls: Sequence[NameCall]) -> Iterator[tuple[set[str], list[NameCall]]]:
    """The calls that have to be judged together, with their names."""
    groups: list[set[str]] = []
    for call in calls:
        joined = [group for group in groups if group & call.names]
        groups = [group for group in groups if not group & call.names]
        groups.append(call.names.union(*joined))
    for group in groups:
        yield group, [call for call in calls if call.name in group]


def _completed(call: NameCall, calls: Sequence[NameCall]) -> NameCall:
    """The call with what can be said of it only in view of all ``calls`` of its names.

    One that says that it lost a race is an impossible conflict where nobody was there to lose it
    to. That the name is being created is a race, too. A copy that was not answered may have brought
    anything that was seen.
    """
    if call.verb == "copy" and call.outcome == "unknown":
        return replace(call, may_bring=(UNSEEN, *sorted(_seen(calls))))
    is_being_created = call.verb == "create" and call.outcome == "conflict" and not call.version
    if call.outcome != "race" and not is_being_created:
        return call
    if any(_may_disturb(other, call) for other in calls):
        return replace(call, outcome="race")
    return replace(call, outcome="conflict", version=-1)


def _seen(calls: Sequence[NameCall]) -> set[str]:
    """The digests that others than their writers met."""
    told = {call.digest for call in calls if call.verb in _TELLING}
    return {one for one in told | {call.conditions.if_digest for call in calls} if one is not None}


def _may_disturb(other: NameCall, call: NameCall) -> bool:
    """Whether ``other`` was a write of the name while ``call`` was.

    Of one that was given up, or not answered, nobody knows how long it goes on.
    """
    if other is call or other.verb == "read" or not other.names & call.names:
        return False
    end = NEVER if other.outcome == "unavailable" else other.end
    return other.start < call.end and end > call.start
