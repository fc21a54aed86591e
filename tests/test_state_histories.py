"""The checker of states' histories passes what can be, and finds every violation planted in it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.linearizability import NEVER
from tests.state_histories import Seen, StateCall, violations

NAME: Final = "orders"


def told(*calls: StateCall) -> list[StateCall]:
    """The calls, one after the other."""
    return [
        replace(call, start=2.0 * at, end=2 * at + 1 if call.outcome != "unknown" else NEVER)
        for at, call in enumerate(calls)
    ]


def call(verb: Any, outcome: Any = "ok", *commands: str, **said: Any) -> StateCall:
    return StateCall(verb=verb, name=NAME, start=0, outcome=outcome, commands=commands, **said)


def log(*commands: str, missed: int = 0) -> dict[str, Seen]:
    """A log of that, of which the first ones were missed."""
    seen = Seen(missed={*range(1, missed + 1)})
    for index, command in enumerate(commands, missed + 1):
        seen.note(index, command, f"{index:04}")
    return {NAME: seen}


A, B, C = (call("append", "ok", name, index=at) for at, name in enumerate("abc", 1))
LOST_B: Final = call("append", "unknown", "b")
SAVE_1, SAVE_2 = (call("save", asked=at, number=at) for at in (1, 2))


@pytest.mark.parametrize(
    ("calls", "seen"),
    [
        (told(A, B, C), log("a", "b", "c")),
        (told(A, call("look", index=1), B, call("look", index=2)), log("a", "b")),
        (told(A, call("append", "conflict", "x", asked=0, index=1)), log("a")),
        (told(A, call("append", "ok", "b", asked=1, index=2)), log("a", "b")),
        (told(A, LOST_B, call("append", "ok", "c", index=2)), log("a", "c")),
        (told(A, LOST_B, call("append", "ok", "c", index=2)), log("a", "c", "b")),
        (told(A, call("append", "unavailable", "b")), log("a")),
        (told(A, B, LOST_B), log("b", missed=1)),
        (told(call("append", "ok", "a", "b", index=1), C), log("a", "b", "c")),
        (told(A, B, call("latest"), SAVE_1, SAVE_2), log("a", "b")),
        (told(A, B, SAVE_2_FIRST := replace(SAVE_2, number=1)), log("a", "b")),
        (told(SAVE_2_FIRST, call("save", "conflict", asked=1, index=2)), log()),
        (told(SAVE_1, call("latest", number=1, index=1)), log()),
        (told(SAVE_1, call("save", "unknown", asked=1), call("latest", number=1, index=1)), log()),
        (told(SAVE_1, call("save", "unknown", asked=1), call("latest", number=2, index=1)), log()),
        (told(SAVE_1, SAVE_2, call("trim", asked=1, index=1)), log()),
        (told(SAVE_1, SAVE_2, call("trim", "conflict", asked=2, index=1)), log()),
        (told(SAVE_1, call("trim", "conflict", asked=1, index=0)), log()),
    ],
)
def test_what_can_be_is_passed(calls: list[StateCall], seen: dict[str, Seen]) -> None:
    assert violations(calls, seen) == []


def test_calls_at_the_same_time_may_come_in_either_order() -> None:
    calls = [replace(one, start=0, end=1) for one in (B, A, C)]

    assert violations(calls, log("a", "b", "c")) == []


@pytest.mark.parametrize(
    ("calls", "seen", "says"),
    [
        (told(A, B), log("a"), "b was acknowledged at 2"),
        (told(A, B), log("a", "x"), "b was acknowledged at 2"),
        (told(A), log("a", "a"), r"a is there at \[1, 2\]"),
        (told(A, call("append", "unavailable", "b")), log("a", "b"), "was answered unavailable"),
        (told(A, call("append", "conflict", "b", index=1)), log("a", "b"), "answered conflict"),
        (told(B, A), log("a", "b"), "explains none of"),
        (told(A, call("look", index=0)), log("a"), "explains none of"),
        (told(A, B, call("look", index=1)), log("a", "b"), "explains none of"),
        (told(A, call("append", "conflict", "x", asked=1, index=1)), log("a"), "explains none"),
        (told(A, call("append", "conflict", "x", asked=0, index=0)), log("a"), "explains none"),
        (told(A, call("append", "ok", "b", asked=0, index=2)), log("a", "b"), "explains none"),
        (told(SAVE_1, call("latest")), log(), "explains none of"),
        (told(SAVE_1, SAVE_1), log(), "explains none of"),
        (told(SAVE_1, replace(SAVE_1, number=3)), log(), "explains none of"),
        (told(replace(SAVE_2, number=1), replace(SAVE_1, number=2)), log(), "explains none of"),
        (told(SAVE_1, call("save", "conflict", asked=1, index=1)), log(), "explains none of"),
        (told(SAVE_1, SAVE_2, call("trim", asked=2, index=2)), log(), "explains none of"),
        (told(SAVE_1, SAVE_2, call("trim", asked=1, index=2)), log(), "explains none of"),
        (told(SAVE_1, SAVE_2, call("trim", "conflict", asked=1, index=1)), log(), "none of"),
    ],
)
def test_what_cannot_be_is_found(calls: list[StateCall], seen: dict[str, Seen], says: str) -> None:
    found = violations(calls, seen)

    assert found != []
    assert any(re.search(says, one) for one in found), found


def test_gaps_times_that_do_not_rise_and_commands_that_change_are_found() -> None:
    seen = Seen()
    for index, command, hlc in ((1, "a", "0001"), (3, "c", "0003"), (4, "d", "0003")):
        seen.note(index, command, hlc)
    seen.note(1, "other", "0001")

    found = violations(told(A), {NAME: seen})

    assert [one.partition(": ")[2] for one in found] == [
        "command 1 was ('a', '0001') and is ('other', '0001')",
        "there is a gap between commands 1 and 3",
        "command 4 has the time 0003, not after 0003",
    ]
