"""Whoever follows a store misses no step, whichever replica answers and wherever it goes on."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.repository.watch.replicas import Replicas

from holdfast.client.watch import News
from holdfast.errors import ConflictError, InvalidError
from holdfast.repository.watch.following import EventFollower, Point, store_name

NAMES = "abcdefgh"
MOST = 150


async def start(source: Replicas, since: int = 0) -> Point:
    return Point(store_name(await source.extent()), since, since)


async def read_until_refused(follower: EventFollower) -> None:
    while True:
        assert await follower.read() is None


@given(seed=st.integers(0, 2**32))
def test_every_step_is_told_in_order_of_its_name_whoever_answers(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311  (which replica answers, not a secret)
    source = Replicas(log=rng.choices(NAMES, k=rng.randrange(20)), rng=rng)
    source.limit = lambda: rng.choice((1, 3, 500, 500))
    since = rng.randint(0, len(source.log))
    had: list[tuple[int, str]] = []

    def write() -> None:
        if len(source.log) < MOST and rng.random() < 0.3:
            source.log.append(rng.choice(NAMES))

    async def follow() -> None:
        news = News()
        news.passed(since)
        follower = EventFollower(source, await start(source, since))
        source.write = write
        while follower.point.floor < MOST:
            batch = await follower.read()
            events = () if batch is None else batch.events
            had.extend((e.revision, e.subject) for e in events if news.is_new(e.revision))
            news.passed(follower.point.floor)
            write()
            if rng.random() < 0.1:  # another worker carries on
                follower = EventFollower(source, Point.parse(follower.point.cursor))

    asyncio.run(follow())

    wanted = [(number, name) for number, name in enumerate(source.log, 1) if number > since]
    for name in NAMES:
        assert [one for one in had if one[1] == name] == [one for one in wanted if one[1] == name]


@given(
    log=st.lists(st.sampled_from(NAMES), min_size=1, max_size=30),
    since=st.integers(0, 30),
    data=st.data(),
)
def test_whoever_goes_on_from_any_event_of_one_page_misses_nothing(
    log: list[str], since: int, data: st.DataObject
) -> None:
    source = Replicas(log=log)

    async def told(since: int) -> list[int]:
        batch = await EventFollower(source, await start(source, since)).read()
        if batch is None:
            return []
        assert [batch.point_after(event).floor for event in batch.events] == [
            event.revision for event in batch.events
        ]
        return [event.revision for event in batch.events]

    first = asyncio.run(told(min(since, len(log))))
    stop = data.draw(st.integers(0, len(first)))
    position = first[stop - 1] if stop else min(since, len(log))

    assert first == list(range(min(since, len(log)) + 1, len(log) + 1))
    assert first[:stop] + asyncio.run(told(position)) == first


async def test_a_store_that_was_made_anew_is_not_followed() -> None:
    source = Replicas(log=["a"])
    follower = EventFollower(source, await start(source))
    source.created = "2026-03-02"

    with pytest.raises(ConflictError, match="made anew"):
        await follower.read()


async def test_a_store_that_has_less_is_doubted_for_a_while() -> None:
    source = Replicas(log=["a", "b"])
    follower = EventFollower(source, await start(source))
    await follower.read()

    del source.log[1:]
    assert await follower.read() is None
    source.log.extend(["b", "c"])
    batch = await follower.read()
    assert batch is not None
    assert [event.subject for event in batch.events] == ["c"]

    source.log.clear()
    with pytest.raises(ConflictError, match="set back"):
        await read_until_refused(follower)


@pytest.mark.parametrize("cursor", ["", "1", "1.2", "2.1.0123456789abcdef", "1.2.x", "-1.2.0"])
def test_what_is_no_cursor_is_invalid(cursor: str) -> None:
    with pytest.raises(InvalidError):
        Point.parse(cursor)
