"""The calls on states and their answers, and whether that can have been so.

A state is two things that change by themselves: its log, and its record with saves and how far the
log was trimmed. Each call is about one of them, but that a trim is done at one moment and tells of
another. Commands are told apart by ids, and what the log was seen to hold says which index each has
got: so the order of all appends is known, and it is judged whether that order fits the times at
which they were answered.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from tests.linearizability import NEVER, judge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.linearizability import Verdict

type StateVerb = Literal["append", "look", "save", "latest", "trim", "trimmed"]
type StateOutcome = Literal["ok", "conflict", "invalid", "race", "unavailable", "unknown"]
_OF_THE_LOG: Final[frozenset[StateVerb]] = frozenset({"append", "look"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCall:
    """One call. ``end`` is infinite where the outcome is not known.

    ``index`` is what was told: of an append the first command's, of a look the log's last, of a
    conflict the one that was in the way, of the newest save the one it includes (None: there is
    none), of a trim up to where the log is gone. ``asked`` is the index that a save includes, that
    a trim goes to, that an append expects (None: any). ``commands`` are ids.
    """

    verb: StateVerb
    name: str
    start: float
    end: float = NEVER
    outcome: StateOutcome = "unknown"
    commands: tuple[str, ...] = ()
    asked: int | None = None
    index: int | None = None
    number: int = 0
    client: str = ""

    @property
    def only_looks(self) -> bool:
        """Whether it surely changed nothing."""
        return self.verb in {"look", "latest", "trimmed"} or self.outcome not in {"ok", "unknown"}

    def __str__(self) -> str:
        took = f"{self.start:.3f} to {self.end:.3f} s"
        told = f"{self.outcome} index {self.index} number {self.number}"
        return f"{took} {self.client}: {self.verb} {self.commands} asked {self.asked}: {told}"


class LogModel:
    """The index of a log's last command."""

    def after(self, state: int, call: StateCall) -> Iterator[int]:
        """The states that may follow. None, if ``call`` was not answered so in ``state``."""
        if call.verb == "look":
            if call.index == state:
                yield state
            return
        fits = call.asked in {None, state}
        if call.only_looks:
            if not fits and call.index == state:
                yield state
        elif fits and call.index in {None, state + 1}:
            yield state + len(call.commands)


@dataclass(frozen=True, slots=True)
class Record:
    """How many saves there were, what the last two include, and how far the log is trimmed."""

    number: int = 0
    newest: int = 0
    second: int = 0
    trimmed: int = 0


class RecordModel:
    """A state's record. Nobody saves by force, and what is saved stays good."""

    def after(self, state: Record, call: StateCall) -> Iterator[Record]:
        """The states that may follow. None, if ``call`` was not answered so in ``state``."""
        match call.verb:
            case "latest":
                told = call.number, call.index or 0
                if told == (state.number, state.newest):
                    yield state
            case "save":
                yield from self._after_save(state, call, call.asked or 0)
            case _:
                yield from self._after_trim(state, call, call.asked or 0)

    def _after_save(self, state: Record, call: StateCall, index: int) -> Iterator[Record]:
        is_older = index < state.newest
        is_refused_so = {
            "conflict": is_older and call.index == state.newest,
            "invalid": index < state.trimmed,
            "race": True,
        }.get(call.outcome)
        if is_refused_so is not None:
            if is_refused_so:
                yield state
        elif not is_older and call.number in {0, state.number + 1}:
            yield Record(state.number + 1, index, state.newest, state.trimmed)

    def _after_trim(self, state: Record, call: StateCall, through: int) -> Iterator[Record]:
        may = state.number > 1 and through <= state.second
        is_done = through <= state.trimmed
        if call.outcome == "conflict":
            most = state.second if state.number > 1 else state.trimmed
            if not is_done and not may and call.index == most:
                yield state
        elif call.outcome == "race":
            yield state
        elif call.verb == "trimmed":
            if call.index == state.trimmed:
                yield state
        elif is_done or may:
            yield replace(state, trimmed=max(state.trimmed, through))


@dataclass(slots=True)
class Seen:
    """A log as it was seen: by index its commands, and their times.

    ``missed`` are indexes that were trimmed before anybody saw them.
    """

    commands: dict[int, str] = field(default_factory=dict)
    times: dict[int, str] = field(default_factory=dict)
    missed: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def note(self, index: int, command: str, hlc: str) -> None:
        """It was told so. Whatever is told of an index is the same each time."""
        told = self.commands.setdefault(index, command), self.times.setdefault(index, hlc)
        if told != (command, hlc):
            self.wrong.append(f"command {index} was {told} and is {(command, hlc)}")


def violations(calls: Sequence[StateCall], seen: dict[str, Seen]) -> list[str]:
    """Why the answers, and what was seen of each log, cannot have been so."""
    found: list[str] = []
    by_name: dict[str, list[StateCall]] = defaultdict(list)
    for call in calls:
        by_name[call.name].append(call)
    for name, some in by_name.items():
        log = seen.get(name, Seen())
        found += (f"{name}: {what}" for what in (*log.wrong, *_wrong_in(log, some)))
        about_log = [*_settled(some, log)]
        found += _unordered(name, judge(about_log, LogModel(), 0))
        about_record = [
            one
            for call in some
            if call.verb not in _OF_THE_LOG and call.outcome != "unavailable"
            for one in _split(call)
        ]
        found += _unordered(name, judge(about_record, RecordModel(), Record()))
    return found


def _unordered[StateT](name: str, verdict: Verdict[StateCall, StateT]) -> list[str]:
    return [] if verdict.is_linearizable else [f"{name}: {verdict}"]


def _wrong_in(log: Seen, calls: Sequence[StateCall]) -> Iterator[str]:
    """The places where the log differs from its writers' answers, or is in itself wrong."""
    for before, index in pairwise(sorted(log.commands)):
        if not {*range(before + 1, index)} <= log.missed:
            yield f"there is a gap between commands {before} and {index}"
        if log.times[before] >= log.times[index]:
            yield f"command {index} has the time {log.times[index]}, not after {log.times[before]}"
    places = _places(log)
    for command, found in places.items():
        if len(found) > 1:
            yield f"{command} is there at {found}"
    for call in calls:
        if call.outcome == "ok" and call.verb == "append":
            yield from _not_there(log, call)
        elif call.outcome != "unknown":
            there = [command for command in call.commands if command in places]
            yield from (f"{command} is there, and was answered {call.outcome}" for command in there)


def _not_there(log: Seen, call: StateCall) -> Iterator[str]:
    for index, command in enumerate(call.commands, call.index or 0):
        if log.commands.get(index) != command and index not in log.missed:
            yield f"{command} was acknowledged at {index}, which is not so"


def _split(call: StateCall) -> tuple[StateCall, ...]:
    """A trim as that, and a look at how far the log is trimmed."""
    if call.verb == "trim" and call.outcome == "ok":
        return call, replace(call, verb="trimmed")
    return (call,)


def _places(log: Seen) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for index, command in log.commands.items():
        places[command].append(index)
    return places


def _settled(calls: Sequence[StateCall], log: Seen) -> Iterator[StateCall]:
    """The calls about the log; of those without an answer what the log tells of them.

    What is in it nowhere was not appended. It may have been where some of it was not seen.
    """
    places = _places(log)
    for call in calls:
        if call.verb not in _OF_THE_LOG or call.outcome == "unavailable":
            continue
        if call.outcome != "unknown":
            yield call
        elif call.commands[0] in places:
            yield replace(call, index=places[call.commands[0]][0])
        elif log.missed:
            yield call
