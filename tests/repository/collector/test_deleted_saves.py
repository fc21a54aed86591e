"""A save is not lost to somebody who deletes its blob meanwhile, however young that is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

import pytest
from tests.contracts.blob_store import UNPINNED
from tests.repository.pool import DoomedBlobStore
from tests.repository.states.pool import StatesPool, StatesWorker

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.digest import digest_of
from holdfast.repository.states.keeping import StateKeeper
from holdfast.repository.states.saves import NewSave

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.collector.conftest import Deployed

T = TypeVar("T")
STATE_BYTES: Final = b"[1]"
DIGEST: Final = digest_of(STATE_BYTES)
BY_DIGEST: Final = NewSave(last_applied_index=0, digest=DIGEST)
BY_BYTES: Final = NewSave(last_applied_index=0, data=STATE_BYTES)


class AfterTheFirst:
    """Does something once the first call to a store is done, before the worker hears of it."""

    def __init__(self, then: Callable[[], Awaitable[object]]) -> None:
        self._then: Callable[[], Awaitable[object]] | None = then

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Do one call."""
        result = await function()
        if (then := self._then) is not None:
            self._then = None
            await then()
        return result


@pytest.mark.parametrize("new", [BY_DIGEST, BY_BYTES], ids=["a blob that is there", "bytes"])
async def test_a_save_outlasts_a_deletion_that_asked_before_it_was_recorded(
    deployed: Deployed, new: NewSave
) -> None:
    blobs, records = deployed.stores.blobs, deployed.stores.snapshots
    await blobs.put(DIGEST, STATE_BYTES, UNPINNED)
    has_asked = asyncio.Event()
    tasks: list[asyncio.Task[object]] = []

    async def kept() -> bool:
        is_kept = await StateKeeper(records).keeps(DIGEST)
        has_asked.set()
        await tasks[0]
        return is_kept

    async def begin_deletion() -> None:
        tasks.append(asyncio.create_task(blobs.delete(DIGEST, kept=kept)))
        await has_asked.wait()

    seen = DoomedBlobStore(blobs, AfterTheFirst(begin_deletion))
    worker = StatesWorker(StatesPool().journal, records, seen, SOURCES)
    tasks.append(asyncio.create_task(worker.saves.save("s", new)))
    await tasks[0]
    await tasks[1]

    loaded = await worker.latest("s")
    assert (loaded.save, loaded.data) == (tasks[0].result(), STATE_BYTES)
