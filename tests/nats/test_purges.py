"""What is known of a purge that was not answered, or not by the leader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio
from tests.nats.clusters import Cluster
from tests.nats.tools import FlakyJetStream, From, Times, connected

from holdfast.deadline import deadline
from holdfast.errors import OutcomeUnknownError, UnavailableError
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from holdfast.transport.connection import Connection
    from holdfast.transport.message import Message

pytestmark = pytest.mark.nats

ACCOUNTS: Final = """\
accounts {
  SYS: { users: [ { user: system, password: system } ] }
  USERS: { jetstream: enabled, users: [ { user: user, password: user } ] }
}
system_account: SYS
"""
NO_LEADER: Final = b'{"error": {"code": 503, "err_code": 10008, "description": "unavailable"}}'


def options(url: str, user: str) -> NatsOptions:
    return NatsOptions(servers=(url,), user=user, password=user)


async def filled(js: JetStream, stream: str, **more: Any) -> None:
    """Make a stream of three messages on ``<name>.a`` and one on ``<name>.b``."""
    config = {"name": stream, "subjects": [f"{stream}.*"], **more}
    await js.api(f"STREAM.CREATE.{stream}", config)
    for subject in "aaab":
        await js.publish(f"{stream}.{subject}", b"x", {})


async def left(js: JetStream, stream: str) -> list[int]:
    """The sequences that are there."""
    found = [await js.message_at(stream, sequence) for sequence in range(1, 5)]
    return [message.sequence for message in found if message is not None]


def is_purge(subject: str, _headers: Mapping[str, str]) -> bool:
    return ".STREAM.PURGE." in subject


@pytest_asyncio.fixture
async def js(connection: Connection, fresh_name: str) -> FlakyJetStream:
    js = FlakyJetStream(connection, Inbox(connection))
    await filled(js, fresh_name, storage="memory")
    return js


@pytest.mark.parametrize(("up_to", "stays"), [(None, [4]), (2, [3, 4])])
async def test_a_purge_is_sent_again_while_a_leader_has_anything_that_was_to_go(
    js: FlakyJetStream, fresh_name: str, up_to: int | None, stays: list[int]
) -> None:
    js.lose_request = Times(1, is_purge)

    await js.purge(fresh_name, f"{fresh_name}.a", up_to=up_to)

    assert await left(js, fresh_name) == stays


async def test_a_purge_whose_answer_is_lost_is_done_where_a_leader_says_that_nothing_is_left(
    js: FlakyJetStream, fresh_name: str
) -> None:
    js.lose_answer = lost = Times(9, is_purge)

    await js.purge(fresh_name, f"{fresh_name}.a", up_to=2)

    assert lost.left == 8


async def test_a_purge_that_never_arrives_is_unknown(js: FlakyJetStream, fresh_name: str) -> None:
    js.lose_request = Times(9, is_purge)

    with pytest.raises(OutcomeUnknownError):
        await js.purge(fresh_name, f"{fresh_name}.a")

    assert await left(js, fresh_name) == [1, 2, 3, 4]


async def test_a_purge_is_unknown_where_nobody_says_what_is_left(
    js: FlakyJetStream, fresh_name: str
) -> None:
    js.lose_answer = From(is_purge)

    with pytest.raises(OutcomeUnknownError):
        await js.purge(fresh_name, f"{fresh_name}.a")


async def test_a_purge_that_nobody_took_is_surely_not_applied(
    connection: Connection, fresh_name: str
) -> None:
    nobody = JetStream(connection, Inbox(connection), domain=fresh_name)

    with pytest.raises(UnavailableError):
        await nobody.purge("stream", "stream.a")


async def test_a_purge_is_not_sent_once_the_deadline_is_over(
    js: FlakyJetStream, fresh_name: str
) -> None:
    with deadline(0), pytest.raises(UnavailableError):
        await js.purge(fresh_name, f"{fresh_name}.a")

    assert await left(js, fresh_name) == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.fault("N01")
async def test_a_purge_is_done_though_a_server_says_at_once_that_it_knows_no_leader(
    tmp_path: Path,
) -> None:
    """That server's word hides the leader's: one answer alone reaches a client.

    A client of the servers' own account says it in that server's place.
    """
    names = ("nats-1", "nats-2", "nats-3")
    with Cluster(tmp_path, names, extra=dict.fromkeys(names, ACCOUNTS)) as cluster:
        async with connected(options(cluster.urls[0], "user")) as connection:
            first = JetStream(connection, Inbox(connection), patience_seconds=20)
            await filled(first, "s", num_replicas=3)
            leader = (await first.api("STREAM.INFO.s"))["cluster"]["leader"]
        near = next(cluster.url(name) for name in names if name != leader)
        async with (
            connected(options(near, "user")) as connection,
            connected(options(near, "system")) as leaderless,
        ):
            js = JetStream(connection, Inbox(connection), patience_seconds=20)
            asked: list[str] = []

            def answer(message: Message) -> None:
                asked.append(message.subject)
                leaderless.send(message.reply, NO_LEADER)

            leaderless.route("$JS.API.STREAM.PURGE.*", answer)
            await leaderless.wait_flushed(30)

            await js.purge("s", "s.a", up_to=2)
            assert await left(js, "s") == [3, 4]
            await js.purge("s", "s.a")
            assert await left(js, "s") == [4]
            assert set(asked) == {"$JS.API.STREAM.PURGE.s"}
