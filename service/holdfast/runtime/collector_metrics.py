"""A worker's collections, as Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from holdfast.repository.collector.report import RunTotals


class CollectorMetrics(Collector):
    """Reads the totals of a collector when it is asked."""

    def __init__(self, read: Callable[[], RunTotals]) -> None:
        self._read = read

    @classmethod
    def register(
        cls, registry: CollectorRegistry, read: Callable[[], RunTotals]
    ) -> CollectorMetrics:
        """Have ``registry`` show them."""
        metrics = cls(read)
        registry.register(metrics)
        return metrics

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        totals = self._read()
        counters = {
            "collections": ("Collections that have ended.", totals.runs),
            "collections_failed": (
                "Of these, those that met something which could not be read.",
                totals.failed,
            ),
            "collected_blobs": ("Blobs and packs that were removed.", totals.removed.blobs),
            "collected_bytes": ("Bytes of them.", totals.removed.bytes),
            "repacked_packs": (
                "Packs of which only what is needed was kept.",
                totals.repacked.blobs,
            ),
            "repacked_bytes": ("Bytes that these gave back.", totals.repacked.bytes),
            "collected_orphan_chunks": (
                "Chunks that were removed because no record names them.",
                totals.orphans.chunks,
            ),
            "collected_orphan_bytes": ("Bytes of them, at the most.", totals.orphans.bytes),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"holdfast_{name}", text, value=value)
