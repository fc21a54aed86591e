"""Who is believed about a purge where each server of a stream's group may answer.

A server that knows no leader of the group says so at once, also where the leader has taken the
purge: one that was just started, or one whose group was made anew while copies were added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from holdfast.deadline import deadline
from holdfast.errors import OutcomeUnknownError, UnavailableError
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from holdfast.transport.connection import Connection
    from holdfast.transport.message import Message

pytestmark = pytest.mark.nats

NO_LEADER: Final = b'{"error": {"code": 503, "err_code": 10008, "description": "unavailable"}}'
REFUSED: Final = b'{"error": {"code": 500, "err_code": 10110, "description": "not permitted"}}'
PURGED: Final = b'{"success": true, "purged": 1}'


@pytest.fixture
def domain(fresh_name: str) -> str:
    """One without JetStream: what servers answer there is said by the test."""
    return fresh_name


@pytest.fixture
def servers(connection: Connection, domain: str) -> JetStream:
    """Asks them."""
    return JetStream(connection, Inbox(connection), domain=domain)


def answer(connection: Connection, domain: str, *answers: bytes) -> None:
    """Have every purge there be answered so, one answer after the other."""

    def purge(message: Message) -> None:
        for one in answers:
            connection.send(message.reply, one)

    connection.route(f"$JS.{domain}.API.STREAM.PURGE.*", purge)


@pytest.mark.fault("N01")
async def test_the_leader_has_the_last_word_whoever_says_before_that_there_is_none(
    servers: JetStream, connection: Connection, domain: str
) -> None:
    answer(connection, domain, NO_LEADER, NO_LEADER, PURGED)

    await servers.purge("stream", "stream.a")


async def test_what_the_leader_refuses_behind_such_a_word_is_refused(
    servers: JetStream, connection: Connection, domain: str
) -> None:
    answer(connection, domain, NO_LEADER, REFUSED)

    with pytest.raises(UnavailableError, match="not permitted"):
        await servers.purge("stream", "stream.a")


@pytest.mark.fault("N01")
async def test_it_is_unknown_where_a_server_knows_no_leader_and_none_answers(
    servers: JetStream, connection: Connection, domain: str
) -> None:
    answer(connection, domain, NO_LEADER)

    with deadline(0.2), pytest.raises(OutcomeUnknownError):
        await servers.purge("stream", "stream.a")
