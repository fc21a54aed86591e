"""Prometheus metrics of a gateway, and of the pool and the store as it sees them.

Why: docs/decisions.md, "Metrics of the pool are the gateway's, once".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.responses import Response

from holdfast.errors import HoldfastError
from holdfast.gateway.route import ROUTE, HttpAnswer, HttpRoute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric
    from starlette.requests import Request
    from starlette.types import Scope

    from holdfast.client import Client
    from holdfast.client.discovery import WorkerInfo
    from holdfast.protocol.status import BucketStatus, StoreStatus

STATUS_SECONDS: Final = 2.0
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)


class Meters:
    """A gateway's counts."""

    def __init__(self) -> None:
        """A registry of its own."""
        self.registry = CollectorRegistry()
        self.in_flight = Gauge(
            "holdfast_http_requests_in_flight", "Requests under way.", registry=self.registry
        )
        self._requests = Counter(
            "holdfast_http_requests",
            "Requests by method, route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "holdfast_http_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._bytes = Counter(
            "holdfast_http_bytes",
            "Bytes of bodies, received and sent.",
            ("direction",),
            registry=self.registry,
        )

    def count(
        self, scope: Scope, status: int | None, seconds: float, received: int, sent: int
    ) -> None:
        """A request has ended; with no ``status`` it was not answered."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = scope.get(ROUTE, "none")
        self._requests.labels(method, route, str(status or "none")).inc()
        self._seconds.labels(method, route).observe(seconds)
        self._bytes.labels("received").inc(received)
        self._bytes.labels("sent").inc(sent)


class MetricRoutes:
    """``/metrics``."""

    def __init__(self, client: Client, meters: Meters) -> None:
        """``client`` asks the pool how it is."""
        self._client = client
        self._meters = meters

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``: the gateway's, and those of the pool as far as it answers."""
        del request
        workers = await self._client.workers()
        try:
            status = await self._client.store_status(timeout_seconds=STATUS_SECONDS)
        except HoldfastError:
            status = None
        pool = CollectorRegistry()
        pool.register(_PoolCollector(workers, status))
        body = generate_latest(self._meters.registry) + generate_latest(pool)
        return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        return (
            HttpRoute(
                method="GET",
                path="/metrics",
                verb="read",
                summary="Metrics for Prometheus.",
                handle=self.metrics,
                answers={200: HttpAnswer(about="They.", media_type="text/plain")},
            ),
        )


class _PoolCollector(Collector):
    """The pool at one time."""

    def __init__(self, workers: Sequence[WorkerInfo], status: StoreStatus | None) -> None:
        self._workers = workers
        self._status = status

    def collect(self) -> Iterator[Metric]:
        count = GaugeMetricFamily(
            "holdfast_pool_workers", "Workers that answer, by version.", labels=["version"]
        )
        versions = [worker.version for worker in self._workers]
        for version in sorted(set(versions)):
            count.add_metric([version], versions.count(version))
        yield count
        yield self._of_workers("holdfast_pool_requests", "Requests that each answered.", "requests")
        yield self._of_workers("holdfast_pool_errors", "Of these, with an error.", "errors")
        if self._status is not None:
            yield from _store(self._status)

    def _of_workers(self, name: str, about: str, field: str) -> Metric:
        family = GaugeMetricFamily(name, about, labels=["node", "worker"])
        for worker in self._workers:
            labels = [worker.metadata.get("node", ""), worker.id]
            family.add_metric(labels, getattr(worker, field))
        return family


def _store(status: StoreStatus) -> Iterator[Metric]:
    used = GaugeMetricFamily("holdfast_pool_store_bytes", "Bytes of a bucket.", labels=["bucket"])
    most = GaugeMetricFamily(
        "holdfast_pool_store_max_bytes", "The most that it may have.", labels=["bucket"]
    )
    copies = GaugeMetricFamily(
        "holdfast_pool_store_copies",
        "Servers that have all of a bucket.",
        labels=["bucket"],
    )
    replicas = GaugeMetricFamily(
        "holdfast_pool_store_replicas", "Servers that are to have it.", labels=["bucket"]
    )
    for bucket in status.buckets:
        used.add_metric([bucket.bucket], bucket.bytes)
        copies.add_metric([bucket.bucket], _copies(bucket))
        replicas.add_metric([bucket.bucket], bucket.replicas)
        if bucket.max_bytes is not None:
            most.add_metric([bucket.bucket], bucket.max_bytes)
    problems = GaugeMetricFamily("holdfast_pool_store_problems", "Problems of the store.")
    problems.add_metric([], len(status.problems))
    yield from (used, most, copies, replicas, problems)


def _copies(bucket: BucketStatus) -> int:
    """Those that are as new as the leader's; a server without a cluster has the only one."""
    if not bucket.peers:
        return bucket.replicas
    return sum(peer.current and not peer.offline for peer in bucket.peers)
