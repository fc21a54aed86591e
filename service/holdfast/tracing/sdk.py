"""Spans sent to a collector, by the SDK of OpenTelemetry, which reads its own variables."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from holdfast.errors import InvalidError
from holdfast.tracing.otel import OtelTracer

if TYPE_CHECKING:
    from collections.abc import Iterator

LAST_SECONDS: Final = 5.0
"""For the last spans of a process that ends."""

_GROUP: Final = "opentelemetry_traces_exporter"


@contextmanager
def exporting(service: str) -> Iterator[OtelTracer]:
    """A tracer whose spans are sent while the context lasts, and the last of them at its end.

    ``service`` is the name of this process unless a variable gives it one. Raises InvalidError of
    an exporter that is not installed.
    """
    given = OTELResourceDetector().detect().attributes
    own = {"service.name": service, "service.version": version("holdfast")}
    provider = TracerProvider(resource=Resource.create({**own, **given}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    try:
        yield OtelTracer(provider)
    finally:
        # By itself it waits half a minute for a collector that does not answer.
        ending = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        ending.start()
        ending.join(LAST_SECONDS)


def _exporter() -> SpanExporter:
    """The exporter asked for: as the specification has it, OTLP unless another is."""
    name = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if name == "otlp":
        name = "otlp_proto_grpc" if _protocol() == "grpc" else "otlp_proto_http"
    found = entry_points(group=_GROUP, name=name)
    if not found:
        raise InvalidError(f"there is no exporter {name} of OpenTelemetry: install it")
    exporter: SpanExporter = next(iter(found)).load()()
    return exporter


def _protocol() -> str:
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or general
