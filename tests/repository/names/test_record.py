"""All interleavings of some writers of one name, each of whose writes may be late or unheard of.

A writer sends what `holdfast.repository.names.record` makes of the record that it read. That lands
when it likes, or not at all, and only where the record is as it was read; the writer may be told or
not, and may stop anywhere. Its announcement may lapse at any time, dead or not. Somebody may repeat
a request, once its first worker has no time left to read the record again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from holdfast.domain.blob_names import Conditions, Said, Verb
from holdfast.errors import ConflictError, HoldfastError, NotFoundError, UnavailableError
from holdfast.repository.names.record import (
    NameRecord,
    Step,
    announced,
    announcing,
    committed,
    deleted,
    failed,
    made_by,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME: Final = "a"
STEP: Final = Step(worker="w", at=datetime(2026, 3, 1, tzinfo=UTC))
ANY: Final = Conditions()
FREE: Final = Conditions(if_absent=True)
FIRST: Final = Conditions(if_version=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A writer's request; ``repeats`` is the number of the writer that was asked it first."""

    op: str
    verb: Verb | None
    conditions: Conditions = ANY
    repeats: int | None = None

    @property
    def is_delete(self) -> bool:
        """Else it brings a blob, whose digest is as its op."""
        return self.verb is None


def create(op: str, repeats: int | None = None) -> Request:
    return Request(op=op, verb="create", repeats=repeats)


def put(op: str, on: Conditions = ANY, repeats: int | None = None) -> Request:
    return Request(op=op, verb="replace", conditions=on, repeats=repeats)


def copy(op: str, on: Conditions = ANY) -> Request:
    return Request(op=op, verb="copy", conditions=on)


def delete(op: str, on: Conditions = ANY, repeats: int | None = None) -> Request:
    return Request(op=op, verb=None, conditions=on, repeats=repeats)


@dataclass(frozen=True, slots=True)
class Sent:
    """A record on its way, which is to follow on ``revision``, and what is to be answered then."""

    revision: int
    record: NameRecord
    refusal: HoldfastError | None = None


@dataclass(frozen=True, slots=True)
class Writer:
    """How far one is. ``answer`` is a version, or why not; ``is_sure``: it has heard of all."""

    has_announced: bool = False
    sent: Sent | None = None
    answer: int | HoldfastError | None = None
    is_sure: bool = True
    has_begun: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """The record of the name, and its writers. ``made`` are the ops that were carried out."""

    record: NameRecord | None
    writers: tuple[Writer, ...]
    revision: int = 0
    lapses: int = 0
    made: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """The same for worlds that are alike."""
        writers = tuple(
            (
                w.has_announced,
                w.is_sure,
                w.has_begun,
                repr(w.answer),
                w.sent and (w.sent.revision, msgspec.json.encode(w.sent.record)),
            )
            for w in self.writers
        )
        return (self.revision, self.lapses, msgspec.json.encode(self.record), writers, self.made)

    def with_writer(self, number: int, writer: Writer) -> World:
        writers = (*self.writers[:number], writer, *self.writers[number + 1 :])
        return replace(self, writers=writers)


def asked(request: Request, record: NameRecord | None, writer: Writer) -> Sent | None:
    """The record to write, if any. Raises what refuses. The record is at revision 0."""
    if request.verb is None:
        if record is None:
            return None
        return Sent(0, deleted(record, request.op, request.conditions, STEP))
    if not writer.has_announced:
        said = Said(type="t", conditions=request.conditions)
        one = announcing(request.verb, said, op=request.op, at=STEP.at, digest=request.op, size=1)
        return Sent(0, announced(record, NAME, one, STEP))
    try:
        return Sent(0, committed(record, request.op, STEP))
    except (ConflictError, NotFoundError) as error:
        assert record is not None
        return Sent(0, failed(record, request.op, error.detail, STEP), error)


class Runs:
    """Every run of ``requests``, each to a writer of its own, from a record on."""

    def __init__(self, *requests: Request, record: NameRecord | None, lapses: int) -> None:
        """So many announcements lapse in a run at most."""
        self._requests = requests
        self._lapses = lapses
        self._start = World(record, (Writer(),) * len(requests))
        self.answers: Counter[tuple[int | str | None, ...]] = Counter()

    def explore(self) -> None:
        """Look at every world that may come to be."""
        seen: set[tuple[object, ...]] = set()
        worlds = [self._start]
        while worlds:
            world = worlds.pop()
            key = world.key
            if key in seen:
                continue
            seen.add(key)
            check_ends(world)
            following = [*self._following(world)]
            if not following:
                self._check_answers(world)
            worlds += following
            if world.lapses < self._lapses:
                worlds += lapsed(world)

    def _following(self, world: World) -> Iterator[World]:
        for number, writer in enumerate(world.writers):
            if writer.sent is not None:
                yield from self._landed(world, number, writer, writer.sent)
            elif writer.answer is None and self._may_ask(world, number):
                yield self._asked(world, number, replace(writer, has_begun=True))

    def _may_ask(self, world: World, number: int) -> bool:
        return not any(
            request.repeats == number and other.has_begun
            for request, other in zip(self._requests, world.writers, strict=True)
        )

    def _asked(self, world: World, number: int, writer: Writer) -> World:
        """The writer reads the record, and sends what is to follow, or goes on, or ends."""
        request = self._requests[number]
        try:
            sent = asked(request, world.record, writer)
        except HoldfastError as error:
            return world.with_writer(number, replace(writer, answer=error))
        if sent is None or sent.record is world.record:
            return self._went_on(world, number, writer, None)
        sent = replace(sent, revision=world.revision)
        return world.with_writer(number, replace(writer, sent=sent))

    def _landed(self, world: World, number: int, writer: Writer, sent: Sent) -> Iterator[World]:
        """The worlds after a write arrives: refused, or written and the writer told, or not."""
        writer = replace(writer, sent=None)
        if sent.revision != world.revision:
            yield world.with_writer(number, writer)
            return
        check_follows(world.record, sent.record)
        op = self._requests[number].op
        is_made = made_by(sent.record, op) is not None
        written = replace(
            world,
            record=sent.record,
            revision=world.revision + 1,
            made=(*world.made, op) if is_made else world.made,
        )
        yield self._went_on(written, number, writer, sent.refusal)
        yield written.with_writer(number, replace(writer, is_sure=False))

    def _went_on(
        self, world: World, number: int, writer: Writer, refusal: HoldfastError | None
    ) -> World:
        request = self._requests[number]
        if refusal is not None:
            return world.with_writer(number, replace(writer, answer=refusal))
        if not request.is_delete and not writer.has_announced:
            return world.with_writer(number, replace(writer, has_announced=True))
        made = made_by(world.record, request.op)
        return world.with_writer(number, replace(writer, answer=made.version if made else 0))

    def _check_answers(self, world: World) -> None:
        """All have ended: each answer is so, and nothing was done twice."""
        told: list[int | str | None] = []
        assert max(Counter(world.made).values(), default=1) == 1
        for number, (request, writer) in enumerate(zip(self._requests, world.writers, strict=True)):
            if writer.answer is None:  # it was repeated before it could end
                told.append(None)
                continue
            is_answered_by_repeat = not self._may_ask(world, number)
            if isinstance(writer.answer, int):
                told.append("ok" if writer.answer else "nothing")
                assert (request.op in world.made) == bool(writer.answer) or request.is_delete
            else:
                told.append(writer.answer.code)
                is_unknown = isinstance(writer.answer, UnavailableError) and not writer.is_sure
                if not is_unknown and not is_answered_by_repeat:
                    assert request.op not in world.made, f"{request} was refused, and done"
        self.answers[tuple(told)] += 1


def lapsed(world: World) -> Iterator[World]:
    """Some announcement is given up, be its writer alive or not."""
    if world.record is None:
        return
    for one in world.record.pending:
        record = failed(world.record, one.op, "lapsed", STEP)
        check_follows(world.record, record)
        yield replace(world, record=record, revision=world.revision + 1, lapses=world.lapses + 1)


def check_follows(before: NameRecord | None, after: NameRecord) -> None:
    """One record follows on another: one blob more at most, which was announced before."""
    content = None if before is None else before.content
    version = 0 if before is None else before.version
    if after.content == content and after.version == version:
        return
    if after.content is None:
        assert after.version == version, "a deletion takes no version"
        return
    assert after.version == version + 1, "versions count every blob"
    announcements = () if before is None else before.pending
    [one] = [each for each in announcements if each not in after.pending]
    assert after.content.digest == one.digest, "it is the blob that was announced"
    assert one.verb != "create" or content is None, "a create finds the name free"
    assert one.verb != "replace" or content is not None, "a replace finds the name taken"
    told = version if content is not None else 0
    assert one.conditions.failure(told, content.digest if content is not None else None) is None


def check_ends(world: World) -> None:
    """Once nobody carries anything on, nothing is pending."""
    record = world.record
    if record is None:
        return
    assert sum(one.verb == "create" for one in record.pending) <= 1, "a create takes the name"
    for one in record.pending:
        record = failed(record, one.op, "lapsed", STEP)
    assert record.pending == ()
    assert record.state in ({"ok"} if record.content is not None else {"failure", "deleted"})
    assert record.content == (world.record.content if world.record is not None else None)
    numbers = [one.version for one in record.transitions]
    assert all(first <= second for first, second in pairwise(numbers)), "no version comes back"


def there(op: str = "0") -> NameRecord:
    """The name with a blob, as version 1."""
    said = Said(type="t")
    one = announcing("create", said, op=op, at=STEP.at, digest=op, size=1)
    return committed(announced(None, NAME, one, STEP), op, STEP)


def gone() -> NameRecord:
    """The name after a deletion."""
    return deleted(there(), "gone", Conditions(), STEP)


STARTS: Final[dict[str, Callable[[], NameRecord | None]]] = {
    "free": lambda: None,
    "there": there,
    "deleted": gone,
}
WRITERS: Final[dict[str, tuple[Request, ...]]] = {
    "two creates": (create("1"), create("2")),
    "three creates": (create("1"), create("2"), create("3")),
    "a create, a copy and a deletion": (create("1"), copy("2"), delete("3")),
    "a create, a copy onto nothing, a replace": (create("1"), copy("2", FREE), put("3")),
    "two replaces of version 1, a deletion": (
        put("1", FIRST),
        put("2", FIRST),
        delete("3", FIRST),
    ),
    "a replace and two deletions": (put("1"), delete("2"), delete("3")),
    "a deletion, a create and a replace of version 1": (
        delete("1"),
        create("2"),
        put("3", FIRST),
    ),
    "a repeated create and a deletion": (create("1"), create("1", repeats=0), delete("2")),
    "a repeated create and another": (create("1"), create("1", repeats=0), create("2")),
    "a repeated replace and another": (put("1"), put("1", repeats=0), put("2")),
    "a repeated deletion and a create": (delete("1"), delete("1", repeats=0), create("2")),
}


@pytest.mark.parametrize("lapses", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("writers", WRITERS)
def test_every_interleaving_keeps_the_laws_of_a_name(writers: str, start: str, lapses: int) -> None:
    runs = Runs(*WRITERS[writers], record=STARTS[start](), lapses=lapses)

    runs.explore()

    assert runs.answers


@pytest.mark.parametrize("start", ["free", "deleted"])
def test_of_creates_at_once_no_two_succeed_and_one_does_unless_its_announcement_lapses(
    start: str,
) -> None:
    runs = Runs(create("1"), create("2"), record=STARTS[start](), lapses=1)

    runs.explore()

    assert ("ok", "ok") not in runs.answers
    assert {("ok", "conflict"), ("conflict", "ok")} <= runs.answers.keys()
    assert ("conflict", "conflict") not in runs.answers
