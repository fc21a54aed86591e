"""What a worker can learn of a server's writes, and which servers it works with."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from holdfast.errors import UnavailableError
from holdfast.runtime.durability import check_server_version, probe_durability

if TYPE_CHECKING:
    from tests.conftest import StartServer


@pytest.mark.nats
@pytest.mark.fault("N06")
@pytest.mark.parametrize(("interval", "durability"), [("always", "synced"), ("2m", "lazy")])
async def test_the_monitoring_address_tells_whether_writes_are_synced(
    start_server: StartServer, interval: str, durability: str
) -> None:
    server = start_server(sync_interval=interval)

    assert await probe_durability(server.monitor_url) == durability


async def test_without_a_monitoring_address_nothing_is_known() -> None:
    assert await probe_durability(None) == "unknown"


@pytest.mark.parametrize("answers", [False, True], ids=["nobody listens", "another service"])
async def test_an_address_that_does_not_say_leaves_it_unknown(answers: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if answers:
            threading.Thread(target=answer_once, args=(listener,), daemon=True).start()
        else:
            listener.close()

        assert await probe_durability(f"http://127.0.0.1:{port}") == "unknown"


def answer_once(listener: socket.socket) -> None:
    """Answer one request with a page that is no server status."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@pytest.mark.parametrize("version", ["2.12.0", "2.12", "2.15.3-RC.1", "3.0.0", "v2.14.1"])
def test_a_server_that_is_new_enough_is_taken(version: str) -> None:
    check_server_version(version)


@pytest.mark.fault("N18")
@pytest.mark.parametrize("version", ["2.11.9", "2.9.25", "1.4.1", "0", ""])
def test_an_older_server_is_refused_and_the_sentence_says_what_is_needed(version: str) -> None:
    with pytest.raises(UnavailableError, match=r"2\.12 or newer"):
        check_server_version(version)
