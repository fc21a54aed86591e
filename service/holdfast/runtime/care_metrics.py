"""The reads and findings of a worker's scrub, and removals by its policies, as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from holdfast.repository.care.lap import ScrubTotals
    from holdfast.repository.snapshots.prune import PruneTotals


class CareMetrics(Collector):
    """Reads the totals of a scrub and of a pruner when it is asked."""

    def __init__(
        self, scrubbed: Callable[[], ScrubTotals], pruned: Callable[[], PruneTotals]
    ) -> None:
        self._scrubbed = scrubbed
        self._pruned = pruned

    @classmethod
    def register(
        cls,
        registry: CollectorRegistry,
        scrubbed: Callable[[], ScrubTotals],
        pruned: Callable[[], PruneTotals],
    ) -> None:
        """Have ``registry`` show them."""
        registry.register(cls(scrubbed, pruned))

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        scrub, prune = self._scrubbed(), self._pruned()
        counters = {
            "scrub_laps": ("Laps of the scrub that ended here.", scrub.laps),
            "scrubbed_blobs": ("Blobs and packs that were read back.", scrub.checked),
            "scrubbed_bytes": ("Bytes of them.", scrub.bytes),
            "scrub_damaged": ("Of these, those that were damaged.", scrub.damaged),
            "scrub_healed": ("Of these, those put anew from another copy.", scrub.healed),
            "scrub_unreadable": ("Records that were unreadable or lost.", scrub.unreadable),
            "prunes": ("Policies applied to an app.", prune.runs),
            "prunes_failed": ("Of these, those that failed or were stopped.", prune.failed),
            "pruned_snapshots": ("Snapshots that they removed.", prune.removed),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"holdfast_{name}", text, value=value)
