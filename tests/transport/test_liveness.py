"""When a server that is connected is left. No socket, and a clock that stands still."""

from __future__ import annotations

import pytest

from holdfast.transport.liveness import (
    APART_SECONDS,
    FIRST_STAY_SECONDS,
    LEAST_SECONDS,
    LONGEST_STAY_SECONDS,
    UNANSWERED_IN_A_ROW,
    UNANSWERED_SECONDS,
    Liveness,
)


class Server:
    """The state of one server, the time, and how often it was left."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.left: list[float] = []
        self.has_better = True
        self.liveness = Liveness(lambda: self.now, self._leave)

    def _leave(self, _reason: str) -> None:
        if self.has_better:
            self.left.append(self.now)
            self.liveness.left()

    def time_out(self, seconds: float) -> None:
        """A request is sent and not answered for ``seconds``."""
        asked_at = self.now
        self.now += seconds
        self.liveness.unanswered(asked_at)


@pytest.fixture
def server() -> Server:
    return Server()


def test_it_is_left_after_some_requests_in_a_row_that_nobody_answered(server: Server) -> None:
    for _ in range(UNANSWERED_IN_A_ROW - 1):
        server.time_out(LEAST_SECONDS)
    assert server.left == []

    server.time_out(LEAST_SECONDS)

    assert len(server.left) == 1


def test_requests_that_gave_nobody_the_time_to_answer_do_not_count(server: Server) -> None:
    for _ in range(100):
        server.time_out(LEAST_SECONDS / 1000)

    assert server.left == []


def test_requests_under_way_together_count_as_one(server: Server) -> None:
    asked_at = server.now
    server.now += 1

    for _ in range(100):
        server.liveness.unanswered(asked_at)

    assert server.left == []


def test_any_answer_starts_the_count_again(server: Server) -> None:
    for _ in range(20):
        server.time_out(LEAST_SECONDS)
        server.liveness.answered()

    assert server.left == []


@pytest.mark.fault("N09")
def test_it_is_left_once_nothing_was_answered_for_long_however_few_asked(server: Server) -> None:
    server.time_out(UNANSWERED_SECONDS / 2)
    assert server.left == []

    server.time_out(UNANSWERED_SECONDS / 2)

    assert len(server.left) == 1


def test_nobody_there_is_no_reason_while_a_leader_may_be_being_elected(server: Server) -> None:
    for _ in range(100):
        asked_at = server.now
        server.now += UNANSWERED_SECONDS / 101
        server.liveness.nobody(asked_at)
    assert server.left == []

    server.now += UNANSWERED_SECONDS
    server.liveness.nobody(server.now)

    assert len(server.left) == 1


def test_when_all_servers_are_alike_it_goes_round_ever_more_slowly(server: Server) -> None:
    while server.now < 1000 + 10 * LONGEST_STAY_SECONDS:
        server.time_out(1)

    stays = [after - before for before, after in zip(server.left, server.left[1:], strict=False)]
    assert stays[0] >= FIRST_STAY_SECONDS
    assert stays[-1] >= LONGEST_STAY_SECONDS
    assert stays == sorted(stays)


def test_after_an_answer_it_is_left_as_soon_as_at_first(server: Server) -> None:
    while len(server.left) < 4:
        server.time_out(1)
    server.liveness.answered()
    server.now += LONGEST_STAY_SECONDS
    back_at = server.now

    while len(server.left) < 5:
        server.time_out(1)

    assert server.left[-1] - back_at <= UNANSWERED_SECONDS


def test_where_there_is_no_better_one_it_is_left_as_soon_as_there_is(server: Server) -> None:
    server.has_better = False
    while server.now < 1000 + 10 * LONGEST_STAY_SECONDS:
        server.time_out(1)
    back_at = server.now
    server.has_better = True

    while not server.left:
        server.time_out(1)

    assert server.left[0] - back_at <= FIRST_STAY_SECONDS + 1


def test_two_requests_that_failed_far_apart_are_no_reason(server: Server) -> None:
    for _ in range(10):
        server.time_out(LEAST_SECONDS)
        server.now += 2 * APART_SECONDS

    assert server.left == []
