"""What is done to a store by hand: it is made, it is watched, its copies are changed."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import create_on_disk, open_stores, upgrade_on_disk
from holdfast.errors import InvalidError, UnavailableError
from holdfast.runtime.startup import check_server_version, missing_right_told
from holdfast.stores.deployment import find_deployment, write_deployment
from holdfast.stores.jetstream.provisioning import (
    bucket_names,
    ensure_stream,
    object_stream,
    record_stream,
)
from holdfast.stores.jetstream.readiness import NotReadyError, wait_ready
from holdfast.stores.jetstream.replication import wait_for_leader
from holdfast.stores.location import BucketLocation, DiskLocation, parse_location
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from holdfast.runtime.config import Config
    from holdfast.runtime.store_watch import StoreWatch

LEADER_SECONDS: Final = 10.0
"""How long a bucket that was just made may be without a leader."""

INIT_SECONDS: Final = 30.0
"""A server that is starting, or has much to do, takes seconds to make a bucket."""


async def init_store(
    config: Config,
    *,
    wait_seconds: float = INIT_SECONDS,
    waiting: Callable[[str], None] = lambda _why: None,
) -> list[str]:
    """Create the store's buckets where they are missing; a sentence about each.

    What may pass by itself (no connection, no leader, too few servers so far) is waited for;
    ``waiting`` is told what it is. Raises ConflictError when a bucket is there that does not fit,
    ForbiddenError, UnavailableError.
    """
    return await _make(config, _make_buckets, create_on_disk, wait_seconds, waiting)


async def upgrade_store(
    config: Config,
    *,
    wait_seconds: float = INIT_SECONDS,
    waiting: Callable[[str], None] = lambda _why: None,
) -> list[str]:
    """Add to a store of an older version what this one needs; a sentence about each part.

    As `init_store`, but raises UnavailableError where no store was set up.
    """
    return await _make(config, _upgrade_buckets, upgrade_on_disk, wait_seconds, waiting)


async def _make(
    config: Config,
    make_buckets: Callable[[Config, BucketLocation, JetStream], Awaitable[list[str]]],
    make_on_disk: Callable[[Path], None],
    wait_seconds: float,
    waiting: Callable[[str], None],
) -> list[str]:
    """Have the store made where it is."""
    location = parse_location(config.store)
    if isinstance(location, DiskLocation):
        await asyncio.to_thread(make_on_disk, location.root)
        return [f"{location.root} is a disk store"]
    if not isinstance(location, BucketLocation):
        return ["a memory store needs nothing"]

    async def attempt() -> list[str]:
        async with _jetstream(config) as js:
            check_server_version(str(js.connection.server_info.get("version", "0")))
            return await make_buckets(config, location, js)

    return await wait_ready(attempt, wait_seconds, waiting=waiting)


async def _make_buckets(config: Config, location: BucketLocation, js: JetStream) -> list[str]:
    names = bucket_names(location.bucket, config.prefix)
    lines = [
        *[await ensure_stream(js, object_stream(name, location)) for name in names.of_objects],
        *[await ensure_stream(js, record_stream(name, location)) for name in names.of_records],
    ]
    for stream in names.streams:
        await wait_ready(partial(wait_for_leader, js, stream), LEADER_SECONDS)
    stores = open_stores(config, js, SOURCES)
    if stores.deployment is not None:
        lines.append(await write_deployment(stores.records, stores.deployment))
    return lines


async def _upgrade_buckets(config: Config, location: BucketLocation, js: JetStream) -> list[str]:
    stores = open_stores(config, js, SOURCES)
    await stores.records.check()
    if stores.deployment is not None:
        await find_deployment(stores.records, stores.deployment)
    return await _make_buckets(config, location, js)


@contextlib.asynccontextmanager
async def watch_store(config: Config) -> AsyncIterator[StoreWatch]:
    """The buckets of the store, for commands about the store itself.

    Raises InvalidError when it has none, ForbiddenError, UnavailableError.
    """
    if not isinstance(parse_location(config.store), BucketLocation):
        msg = f"the store {config.store} has no buckets: this is for nats://BUCKET"
        raise InvalidError(msg)
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
