"""A read through every wrapper that a worker puts around its store is as long as the blob."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from tests.contracts.blob_store import ATTRIBUTES, PART_BYTES, put_staged, some_bytes

from holdfast.domain.limits import MAX_BLOB_BYTES
from holdfast.stores.memory import MemoryBlobStore
from holdfast.stores.wrappers.guarded import (
    GuardedBlobStore,
    Limits,
    Retries,
    StoreMetrics,
)

if TYPE_CHECKING:
    from holdfast.stores.ports import BlobStore

pytestmark = pytest.mark.usefixtures("quick_collections")

DATA = some_bytes(20 * PART_BYTES)


def wrapped(store: BlobStore) -> BlobStore:
    """``store`` as a worker uses it."""
    return GuardedBlobStore(
        store,
        limits=Limits(max_blob_bytes=MAX_BLOB_BYTES, max_concurrent=4),
        retries=Retries(attempts=3, timeout_seconds=30, first_wait_seconds=0.01),
        metrics=StoreMetrics.register(CollectorRegistry()),
        monotonic=time.monotonic,
    )


async def test_a_slow_read_is_not_ended_by_what_is_collected_meanwhile() -> None:
    """A context left to the garbage collector once closed the pieces half way, without a word."""
    store = wrapped(MemoryBlobStore())
    info = (await put_staged(store, DATA, ATTRIBUTES)).info
    found = b""

    async with aclosing(store.read(info, 0, info.size)) as pieces:
        async for piece in pieces:
            found += bytes(piece)
            gc.collect()
            await asyncio.sleep(0.001)

    assert found == DATA


async def test_staged_parts_are_all_read_back() -> None:
    store = wrapped(MemoryBlobStore())
    staged = store.stage("s" * 22, PART_BYTES)
    for part in range(20):
        await staged.write(part, DATA[part * PART_BYTES : (part + 1) * PART_BYTES])
    found = b""

    async for piece in store.staged_parts("s" * 22):
        found += bytes(piece)
        gc.collect()
        await asyncio.sleep(0.001)

    assert found == DATA
