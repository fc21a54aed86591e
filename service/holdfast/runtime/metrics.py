"""Prometheus metrics over HTTP, where a port is configured; read when somebody asks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def serve_metrics(host: str, port: int | None) -> Iterator[CollectorRegistry]:
    """A registry, served on ``host:port`` while the context lasts; with no port only kept."""
    registry = CollectorRegistry()
    if port is None:
        yield registry
        return
    server, thread = start_http_server(port, addr=host, registry=registry)
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def show(registry: CollectorRegistry, read: Callable[[], Iterator[Metric]]) -> None:
    """Have ``registry`` show what ``read`` gives, each time that it is asked."""
    registry.register(_Shown(read))


class _Shown(Collector):
    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        return self._read()
