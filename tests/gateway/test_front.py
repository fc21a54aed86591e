"""The front of all requests: limits, the trace, metrics, origins, and the drain."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import structlog
from tests.gateway.conftest import serving
from tests.tracing.kept import Kept

from holdfast.errors import RateLimitedError
from holdfast.gateway.content.bodies import MAX_OPEN_FORM_BYTES, MAX_OPEN_FORMS
from holdfast.gateway.front import Front
from holdfast.gateway.http_route import ROUTE
from holdfast.gateway.limits import MAX_ADDRESSES, RequestLimits
from holdfast.gateway.meters import Meters
from holdfast.runtime.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Message, Receive, Scope, Send
    from tests.deployment import Deployment


@contextmanager
def half_a_request(url: str, what: str = "PUT /blobs") -> Iterator[socket.socket]:
    """A request whose body does not come, which the gateway is answering."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 80)) as slow:
        head = f"{what} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n".encode()
        slow.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert slow.recv(1000).startswith(b"HTTP/1.1 100 ")
        yield slow


def test_one_client_of_ipv4_is_not_all_of_them_where_both_are_listened_to() -> None:
    limits = RequestLimits(max_requests=10, per_second=1)
    limits.enter("::ffff:192.0.2.1", 0.0)

    limits.enter("::ffff:192.0.2.2", 0.0)
    with pytest.raises(RateLimitedError):
        limits.enter("192.0.2.1", 0.0)


def test_more_requests_at_once_than_there_may_be_are_429(deployment: Deployment) -> None:
    with serving(deployment, max_requests=1) as url, half_a_request(url) as slow:
        refused = httpx.get(f"{url}/blobs/{'0' * 64}", timeout=60)
        lives = httpx.get(f"{url}/healthz", timeout=60)
        slow.sendall(b"abc")

        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert refused.headers["Retry-After"] == "1"
        assert lives.status_code == 200
        assert slow.recv(1000).startswith(b"HTTP/1.1 20")


@pytest.mark.parametrize("form", ["/console/sign-in", "/console/sign-out", "/console/sign-in%0A"])
def test_forms_that_anybody_may_send_take_no_turn_of_other_requests(
    deployment: Deployment, form: str
) -> None:
    with (
        serving(deployment, max_requests=1, header_seconds=60) as url,
        ExitStack() as stack,
    ):
        slow = [
            stack.enter_context(half_a_request(url, f"POST {form}")) for _ in range(MAX_OPEN_FORMS)
        ]
        one_more = httpx.post(f"{url}{form}", content=b"x", timeout=60)
        stored = httpx.put(f"{url}/blobs", content=b"a body of another request", timeout=60)
        slow[0].sendall(b"a=b")
        ended = slow[0].recv(1000)
        another = httpx.post(f"{url}{form}", content=b"x", timeout=60)
        for one in slow[1:]:
            one.close()

    assert one_more.status_code == 429
    assert stored.status_code in {200, 201}
    assert ended.startswith(b"HTTP/1.1 403 ")
    assert another.status_code == 403


def test_a_form_that_anybody_may_send_comes_within_seconds(deployment: Deployment) -> None:
    with (
        serving(deployment, header_seconds=1, body_seconds=600) as url,
        half_a_request(url, "POST /console/sign-in") as slow,
    ):
        slow.sendall(b"a")
        late = slow.recv(1000)

    assert late.startswith(b"HTTP/1.1 408 ")


def test_a_form_that_anybody_may_send_is_small(http: httpx.Client) -> None:
    parts = iter([b"x" * MAX_OPEN_FORM_BYTES, b"x"])

    known = http.post("/console/sign-in", content=b"x" * (MAX_OPEN_FORM_BYTES + 1))
    unknown = http.post("/console/sign-in", content=parts)

    assert (known.status_code, unknown.status_code) == (413, 413)


def test_an_address_may_ask_so_often_a_second() -> None:
    limits = RequestLimits(max_requests=100, per_second=2)

    def allowed(address: str, now: float) -> bool:
        try:
            limits.enter(address, now)
        except RateLimitedError:
            return False
        return True

    assert [allowed("192.0.2.1", 0.0) for _ in range(3)] == [True, True, False]
    assert allowed("192.0.2.2", 0.0)
    assert [allowed("192.0.2.1", 0.6) for _ in range(2)] == [True, False]
    assert [allowed(f"2001:db8::{n}", 1.0) for n in (1, 2, 3)] == [True, True, False]
    for number in range(MAX_ADDRESSES + 10):
        limits.leave()
        assert allowed(f"198.51.{number // 256}.{number % 256}", 2.0)
    assert len(limits._left) == MAX_ADDRESSES


def test_an_answer_says_when_to_come_again(deployment: Deployment) -> None:
    with serving(deployment, requests_per_second=0.001) as url:
        answers = [httpx.get(f"{url}/blobs/{'0' * 64}", timeout=60) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [404, 429]


def test_a_body_that_is_too_large_is_413_with_or_without_a_length(deployment: Deployment) -> None:
    with serving(deployment, max_body_bytes=10) as url:
        known = httpx.put(f"{url}/blobs", content=b"x" * 11, timeout=60)
        unknown = httpx.put(f"{url}/blobs", content=iter([b"x" * 6, b"y" * 6]), timeout=60)
        fitting = httpx.put(f"{url}/blobs", content=b"x" * 10, timeout=60)

    assert (known.status_code, unknown.status_code) == (413, 413)
    assert fitting.status_code in {200, 201}


def test_what_is_in_flight_ends_before_the_gateway(deployment: Deployment) -> None:
    with serving(deployment) as url:
        context = half_a_request(url)
        slow = context.__enter__()
        finish = threading.Timer(0.2, lambda: slow.sendall(b"abc"))
        finish.start()
    answer = slow.recv(1000)
    context.__exit__(None, None, None)
    finish.join()

    assert answer.startswith(b"HTTP/1.1 20")
    assert b"connection: close" in answer


def test_metrics_tell_of_requests_and_of_the_pool(http: httpx.Client) -> None:
    http.get(f"/blobs/{'0' * 64}")

    text = http.get("/metrics").text

    counted = 'holdfast_http_requests_total{method="GET",route="/blobs/{digest}",status="404"}'
    assert counted in text
    assert "holdfast_pool_workers{" in text
    assert "holdfast_pool_store_bytes{" in text


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """The events that are logged meanwhile, as JSON."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def request_line(written: io.StringIO) -> dict[str, Any]:
    """The log's line of its first request."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in written.getvalue().splitlines()]
    return next(line for line in lines if line["event"] == "http_request")


def test_a_request_is_one_line_of_the_log_with_its_trace(
    http: httpx.Client, written: io.StringIO
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    http.get("/healthz?x=secret", headers={"traceparent": trace})

    line = request_line(written)
    assert (line["path"], line["status"], line["whole"]) == ("/healthz", 400, True)
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert line["span_id"] != "b7ad6b7169203331"
    assert "secret" not in json.dumps(line)


@pytest.mark.parametrize("question", ["%3F", "%253F"])
def test_of_a_link_whose_question_mark_was_encoded_no_signature_is_written_down(
    http: httpx.Client, written: io.StringIO, question: str
) -> None:
    refused = http.get(f"/store/a{question}X-Amz-Date=1&X-Amz-Signature=secret")

    assert refused.status_code == 403
    assert "secret" not in json.dumps(request_line(written))


@pytest.mark.parametrize(
    ("status", "is_whole", "mark"),
    [(200, True, None), (404, True, None), (503, True, "503"), (200, False, "incomplete")],
)
async def test_a_span_says_what_became_of_a_request_and_nothing_of_its_query(
    *, status: int, is_whole: bool, mark: str | None
) -> None:
    async def answer(scope: Scope, _receive: Receive, send: Send) -> None:
        scope[ROUTE] = "/store/{name}"
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b"x", "more_body": not is_whole})

    async def passed(_: Message) -> None:
        pass

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    kept = Kept()
    limits = RequestLimits(max_requests=1, per_second=None)
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/store/a?X-Amz-Signature=secret",
        "query_string": b"X-Amz-Signature=secret",
        "headers": [],
        "client": ("192.0.2.1", 1234),
    }
    await Front(answer, limits, Meters(), kept.tracer)(scope, nothing, passed)

    span = kept.spans["GET /store/{name}"]
    attributes = dict(span.attributes or {})
    assert attributes.pop("error.type", None) == mark
    assert span.status.is_ok == (mark is None)
    assert attributes == {
        "http.request.method": "GET",
        "http.route": "/store/{name}",
        "http.response.status_code": status,
        "url.path": "/store/a?",
        "url.scheme": "http",
        "client.address": "192.0.2.1",
    }


def test_pages_of_named_origins_may_read_answers(deployment: Deployment) -> None:
    origin = {"Origin": "https://app.example"}
    asked = origin | {"Access-Control-Request-Method": "PUT"}
    with serving(deployment, cors_origins=("https://app.example",)) as url:
        before = httpx.options(f"{url}/blobs", headers=asked)
        answer = httpx.get(f"{url}/healthz", headers=origin, timeout=60)
        other = httpx.get(f"{url}/healthz", headers={"Origin": "https://other.example"}, timeout=60)

    assert before.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(("accept", "kind"), [("text/html", "text/html"), ("*/*", "application")])
def test_an_unknown_path_is_told_in_the_shape_that_was_asked_for(
    http: httpx.Client, accept: str, kind: str
) -> None:
    answer = http.get("/nowhere", headers={"Accept": accept})

    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith(kind)
