"""The checker accepts what may have been, and refuses each lie that is told to it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.linearizability import NEVER, judge
from tests.name_histories import FREE, Content, NameCall, NameModel, violations

from holdfast.domain.blob_names import Conditions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.name_histories import Outcome, Verb

NAME: Final = "a"
OTHER: Final = "b"


def call(verb: Verb, start: float, end: float, outcome: Outcome = "ok", **told: Any) -> NameCall:
    return NameCall(verb=verb, start=start, end=end, outcome=outcome, **{"name": NAME} | told)


def written(verb: Verb, start: float, end: float, number: int, /, **told: Any) -> NameCall:
    return replace(call(verb, start, end, digest=str(number), version=number), **told)


def created(start: float = 0, end: float = 1, **told: Any) -> NameCall:
    return written("create", start, end, 1, **told)


def replaced(start: float, end: float, version: int, **told: Any) -> NameCall:
    return written("replace", start, end, version, **told)


def seen(start: float, end: float, version: int, **told: Any) -> NameCall:
    return written("read", start, end, version, **told)


def unseen(start: float, end: float, **told: Any) -> NameCall:
    return call("read", start, end, digest=None, **told)


def unheard(verb: Verb, start: float, digest: str | None = None, **told: Any) -> NameCall:
    return call(verb, start, NEVER, "unknown", digest=digest, **told)


RIGHT: Final[dict[str, list[NameCall]]] = {
    "one after the other": [created(), replaced(2, 3, 2), seen(4, 5, 2)],
    "a read meanwhile may see either": [created(), replaced(2, 9, 2), seen(3, 4, 1), seen(5, 6, 2)],
    "one of two creates": [created(0, 5), created(1, 4, outcome="conflict", digest=None)],
    "a create that is refused while another is not done": [
        created(0, 9, outcome="unavailable"),
        call("create", 3, 4, "conflict", version=0),
        unseen(5, 6),
    ],
    "not heard of and done": [created(), unheard("replace", 2, "2"), seen(7, 8, 2)],
    "not heard of and done late": [
        created(),
        unheard("replace", 2, "2"),
        seen(3, 4, 1),
        replaced(5, 6, 2, digest="x"),
        seen(7, 8, 3, digest="2"),
    ],
    "not heard of and never done": [created(), unheard("delete", 2), seen(7, 8, 1)],
    "surely not done": [created(), call("delete", 2, 3, "unavailable"), seen(4, 5, 1)],
    "a version goes on over a deletion": [
        created(),
        call("delete", 2, 3),
        unseen(4, 5),
        created(6, 7, version=2),
    ],
    "a lost condition": [
        created(),
        replaced(2, 3, 2),
        call("replace", 4, 5, "conflict", version=2, conditions=Conditions(if_version=1)),
        call("delete", 6, 7, "conflict", version=2, conditions=Conditions(if_digest="1")),
    ],
    "a race that there was": [created(), replaced(2, 6, 2), call("replace", 3, 4, "race")],
    "a replace of nothing": [call("replace", 0, 1, "not_found"), created(2, 3)],
    "a copy of what was there meanwhile": [
        created(),
        replaced(2, 3, 2),
        call("copy", 1, 9, name=OTHER, source=NAME, digest="1", version=1),
    ],
    "a copy of nothing": [call("copy", 0, 1, "not_found", name=OTHER, source=NAME)],
    "a copy not heard of": [
        created(),
        unheard("copy", 2, name=OTHER, source=NAME),
        seen(3, 4, 1, name=OTHER),
    ],
    "a rename": [
        created(),
        call("rename", 2, 5, name=OTHER, source=NAME, digest="1", version=1),
        unseen(6, 7),
        seen(6, 7, 1, name=OTHER),
    ],
    "a rename not heard of": [
        created(),
        unheard("rename", 2, name=OTHER, source=NAME),
        seen(3, 4, 1),
        unseen(5, 6),
        seen(5, 6, 1, name=OTHER),
    ],
    "a rename of nothing": [call("rename", 0, 1, "not_found", name=OTHER, source=NAME)],
}

WRONG: Final[dict[str, list[NameCall]]] = {
    "a lost update": [created(), replaced(2, 5, 2), replaced(3, 4, 2, digest="x")],
    "a stale read": [created(), replaced(2, 3, 2), seen(4, 5, 1)],
    "reads that go back": [created(), replaced(2, 9, 2), seen(3, 4, 2), seen(5, 6, 1)],
    "two creates": [created(0, 5), created(1, 4, digest="x", version=2)],
    "a create refused by nobody": [call("create", 0, 1, "conflict", version=0), unseen(2, 3)],
    "resurrected after a delete": [created(), call("delete", 2, 3), seen(4, 5, 1)],
    "a version that comes again": [created(), call("delete", 2, 3), created(4, 5)],
    "a condition of a former life": [
        created(),
        call("delete", 2, 3),
        created(4, 5, version=2),
        replaced(6, 7, 3, conditions=Conditions(if_version=1)),
    ],
    "a condition that had not failed": [
        created(),
        call("replace", 2, 3, "conflict", version=1, conditions=Conditions(if_version=1)),
    ],
    "surely not done, and done": [
        created(),
        call("replace", 2, 3, "unavailable", digest="2"),
        seen(4, 5, 2),
    ],
    "done twice": [
        created(),
        replaced(2, 3, 2),
        replaced(4, 5, 3),
        seen(6, 7, 4, digest="2"),
    ],
    "done before it was asked": [seen(0, 1, 1), unheard("create", 2, "1")],
    "not found, and there": [created(), call("replace", 2, 3, "not_found")],
    "a race with nobody": [created(), call("replace", 2, 3, "race")],
    "deleted twice": [created(), call("delete", 2, 3), call("delete", 4, 5)],
    "a lie about the version": [created(), seen(2, 3, 2, digest="1")],
    "a copy of what was replaced before": [
        created(),
        replaced(2, 3, 2),
        call("copy", 4, 5, name=OTHER, source=NAME, digest="1", version=1),
    ],
    "a copy that was not found, and there": [
        created(),
        call("copy", 4, 5, "not_found", name=OTHER, source=NAME),
    ],
    "a rename that leaves its source": [
        created(),
        call("rename", 2, 3, name=OTHER, source=NAME, digest="1", version=1),
        seen(4, 5, 1),
    ],
    "half of a rename": [
        created(),
        unheard("rename", 2, name=OTHER, source=NAME),
        unseen(3, 4),
        unseen(5, 6, name=OTHER),
    ],
}


@pytest.mark.parametrize("calls", RIGHT.values(), ids=RIGHT)
def test_what_may_have_been_is_accepted(calls: list[NameCall]) -> None:
    assert violations(calls) == []


@pytest.mark.parametrize("calls", WRONG.values(), ids=WRONG)
def test_what_cannot_have_been_is_refused(calls: list[NameCall]) -> None:
    [told] = violations(calls)

    assert "explains none of" in told


VERBS: Final[tuple[Verb, ...]] = ("create", "replace", "copy", "rename", "delete", "read")
CONDITIONS: Final = st.builds(
    Conditions,
    if_absent=st.booleans(),
    if_version=st.none() | st.integers(1, 3),
    if_digest=st.none() | st.sampled_from(["0", "1", "2"]),
)


@st.composite
def runs(draw: st.DrawFn) -> list[NameCall]:
    """One call after the other, on two names, each answered as a dict would; a second each."""
    names: dict[str, Content] = {NAME: FREE, OTHER: FREE}
    calls = []
    for second in range(draw(st.integers(1, 30))):
        name, source = draw(st.permutations([NAME, OTHER]))
        verb = draw(st.sampled_from(VERBS))
        conditions = Conditions()
        if verb not in {"create", "read"} and draw(st.booleans()):
            conditions = draw(CONDITIONS)
        asked = call(verb, second, second + 0.5, name=name, digest=str(second), version=None)
        asked = replace(asked, conditions=conditions)
        if verb in {"copy", "rename"}:
            asked = replace(asked, source=source)
        calls.append(answered(names, asked))
    return calls


def answered(names: dict[str, Content], asked: NameCall) -> NameCall:
    """Do ``asked`` to ``names``: the call with its answer."""
    version, digest = names[asked.name]
    told = version if digest is not None else 0
    if asked.verb == "read":
        return replace(asked, digest=digest, version=told)
    source = names[asked.source or asked.name]
    if asked.source is not None and source[1] is None:
        return replace(asked, outcome="not_found", digest=None, conditions=Conditions())
    if asked.conditions.failure(told, digest) or (asked.verb == "create" and digest is not None):
        return replace(asked, outcome="conflict", digest=None, version=told)
    if asked.verb in {"replace", "delete"} and digest is None:
        is_delete = asked.verb == "delete"
        asked = replace(asked, digest=None)
        return replace(asked, verb="read") if is_delete else replace(asked, outcome="not_found")
    if asked.verb == "delete":
        names[asked.name] = (version, None)
        return replace(asked, digest=None)
    if asked.source is not None:
        asked = replace(asked, digest=source[1])
    if asked.source is not None and asked.verb == "rename":
        names[asked.source] = (source[0], None)
    names[asked.name] = (version + 1, asked.digest)
    return replace(asked, version=version + 1)


@given(runs(), st.data())
def test_a_run_in_order_is_accepted_however_long_its_calls_last_and_whoever_was_not_answered(
    calls: list[NameCall], data: st.DataObject
) -> None:
    times = st.floats(0, 8)
    for number, one in enumerate(calls):
        calls[number] = replace(one, start=one.start - data.draw(times), end=one.end + 8)
        if one.outcome == "ok" and one.verb != "read" and data.draw(st.booleans()):
            digest = one.digest if one.source is None else None
            calls[number] = replace(
                calls[number], end=NEVER, outcome="unknown", digest=digest, version=None
            )

    assert violations(calls) == []


@given(runs(), st.data())
def test_an_answer_that_is_changed_is_refused(calls: list[NameCall], data: st.DataObject) -> None:
    told = [n for n, one in enumerate(calls) if one.version is not None]
    assume(told)
    number = data.draw(st.sampled_from(told))
    one = calls[number]
    lies = [replace(one, version=(one.version or 0) + 1)]
    if one.verb == "read":
        lies.append(replace(one, digest="a lie"))
    calls[number] = data.draw(st.sampled_from(lies))

    assert violations(calls) != []


TINY: Final = st.builds(
    call,
    st.sampled_from(["create", "replace", "delete", "read", "rename"]),
    st.integers(0, 4),
    st.integers(5, 6) | st.integers(0, 4),
    st.sampled_from(["ok", "ok", "unknown", "conflict", "not_found"]),
    name=st.sampled_from([NAME, OTHER]),
    digest=st.sampled_from(["1", "2", None]),
    version=st.sampled_from([None, 0, 1, 2]),
)


def as_asked(one: NameCall) -> NameCall:
    """With what such a call has."""
    source = {NAME: OTHER, OTHER: NAME}[one.name] if one.verb == "rename" else None
    end = NEVER if one.outcome == "unknown" else max(one.start, one.end)
    return replace(one, source=source, end=end)


def orders(calls: Sequence[NameCall]) -> Iterator[tuple[NameCall, ...]]:
    """Every order in which the calls may have been done, with and without those not heard of."""
    ended = [one for one in calls if one.end != NEVER]
    maybe = [one for one in calls if one.end == NEVER]
    for count in range(len(maybe) + 1):
        for done in itertools.combinations(maybe, count):
            for order in itertools.permutations([*ended, *done]):
                if all(a.start <= b.end for a, b in itertools.combinations(order, 2)):
                    yield order


def fits(model: NameModel, order: Sequence[NameCall]) -> bool:
    states = {model.start}
    for one in order:
        states = {after for state in states for after in model.after(state, one)}
    return bool(states)


@given(st.lists(st.builds(as_asked, TINY), max_size=5))
def test_the_search_finds_what_trying_all_orders_finds(calls: list[NameCall]) -> None:
    model = NameModel([NAME, OTHER])

    found = judge(calls, model, model.start).is_linearizable

    assert found == any(fits(model, order) for order in orders(calls))


def test_thousands_of_calls_of_sixteen_clients_are_judged() -> None:
    names: dict[str, Content] = {NAME: FREE, OTHER: FREE}
    calls = []
    for number in range(4000):
        verb = VERBS[number * 7 % 6]
        name, source = (NAME, OTHER) if number % 3 else (OTHER, NAME)
        one = call(verb, number, number + 0.5, name=name, digest=str(number), version=None)
        source_of = source if verb in {"copy", "rename"} else None
        one = answered(names, replace(one, source=source_of))
        one = replace(one, start=number - number * 5 % 16, end=number + number * 11 % 16 + 0.5)
        if number % 50 == 0 and one.outcome == "ok" and one.verb != "read":
            one = replace(one, end=NEVER, outcome="unknown", version=None)
        calls.append(one)

    assert violations(calls) == []
