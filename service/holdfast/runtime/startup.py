"""The checks before a worker serves: servers and buckets are as its settings ask.

Each refusal is one sentence that says what to change. Nothing is created or changed here: a bucket
that is not found may be on its way back. Parts that a system just started does not yet have
are waited for; a copy that is behind, or a server that is away, is no reason not to serve.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import structlog

from holdfast.deadline import first_to_end
from holdfast.domain.limits import KIB
from holdfast.domain.store_state import (
    MIN_SERVER,
    Layout,
    differences,
    payload_difference,
    server_version,
    too_few_servers,
    troubles,
    version_text,
)
from holdfast.errors import ForbiddenError, NotFoundError, UnavailableError
from holdfast.stores.jetstream.buckets.readiness import NotReadyError, wait_ready
from holdfast.stores.jetstream.buckets.replication import read_bucket
from holdfast.transport.jetstream_messages import DeniedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

    from holdfast.runtime.monitoring import Servers
    from holdfast.transport.jetstream import JetStream

MIN_PAYLOAD_BYTES: Final = 16 * KIB
"""The least that is tested: what a worker says of itself in discovery has to fit."""
READY_SECONDS: Final = 30.0
"""Time to wait for a store that has no leader, or does not answer."""
log = structlog.get_logger(__name__)


def check_server_version(version: str, name: str = "") -> None:
    """Raises UnavailableError when the server is too old."""
    if server_version(version) < MIN_SERVER:
        who = f"{name} is nats-server {version}, which" if name else f"nats-server {version}"
        msg = f"{who} is too old: upgrade it to {version_text(MIN_SERVER)} or newer"
        raise UnavailableError(msg)


def check_servers(servers: Servers, layout: Layout, *, require_sync: bool) -> None:
    """Raises UnavailableError with what to change. Silent servers are logged."""
    for silent in servers.silent:
        log.warning("server_not_seen", monitor_url=silent.address, reason=silent.reason)
    for server in servers.known:
        if server.version:
            check_server_version(server.version, server.name)
        if server.max_payload is not None and server.max_payload < MIN_PAYLOAD_BYTES:
            msg = (
                f"{server.name} has max_payload {server.max_payload}: set it to"
                f" {MIN_PAYLOAD_BYTES} or more in its configuration"
            )
            raise UnavailableError(msg)
    for fault in (
        payload_difference(servers.known),
        too_few_servers(layout.replicas, servers.known),
        _unsynced(servers) if require_sync else None,
    ):
        if fault is not None:
            raise UnavailableError(fault)


def _unsynced(servers: Servers) -> str | None:
    if servers.durability == "synced":
        return None
    if servers.durability == "lazy":
        lazy = " and ".join(s.name for s in servers.told if s.durability == "lazy")
        return (
            f"require_sync is set and the writes of {lazy} are lazy: set sync_interval: always in"
            " the jetstream block of its configuration"
        )
    if not servers.told and not servers.silent:
        return (
            "require_sync is set and whether writes are synced is unknown: set monitor_url to the"
            " monitoring addresses of the nats-servers"
        )
    return (
        "require_sync is set and whether writes are synced is unknown: only"
        f" {len(servers.told)} of {len(servers.told) + len(servers.silent)} monitoring addresses"
        " answer, and it takes more than half"
    )


class StoppedError(Exception):
    """The worker was told to stop before it served."""


@contextlib.contextmanager
def missing_right_told() -> Iterator[None]:
    """Turns DeniedError into ForbiddenError: for the operator, which right is missing."""
    try:
        yield
    except DeniedError as error:
        raise ForbiddenError(str(error.__cause__ or error)) from error


async def check_stores[T](check: Callable[[], Awaitable[T]]) -> T:
    """The result of ``check``, run again at NotReadyError, for half a minute at most.

    Raises UnavailableError with what to change.
    """

    def waiting(why: str) -> None:
        log.warning("store_not_ready", detail=why)

    try:
        return await wait_ready(check, READY_SECONDS, waiting=waiting)
    except NotReadyError as error:
        msg = (
            f"{error.detail}, for {READY_SECONDS:.0f} s: see whether most of the nats-servers run"
            " and reach one another"
        )
        raise UnavailableError(msg) from error


async def unless_stopped[T](work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T:
    """The outcome of ``work``. Raises StoppedError when ``stop`` comes first."""

    async def stopped() -> T:
        await stop.wait()
        raise StoppedError

    return await first_to_end(work, stopped())


async def check_layout(js: JetStream, streams: Sequence[str], layout: Layout) -> None:
    """Whether the buckets are kept as ``layout`` says. Raises UnavailableError with what to change.

    Copies that are behind or away are logged.
    """
    for stream in streams:
        try:
            state = await read_bucket(js, stream)
        except NotFoundError as error:  # it has just been there
            msg = f"{stream} is not there; `holdfast admin init` makes it"
            raise UnavailableError(msg) from error
        for difference in differences(state, layout):
            raise UnavailableError(difference)
        for trouble in troubles(state):
            log.warning("bucket_degraded", detail=trouble)
