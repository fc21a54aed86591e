"""Requests that are none, or none that a client should send: refused where they arrive."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from tests.gateway.conftest import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deployment import Deployment

DIGEST = "0" * 64


class Raw:
    """A connection on which anything is sent."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, data: bytes) -> bytes:
        """Everything that comes back until the gateway closes."""
        self.socket.sendall(data)
        return self.rest()

    def rest(self) -> bytes:
        """The bytes until the end."""
        received = bytearray()
        try:
            while chunk := self.socket.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
        return bytes(received)


def statuses(answers: bytes) -> list[int]:
    """The status of each answer."""
    return [
        int(part.split(b" ", 1)[0])
        for part in answers.split(b"HTTP/1.1 ")[1:]
        if not part.startswith(b"100")
    ]


@pytest.fixture
def raw(url: str) -> Iterator[Raw]:
    with Raw(url) as connection:
        yield connection


HOST = b"Host: localhost\r\n"
POST = b"POST /store/smuggled HTTP/1.1\r\n" + HOST


@pytest.mark.fault("H06")
@pytest.mark.parametrize(
    "data",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        POST + b"Content-Length: 1, 1\r\n\r\nx",
        POST + b"Content-Length: +5\r\n\r\nhello",
        POST + b"Content-Length: -5\r\n\r\nhello",
        POST + b"Content-Length: 0x5\r\n\r\nhello",
        POST + b"Content-Length: 99999999999999999999\r\n\r\nhello",
        POST + b"Content-Length : 5\r\n\r\nhello",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\nhello",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5;x=\nhello\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx",
        POST + b"X-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        POST + b" X-Led: a\r\nContent-Length: 0\r\n\r\n",
        POST + b"X-Nul: a\0b\r\nContent-Length: 0\r\n\r\n",
        POST + b"X-Cr: a\rb\r\nContent-Length: 0\r\n\r\n",
        POST + b"X-Lf: a\nContent-Length: 0\r\n\r\n",
        b"POST /store/a\nb HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
        b"GET /store/a\0b HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /store/\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /healthz HTTP/1.1\n" + HOST + b"\r\n",
        b"GET /healthz HTTP/9.9\r\n" + HOST + b"\r\n",
        b"GET healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"CONNECT example.org:80 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_others_may_read_differently_is_400_and_the_end(raw: Raw, data: bytes) -> None:
    smuggled = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"

    answers = raw.ask(data + smuggled)

    assert statuses(answers) == [400], answers


@pytest.mark.fault("H06")
def test_a_request_behind_another_is_answered_behind_it(raw: Raw) -> None:
    one = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    last = b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"

    assert statuses(raw.ask(one * 3 + last)) == [200] * 4


@pytest.mark.fault("H06")
def test_a_body_is_no_request(raw: Raw) -> None:
    inner = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    outer = b"GET /healthz HTTP/1.1\r\nContent-Length: %d\r\n" % len(inner) + HOST
    last = b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"

    assert statuses(raw.ask(outer + b"\r\n" + inner + last)) == [200, 200]


@pytest.mark.fault("H07")
def test_headers_without_end_are_431(raw: Raw) -> None:
    long = b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 40_000

    assert statuses(raw.ask(long)) == [431]


@pytest.mark.fault("H07")
def test_many_headers_are_431(raw: Raw) -> None:
    many = b"".join(b"X-%d: a\r\n" % number for number in range(5000))

    assert statuses(raw.ask(b"GET /healthz HTTP/1.1\r\n" + HOST + many + b"\r\n")) == [431]


@pytest.mark.fault("H07")
@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"\r\n",
        b"GET /heal",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\nGET /heal",
    ],
)
def test_a_request_that_does_not_come_ends_its_connection(
    deployment: Deployment, begun: bytes
) -> None:
    with serving(deployment, header_seconds=0.3, keep_alive_seconds=1) as url, Raw(url) as slow:
        assert statuses(slow.ask(begun)) in ([], [200])


@pytest.mark.fault("H07")
def test_a_body_that_does_not_come_is_408(deployment: Deployment) -> None:
    with serving(deployment, body_seconds=0.3) as url, Raw(url) as slow:
        assert statuses(slow.ask(POST + b"Content-Length: 10\r\n\r\nabc")) == [408]


@pytest.mark.fault("H07")
def test_who_is_silent_longest_makes_room_for_who_asks(deployment: Deployment) -> None:
    with serving(deployment, max_connections=20) as url:
        silent = [Raw(url) for _ in range(60)]
        try:
            with Raw(url) as other:
                asked = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
                assert statuses(other.ask(asked)) == [200]
            assert silent[0].rest() == b""
        finally:
            for connection in silent:
                connection.socket.close()


@pytest.mark.fault("H08")
@pytest.mark.parametrize(
    "target",
    [
        "http://example.org/blobs/../etc/passwd",
        "//example.org/blobs",
        "/blobs/%2e%2e%2fetc",
        "/%00",
        "/..%2f..%2fetc/passwd",
        "*",
        "/snapshots/%2e%2e/files",
    ],
)
def test_odd_targets_reach_nothing(raw: Raw, target: str) -> None:
    asked = f"GET {target} HTTP/1.1\r\nConnection: close\r\n".encode() + HOST + b"\r\n"

    assert statuses(raw.ask(asked))[0] in {400, 404}


@pytest.mark.fault("H08")
@pytest.mark.parametrize("host", ["example.org", "localhost.example.org", "[::2]", "a b", ""])
def test_another_host_is_not_believed_to_be_this_machine(http: httpx.Client, host: str) -> None:
    answer = http.get(f"/blobs/{DIGEST}", headers={"Host": host})

    assert answer.status_code in {400, 403}


@pytest.mark.fault("H10")
def test_a_page_of_another_site_may_not_write_here(http: httpx.Client) -> None:
    headers = {"Origin": "https://example.org"}

    assert http.post("/store/csrf", content=b"x", headers=headers).status_code == 403


@pytest.mark.fault("H11")
@pytest.mark.parametrize("path", ["/blobs", f"/blobs/{DIGEST}", "/store", "/store/x", "/snapshots"])
@pytest.mark.parametrize("method", ["TRACE", "PATCH", "PROPFIND", "BREW", "PURGE"])
def test_methods_that_a_path_has_not_are_405(raw: Raw, method: str, path: str) -> None:
    asked = f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode() + HOST + b"\r\n"

    expected = [400] if method == "BREW" else [405]
    assert statuses(raw.ask(asked)) == expected


@pytest.mark.fault("H11")
def test_options_tells_the_methods(http: httpx.Client) -> None:
    answer = http.options("/store/x")

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, POST, PUT"


def test_a_trailer_is_no_header(raw: Raw, http: httpx.Client) -> None:
    head = b"POST /store/trailed HTTP/1.1\r\nConnection: close\r\n" + HOST
    body = b"1\r\nx\r\n0\r\nBlob-Labels: a=b\r\n\r\n"

    answer = raw.ask(head + b"Transfer-Encoding: chunked\r\n\r\n" + body)

    assert statuses(answer) == [201]
    assert "Blob-Labels" not in http.get("/store/trailed").headers


@pytest.mark.parametrize("where", ["Host", "Origin"])
@pytest.mark.parametrize("host", ["[", "[::1", "[zz]"])
def test_a_host_that_is_none_may_nothing(http: httpx.Client, where: str, host: str) -> None:
    text = host if where == "Host" else f"http://{host}"

    assert http.get(f"/blobs/{DIGEST}", headers={where: text}).status_code in {400, 403}


def test_what_is_sent_on_behind_an_answer_gets_no_second_one(raw: Raw) -> None:
    head = b"PUT /nowhere HTTP/1.1\r\n" + HOST + b"Content-Length: 10000000\r\n\r\n"
    raw.socket.sendall(head)
    begun = raw.socket.recv(65536)
    for _ in range(20):
        raw.socket.sendall(bytes(20_000))

    assert statuses(begun + raw.rest()) == [404]


@pytest.mark.fault("H07")
def test_who_does_not_read_what_is_answered_keeps_nobody_from_being_answered(
    deployment: Deployment,
) -> None:
    many = 100 * (b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n")
    with serving(deployment, max_requests=2) as url, Raw(url) as one, Raw(url) as other:
        for deaf in (one, other):
            deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.socket.sendall(many)
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
            answers = [http.get(f"/blobs/{DIGEST}").status_code for _ in range(100)]

    assert answers[-10:] == [404] * 10


def test_a_connection_with_another_request_under_way_makes_no_room(
    deployment: Deployment, http: httpx.Client
) -> None:
    digest = http.put("/blobs", content=bytes(20_000_000)).json()["digest"]
    one = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    two = f"GET /blobs/{digest} HTTP/1.1\r\nConnection: close\r\n".encode() + HOST + b"\r\n"
    with serving(deployment, max_connections=1) as url, Raw(url) as busy:
        busy.socket.sendall(one + two)
        begun = b""
        while b"Content-Length: 20000000" not in begun and b"content-length: 20000000" not in begun:
            begun += busy.socket.recv(65536)
        with Raw(url) as other:
            refused = statuses(other.ask(one))
        received = len(begun) + len(busy.rest())

    assert refused == [503]
    assert received > 20_000_000
