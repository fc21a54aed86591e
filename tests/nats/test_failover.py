"""A connection that knows two servers, and loses the one it has in every way but a clean one.

The servers are no cluster: what matters is to which of them the connection goes, and when.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.nats.tools import Told, connected, frozen, kill, until

from holdfast.deadline import deadline, seconds_left
from holdfast.errors import ForbiddenError, OutcomeUnknownError, UnavailableError
from holdfast.transport import jetstream_calls as jetstream_calls_module
from holdfast.transport import liveness as liveness_module
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox, NoRespondersError
from holdfast.transport.jetstream import JetStream
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import StartServer

    from holdfast.runtime.embedded import EmbeddedServer
    from holdfast.transport.connection import Connection

pytestmark = pytest.mark.nats

LEFT_SECONDS = 30.0
"""Far more than it takes, for machines that are busy."""


class Pair:
    """Two servers and a connection to one of them."""

    def __init__(self, servers: list[EmbeddedServer], connection: Connection) -> None:
        self.servers = servers
        self.connection = connection
        self.inbox = Inbox(connection)

    @property
    def current(self) -> EmbeddedServer:
        """The server that is connected to."""
        port = self.connection.server_info["port"]
        (server,) = [server for server in self.servers if server.port == port]
        return server

    async def wait_at_other(self, than: EmbeddedServer) -> None:
        """Until the connection has gone to the other server."""
        await until(lambda: self.connection.is_connected and self.current is not than, LEFT_SECONDS)


@pytest_asyncio.fixture
async def pair(start_server: StartServer) -> AsyncIterator[Pair]:
    servers = [await asyncio.to_thread(start_server) for _ in range(2)]
    options = NatsOptions(servers=tuple(server.url for server in servers))
    async with connected(options) as connection:
        yield Pair(servers, connection)


@pytest.mark.fault("N01")
async def test_when_its_server_is_killed_it_goes_to_the_other_one(pair: Pair) -> None:
    before = pair.current

    kill(before)

    await pair.wait_at_other(before)
    await until(lambda: pair.connection.counters.reconnects == 1)
    assert pair.connection.counters.disconnects == 1
    assert pair.connection.counters.left == 0


@pytest.mark.fault("N02")
async def test_a_server_that_stops_in_its_tracks_is_left_while_something_is_waited_for(
    pair: Pair,
) -> None:
    before = pair.current

    with frozen(before):
        with pytest.raises(TimeoutError, match="the connection was lost"):
            await pair.inbox.request("nobody", timeout_seconds=LEFT_SECONDS)
        await pair.wait_at_other(before)

    assert pair.connection.counters.left == 1
    with pytest.raises(NoRespondersError):
        await pair.inbox.request("nobody", timeout_seconds=30)


@pytest.mark.fault("N09")
async def test_a_server_behind_which_nobody_answers_is_left(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_calls_module, "ATTEMPT_SECONDS", 0.05)
    monkeypatch.setattr(liveness_module, "LEAST_SECONDS", 0)
    before = pair.current
    jetstream = JetStream(pair.connection, pair.inbox)
    # The server itself is well: somebody takes the request, and does not answer.
    pair.connection.route("deaf", lambda _message: None)

    for _ in range(3):
        assert pair.current is before
        with pytest.raises(OutcomeUnknownError):
            await jetstream.publish("deaf", b"", {}, attempts=1)

    await pair.wait_at_other(before)
    assert pair.connection.counters.left == 1


@pytest.mark.fault("N17")
async def test_a_server_that_announces_its_end_is_left_before_it_comes(pair: Pair) -> None:
    before = pair.current

    os.kill(before.pid, signal.SIGUSR2)  # lame duck mode

    await pair.wait_at_other(before)
    assert before.exit_status() is None
    kill(before)  # left to itself it takes its time


async def test_a_server_that_is_alone_is_kept_or_come_back_to(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server)
    async with connected(NatsOptions(servers=(server.url,))) as connection:
        inbox = Inbox(connection)
        connection.liveness.go("a test")
        await until(lambda: connection.counters.reconnects == 1)

        with pytest.raises(NoRespondersError):
            await inbox.request("nobody", timeout_seconds=30)


async def test_the_deadline_of_who_noticed_is_not_that_of_what_comes_over_the_new_connection(
    pair: Pair,
) -> None:
    before = pair.current
    left: list[float] = []
    pair.connection.route("later", lambda _message: left.append(seconds_left(math.inf)))

    with deadline(0.01):
        pair.connection.liveness.go("a test")
    await pair.wait_at_other(before)
    await pair.connection.wait_flushed(30)
    pair.connection.send("later")
    await until(lambda: bool(left))

    assert left == [math.inf]


class TestPatience:
    async def test_a_call_goes_on_until_the_store_is_back(self, start_server: StartServer) -> None:
        server = await asyncio.to_thread(start_server)
        async with connected(NatsOptions(servers=(server.url,))) as connection:
            jetstream = JetStream(connection, Inbox(connection), patience_seconds=LEFT_SECONDS)
            stream = {"name": "s", "subjects": ["s.>"], "allow_direct": True}
            await jetstream.api("STREAM.CREATE.s", stream)
            directory, port = server.log_file.parent, server.port
            await asyncio.to_thread(kill, server)
            await until(lambda: not connection.is_connected)

            publishing = asyncio.create_task(jetstream.publish("s.a", b"x", {"Nats-Msg-Id": "1"}))
            asking = asyncio.create_task(jetstream.last_message("s", "s.b"))
            query = {"batch": 1, "seq": 1, "next_by_subj": "s.c"}
            reading = asyncio.create_task(jetstream.direct_batch("s", query))
            await asyncio.to_thread(start_server, directory=directory, port=port)

            assert (await publishing).seq == 1
            assert await asking is None
            assert await reading == ([], 0)

    async def test_it_ends_before_the_deadline_and_says_that_nothing_was_applied(
        self, start_server: StartServer
    ) -> None:
        server = await asyncio.to_thread(start_server)
        async with connected(NatsOptions(servers=(server.url,))) as connection:
            jetstream = JetStream(connection, Inbox(connection), patience_seconds=LEFT_SECONDS)
            await asyncio.to_thread(kill, server)
            await until(lambda: not connection.is_connected)

            async with asyncio.timeout(LEFT_SECONDS / 2):
                with deadline(0.5):
                    with pytest.raises(UnavailableError):
                        await jetstream.publish("s.a", b"x", {})
                    with pytest.raises(UnavailableError):
                        await jetstream.last_message("s", "s.a")


class TestPermissions:
    @pytest.fixture
    def options(self, start_server: StartServer) -> NatsOptions:
        server = start_server(
            extra_configuration="""authorization { users: [ {
              user: "ann", password: "right",
              permissions: { publish: { deny: "Secret.>" }, subscribe: { deny: "private.>" } }
            } ] }"""
        )
        return NatsOptions(servers=(server.url,), user="ann", password="right")

    @pytest.mark.fault("A10")
    async def test_who_may_not_ask_is_told_at_once(self, options: NatsOptions) -> None:
        async with connected(options) as connection:
            async with asyncio.timeout(LEFT_SECONDS / 2):
                with pytest.raises(ForbiddenError, match=r"may not publish to Secret\.a"):
                    await Inbox(connection).request("Secret.a", timeout_seconds=LEFT_SECONDS)

    @pytest.mark.fault("A10")
    async def test_who_may_not_get_answers_is_told_at_once(self, options: NatsOptions) -> None:
        async with connected(options) as connection:
            inbox = Inbox(connection, "private")
            async with asyncio.timeout(LEFT_SECONDS / 2):
                for _ in range(2):
                    with pytest.raises(ForbiddenError):
                        await inbox.request("open", timeout_seconds=LEFT_SECONDS)

    async def test_a_store_that_denies_a_worker_is_unavailable_to_its_callers(
        self, start_server: StartServer
    ) -> None:
        server = start_server(
            extra_configuration="""authorization { users: [ {
              user: "ann", password: "right",
              permissions: { publish: { deny: ["$JS.API.>", "s.>"] } }
            } ] }"""
        )
        options = NatsOptions(servers=(server.url,), user="ann", password="right")
        async with connected(options) as connection:
            jetstream = JetStream(connection, Inbox(connection), patience_seconds=LEFT_SECONDS)
            async with asyncio.timeout(LEFT_SECONDS / 2):
                with pytest.raises(UnavailableError, match="lacks a right"):
                    await jetstream.last_message("s", "s.a")
                with pytest.raises(UnavailableError, match="lacks a right"):
                    await jetstream.publish("s.a", b"x", {})


async def test_an_error_that_is_no_refused_login_does_not_end_the_connection_for_good() -> None:
    visits = asyncio.Queue[int]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","max_payload":1024}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n-ERR 'Maximum Connections Exceeded'\r\n")
        visits.put_nowait(1)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = Told()
        connection = await connect(
            NatsOptions(servers=(f"nats://127.0.0.1:{port}",)), observer=told
        )
        async with asyncio.timeout(LEFT_SECONDS):
            await visits.get()
            await visits.get()
        assert not connection.is_closed
        assert "maximum connections exceeded" in told.problems[0]
        await connection.close()
