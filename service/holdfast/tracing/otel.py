"""Spans of OpenTelemetry, in the words of its semantic conventions for HTTP and RPC."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, override

from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from holdfast.errors import HoldfastError
from holdfast.tracing import TRACE, Tracer, TraceSpan, TraceStep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.context import Context

_CANCELLED: Final = "cancelled"


class OtelTracer(Tracer):
    """Makes spans, with the tracer provider of the process or another."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """Without ``provider`` that which the program has set."""
        self._tracer = trace.get_tracer("holdfast", version("holdfast"), provider)

    @override
    def serving(self, method: str) -> AbstractContextManager[TraceSpan]:
        return self._step(method, SpanKind.SERVER, {"http.request.method": method})

    @override
    def asking(self, subject: str) -> AbstractContextManager[TraceSpan]:
        return self._step(subject, SpanKind.CLIENT, _rpc(subject))

    @override
    def answering(self, subject: str) -> AbstractContextManager[TraceSpan]:
        return self._step(subject, SpanKind.SERVER, _rpc(subject))

    @contextmanager
    def _step(
        self, name: str, kind: SpanKind, attributes: Mapping[str, str]
    ) -> Iterator[TraceSpan]:
        before = TRACE.get()
        span = self._tracer.start_span(name, _context(before), kind, attributes)
        step = _OtelSpan(span)
        TRACE.set(_step_of(span) or before)
        try:
            yield step
        except asyncio.CancelledError:
            step.fail(_CANCELLED)
            raise
        except HoldfastError as error:
            step.fail(error.code)
            raise
        except BaseException as error:
            span.record_exception(error)
            step.fail(type(error).__qualname__)
            raise
        finally:
            TRACE.set(before)
            span.end()


class _OtelSpan(TraceSpan):
    is_kept = True

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @override
    def describe(self, name: str, attributes: Mapping[str, str | int]) -> None:
        self._span.update_name(name)
        self._span.set_attributes(attributes)

    @override
    def fail(self, code: str, *, is_fault: bool = True) -> None:
        self._span.set_attribute("error.type", code)
        if is_fault:
            self._span.set_status(StatusCode.ERROR)


def _rpc(subject: str) -> dict[str, str]:
    return {"rpc.system.name": "nats", "rpc.method": subject}


def _context(before: TraceStep | None) -> Context | None:
    """Below ``before``, or below what the program itself is doing."""
    if before is None:
        return None
    parent = SpanContext(
        trace_id=int(before.trace_id, 16),
        span_id=int(before.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(before.flags, 16)),
    )
    return set_span_in_context(NonRecordingSpan(parent))


def _step_of(span: trace.Span) -> TraceStep | None:
    """None of a span that a program makes which has set no provider."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    ids = trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
    return TraceStep(*ids, f"{context.trace_flags:02x}")
