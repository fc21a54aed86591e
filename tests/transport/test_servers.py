"""Which server comes next."""

from __future__ import annotations

from urllib.parse import urlparse

import pytest
from nats.aio.client import Server

from holdfast.transport.servers import AVOIDED_SECONDS, LONGEST_WAIT_SECONDS, ServerChoice

ADDRESSES = ("a:1", "b:2", "c:3")
SERVERS = [Server(uri=urlparse(f"nats://{address}")) for address in ADDRESSES]


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def choice(clock: Clock) -> ServerChoice:
    return ServerChoice(clock)


def choose(choice: ServerChoice) -> tuple[str, float]:
    server, wait_seconds = choice.next(SERVERS, {})
    return server.uri.netloc, wait_seconds


def test_each_is_tried_at_once_before_any_is_tried_again(choice: ServerChoice) -> None:
    first = [choose(choice) for _ in ADDRESSES]

    assert sorted(address for address, _ in first) == list(ADDRESSES)
    assert {wait_seconds for _, wait_seconds in first} == {0}


def test_one_that_failed_is_waited_for_ever_longer_but_never_for_long(
    choice: ServerChoice, clock: Clock
) -> None:
    waits = []
    for _ in range(10 * len(ADDRESSES)):
        _, wait_seconds = choose(choice)
        clock.now += wait_seconds
        waits.append(wait_seconds)

    assert all(wait_seconds <= LONGEST_WAIT_SECONDS for wait_seconds in waits)
    assert max(waits[-3:]) > max(waits[3:6])


def test_one_that_was_left_comes_last_until_some_time_has_passed(
    choice: ServerChoice, clock: Clock
) -> None:
    choice.leave("b:2")
    for _ in range(5):
        address, wait_seconds = choose(choice)
        choice.connected(address)
        clock.now += wait_seconds
        assert address != "b:2"

    clock.now += AVOIDED_SECONDS

    assert choose(choice) == ("b:2", 0)


def test_where_there_is_no_other_the_one_that_was_left_is_tried(choice: ServerChoice) -> None:
    choice.leave("a:1")

    server, wait_seconds = choice.next(SERVERS[:1], {})

    assert (server.uri.netloc, wait_seconds) == ("a:1", 0)


def test_one_that_took_the_connection_and_kept_it_is_not_waited_for_when_it_is_lost(
    choice: ServerChoice, clock: Clock
) -> None:
    only = SERVERS[:1]
    choice.next(only, {})
    choice.connected("a:1")
    clock.now += 10 * LONGEST_WAIT_SECONDS

    assert choice.next(only, {})[1] == 0


def test_one_that_takes_the_connection_and_drops_it_is_waited_for_ever_longer(
    choice: ServerChoice, clock: Clock
) -> None:
    only = SERVERS[:1]
    waits = []
    for _ in range(10):
        _, wait_seconds = choice.next(only, {})
        clock.now += wait_seconds
        choice.connected("a:1")
        waits.append(wait_seconds)

    assert waits[0] == 0
    assert waits[-1] >= LONGEST_WAIT_SECONDS / 2


def test_the_one_that_was_just_lost_comes_after_the_others(
    choice: ServerChoice, clock: Clock
) -> None:
    choice.connected("c:3")
    clock.now += 100

    assert "c:3" not in {choose(choice)[0] for _ in range(2)}
