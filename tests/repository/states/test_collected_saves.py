"""No state that was saved loses its bytes to a collector, whenever that looks, and removes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
from tests.repository.names.gated import CollectedBlobStore, Gate, GatedRecordStore
from tests.repository.pool import DoomedBlobStore
from tests.repository.states.pool import GatedJournal, StatesPool, StatesWorker

from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import HoldfastError, NotFoundError
from holdfast.repository.states.keeping import StateRoots
from holdfast.repository.states.record import STATE
from holdfast.repository.states.saves import NewSave
from holdfast.stores.ports import Attributes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STATE_BYTES: Final = b"[1]"
_TURNS: Final = 40
_MOST_CALLS: Final = 30


class HastyCollector:
    """Removes what no state needs, however young it is."""

    def __init__(self, pool: StatesPool, blobs: CollectedBlobStore) -> None:
        self._pool = pool
        self._blobs = blobs
        self._doomed: dict[Digest, int] = {}

    async def look(self) -> None:
        """List the blobs, and then read what is needed of them."""
        listed = self._blobs.listed()
        roots = StateRoots(self._pool.records)
        needed: set[Digest] = set()
        async for record in self._pool.records.list_records(STATE.prefix):
            needed.update(roots.named(record))
        self._doomed = {one: seen for one, seen in listed.items() if one not in needed}

    def remove(self) -> None:
        """Remove what was found, where it is as it was then."""
        for digest, revision in self._doomed.items():
            self._blobs.remove(digest, revision)


SAVES: Final[dict[str, Callable[[StatesWorker], Awaitable[object]]]] = {
    "bytes": lambda worker: worker.save("s", STATE_BYTES, 0),
    "a blob that is there": lambda worker: worker.saves.save(
        "s", NewSave(last_applied_index=0, digest=digest_of(STATE_BYTES))
    ),
}


@pytest.mark.parametrize("removed_late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("save", SAVES)
async def test_a_state_that_was_saved_can_be_loaded_whenever_a_collector_ran(
    save: str, removed_late: bool
) -> None:
    for call in range(_MOST_CALLS):
        pool, blobs, gate = StatesPool(), CollectedBlobStore(), Gate()
        attributes = Attributes(type="a/b", created_at=pool.time.clock(), pinned=False)
        await blobs.put(digest_of(STATE_BYTES), STATE_BYTES, attributes)
        collector = HastyCollector(pool, blobs)
        worker = StatesWorker(
            GatedJournal(pool.journal, gate),
            GatedRecordStore(pool.records, gate),
            DoomedBlobStore(blobs, gate),
            pool.time.sources,
        )
        saving = asyncio.create_task(succeeds(SAVES[save](worker)))

        made = await let_through(gate, call)
        is_done = saving.done()
        await collector.look()
        if not removed_late:
            collector.remove()
        made += await let_through(gate, _MOST_CALLS)
        collector.remove()

        other = StatesWorker(pool.journal, pool.records, blobs, pool.time.sources)
        if await saving:
            assert (await other.latest("s")).data == STATE_BYTES
        else:
            with pytest.raises(NotFoundError):
                await other.latest("s")
        if is_done:
            break
    assert 3 < call < _MOST_CALLS - 1


async def succeeds(work: Awaitable[object]) -> bool:
    """Whether it is acknowledged."""
    with suppress(HoldfastError):
        await work
        return True
    return False


async def let_through(gate: Gate, calls: int) -> int:
    """Let so many calls through, or as many as there are; how many."""
    for made in range(calls):
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if not gate.held:
            return made
        gate.let_go()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    return calls
