"""``blob.watch`` without a connection: heads, heartbeats, credits, leases and the end."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.repository.pool import Time
from tests.repository.watch.replicas import Replicas

from holdfast.handlers.endpoint import Call
from holdfast.handlers.watch import MAX_EVENTS, NO_EVENTS, WatchHandlers
from holdfast.protocol.watch import EVENTS_TYPE, WatchChanges, WatchEvent
from holdfast.repository.watch.feed import Feed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.handlers.endpoint import BytesReply
    from holdfast.protocol.watch import WatchHead

    Told = AsyncGenerator[BytesReply[WatchHead]]


class Watches:
    """Handlers whose heartbeats come at once, and time that a test moves."""

    def __init__(self, *names: str) -> None:
        self.time = Time()
        self.source = Replicas(log=list(names))
        self.handlers = WatchHandlers(
            {"names": Feed(self.source)},
            source="urn:holdfast:test",
            monotonic=self.time.monotonic,
            heartbeat_seconds=0,
        )

    async def ask(self, call: Call, **request: object) -> Told:
        """The messages that answer."""
        wanted = msgspec.convert({"kind": "names", **request}, WatchChanges)
        reply = await self.handlers.watch(wanted, call)
        assert reply.type == EVENTS_TYPE
        return reply.messages


@pytest.fixture
def call() -> Call:
    """Who asks does not matter."""
    time = Time()
    return Call(
        now=time.clock(),
        op_id=None,
        data=b"",
        target="watch",
        seconds=1,
        until=time.seconds,
        monotonic=time.monotonic,
    )


def events(reply: BytesReply[WatchHead]) -> list[WatchEvent]:
    return msgspec.json.decode(reply.data, type=list[WatchEvent])


async def rest(messages: Told) -> list[BytesReply[WatchHead]]:
    async with aclosing(messages):
        return [message async for message in messages]


async def test_the_first_message_says_where_the_watch_begins_and_how_long_it_lasts(
    call: Call,
) -> None:
    watches = Watches("a", "b")

    async with aclosing(await watches.ask(call)) as messages:
        first = await anext(messages)

    assert (first.head.position, first.head.heartbeat, first.head.lease) == (2, 0, 60)
    assert first.data == NO_EVENTS


async def test_while_nothing_happens_there_are_heartbeats_until_the_lease_is_over(
    call: Call,
) -> None:
    watches = Watches("a")
    async with aclosing(await watches.ask(call)) as messages:
        heads = [(await anext(messages)).head for _ in range(5)]
        watches.time.advance(61)
        heads += [message.head for message in await rest(messages)]

    assert {head.position for head in heads} == {1}
    assert [head.end for head in heads if head.end is not None] == ["lease"]
    assert heads[-1].end == "lease"


async def test_a_credit_of_none_tells_the_position_alone(call: Call) -> None:
    heads = [message.head for message in await rest(await Watches("a").ask(call, credit=0))]

    assert [(head.position, head.end) for head in heads] == [(1, None), (1, "credit")]


async def test_an_event_is_what_cloudevents_say(call: Call) -> None:
    watches = Watches("a", "b")

    told = await rest(await watches.ask(call, since=1, credit=1))

    [event] = [event for message in told for event in events(message)]
    store = told[0].head.cursor.rpartition(".")[2]
    assert event == WatchEvent(
        id=f"names.{store}.2",
        source="urn:holdfast:test",
        type="holdfast.name.ok",
        subject="b",
        time="",
        sequence="00000000000000000002",
        position="2",
    )


async def test_many_events_come_in_several_messages_each_with_where_to_go_on(call: Call) -> None:
    count = 2 * MAX_EVENTS + 10
    watches = Watches(*(f"n{number}" for number in range(count)))

    told = await rest(await watches.ask(call, since=0, credit=count))

    with_events = [message for message in told if events(message)]
    assert [len(events(message)) for message in with_events] == [MAX_EVENTS, MAX_EVENTS, 10]
    for message in with_events:
        assert str(message.head.position) == events(message)[-1].position
    assert told[-1].head.end == "credit"


async def test_whoever_spends_the_credit_among_many_goes_on_behind_what_was_told(
    call: Call,
) -> None:
    count = 3 * MAX_EVENTS
    watches = Watches(*(f"n{number % 7}" for number in range(count)))

    first = await rest(await watches.ask(call, since=0, credit=1))
    cursor = first[-1].head.cursor
    then = await rest(await watches.ask(call, cursor=cursor, credit=count - MAX_EVENTS))

    told = [event.sequence for message in (*first, *then) for event in events(message)]
    assert [int(sequence) for sequence in told] == list(range(1, count + 1))


async def test_however_small_the_credit_who_asks_again_gets_on_while_others_write(
    call: Call,
) -> None:
    watches = Watches(*(f"n{number % 9}" for number in range(3 * MAX_EVENTS)))

    def write() -> None:
        if len(watches.source.log) < 4 * MAX_EVENTS:
            watches.source.log.append("other")

    watches.source.write = write
    request: dict[str, object] = {"since": 0}
    had: set[str] = set()
    for _ in range(100):
        told = await rest(await watches.ask(call, credit=1, **request))
        had |= {event.id for message in told for event in events(message)}
        request = {"cursor": told[-1].head.cursor}
        if len(had) == 4 * MAX_EVENTS:
            break

    assert len(had) == 4 * MAX_EVENTS


async def test_only_what_begins_with_the_prefix_is_told_and_the_position_goes_on(
    call: Call,
) -> None:
    watches = Watches("a/1", "b/1", "a/2", "b/2")

    async with aclosing(await watches.ask(call, since=0, prefix="a/")) as messages:
        told: list[BytesReply[WatchHead]] = []
        while not told or told[-1].head.position < 4:
            told.append(await anext(messages))

    assert [event.subject for message in told for event in events(message)] == ["a/1", "a/2"]
    assert told[-1].head.position == 4


async def test_what_many_are_told_is_written_once(call: Call) -> None:
    watches = Watches()
    asked = [await watches.ask(call, prefix="a") for _ in range(3)]
    for messages in asked:
        for _ in range(2):
            await anext(messages)

    watches.source.log.append("ab")
    told = []
    for messages in asked:
        async for message in messages:
            if events(message):
                told.append(message.data)
                break

    assert len(told) == 3
    assert all(data is told[0] for data in told)
    for messages in asked:
        await messages.aclose()


async def test_a_worker_that_drains_ends_its_watches_with_their_position(call: Call) -> None:
    watches = Watches("a")
    async with aclosing(await watches.ask(call)) as messages:
        await anext(messages)

        await watches.handlers.drain(30)

        last = (await rest(messages))[-1].head
    assert (last.end, last.position) == ("drain", 1)
