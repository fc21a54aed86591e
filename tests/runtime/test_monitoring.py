"""The state of nats-servers, as a worker learns it."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from holdfast.runtime.monitoring import greeted, see_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartServer

    from holdfast.runtime.embedded import EmbeddedServer

GREETING = {"server_name": "n", "version": "2.15.0", "jetstream": True, "max_payload": 2**20}


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """The address of something that answers one request with ``body``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_once, args=(listener, body), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def answer_once(listener: socket.socket, body: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@pytest.mark.nats
@pytest.mark.fault("N06")
@pytest.mark.parametrize(("interval", "durability"), [("always", "synced"), ("2m", "lazy")])
async def test_the_monitoring_address_tells_whether_writes_are_synced(
    start_server: StartServer, interval: str, durability: str
) -> None:
    server = start_server(sync_interval=interval)

    servers = await see_servers(GREETING, (server.monitor_url,))

    assert servers.durability == durability
    assert servers.told[0].max_payload == 2**20
    assert servers.told[0].cluster_size == 1


async def test_without_a_monitoring_address_the_greeting_is_all_that_is_known() -> None:
    servers = await see_servers(GREETING, ())

    assert servers.durability == "unknown"
    assert servers.known == (greeted(GREETING),)


@pytest.mark.nats
async def test_a_server_that_is_away_is_passed_over_if_most_are_there(
    nats_server: EmbeddedServer,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        away = f"http://127.0.0.1:{closed.getsockname()[1]}"

    one_of_one = await see_servers(GREETING, (nats_server.monitor_url,))
    one_of_two = await see_servers(GREETING, (nats_server.monitor_url, away))

    assert one_of_one.durability == "synced"
    assert one_of_two.durability == "unknown"
    assert [silent.address for silent in one_of_two.silent] == [away]


@pytest.mark.parametrize(
    "body",
    [b"hello", b"{}", b'{"server_id": 3}', b"\xff"],
    ids=["text", "other JSON", "other types", "no UTF-8"],
)
async def test_an_address_of_another_service_says_nothing(body: bytes) -> None:
    with answering(body) as url:
        servers = await see_servers(GREETING, (url,))

    assert servers.durability == "unknown"
    assert servers.told == ()
    assert len(servers.silent) == 1


async def test_a_server_without_jetstream_does_not_speak_for_the_others() -> None:
    body = b'{"server_id": "X", "server_name": "edge", "version": "2.15.0", "max_payload": 1}'
    with answering(body) as url:
        servers = await see_servers(GREETING, (url,))

    assert servers.durability == "unknown"
    assert [(s.name, s.jetstream) for s in servers.known] == [("edge", False), ("n", True)]


@pytest.mark.parametrize(
    ("changes", "size"),
    [({}, 1), ({"cluster": "c"}, None), ({"jetstream": False}, None)],
    ids=["alone", "of a cluster", "an edge without JetStream"],
)
def test_a_greeting_tells_whether_there_are_others(
    changes: dict[str, object], size: int | None
) -> None:
    assert greeted(GREETING | changes).cluster_size == size
