"""``holdfast gateway``: HTTP in front of a pool, or of a store of its own."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import uvloop
from cyclopts import Group, Parameter

from holdfast import client
from holdfast.bootstrap.admin import init_store
from holdfast.cli.base import exit_codes
from holdfast.cli.base.connection import connect
from holdfast.cli.base.ending import ending_soon
from holdfast.cli.base.output import print_line, say
from holdfast.cli.base.settings import ClientFlags, setting
from holdfast.cli.serving.local import environment_of, own_pool, wait_serving
from holdfast.errors import InvalidError
from holdfast.gateway.server import serve
from holdfast.gateway.settings import GatewaySettings, load_settings
from holdfast.runtime.embedded import EmbeddedServer
from holdfast.runtime.logs import configure_logging
from holdfast.runtime.spans import kept_spans

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from holdfast.client import Client
    from holdfast.runtime.config import Config
    from holdfast.runtime.pool import WorkerPool

    type Connecting = Callable[..., Coroutine[Any, Any, Client]]
    type Start = Callable[[Client, AsyncExitStack], Awaitable[None]]

_GROUP: Final = Group("HTTP", sort_key=9)
_NODE: Final = "gateway"
_setting: Final = partial(setting, get_type_hints(GatewaySettings, include_extras=True), _GROUP)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class GatewayFlags:
    """The settings of the gateway."""

    listen: Annotated[str | None, _setting("listen")] = None
    public_url: Annotated[str | None, _setting("public_url")] = None
    tokens: Annotated[str | None, _setting("tokens")] = None
    link_keys: Annotated[str | None, _setting("link_keys")] = None
    tls_cert: Annotated[str | None, Parameter("--https-cert", help="", group=_GROUP)] = None
    tls_key: Annotated[str | None, Parameter("--https-key", help="", group=_GROUP)] = None
    cors_origins: Annotated[str | None, _setting("cors_origins")] = None
    trusted_proxies: Annotated[str | None, _setting("trusted_proxies")] = None
    state: Annotated[str | None, _setting("state")] = None
    max_body_bytes: Annotated[int | None, _setting("max_body_bytes")] = None
    max_header_bytes: Annotated[int | None, _setting("max_header_bytes")] = None
    header_seconds: Annotated[float | None, _setting("header_seconds")] = None
    body_seconds: Annotated[float | None, _setting("body_seconds")] = None
    keep_alive_seconds: Annotated[float | None, _setting("keep_alive_seconds")] = None
    max_connections: Annotated[int | None, _setting("max_connections")] = None
    max_requests: Annotated[int | None, _setting("max_requests")] = None
    requests_per_second: Annotated[float | None, _setting("requests_per_second")] = None
    memory_bytes: Annotated[int | None, _setting("memory_bytes")] = None
    drain_seconds: Annotated[float | None, _setting("drain_seconds")] = None

    def load(self) -> GatewaySettings:
        """The settings, with these flags on top. Raises InvalidError."""
        return load_settings({flag.name: getattr(self, flag.name) for flag in fields(self)})


def gateway(
    *,
    flags: GatewayFlags | None = None,
    store: Annotated[
        str | None,
        Parameter(help="disk:///PATH or memory://: with a server and a worker of its own."),
    ] = None,
    connection: ClientFlags | None = None,
) -> int:
    """Answer HTTP requests until SIGTERM or Ctrl-C, then finish those in flight and exit with 0."""
    settings = (flags or GatewayFlags()).load()
    given = connection or ClientFlags()
    config = given.load().config
    configure_logging(config.log_format, config.log_level)
    if store is None:
        return _run(settings, partial(connect, given))
    if store.startswith("nats:"):
        msg = "a store in NATS has workers of its own: say --server, and leave --store away"
        raise InvalidError(msg)
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-gateway-") as directory,
        EmbeddedServer.start(Path(directory)) as server,  # in this thread: see runtime.child
    ):
        environment = environment_of(server, settings) | {"HOLDFAST_STORE": store}
        config, pool = own_pool(environment, Path(directory))
        to_own = partial(client.connect, config.nats, prefix=config.prefix)
        return _run(settings, to_own, partial(_start, config, pool))


def _run(settings: GatewaySettings, connecting: Connecting, start: Start | None = None) -> int:
    with kept_spans("holdfast-gateway") as tracer:
        return asyncio.run(
            ending_soon(_serve(settings, connecting(tracer=tracer), start)),
            loop_factory=uvloop.new_event_loop,
        )


async def _serve(
    settings: GatewaySettings, connecting: Coroutine[Any, Any, Client], start: Start | None
) -> int:
    """Serve until a signal comes; the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        hf = await stack.enter_async_context(await connecting)
        if start is not None:
            await start(hf, stack)
        await serve(hf, settings, stop, ready=print_line)
    return exit_codes.OK


async def _start(config: Config, pool: WorkerPool, hf: Client, stack: AsyncExitStack) -> None:
    """Make the store, and run a worker of it for as long as ``stack``."""
    for line in await init_store(config):
        say(line)
    await stack.enter_async_context(pool)
    await pool.start(_NODE)
    await wait_serving(hf, pool, [_NODE])
