"""``holdfast gateway``: HTTP in front of a pool, or of a store of its own."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import uvloop
from cyclopts import Group, Parameter
from msgspec import Meta

from holdfast import client
from holdfast.bootstrap.admin import init_store
from holdfast.cli import exit_codes
from holdfast.cli.output import print_line, say
from holdfast.cli.settings import ClientFlags
from holdfast.cli.up import environment_of, link_variables, wait_serving
from holdfast.errors import InvalidError
from holdfast.gateway.server import serve
from holdfast.gateway.settings import GatewaySettings, load_settings
from holdfast.runtime.config import load_config
from holdfast.runtime.embedded import EmbeddedServer
from holdfast.runtime.logs import configure_logging
from holdfast.runtime.pool import WorkerPool
from holdfast.runtime.spans import kept_spans

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.runtime.config import Config
    from holdfast.tracing import Tracer

_GROUP: Final = Group("HTTP", sort_key=9)
_TYPES: Final = get_type_hints(GatewaySettings, include_extras=True)
_NODE: Final = "gateway"


def _setting(name: str) -> Parameter:
    """The flag of ``GatewaySettings.name``, with the help text that stands there."""
    notes = getattr(_TYPES[name], "__metadata__", ())
    texts = [note.description for note in notes if isinstance(note, Meta) and note.description]
    return Parameter(help=texts[0] if texts else "", group=_GROUP, negative="")


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
        return _run(_Gateway(settings, config, given))
    if store.startswith("nats:"):
        msg = "a store in NATS has workers of its own: say --server, and leave --store away"
        raise InvalidError(msg)
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-gateway-") as directory,
        EmbeddedServer.start(Path(directory)) as server,  # in this thread: see runtime.child
    ):
        environment = environment_of(server) | link_variables(settings) | {"HOLDFAST_STORE": store}
        config = load_config(environ=environment).config
        return _run(_Gateway(settings, config, None, _Worker(environment, Path(directory))))


def _run(gateway: _Gateway) -> int:
    with kept_spans("holdfast-gateway") as tracer:
        return asyncio.run(gateway.run(tracer), loop_factory=uvloop.new_event_loop)


@dataclass(frozen=True, slots=True)
class _Worker:
    """The gateway's own worker: its environment, and where it logs."""

    environment: dict[str, str]
    directory: Path


@dataclass(frozen=True, slots=True)
class _Gateway:
    """The gateway of one process, perhaps with a ``worker``."""

    settings: GatewaySettings
    config: Config
    flags: ClientFlags | None
    worker: _Worker | None = None

    async def run(self, tracer: Tracer) -> int:
        """Serve until a signal comes; the exit status. ``tracer`` makes a span of each request."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            hf = await stack.enter_async_context(await self._connect(tracer))
            if self.worker is not None:
                await self._start(self.worker, hf, stack)
            await serve(hf, self.settings, stop, ready=print_line)
        return exit_codes.OK

    async def _connect(self, tracer: Tracer) -> Client:
        flags = self.flags
        renew: Any = None if flags is None else (lambda: flags.load().config.nats)
        return await client.connect(
            self.config.nats,
            prefix=self.config.prefix,
            timeout_seconds=30 if flags is None else flags.timeout,
            renew=renew,
            tracer=tracer,
        )

    async def _start(self, worker: _Worker, hf: Client, stack: AsyncExitStack) -> None:
        for line in await init_store(self.config):
            say(line)
        pool = WorkerPool(
            worker.environment,
            worker.directory,
            drain_seconds=self.config.drain_seconds,
            announce=say,
        )
        await stack.enter_async_context(pool)
        await pool.start(_NODE)
        await wait_serving(hf, pool, [_NODE])
