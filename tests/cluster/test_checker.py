"""The checker finds what it is there for: every violation planted in a history that was right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import pytest
from tests.cluster.checker import Found, violations
from tests.cluster.history import Fault, History
from tests.cluster.servers import View

if TYPE_CHECKING:
    from tests.cluster.checker import Sight
    from tests.cluster.history import Kind, Outcome

BLOB: Final = "b" * 64
SNAPSHOT: Final = "app:1"
VIEW: Final = View(messages=5, bytes=500, last_seq=9, num_deleted=4)


class Story:
    """A history as it is told, one second for each operation, and what was found."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self.history = History(lambda: self._seconds)
        self.found = Found(views={"OBJ_blobs": {"n1": VIEW, "n2": VIEW, "n3": VIEW}})

    def tell(self, kind: Kind, outcome: Outcome, code: str = "", key: str = BLOB) -> Story:
        """One more operation."""
        operation = self.history.begin(kind, key, "client")
        self._seconds += 1
        self.history.end(operation, outcome, code)
        return self

    def find(self, sight: Sight, key: str = BLOB) -> Story:
        """One more look in the end."""
        self.found.sights[key].append(("a client", sight))
        return self

    def judged(self) -> list[str]:
        """The checker's complaints."""
        return [violation.says for violation in violations(self.history, self.found)]


def stored(outcome: Outcome = "ok", code: str = "") -> Story:
    """A put, with that end."""
    return Story().tell("put", outcome, code)


UNKNOWN: Final = "outcome_unknown"


@pytest.mark.parametrize(
    "story",
    [
        stored().find("right"),
        stored().tell("get", "ok").tell("get", "failed", "unavailable").find("right"),
        stored("unknown", UNKNOWN).find("right"),
        stored("unknown", UNKNOWN).find("missing"),
        stored("failed", "unavailable").find("missing"),
        stored().tell("delete", "ok").find("missing"),
        stored().tell("delete", "failed", "unavailable").find("right"),
        stored().tell("delete", "unknown", UNKNOWN).find("right"),
        stored().tell("delete", "unknown", UNKNOWN).find("missing"),
        Story().tell("create", "ok", key=SNAPSHOT).find("right", SNAPSHOT),
        Story().tell("create", "failed", "not_found", key="app"),
        Story().tell("create", "unknown", UNKNOWN, key="app"),
    ],
)
def test_what_is_as_promised_is_passed(story: Story) -> None:
    assert story.judged() == []


@pytest.mark.parametrize(
    ("story", "says"),
    [
        (stored().find("missing"), "found it missing"),
        (stored().find("right").find("wrong"), "found it wrong"),
        (stored(), "nobody looked"),
        (stored("unknown", UNKNOWN).find("wrong"), "found it wrong"),
        (stored("failed", "unavailable").find("right"), "found it right"),
        (stored("failed", "internal").find("missing"), "no fault explains"),
        (stored().tell("delete", "ok").find("right"), "found it right"),
        (stored().tell("delete", "failed", "unavailable").find("missing"), "found it missing"),
        (stored().tell("get", "wrong").find("right"), "what was not stored"),
        (stored().tell("get", "failed", "not_found").find("right"), "did not find"),
        (stored().tell("get", "failed", "corrupt").find("right"), "no fault explains"),
        (Story().tell("create", "ok", key=SNAPSHOT).find("missing", SNAPSHOT), "found it missing"),
        (Story().tell("create", "ok", key=SNAPSHOT), "nobody looked"),
        (
            Story()
            .tell("create", "ok", key=SNAPSHOT)
            .tell("restore", "failed", "not_found", key=SNAPSHOT)
            .find("right", SNAPSHOT),
            "did not find",
        ),
    ],
)
def test_a_planted_loss_or_lie_is_found(story: Story, says: str) -> None:
    [told] = story.judged()

    assert says in told


def test_an_operation_that_never_ended_is_found() -> None:
    story = stored().find("right")
    story.history.begin("get", BLOB, "client")

    [told] = story.judged()

    assert "never ended" in told


def test_not_finding_what_was_not_acknowledged_yet_is_no_violation() -> None:
    story = Story()
    put = story.history.begin("put", BLOB, "one")
    story.tell("get", "failed", "not_found")
    story.history.end(put, "ok")

    assert story.find("right").judged() == []


def test_replicas_that_differ_are_found() -> None:
    story = stored().find("right")
    story.found.views["OBJ_blobs"]["n2"] = View(messages=4, bytes=500, last_seq=9, num_deleted=4)

    [told] = story.judged()

    assert "replicas differ" in told


@pytest.mark.parametrize(
    ("outcome", "sight", "is_right"),
    [
        ("unknown", "right", True),
        ("unknown", "missing", True),
        ("unknown", "wrong", False),
        ("failed", "missing", True),
        ("failed", "right", False),
        ("failed", "wrong", False),
    ],
)
def test_a_restore_leaves_a_whole_tree_or_none_and_none_if_it_surely_failed(
    outcome: Outcome, sight: Sight, is_right: bool
) -> None:
    story = Story().tell("create", "ok", key=SNAPSHOT).find("right", SNAPSHOT)
    restore = story.history.begin("restore", SNAPSHOT, "client", "apps/a")
    story.history.end(restore, outcome, UNKNOWN if outcome == "unknown" else "unavailable")
    story.found.restored["apps/a"] = sight

    told = story.judged()

    assert is_right == (told == [])


def test_a_violation_tells_the_history_of_its_key_and_the_faults_meanwhile() -> None:
    story = stored().tell("put", "ok", key="other").tell("get", "ok").find("missing")
    story.find("right", "other")
    story.history.faults.append(Fault(kind="kill leader", on="n2", start=0.5, end=0.7))
    story.history.faults.append(Fault(kind="kill leader", on="n3", start=90.0, end=math.inf))

    [violation] = violations(story.history, story.found)

    lines = str(violation).splitlines()
    assert [line.split("client: ")[-1].split()[0] for line in lines[1:]] == ["put", "0.500", "get"]
    assert "n2" in lines[2]


async def test_the_next_acknowledgement_is_that_of_a_put_sent_after_the_fault() -> None:
    story = Story()
    early = story.history.begin("put", BLOB, "one")
    story.tell("get", "ok")
    since = story.history.now()
    story.history.end(early, "ok")
    story.tell("put", "failed", "unavailable")
    story.tell("put", "ok", key="later")

    found = await story.history.wait_acknowledged(since)

    assert found.key == "later"
