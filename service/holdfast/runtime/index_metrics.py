"""The progress of a worker's index of names, as Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from holdfast.repository.names.index.follower import IndexState


class IndexMetrics(Collector):
    """Reads the state of an index when it is asked."""

    def __init__(self, read: Callable[[], IndexState]) -> None:
        self._read = read

    @classmethod
    def register(cls, registry: CollectorRegistry, read: Callable[[], IndexState]) -> IndexMetrics:
        """Have ``registry`` show it."""
        metrics = cls(read)
        registry.register(metrics)
        return metrics

    def collect(self) -> Iterator[Metric]:
        """All of it, as it is now."""
        state = self._read()
        gauges = {
            "ready": ("1 while names are listed by this worker.", int(state.is_ready)),
            "names": ("Names in the index of this worker.", state.names),
            "lag": (
                "Changes of names that the index is behind.",
                max(state.last - state.position, 0),
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"holdfast_index_{name}", text, value=value)
        yield CounterMetricFamily(
            "holdfast_index_rebuilt", "Times that the index was built anew.", value=state.rebuilt
        )
