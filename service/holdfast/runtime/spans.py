"""Whether spans of this process are wanted, and what makes them: OpenTelemetry, if it is there."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.errors import InvalidError
from holdfast.tracing import NO_TRACER, Tracer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ASKING: Final = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
log = structlog.get_logger(__name__)


@contextmanager
def kept_spans(service: str) -> Iterator[Tracer]:
    """The tracer of the process ``service``; it keeps nothing where no variable asks for spans.

    Where one does, and what makes spans is not installed, that is logged, and none are made.
    """
    with ExitStack() as stack:
        tracer = NO_TRACER
        if are_wanted(os.environ):
            try:
                sdk = import_module("holdfast.tracing.sdk")
                tracer = stack.enter_context(sdk.exporting(service))
            except (ModuleNotFoundError, InvalidError) as error:
                log.warning("no_spans", detail=f"install the extra `otel`: {error}")
        yield tracer


def are_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the variables of OpenTelemetry ask for spans."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    asked = next((environ[name] for name in _ASKING if environ.get(name)), "none")
    return asked != "none"
