"""The trace that a request belongs to, passed on to its answerer."""

from __future__ import annotations

from holdfast.protocol.headers import TRACEPARENT
from holdfast.tracing import TRACE


def trace_headers() -> dict[str, str]:
    """The headers that say which trace a message belongs to."""
    step = TRACE.get()
    return {} if step is None else {TRACEPARENT: str(step)}
