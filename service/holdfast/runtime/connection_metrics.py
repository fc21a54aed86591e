"""A worker's connection to NATS, as Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry, Metric

    from holdfast.runtime.worker import Worker
    from holdfast.transport.connection import Connection


class ConnectionMetrics(Collector):
    """Reads the counters that a connection and its worker keep, when it is asked."""

    def __init__(self, connection: Connection, worker: Worker) -> None:
        self._connection = connection
        self._worker = worker

    @classmethod
    def register(
        cls, registry: CollectorRegistry, connection: Connection, worker: Worker
    ) -> ConnectionMetrics:
        """Have ``registry`` show them."""
        metrics = cls(connection, worker)
        registry.register(metrics)
        return metrics

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        ready = self._worker.is_serving and self._connection.is_connected
        yield GaugeMetricFamily(
            "holdfast_ready", "1 while the worker serves and is connected.", value=int(ready)
        )
        yield GaugeMetricFamily(
            "holdfast_requests_in_flight", "Requests under way.", value=self._worker.in_flight
        )
        yield GaugeMetricFamily(
            "holdfast_watches", "Watches under way.", value=self._worker.watches
        )
        counters = self._connection.counters
        counted = {
            "nats_disconnects": ("Connections to NATS that were lost.", counters.disconnects),
            "nats_reconnects": ("Connections to NATS that were made anew.", counters.reconnects),
            "nats_servers_left": ("Servers left for being of no use.", counters.left),
            "nats_violations": ("Publishes and subscriptions denied.", counters.violations),
            "nats_unsent": ("Messages refused while disconnected or flooded.", counters.unsent),
            "replies_refused": (
                "Requests dropped because their reply subject is not an inbox.",
                self._worker.refused_replies,
            ),
        }
        for name, (text, value) in counted.items():
            yield CounterMetricFamily(f"holdfast_{name}", text, value=value)
