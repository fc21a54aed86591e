"""Requests and replies over one subscription."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.nats.tools import connected, until

from holdfast.errors import UnavailableError
from holdfast.transport.inbox import Inbox, NoRespondersError
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from holdfast.transport.connection import Connection
    from holdfast.transport.message import Message

pytestmark = pytest.mark.nats


@pytest.fixture
def inbox(connection: Connection) -> Inbox:
    return Inbox(connection)


async def echo(connection: Connection, subject: str) -> None:
    """Answer every request on ``subject`` with what it carried."""
    connection.route(
        subject, lambda request: connection.send(request.reply, request.data, headers={"E": "1"})
    )
    await connection.wait_flushed(30)


async def test_a_request_gets_its_answer(
    connection: Connection, inbox: Inbox, fresh_name: str
) -> None:
    await echo(connection, fresh_name)

    answer = await inbox.request(fresh_name, b"ping", timeout_seconds=30)

    assert (bytes(answer.data), answer.headers) == (b"ping", {"E": "1"})


async def test_a_thousand_requests_at_once_get_their_own_answers(
    connection: Connection, inbox: Inbox, fresh_name: str
) -> None:
    await echo(connection, fresh_name)

    answers = await asyncio.gather(
        *(inbox.request(fresh_name, b"%d" % n, timeout_seconds=30) for n in range(1000))
    )

    assert [bytes(answer.data) for answer in answers] == [b"%d" % n for n in range(1000)]
    assert inbox._receivers == {}


async def test_where_nobody_listens_the_request_was_surely_not_applied(
    inbox: Inbox, fresh_name: str
) -> None:
    with pytest.raises(NoRespondersError, match=fresh_name):
        await inbox.request(fresh_name, timeout_seconds=30)


async def test_no_answer_in_time_is_a_time_out_and_a_late_one_goes_nowhere(
    connection: Connection, inbox: Inbox, fresh_name: str
) -> None:
    requests: list[Message] = []
    connection.route(fresh_name, requests.append)
    await connection.wait_flushed(30)

    with pytest.raises(TimeoutError):
        await inbox.request(fresh_name, timeout_seconds=0.05)

    await until(lambda: bool(requests))
    connection.send(requests[0].reply, b"late")
    await connection.wait_flushed(30)
    assert inbox._receivers == {}


async def test_a_closed_connection_is_unavailable(nats_url: str, fresh_name: str) -> None:
    async with connected(NatsOptions(servers=(nats_url,))) as connection:
        inbox = Inbox(connection)

    with pytest.raises(UnavailableError):
        await inbox.request(fresh_name, timeout_seconds=30)

    assert inbox._receivers == {}


async def test_a_mailbox_gets_many_messages_until_it_is_closed(
    connection: Connection, inbox: Inbox
) -> None:
    got: list[bytes] = []
    mailbox = inbox.open(lambda message: got.append(bytes(message.data)))
    other = inbox.open(lambda message: got.append(b"other"))

    for number in range(3):
        connection.send(mailbox.subject, b"%d" % number)
    await until(lambda: len(got) == 3)
    mailbox.close()
    mailbox.close()
    connection.send(mailbox.subject, b"late")
    connection.send(other.subject)
    await until(lambda: len(got) == 4)

    assert got == [b"0", b"1", b"2", b"other"]


async def test_reply_subjects_lie_under_the_prefix_that_was_asked_for(
    connection: Connection,
) -> None:
    inbox = Inbox(connection, "_I.ann")

    subjects = {inbox.open(lambda _message: None).subject for _ in range(10)}

    assert len(subjects) == 10
    assert all(subject.startswith("_I.ann.") for subject in subjects)
