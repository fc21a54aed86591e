"""The trace that a task belongs to (W3C Trace Context), and the steps of it that are kept as spans.

This knows no OpenTelemetry: `holdfast.tracing.otel` does, and is loaded where spans are wanted. A
request that belongs to no trace, and a `Tracer` that keeps nothing, cost next to nothing.

Why: docs/decisions.md, "A trace goes along as a header, and spans are made by who is told to".
"""

from __future__ import annotations

import re
import secrets
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORM: Final = re.compile(
    r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII
)
_NOT_SAMPLED: Final = "00"


class TraceStep(NamedTuple):
    """A ``traceparent``: ids and flags in hexadecimal."""

    trace_id: str
    span_id: str
    flags: str

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    @classmethod
    def parse(cls, text: str) -> TraceStep | None:
        """None of what is no ``traceparent``."""
        found = _FORM.fullmatch(text)
        return None if found is None else cls(*found.groups())

    def next(self) -> TraceStep:
        """A step of the same trace."""
        return self._replace(span_id=secrets.token_hex(8))

    @classmethod
    def first(cls) -> TraceStep:
        """The first step of a trace of its own, which nobody keeps."""
        return cls(secrets.token_hex(16), secrets.token_hex(8), _NOT_SAMPLED)


TRACE: Final[ContextVar[TraceStep | None]] = ContextVar("holdfast_trace", default=None)
"""The step that this task is in; None: it belongs to no trace."""


class TraceSpan:
    """A step that is being made, of which nothing is kept."""

    is_kept: bool = False

    def describe(self, name: str, attributes: Mapping[str, str | int]) -> None:
        """Say what it was, once that is known."""

    def fail(self, code: str, *, is_fault: bool = True) -> None:
        """It failed. A wrong request is no fault of the server."""


class Tracer:
    """Makes steps of the trace ``TRACE``, and keeps none of them.

    An exception within a step fails it.
    """

    def serving(self, method: str) -> AbstractContextManager[TraceSpan]:
        """A gateway answers a request of HTTP."""
        del method
        return _NOT_KEPT

    def asking(self, subject: str) -> AbstractContextManager[TraceSpan]:
        """A client waits for the answer to a request on ``subject``, without its prefix."""
        del subject
        return _NOT_KEPT

    def answering(self, subject: str) -> AbstractContextManager[TraceSpan]:
        """A worker answers such a request."""
        del subject
        return _NOT_KEPT


_NOT_KEPT: Final = nullcontext(TraceSpan())
NO_TRACER: Final = Tracer()
