"""Spans: whose children they are, what they say, and what marks them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import rpc_attributes as rpc
from opentelemetry.semconv.attributes import error_attributes, http_attributes
from opentelemetry.trace import SpanKind, StatusCode
from tests.tracing.kept import Kept

from holdfast.errors import NotFoundError
from holdfast.tracing import NO_TRACER, TRACE, TraceStep
from holdfast.tracing.otel import OtelTracer

CALLER = TraceStep("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "01")
HEX = st.sampled_from("0123456789abcdef")


def digits(count: int) -> st.SearchStrategy[str]:
    texts = st.lists(HEX, min_size=count, max_size=count).map("".join)
    return texts.filter(lambda text: text.strip("0") != "")


def current() -> TraceStep:
    """The step that is being made."""
    step = TRACE.get()
    assert step is not None
    return step


def is_sampled(step: TraceStep) -> bool:
    """Whether who is told of it keeps spans, too."""
    return int(step.flags, 16) & 1 == 1


@pytest.fixture
def kept() -> Kept:
    return Kept()


@given(digits(32), digits(16), st.lists(HEX, min_size=2, max_size=2).map("".join))
def test_a_step_is_what_its_text_says(trace_id: str, span_id: str, flags: str) -> None:
    step = TraceStep(trace_id, span_id, flags)

    assert TraceStep.parse(str(step)) == step


@given(st.text(max_size=60))
def test_what_is_no_traceparent_is_no_step(text: str) -> None:
    assert TraceStep.parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        str(CALLER).upper(),
        f"{CALLER}\n",
        f"ff{str(CALLER)[2:]}",
        f"{CALLER}-more",
    ],
)
def test_what_the_specification_refuses_is_no_step(text: str) -> None:
    assert TraceStep.parse(text) is None


async def test_a_step_within_another_is_its_child_and_belongs_to_the_callers_trace(
    kept: Kept,
) -> None:
    TRACE.set(CALLER)

    with kept.tracer.serving("GET"):
        served = current()
        with kept.tracer.asking("blob.get"):
            asked = current()

    assert kept.parent_of("GET") == CALLER.span_id
    assert kept.parent_of("blob.get") == served.span_id
    assert CALLER.trace_id == served.trace_id == asked.trace_id
    assert TRACE.get() == CALLER


async def test_a_step_of_no_trace_begins_one(kept: Kept) -> None:
    with kept.tracer.answering("blob.get"):
        begun = current()

    assert kept.parent_of("blob.get") is None
    assert is_sampled(begun)


async def test_what_is_not_sampled_is_told_on_as_such() -> None:
    kept = Kept(ALWAYS_OFF)

    with kept.tracer.serving("GET"):
        begun = current()

    assert not is_sampled(begun)
    assert kept.spans == {}


async def test_requests_of_a_program_are_below_what_it_is_doing_itself(kept: Kept) -> None:
    with (
        kept.provider.get_tracer("mine").start_as_current_span("mine") as mine,
        kept.tracer.asking("blob.get"),
    ):
        pass

    assert kept.parent_of("blob.get") == f"{mine.get_span_context().span_id:016x}"


async def test_a_program_that_keeps_no_spans_passes_on_the_trace_it_is_in() -> None:
    TRACE.set(CALLER)

    for tracer in (OtelTracer(), NO_TRACER):
        with tracer.asking("blob.get"):
            assert TRACE.get() == CALLER


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("it is not there"), "not_found"),
        (asyncio.CancelledError(), "cancelled"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
async def test_what_is_raised_marks_the_step(kept: Kept, error: BaseException, code: str) -> None:
    with pytest.raises(type(error)), kept.tracer.asking("blob.get"):
        raise error

    span = kept.spans["blob.get"]
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})[error_attributes.ERROR_TYPE] == code


async def test_a_request_that_was_wrong_is_no_error_of_who_answers(kept: Kept) -> None:
    with kept.tracer.answering("blob.get") as span:
        span.fail("not_found", is_fault=False)

    answered = kept.spans["blob.get"]
    assert answered.status.status_code is StatusCode.UNSET
    assert (answered.attributes or {})[error_attributes.ERROR_TYPE] == "not_found"


async def test_the_words_are_those_of_the_semantic_conventions(kept: Kept) -> None:
    with kept.tracer.serving("GET"), kept.tracer.asking("a.b"), kept.tracer.answering("c.d"):
        pass

    served, asked, answered = (kept.spans[name] for name in ("GET", "a.b", "c.d"))
    assert served.kind is answered.kind is SpanKind.SERVER
    assert asked.kind is SpanKind.CLIENT
    assert served.attributes == {http_attributes.HTTP_REQUEST_METHOD: "GET"}
    assert asked.attributes == {rpc.RPC_SYSTEM_NAME: "nats", rpc.RPC_METHOD: "a.b"}
