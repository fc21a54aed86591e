"""Looks at everything once more, when all servers and workers are well again."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import nats
from nats.js.errors import NotFoundError as NatsNotFoundError
from nats.js.errors import ObjectNotFoundError
from tests.cluster.checker import Found
from tests.e2e_snapshots.trees import contents

from holdfast.client import connect
from holdfast.domain.digest import digest_of
from holdfast.errors import CorruptError, NotFoundError

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable

    from tests.cluster.checker import Sight
    from tests.cluster.load import Load
    from tests.cluster.servers import Cluster, View

    from holdfast.client import Client

VIEWS_SECONDS: Final = 15.0
_AT_ONCE: Final = 8
_BLOBS_BY_STOCK_CLIENT: Final = 40
_SNAPSHOTS_RESTORED: Final = 8
_STOCK_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.25


async def survey(load: Load, rng: random.Random, directory: Path) -> Found:
    """Read back every blob and snapshot, some of them in more than one way.

    The workers are stopped before the replicas are compared.
    """
    found = Found()
    pool = load.pool
    async with await connect(servers=pool.servers, prefix=pool.prefix) as client:
        await _each(load.blobs, lambda digest: _look_at_blob(client, load, digest, found))
        await _each(load.snapshots, lambda key: _look_at_snapshot(client, key, found))
        some = rng.sample(sorted(load.snapshots), min(_SNAPSHOTS_RESTORED, len(load.snapshots)))
        for number, key in enumerate(some):
            target = directory / f"{number}"
            await client.snapshots.restore_to(key, target)
            same = contents(target) == load.snapshots[key]
            found.sights[key].append(("a restore", "right" if same else "wrong"))
    digests = rng.sample(sorted(load.blobs), min(_BLOBS_BY_STOCK_CLIENT, len(load.blobs)))
    for name in pool.cluster.servers:
        await _look_from(load, name, digests, found)
    for place, stored in load.restoring.items():
        found.restored[place] = _sight_of_tree(Path(place), stored)
    await pool.drain()
    found.views = await _views(pool.cluster, pool.streams)
    return found


async def _each(keys: Iterable[str], look: Callable[[str], Awaitable[None]]) -> None:
    for batch in itertools.batched(keys, _AT_ONCE):
        await asyncio.gather(*(look(key) for key in batch))


async def _look_at_blob(client: Client, load: Load, digest: str, found: Found) -> None:
    try:
        sight: Sight = "right" if await client.get(digest) == load.blobs[digest].data else "wrong"
    except NotFoundError:
        sight = "missing"
    except CorruptError:
        sight = "wrong"
    found.sights[digest].append(("a client", sight))


async def _look_at_snapshot(client: Client, key: str, found: Found) -> None:
    try:
        pages = [page async for page in client.snapshots.verify(key)]
        sight: Sight = "wrong" if any(page.damaged for page in pages) else "right"
    except NotFoundError:
        sight = "missing"
    found.sights[key].append(("verify", sight))


async def _look_from(load: Load, server: str, digests: list[str], found: Found) -> None:
    """With nats-py's own object store, connected to one server."""
    cluster = load.pool.cluster
    stock = await nats.connect(cluster.servers[server].url, allow_reconnect=False)
    try:
        store = await stock.jetstream().object_store(load.pool.bucket)
        for digest in digests:
            try:
                async with asyncio.timeout(_STOCK_SECONDS):  # it waits for ever for lost chunks
                    data = (await store.get(digest)).data
                sight: Sight = "right" if data and digest_of(data) == digest else "wrong"
            except (NatsNotFoundError, ObjectNotFoundError):
                sight = "missing"
            except TimeoutError:
                sight = "wrong"
            found.sights[digest].append((f"nats-py at {server}", sight))
    finally:
        await stock.close()


def _sight_of_tree(tree: Path, stored: dict[bytes, str]) -> Sight:
    if not tree.exists():
        return "missing"
    return "right" if contents(tree) == stored else "wrong"


async def _views(cluster: Cluster, streams: Iterable[str]) -> dict[str, dict[str, View]]:
    """Each server's copy of each stream: once they agree, or after a while as it is."""
    wanted = set(streams)
    views, agreed = await _wait_agreed(cluster, wanted)
    if not agreed:
        # Markers of removed keys live for a minute, and may have come back with a killed server.
        await cluster.forget_expiries()
        await cluster.wait_settled([*wanted])
        views, _ = await _wait_agreed(cluster, wanted)
    return views


async def _wait_agreed(
    cluster: Cluster, wanted: set[str]
) -> tuple[dict[str, dict[str, View]], bool]:
    deadline = time.monotonic() + VIEWS_SECONDS
    while True:
        views = {name: view for name, view in (await cluster.views()).items() if name in wanted}
        agreed = views.keys() == wanted and all(
            len(view) == len(cluster.servers) and len(set(view.values())) == 1
            for view in views.values()
        )
        if agreed or time.monotonic() > deadline:
            return views, agreed
        await asyncio.sleep(_POLL_SECONDS)
