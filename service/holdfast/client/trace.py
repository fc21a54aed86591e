"""The trace that a request belongs to (W3C Trace Context), passed on to whoever answers it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from holdfast.protocol.headers import TRACEPARENT

TRACE: Final[ContextVar[str | None]] = ContextVar("holdfast_trace", default=None)
"""The ``traceparent`` of what this task does; None: it belongs to no trace."""


def trace_headers() -> dict[str, str]:
    """The headers that say which trace a message belongs to."""
    trace = TRACE.get()
    return {} if trace is None else {TRACEPARENT: trace}
