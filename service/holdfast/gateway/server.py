"""The gateway as a server: sockets, uvicorn with guards of our own, and the drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import uvicorn

from holdfast.errors import UnavailableError
from holdfast.gateway.app import build
from holdfast.gateway.guard import GuardedProtocol, Guards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.client import Client
    from holdfast.gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)
_BACKLOG: Final = 2048


async def serve(
    client: Client,
    settings: GatewaySettings,
    stop: asyncio.Event,
    *,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Answer requests until ``stop``, then let those in flight end. ``ready`` is told the URL.

    Raises UnavailableError where the address is taken.
    """
    with _listening(settings) as listener:
        server = _Server(_config(client, settings))
        ended = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        try:
            url = settings.url(listener.getsockname()[1])
            log.info("gateway_started", url=url)
            ready(url)
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            log.info("gateway_draining")
        finally:
            server.should_exit = True
            stopping.cancel()
            await ended
        log.info("gateway_stopped")


def _config(client: Client, settings: GatewaySettings) -> uvicorn.Config:
    # Our own log tells of requests; of a short answer uvicorn makes an error.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    return uvicorn.Config(
        build(client, settings),
        http=partial(GuardedProtocol, Guards(settings)),  # type: ignore[arg-type]
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=int(settings.keep_alive_seconds),
        timeout_graceful_shutdown=int(settings.drain_seconds),
        backlog=_BACKLOG,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


class _Server(uvicorn.Server):
    """Leaves signals to its caller."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _listening(settings: GatewaySettings) -> Iterator[socket.socket]:
    host, port = settings.address
    try:
        listener = _bound(host, port)
    except OSError as error:
        msg = f"the gateway cannot listen on {settings.listen}: {error.strerror or error}"
        raise UnavailableError(msg) from error
    try:
        yield listener
    finally:
        listener.close()


def _bound(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)
