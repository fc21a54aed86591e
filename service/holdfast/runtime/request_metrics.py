"""The requests that a worker answered, and its pool's clocks, as Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import timedelta

    from prometheus_client import CollectorRegistry, Metric

    from holdfast.protocol.operation import AnyOperation
    from holdfast.runtime.statistics import EndpointStats

_NS: Final = 1e9


class RequestMetrics(Collector):
    """Reads the counters of a worker, and what it knows of other clocks, when it is asked."""

    def __init__(
        self,
        stats: Callable[[], Mapping[AnyOperation, EndpointStats]],
        clocks: Callable[[], Mapping[str, timedelta]],
    ) -> None:
        self._stats = stats
        self._clocks = clocks

    @classmethod
    def register(
        cls,
        registry: CollectorRegistry,
        stats: Callable[[], Mapping[AnyOperation, EndpointStats]],
        clocks: Callable[[], Mapping[str, timedelta]],
    ) -> None:
        """Have ``registry`` show them."""
        registry.register(cls(stats, clocks))

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now. Operations that nobody asked for are left out."""
        seconds = SummaryMetricFamily(
            "holdfast_request_seconds",
            "Requests that were answered, and the seconds that this took.",
            labels=["subject"],
        )
        errors = CounterMetricFamily(
            "holdfast_request_errors", "Of these, failures by code.", labels=["subject", "code"]
        )
        for operation, stats in self._stats().items():
            if stats.requests:
                seconds.add_metric([operation.subject], stats.requests, stats.processing_ns / _NS)
            for code, count in stats.codes.items():
                errors.add_metric([operation.subject, code], count)
        clocks = GaugeMetricFamily(
            "holdfast_clock_ahead_seconds",
            "Seconds that a node's clock is ahead of this worker's.",
            labels=["node"],
        )
        for node, ahead in self._clocks().items():
            clocks.add_metric([node], ahead.total_seconds())
        yield from (seconds, errors, clocks)
