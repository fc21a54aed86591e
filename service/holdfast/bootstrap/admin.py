"""Work on a store by hand: it is made, it is watched, its copies are changed."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import (
    Stores,
    create_on_disk,
    is_on_disk,
    keep_older_out,
    open_on_disk,
    open_stores,
    upgrade_on_disk,
)
from holdfast.client.discovery import find_workers
from holdfast.client.requests import Requester
from holdfast.errors import InvalidError, UnavailableError
from holdfast.protocol.blobs import COLLECT_FEATURE
from holdfast.runtime.startup import check_server_version, missing_right_told
from holdfast.stores.deployment import (
    FORMAT,
    GRACE_SECONDS,
    OLD_FORMAT,
    find_deployment,
    raise_format,
    read_deployment,
    write_deployment,
)
from holdfast.stores.deployment import accept_loss as forget_loss
from holdfast.stores.jetstream.buckets.provisioning import (
    bucket_names,
    ensure_stream,
    log_stream,
    object_stream,
    record_stream,
)
from holdfast.stores.jetstream.buckets.readiness import NotReadyError, wait_ready
from holdfast.stores.jetstream.buckets.replication import wait_for_leader
from holdfast.stores.location import BucketLocation, DiskLocation, parse_location
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from holdfast.runtime.config import Config
    from holdfast.runtime.store_watch import StoreWatch

LEADER_SECONDS: Final = 10.0
"""Time that a bucket just made may be without a leader."""

LOOK_FOR_WORKERS_SECONDS: Final = 1.0
MAX_GRACE_SECONDS: Final = 366 * 24 * 3600
INIT_SECONDS: Final = 30.0
"""A server that is starting, or has much to do, takes seconds to make a bucket."""


async def init_store(
    config: Config,
    *,
    grace_seconds: int | None = None,
    wait_seconds: float = INIT_SECONDS,
    waiting: Callable[[str], None] = lambda _why: None,
) -> list[str]:
    """Create the store's buckets where they are missing; a sentence about each.

    For ``grace_seconds`` a collector leaves alone what nothing refers to (None: a day); of a store
    that is there that stays as it is. Troubles that may pass (no connection, no leader, too few
    servers so far) are waited for; ``waiting`` is told what it is. Raises ConflictError when a
    bucket is there that does not fit, ForbiddenError, UnavailableError.
    """
    if grace_seconds is not None and not 1 <= grace_seconds <= MAX_GRACE_SECONDS:
        raise InvalidError(f"the grace time is 1 to {MAX_GRACE_SECONDS} seconds")
    return await _make(
        config,
        partial(_make_buckets, grace_seconds=grace_seconds),
        partial(_make_on_disk, grace_seconds=grace_seconds),
        wait_seconds,
        waiting,
    )


async def upgrade_store(
    config: Config,
    *,
    wait_seconds: float = INIT_SECONDS,
    waiting: Callable[[str], None] = lambda _why: None,
) -> list[str]:
    """Add to a store of an older version what this one needs; a sentence about each part.

    Collection begins, a grace time later, if no worker of an older version answers. As
    `init_store`, but raises UnavailableError where no store was set up.
    """
    return await _make(config, _upgrade_buckets, _upgrade_on_disk, wait_seconds, waiting)


async def accept_loss(config: Config) -> list[str]:
    """Have collectors not miss what was lost of the records any more; of which stores.

    Raises UnavailableError, CorruptError.
    """
    async with _opened(config) as stores:
        return await forget_loss(stores.records)


@contextlib.asynccontextmanager
async def _opened(config: Config) -> AsyncIterator[Stores]:
    """The store, which was set up before. Raises UnavailableError, NotReadyError."""
    location = parse_location(config.store)
    if isinstance(location, DiskLocation):
        stores = open_on_disk(location.root, SOURCES)
        try:
            yield stores
        finally:
            await stores.aclose()
        return
    if not isinstance(location, BucketLocation):
        raise InvalidError("a memory store is its worker's own")
    async with _jetstream(config) as js:
        yield open_stores(config, js, SOURCES)


async def _make(
    config: Config,
    make_buckets: Callable[[Config, BucketLocation, JetStream], Awaitable[list[str]]],
    make_on_disk: Callable[[Config, DiskLocation], Awaitable[list[str]]],
    wait_seconds: float,
    waiting: Callable[[str], None],
) -> list[str]:
    """Have the store made where it is."""
    location = parse_location(config.store)
    if isinstance(location, DiskLocation):
        return await make_on_disk(config, location)
    if not isinstance(location, BucketLocation):
        return ["a memory store needs nothing"]

    async def attempt() -> list[str]:
        async with _jetstream(config) as js:
            check_server_version(str(js.connection.server_info.get("version", "0")))
            return await make_buckets(config, location, js)

    return await wait_ready(attempt, wait_seconds, waiting=waiting)


async def _make_buckets(
    config: Config, location: BucketLocation, js: JetStream, *, grace_seconds: int | None = None
) -> list[str]:
    names = bucket_names(location.bucket, config.prefix)
    lines = [
        *[await ensure_stream(js, object_stream(name, location)) for name in names.of_objects],
        *[await ensure_stream(js, record_stream(name, location)) for name in names.of_records],
        await ensure_stream(js, log_stream(names.states, location)),
    ]
    for stream in names.streams:
        await wait_ready(partial(wait_for_leader, js, stream), LEADER_SECONDS)
    return lines + await _record(open_stores(config, js, SOURCES), grace_seconds)


async def _record(
    stores: Stores, grace_seconds: int | None, *, is_older: bool = False
) -> list[str]:
    """Have the deployment recorded. ``is_older``: what is there was made by an older version."""
    wanted = replace(
        stores.deployment,
        grace_seconds=grace_seconds or GRACE_SECONDS,
        format=OLD_FORMAT if is_older else FORMAT,
    )
    lines = [await write_deployment(stores.records, wanted)]
    found = await read_deployment(stores.records)
    if grace_seconds not in {None, found.grace_seconds}:
        lines.append(f"the grace time stays {found.grace_seconds} s: workers count on it")
    return lines


async def _make_on_disk(
    config: Config, location: DiskLocation, *, grace_seconds: int | None = None
) -> list[str]:
    is_older = await asyncio.to_thread(is_on_disk, location.root)
    await asyncio.to_thread(create_on_disk, location.root)
    async with _opened(config) as stores:
        recorded = await _record(stores, grace_seconds, is_older=is_older)
    return [f"{location.root} is a disk store", *recorded]


async def _upgrade_buckets(config: Config, location: BucketLocation, js: JetStream) -> list[str]:
    stores = open_stores(config, js, SOURCES)
    await stores.records.check()
    await find_deployment(stores.records, stores.deployment)
    return await _make_buckets(config, location, js) + await _let_collect(config, js, stores)


async def _upgrade_on_disk(config: Config, location: DiskLocation) -> list[str]:
    await asyncio.to_thread(upgrade_on_disk, location.root)
    lines = await _make_on_disk(config, location)
    try:
        async with _opened(config) as stores, _jetstream(config) as js:
            return lines + await _let_collect(config, js, stores)
    except UnavailableError as error:
        return [*lines, f"collection stays as it is: nobody says which workers run: {error.detail}"]


async def _let_collect(config: Config, js: JetStream, stores: Stores) -> list[str]:
    """Let collection begin if no older worker answers; a sentence about it, unless it is on."""
    found = await read_deployment(stores.records)
    if found.format == FORMAT:
        return []
    requester = Requester(
        js.connection,
        Inbox(js.connection, config.nats.inbox_prefix),
        prefix=config.prefix,
        timeout_seconds=INIT_SECONDS,
    )
    workers = await find_workers(requester, LOOK_FOR_WORKERS_SECONDS)
    older = [one for one in workers if COLLECT_FEATURE not in one.features]
    if older:
        nodes = ", ".join(sorted(one.metadata.get("node", one.id) for one in older))
        return [
            f"collection stays off, for older workers answer ({nodes}): upgrade these, then repeat"
            " `holdfast admin upgrade`"
        ]
    if stores.root is not None:
        await asyncio.to_thread(keep_older_out, stores.root)
    now = max(await stores.blobs.now(), await stores.packs.now())
    begins = now + timedelta(seconds=found.grace_seconds)
    await raise_format(stores.records, begins)
    return [f"collection begins at {begins.isoformat(timespec='seconds')}"]


@contextlib.asynccontextmanager
async def watch_store(config: Config) -> AsyncIterator[StoreWatch]:
    """The buckets of the store, for commands about the store itself.

    Raises InvalidError when it has none, ForbiddenError, UnavailableError.
    """
    if not isinstance(parse_location(config.store), BucketLocation):
        raise InvalidError(f"the store {config.store} has no buckets: this is for nats://BUCKET")
    async with _jetstream(config) as js:
        yield open_stores(config, js, SOURCES).watch(config, js)


@contextlib.asynccontextmanager
async def _jetstream(config: Config) -> AsyncIterator[JetStream]:
    """On a connection of its own. Raises NotReadyError while there is no server to connect to."""
    try:
        connection = await connect(config.nats)
    except UnavailableError as error:
        raise NotReadyError(error.detail) from error
    try:
        with missing_right_told():
            inbox = Inbox(connection, config.nats.inbox_prefix)
            yield JetStream(connection, inbox, domain=config.nats.jetstream_domain or "")
    finally:
        await connection.close()
