"""Prometheus metrics of a gateway, and of the pool and the store as it sees them.

Why: docs/decisions.md, "Metrics of the pool are the gateway's, once".
"""

from __future__ import annotations

from collections import Counter as Counted
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.responses import Response

from holdfast.errors import HoldfastError
from holdfast.gateway.http_route import ROUTE, HttpAnswer, HttpRoute, reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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


def metric_route(client: Client, meters: Meters) -> HttpRoute:
    """``GET /metrics``: the gateway's, and those of the pool as far as it answers ``client``."""

    async def metrics(_: Request) -> Response:
        workers = await client.workers()
        try:
            status = await client.store_status(timeout_seconds=STATUS_SECONDS)
        except HoldfastError:
            status = None
        pool = CollectorRegistry()
        pool.register(_PoolCollector(workers, status))
        body = generate_latest(meters.registry) + generate_latest(pool)
        return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")

    return reading(
        path="/metrics",
        summary="Metrics for Prometheus.",
        handle=metrics,
        answers={200: HttpAnswer(about="They.", media_type="text/plain")},
    )


class _PoolCollector(Collector):
    """The pool at one time."""

    def __init__(self, workers: Sequence[WorkerInfo], status: StoreStatus | None) -> None:
        self._workers = workers
        self._status = status

    def collect(self) -> Iterator[Metric]:
        workers = [((one.metadata.get("node", ""), one.id), one) for one in self._workers]
        versions = [*Counted((one.version,) for one in self._workers).items()]
        requests = [(at, one.requests) for at, one in workers]
        errors = [(at, one.errors) for at, one in workers]
        yield _gauge("workers", "Workers that answer, by version.", ["version"], versions)
        yield _gauge("requests", "Requests that each answered.", ["node", "worker"], requests)
        yield _gauge("errors", "Of these, with an error.", ["node", "worker"], errors)
        if self._status is not None:
            yield from _store(self._status)


def _store(status: StoreStatus) -> Iterator[Metric]:
    buckets = [((one.bucket,), one) for one in status.buckets]
    used = [(at, one.bytes) for at, one in buckets]
    most = [(at, one.max_bytes) for at, one in buckets if one.max_bytes is not None]
    copies = [(at, _copies(one)) for at, one in buckets]
    replicas = [(at, one.replicas) for at, one in buckets]
    yield _gauge("store_bytes", "Bytes of a bucket.", ["bucket"], used)
    yield _gauge("store_max_bytes", "The most that it may have.", ["bucket"], most)
    yield _gauge("store_copies", "Servers that have all of a bucket.", ["bucket"], copies)
    yield _gauge("store_replicas", "Servers that are to have it.", ["bucket"], replicas)
    yield _gauge("store_problems", "Problems of the store.", [], [((), len(status.problems))])


def _gauge(
    name: str, about: str, labels: Sequence[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    """Each of ``values`` is behind what the ``labels`` say."""
    family = GaugeMetricFamily(f"holdfast_pool_{name}", about, labels=labels)
    for said, value in sorted(values):
        family.add_metric(said, value)
    return family


def _copies(bucket: BucketStatus) -> int:
    """Those that are as new as the leader's; a server without a cluster has the only one."""
    if not bucket.peers:
        return bucket.replicas
    return sum(peer.current and not peer.offline for peer in bucket.peers)
