"""Spans of a gateway and a worker as processes, which the variables of OpenTelemetry ask for."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from structlog.testing import capture_logs
from tests.deployment import deployed
from tests.gateway.conftest import gateway_process
from tests.tracing.kept import collector

from holdfast.runtime.spans import are_wanted, kept_spans
from holdfast.tracing import NO_TRACER

if TYPE_CHECKING:
    from tests.tracing.kept import Sent

SERVER, CLIENT = 2, 3
TRACE_ID, CALLER_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(scope="module")
def spans(nats_server_url: str) -> tuple[list[Sent], str]:
    """Those of two GETs, of which the first belongs to a trace; and the digest that it wanted."""
    with collector() as (endpoint, got), pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENDPOINT, endpoint)
        with (
            deployed(nats_server_url, "one") as deployment,
            gateway_process(deployment) as (url, _),
        ):
            digest = httpx.put(f"{url}/blobs", content=b"traced", timeout=60).json()["digest"]
            trace = {"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-01"}
            assert (
                httpx.get(f"{url}/blobs/{digest}", headers=trace, timeout=60).content == b"traced"
            )
            assert httpx.get(f"{url}/blobs/{'0' * 64}", timeout=60).status_code == 404
    return got, digest


@pytest.fixture(scope="module")
def nats_server_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("nats_server").url)


@pytest.mark.nats
def test_one_get_is_one_tree_from_the_gateway_through_its_client_to_the_worker(
    spans: tuple[list[Sent], str],
) -> None:
    got, digest = spans

    traced = [span for span in got if span.trace_id == TRACE_ID]
    served = next(span for span in traced if span.name == "GET /blobs/{digest}")
    assert (served.service, served.kind, served.parent) == ("holdfast-gateway", SERVER, CALLER_ID)
    assert served.attributes["http.response.status_code"] == 200
    assert served.attributes["url.path"] == f"/blobs/{digest}"
    asked = {span.span_id: span for span in traced if span.kind == CLIENT}
    assert {(span.service, span.parent) for span in asked.values()} == {
        ("holdfast-gateway", served.span_id)
    }
    answered = [span for span in traced if span.service == "holdfast-worker"]
    assert {span.name for span in answered} >= {"blob.get"}
    assert all(span.name == asked[span.parent].name for span in answered)


@pytest.mark.nats
def test_a_request_without_a_trace_begins_one_and_what_fails_is_marked(
    spans: tuple[list[Sent], str],
) -> None:
    got, _ = spans

    failed = {span.name: span for span in got if "error.type" in span.attributes}
    begun = {span.trace_id for span in failed.values()}
    assert len(begun - {TRACE_ID}) == len(begun) == 1
    root = next(span for span in got if span.trace_id in begun and not span.parent)
    assert (root.name, root.is_error) == ("GET /blobs/{digest}", False)
    assert root.attributes["http.response.status_code"] == 404
    marks = {
        (span.kind, span.is_error, span.attributes["error.type"])
        for span in got
        if span.trace_id in begun and span.parent
    }
    assert marks == {(CLIENT, True, "not_found"), (SERVER, False, "not_found")}


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://here"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://here"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_SDK_DISABLED": "true", ENDPOINT: "http://here"}, False),
    ],
)
def test_spans_are_made_where_the_variables_ask_for_them(
    variables: dict[str, str], *, wanted: bool
) -> None:
    assert are_wanted(variables) is wanted


def test_without_the_extra_that_is_logged_and_no_spans_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.delitem(sys.modules, "holdfast.tracing.sdk", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with capture_logs() as lines, kept_spans("holdfast-worker") as tracer:
        assert tracer is NO_TRACER

    assert [line["event"] for line in lines] == ["no_spans"]


def test_nothing_of_opentelemetry_is_loaded_where_no_spans_are_asked_for() -> None:
    script = (
        "import sys\n"
        "from holdfast.runtime.spans import kept_spans\n"
        "with kept_spans('holdfast-worker'): print(*sys.modules)"
    )

    loaded = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60)

    assert not [name for name in loaded.split() if name.startswith("opentelemetry")]
