"""Prometheus metrics over HTTP, where a port is configured."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server

if TYPE_CHECKING:
    from collections.abc import Iterator


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
