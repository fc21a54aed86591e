"""A worker's work on states, as Prometheus metrics."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from holdfast.repository.states.totals import GROUP_SIZES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from holdfast.repository.states.totals import StateTotals


class StateMetrics(Collector):
    """Reads the totals of states when it is asked."""

    def __init__(self, read: Callable[[], StateTotals]) -> None:
        self._read = read

    @classmethod
    def register(cls, registry: CollectorRegistry, read: Callable[[], StateTotals]) -> None:
        """Have ``registry`` show them."""
        registry.register(cls(read))

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        totals = self._read()
        counters = {
            "appends": ("Requests to append that have their place in a log.", totals.requests),
            "log_bytes": ("Bytes of the groups that were written to logs.", totals.bytes),
            "saves": ("States that were saved.", totals.saves),
            "replays": ("Pages of commands that were told.", totals.replays),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"holdfast_state_{name}", text, value=value)
        yield GaugeMetricFamily(
            "holdfast_state_followers", "Followers of logs at this worker.", value=totals.followers
        )
        counts = [*accumulate(totals.sizes)]
        limits = [*map(str, GROUP_SIZES[:-1]), "+Inf"]
        yield HistogramMetricFamily(
            "holdfast_state_group_commands",
            "Commands of each group that was written.",
            buckets=[*zip(limits, counts, strict=True)],
            sum_value=totals.commands,
        )
