"""Workers that die, servers that are gone, readers that are slow."""

from __future__ import annotations

import hashlib
import secrets
import socket
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from tests.deployment import deployed
from tests.gateway.conftest import gateway_process, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    from tests.conftest import StartServer

    from holdfast.runtime.embedded import EmbeddedServer

MIB = 1024 * 1024


def put(url: str, data: bytes) -> str:
    digest: str = httpx.put(f"{url}/blobs", content=data, timeout=60).json()["digest"]
    return digest


@pytest.mark.fault("H12")
def test_a_worker_that_dies_in_the_middle_is_replaced(nats_server: EmbeddedServer) -> None:
    data = secrets.token_bytes(16 * MIB)
    with deployed(nats_server.url, "one", "two") as deployment, serving(deployment) as url:
        digest = put(url, data)

        with httpx.stream("GET", f"{url}/blobs/{digest}", timeout=60) as answer:
            received = bytearray()
            for chunk in answer.iter_raw(MIB):
                if not received:
                    deployment.kill("one")
                received += chunk

        assert hashlib.sha256(received).hexdigest() == digest


@pytest.mark.fault("H12")
def test_an_upload_goes_on_when_its_worker_dies(nats_server: EmbeddedServer) -> None:
    data = secrets.token_bytes(16 * MIB)
    with deployed(nats_server.url, "one", "two") as deployment, serving(deployment) as url:

        def pieces() -> Iterator[bytes]:
            yield data[: 6 * MIB]
            deployment.kill("one")
            yield data[6 * MIB :]

        answer = httpx.put(f"{url}/blobs", content=pieces(), timeout=60)

    assert answer.json()["digest"] == hashlib.sha256(data).hexdigest()


@pytest.mark.long
@pytest.mark.fault("H12")
def test_when_the_store_is_gone_in_the_middle_the_connection_breaks(
    start_server: StartServer,
) -> None:
    data = secrets.token_bytes(40 * MIB)
    server = start_server()
    with deployed(server.url, "one") as deployment, serving(deployment, timeout_seconds=2) as url:
        digest = put(url, data)

        received = bytearray()
        with (  # noqa: PT012 - what came before it breaks is looked at, too
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("GET", f"{url}/blobs/{digest}", timeout=60) as answer,
        ):
            assert answer.status_code == 200
            for chunk in answer.iter_raw(MIB):
                if not received:
                    server.stop()
                received += chunk

        deployment.kill("one")  # it would try to end well, without a server
        assert len(received) < len(data)
        assert data.startswith(received)


@pytest.mark.long
@pytest.mark.fault("H13")
def test_when_nobody_answers_it_is_503_and_says_when_to_come_again(
    start_server: StartServer,
) -> None:
    server = start_server()
    with deployed(server.url, "one") as deployment, serving(deployment, timeout_seconds=1) as url:
        deployment.kill("one")
        answers = [
            httpx.get(f"{url}/blobs/{'0' * 64}", timeout=60),
            httpx.post(f"{url}/store/name", content=b"x", timeout=60),
            httpx.get(f"{url}/readyz", timeout=60),
        ]
        lives = httpx.get(f"{url}/healthz", timeout=60)

    assert [answer.status_code for answer in answers] == [503] * 3
    assert {answer.json()["code"] for answer in answers} == {"unavailable"}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 10 for answer in answers)
    assert lives.status_code == 200


def test_whoever_reads_nothing_is_left_and_makes_room(nats_server: EmbeddedServer) -> None:
    data = secrets.token_bytes(16 * MIB)
    with (
        deployed(nats_server.url, "one") as deployment,
        serving(deployment) as patient,
        serving(deployment, body_seconds=0.5, max_connections=1) as url,
        asked_slowly(url, put(patient, data)) as answer,
    ):
        assert answer.readline().startswith(b"HTTP/1.1 200 ")
        while httpx.get(f"{url}/healthz", timeout=60).status_code == 503:
            pass
        received = read_body(answer)

    assert len(received) < len(data)


@pytest.mark.long
def test_two_hundred_slow_readers_need_little_memory(nats_server: EmbeddedServer) -> None:
    data = secrets.token_bytes(4 * MIB)
    with deployed(nats_server.url, "one") as deployment, gateway_process(deployment) as (url, pid):
        digest = put(url, data)
        with ExitStack() as stack:
            answers = [stack.enter_context(asked_slowly(url, digest)) for _ in range(200)]
            for answer in answers:
                assert answer.readline().startswith(b"HTTP/1.1 200 ")
            for answer in answers[:20]:
                assert read_body(answer) == data

        assert peak_bytes(pid) < 256 * MIB


@contextmanager
def asked_slowly(url: str, digest: str) -> Iterator[BufferedReader]:
    """An answer that is read through a small buffer, and so far not at all."""
    parts = urlsplit(url)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        slow.connect((parts.hostname, parts.port))
        slow.sendall(f"GET /blobs/{digest} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        with slow.makefile("rb") as answer:
            yield answer


def read_body(answer: BufferedReader) -> bytes:
    """The bytes behind the headers, until the end."""
    while answer.readline() not in {b"\r\n", b""}:
        pass
    return answer.read()


def peak_bytes(pid: int) -> int:
    """The most memory that a process had so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
