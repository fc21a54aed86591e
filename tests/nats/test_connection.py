"""One connection to a real nats-server: bytes, limits, reconnects, closing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import pytest
import uvloop
from tests.nats.tools import Told, connected, frozen, kill, next_of, receive, until

from holdfast.errors import TooLargeError, UnavailableError
from holdfast.transport.connection import MAX_QUEUED_BYTES, Connection, connect
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import StartServer

    from holdfast.transport.message import Message

pytestmark = pytest.mark.nats

PAYLOAD_BYTES: Final = 1024 * 1024


class TestBytes:
    @pytest.mark.parametrize(
        "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    def test_messages_of_any_size_arrive_as_they_were_sent_under_either_loop(
        self, nats_url: str, fresh_name: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        sizes = [0, 1, 1000, 20_000, 100_000, PAYLOAD_BYTES, 5, PAYLOAD_BYTES - 1, 0]

        async def echo() -> list[tuple[bytes, str | None]]:
            async with connected(NatsOptions(servers=(nats_url,))) as connection:
                messages = await receive(connection, fresh_name)
                for number, size in enumerate(sizes):
                    headers = {"Number": str(number)} if size < PAYLOAD_BYTES - 100 else None
                    connection.send(fresh_name, bytes([number]) * size, headers=headers)
                arrived = [await next_of(messages) for _ in sizes]
                return [(bytes(one.data), one.headers.get("Number")) for one in arrived]

        with asyncio.Runner(loop_factory=new_loop) as runner:
            arrived = runner.run(echo())

        assert arrived == [
            (bytes([number]) * size, str(number) if size < PAYLOAD_BYTES - 100 else None)
            for number, size in enumerate(sizes)
        ]

    async def test_many_messages_keep_their_order(
        self, connection: Connection, fresh_name: str
    ) -> None:
        messages = await receive(connection, f"{fresh_name}.>")

        for number in range(5000):
            connection.send(f"{fresh_name}.{number}", b"%d" % number)
        arrived = [await next_of(messages) for _ in range(5000)]

        assert [bytes(one.data) for one in arrived] == [b"%d" % n for n in range(5000)]

    async def test_an_unrouted_subject_is_silent(
        self, connection: Connection, fresh_name: str
    ) -> None:
        gone: list[Message] = []
        sid = connection.route(fresh_name, gone.append)
        connection.unroute(sid)
        connection.unroute(sid)
        messages = await receive(connection, fresh_name)

        connection.send(fresh_name, b"x")

        assert bytes((await next_of(messages)).data) == b"x"
        assert gone == []

    async def test_a_queue_group_shares_its_messages(
        self, connection: Connection, nats_url: str, fresh_name: str
    ) -> None:
        got: list[bytes] = []

        async with connected(NatsOptions(servers=(nats_url,))) as other:
            for member in (connection, other):
                member.route(fresh_name, lambda one: got.append(bytes(one.data)), queue="q")
                await member.wait_flushed(30)
            for number in range(100):
                connection.send(fresh_name, b"%d" % number)
            await until(lambda: len(got) >= 100)
            for member in (connection, other):
                await member.wait_flushed(30)

        assert sorted(map(int, got)) == list(range(100))

    async def test_a_receiver_that_fails_does_not_end_the_connection(
        self, connection: Connection, fresh_name: str
    ) -> None:
        def fail(message: Message) -> None:
            raise RuntimeError(message.subject)

        connection.route(f"{fresh_name}.bad", fail)
        messages = await receive(connection, f"{fresh_name}.good")

        connection.send(f"{fresh_name}.bad")
        connection.send(f"{fresh_name}.good", b"x")

        assert bytes((await next_of(messages)).data) == b"x"


class TestWhatIsNotSent:
    @pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b 0\r\n", "a\tb", "a\0b"])
    async def test_a_subject_that_would_break_the_protocol_is_refused(
        self, connection: Connection, subject: str
    ) -> None:
        with pytest.raises(ValueError, match="white space"):
            connection.send(subject, b"x")
        if subject:
            with pytest.raises(ValueError, match="white space"):
                connection.send("a", b"x", reply=subject)

        await connection.wait_flushed(30)
        assert connection.is_connected

    @pytest.mark.fault("I13")
    async def test_a_header_that_would_break_out_of_its_line_is_refused(
        self, connection: Connection, fresh_name: str
    ) -> None:
        messages = await receive(connection, fresh_name)

        with pytest.raises(ValueError, match="cannot be sent"):
            connection.send(fresh_name, b"x", headers={"A": "b\r\nNats-Rollup: all"})
        connection.send(fresh_name, b"next")

        assert bytes((await next_of(messages)).data) == b"next"

    async def test_more_than_the_server_takes_is_too_large_and_the_connection_stays(
        self, connection: Connection, fresh_name: str
    ) -> None:
        messages = await receive(connection, fresh_name)

        with pytest.raises(TooLargeError):
            connection.send(fresh_name, bytes(PAYLOAD_BYTES + 1))
        connection.send(fresh_name, bytes(PAYLOAD_BYTES))

        assert len((await next_of(messages)).data) == PAYLOAD_BYTES

    async def test_headers_count_towards_what_the_server_takes(
        self, connection: Connection, fresh_name: str
    ) -> None:
        messages = await receive(connection, fresh_name)

        with pytest.raises(TooLargeError):
            connection.send(fresh_name, bytes(PAYLOAD_BYTES), headers={"A": "b"})
        connection.send(fresh_name, b"next")

        assert bytes((await next_of(messages)).data) == b"next"
        assert connection.is_connected

    async def test_what_waits_to_be_sent_is_bounded(self, start_server: StartServer) -> None:
        server = start_server()
        data = bytes(PAYLOAD_BYTES)
        taken = 0

        async def send_on() -> None:
            nonlocal taken
            while taken < 2 * MAX_QUEUED_BYTES:
                connection.send("nobody", data)
                taken += len(data)
                await asyncio.sleep(0)

        async with connected(NatsOptions(servers=(server.url,))) as connection:
            with frozen(server):
                with pytest.raises(UnavailableError, match="too much"):
                    await send_on()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(connection.wait_sendable(), 0.05)
            await asyncio.wait_for(connection.wait_sendable(), 30)
            connection.send("nobody", data)

        assert MAX_QUEUED_BYTES // 2 < taken < 1.5 * MAX_QUEUED_BYTES


class TestReconnecting:
    async def test_after_the_server_was_killed_routes_work_again(
        self, start_server: StartServer
    ) -> None:
        server = start_server()
        async with connected(NatsOptions(servers=(server.url,))) as connection:
            before = await receive(connection, "before")
            gone: list[Message] = []
            sid = connection.route("gone", gone.append)
            directory, port = server.log_file.parent, server.port

            kill(server)
            await until(lambda: not connection.is_connected)
            with pytest.raises(UnavailableError):
                connection.send("before", b"lost")
            with pytest.raises(UnavailableError):
                await connection.wait_connected(0.05)
            during: asyncio.Queue[Message] = asyncio.Queue()
            connection.route("during", during.put_nowait)
            connection.unroute(sid)
            start_server(directory=directory, port=port)
            await connection.wait_connected(60)

            for subject in ("before", "during", "gone"):
                connection.send(subject, subject.encode() * 10_000)
            assert bytes((await next_of(before)).data) == b"before" * 10_000
            assert bytes((await next_of(during)).data) == b"during" * 10_000
            await connection.wait_flushed(30)
            assert (before.qsize(), during.qsize(), gone) == (0, 0, [])

    async def test_a_server_that_talks_nonsense_is_left_and_tried_again(self) -> None:
        visits = asyncio.Queue[int]()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"server_id":"x","version":"2.12.0","max_payload":1024}\r\n')
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\nMSG what is this\r\n")
            visits.put_nowait(1)
            await reader.read()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connected(NatsOptions(servers=(f"nats://127.0.0.1:{port}",))):
                async with asyncio.timeout(30):
                    await visits.get()
                    await visits.get()


class TestClosing:
    async def test_nothing_is_left_running(self, nats_url: str, fresh_name: str) -> None:
        told = Told()
        before = asyncio.all_tasks()
        connection = await connect(NatsOptions(servers=(nats_url,)), observer=told)
        await receive(connection, fresh_name)

        await connection.close()
        await connection.close()

        await until(lambda: asyncio.all_tasks() == before)
        assert told.closed_times == 1
        with pytest.raises(UnavailableError):
            connection.send(fresh_name, b"x")
        with pytest.raises(UnavailableError):
            await connection.wait_connected(5)

    async def test_what_was_sent_before_is_delivered(
        self, connection: Connection, nats_url: str, fresh_name: str
    ) -> None:
        messages = await receive(connection, fresh_name)
        other = await connect(NatsOptions(servers=(nats_url,)))
        for _ in range(8):
            other.send(fresh_name, bytes(PAYLOAD_BYTES))

        await other.close()

        assert [len((await next_of(messages)).data) for _ in range(8)] == [PAYLOAD_BYTES] * 8

    async def test_a_frozen_server_does_not_hold_it_up(self, start_server: StartServer) -> None:
        server = start_server()
        before = asyncio.all_tasks()
        connection = await connect(NatsOptions(servers=(server.url,)))

        with frozen(server):
            for _ in range(32):
                connection.send("nobody", bytes(PAYLOAD_BYTES))
            await asyncio.sleep(0)
            connection.send("nobody", bytes(PAYLOAD_BYTES))
            async with asyncio.timeout(30):
                await connection.close()

        await until(lambda: asyncio.all_tasks() == before)

    async def test_it_may_be_closed_while_it_reconnects(self, start_server: StartServer) -> None:
        server = start_server()
        before = asyncio.all_tasks()
        connection = await connect(NatsOptions(servers=(server.url,)))

        server.stop()
        await until(lambda: not connection.is_connected)
        async with asyncio.timeout(30):
            await connection.close()

        await until(lambda: asyncio.all_tasks() == before)
        assert connection.is_closed


class TestUnreachable:
    async def test_a_port_where_nobody_listens_is_unavailable_within_seconds(self) -> None:
        async with await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
        started = time.monotonic()

        with pytest.raises(UnavailableError, match="cannot connect to NATS"):
            await connect(NatsOptions(servers=(f"nats://127.0.0.1:{port}",)))

        assert time.monotonic() - started < 30

    @pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
    async def test_what_is_no_nats_server_is_unavailable_and_leaves_nothing_running(
        self, greeting: bytes
    ) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(greeting)
            await reader.read()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            before = asyncio.all_tasks()
            with pytest.raises(UnavailableError, match="cannot connect to NATS"):
                await connect(NatsOptions(servers=(f"nats://127.0.0.1:{port}",)), timeout_seconds=1)
            await until(lambda: asyncio.all_tasks() <= before)

    async def test_web_sockets_are_refused_with_a_sentence(self) -> None:
        with pytest.raises(UnavailableError, match="not by WebSocket"):
            await connect(NatsOptions(servers=("ws://127.0.0.1:1",)), timeout_seconds=0.5)


async def test_an_answer_that_nobody_waits_for_any_more_ends_nothing(
    start_server: StartServer,
) -> None:
    server = start_server()
    async with connected(NatsOptions(servers=(server.url,))) as connection:
        with frozen(server), pytest.raises(UnavailableError):
            await connection.wait_flushed(1)
        await connection.wait_flushed(30)

        with frozen(server), pytest.raises(UnavailableError):
            await connection.wait_flushed(1)
