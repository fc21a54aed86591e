"""Bytes that do not fill a part are kept as the upload's tail: acknowledged, they are there.

Whoever sends them may do so in any pieces to any worker, and each worker may die or be paused.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contracts.blob_store import some_bytes
from tests.examples import examples
from tests.repository.pool import (
    PART_BYTES,
    Doom,
    Pause,
    Pool,
    lives,
    open_upload,
    parts_of,
    resume,
)

from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, HoldfastError, InvalidError, NotFoundError
from holdfast.repository.uploads.owned import CONFIRM_SECONDS, Opened
from holdfast.repository.uploads.record import Result
from holdfast.repository.uploads.stagings import living_stagings
from holdfast.stores.wrappers.forwarding import ForwardingBlobStore, ForwardingStagedBlob

if TYPE_CHECKING:
    from collections.abc import Buffer

    from holdfast.repository.uploads.uploads import UploadService
    from holdfast.stores.ports import BlobStore, StagedBlob

DATA: Final = some_bytes(3 * PART_BYTES + 7)
MOST_CALLS: Final = 60


async def send_from(worker: UploadService, upload: str, offset: int, data: bytes) -> None:
    """Send bytes as a gateway does: fill the part that was begun, then whole ones, a tail."""
    while data:
        part, at = divmod(offset, PART_BYTES)
        piece = data[: PART_BYTES - at]
        if len(piece) == PART_BYTES:
            await worker.part(upload, part, piece)
        else:
            await worker.tail(upload, part, at, piece)
        offset, data = offset + len(piece), data[len(piece) :]


async def end(worker: UploadService, upload: str, data: bytes = DATA) -> Result:
    return await worker.final(upload, len(parts_of(data)), digest_of(data))


async def held(pool: Pool, worker: UploadService, upload: str) -> int:
    """How many bytes the upload holds, by the word of its next owner."""
    state = await resume(pool, worker, upload)
    assert isinstance(state, Opened)
    return state.size


async def check_whole(pool: Pool, result: Result, data: bytes = DATA) -> None:
    assert (result.digest, result.size) == (digest_of(data), len(data))
    assert await pool.stored() == {digest_of(data): data}
    assert await pool.leftovers() == {}


@given(
    size=st.integers(0, 4 * PART_BYTES),
    pieces=st.lists(st.tuples(st.integers(1, 2 * PART_BYTES), st.integers(0, 2)), max_size=30),
)
@examples(200)
def test_bytes_in_any_pieces_through_any_workers_become_the_blob(
    size: int, pieces: list[tuple[int, int]]
) -> None:
    async def upload_it() -> None:
        pool, data, offset = Pool(), some_bytes(size), 0
        workers = [pool.worker(f"w{number}") for number in range(3)]
        upload = (await open_upload(workers[0], size=size)).upload
        for length, number in [*pieces, (size, 0)]:
            worker = workers[number]
            assert await held(pool, worker, upload) == offset
            piece = data[offset : offset + length]
            await send_from(worker, upload, offset, piece)
            offset += len(piece)
            assert await worker.keep(upload) == offset
        await check_whole(pool, await end(workers[0], upload, data), data)

    asyncio.run(upload_it())


async def test_a_tail_that_comes_again_is_a_repeat_and_with_other_bytes_a_conflict(
    pool: Pool,
) -> None:
    worker = pool.worker("a")
    upload = (await open_upload(worker)).upload
    await worker.tail(upload, 0, 0, DATA[:5])

    assert await worker.tail(upload, 0, 0, DATA[:5]) == 5
    assert await worker.tail(upload, 0, 2, DATA[2:4]) == 5
    assert await worker.tail(upload, 0, 3, DATA[3:9]) == 9
    with pytest.raises(ConflictError):
        await worker.tail(upload, 0, 0, b"other")
    assert await worker.keep(upload) == 9


async def test_a_gap_and_too_many_bytes_are_refused_and_change_nothing(pool: Pool) -> None:
    worker = pool.worker("a")
    upload = (await open_upload(worker)).upload
    await worker.tail(upload, 0, 0, DATA[:5])

    for part, at, size in ((0, 6, 1), (1, 0, 1), (0, 5, PART_BYTES)):
        with pytest.raises(InvalidError):
            await worker.tail(upload, part, at, bytes(size))

    assert await worker.keep(upload) == 5


async def test_the_whole_part_comes_in_the_place_of_its_tail(pool: Pool) -> None:
    worker = pool.worker("a")
    upload = (await open_upload(worker)).upload
    await worker.tail(upload, 0, 0, DATA[:5])

    await worker.part(upload, 0, DATA[:PART_BYTES])

    assert await worker.tail(upload, 0, 5, DATA[5:9]) == PART_BYTES  # a late repeat
    await send_from(worker, upload, PART_BYTES, DATA[PART_BYTES:])
    await check_whole(pool, await end(worker, upload))


async def test_nothing_follows_an_end(pool: Pool) -> None:
    worker = pool.worker("a")
    upload = (await open_upload(worker)).upload
    await send_from(worker, upload, 0, DATA)
    await end(worker, upload)

    with pytest.raises(ConflictError):
        await worker.tail(upload, 3, 7, b"more")


async def test_what_an_upload_has_of_a_part_goes_when_it_is_given_up(pool: Pool) -> None:
    worker, other = pool.worker("a"), pool.worker("b")
    upload = (await open_upload(worker)).upload
    for offset in range(0, 9, 3):
        await worker.tail(upload, 0, offset, DATA[offset : offset + 3])
    await resume(pool, other, upload)
    await other.tail(upload, 0, 9, DATA[9:11])

    await other.abort(upload)

    assert await pool.leftovers() == {}
    with pytest.raises(NotFoundError):
        await worker.look(upload)


async def test_the_collector_is_told_of_a_tail(pool: Pool) -> None:
    worker = pool.worker("a")
    upload = (await open_upload(worker)).upload
    await worker.part(upload, 0, DATA[:PART_BYTES])
    await worker.tail(upload, 1, 0, DATA[PART_BYTES : PART_BYTES + 3])

    living = await living_stagings(pool.records)

    assert set(await pool.leftovers()) <= living


class Slow(ForwardingBlobStore):
    """Whole parts are stored once they are ``let``; tails at once."""

    def __init__(self, inner: BlobStore) -> None:
        super().__init__(inner)
        self.let = asyncio.Event()

    def stage(self, staging: str, part_size: int) -> StagedBlob:
        """See `BlobStore.stage`."""
        return _SlowStaged(self, self._inner.stage(staging, part_size))


class _SlowStaged(ForwardingStagedBlob):
    def __init__(self, store: Slow, inner: StagedBlob) -> None:
        super().__init__(store, inner)
        self._let = store.let

    async def write(self, part: int, data: Buffer) -> None:
        if len(memoryview(data)) == PART_BYTES:
            await self._let.wait()
        await super().write(part, data)


async def test_a_tail_counts_only_once_all_parts_before_it_are_stored(pool: Pool) -> None:
    slow = Slow(pool.blobs)
    worker = pool.worker("a", blobs=slow)
    upload = (await open_upload(worker)).upload
    part = asyncio.create_task(worker.part(upload, 0, DATA[:PART_BYTES]))
    tail = asyncio.create_task(worker.tail(upload, 1, 0, DATA[PART_BYTES : PART_BYTES + 3]))
    for _ in range(100):  # as far as it gets
        await asyncio.sleep(0)

    assert (await worker.look(upload)).tail is None
    assert not tail.done()
    slow.let.set()
    assert (await part, await tail) == (0, PART_BYTES + 3)


async def test_any_worker_says_where_an_upload_goes_on_without_taking_it_over(pool: Pool) -> None:
    owner, other = pool.worker("a"), pool.worker("b")
    opened = await owner.open(size=9, digest=None, type="a/b", op_id=None, note="a note")
    assert isinstance(opened, Opened)

    record = await other.look(opened.upload)

    assert (record.owner, record.size, record.note, record.result) == ("a", 9, "a note", None)
    await owner.part(opened.upload, 0, DATA[:9])
    result = await owner.final(opened.upload, 1, None)
    assert (await other.look(opened.upload)).result == result


@pytest.mark.parametrize(
    "applied", [pytest.param(False, id="before"), pytest.param(True, id="after")]
)
async def test_a_worker_may_die_at_any_call_and_what_it_acknowledged_is_there(
    applied: bool,
) -> None:
    cuts = [3, 9, PART_BYTES + 4, 2 * PART_BYTES, len(DATA)]
    deaths = 0
    for call in range(1, MOST_CALLS):
        pool = Pool()
        doom = Doom(call, applied=applied)
        worker, other = pool.worker("a", doom=doom), pool.worker("b")
        upload = (await open_upload(pool.worker("first"))).upload
        acknowledged = 0

        async def work(worker: UploadService = worker, upload: str = upload) -> bool:
            nonlocal acknowledged
            await worker.resume(upload)
            for start, stop in zip([0, *cuts], cuts, strict=False):
                await send_from(worker, upload, start, DATA[start:stop])
                acknowledged = stop
            return True

        done = await lives(work(), doom)
        offset = await held(pool, other, upload)
        assert offset >= acknowledged
        await send_from(other, upload, offset, DATA[offset:])
        await check_whole(pool, await end(other, upload))
        if done:
            break
        deaths += 1
    assert 8 <= deaths < MOST_CALLS - 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_paused_owner_spoils_nothing_and_acknowledges_nothing_that_is_lost(
    after: bool,
) -> None:
    pauses = 0
    for call in range(1, MOST_CALLS):
        pool = Pool()
        pause = Pause(call, after=after)
        owner, other = pool.worker("a", doom=pause), pool.worker("b")
        upload = (await open_upload(pool.worker("first"))).upload
        state = None

        async def work(owner: UploadService = owner, upload: str = upload) -> None:
            await owner.resume(upload)
            for start, stop in ((0, 3), (3, 9), (9, 11)):
                await send_from(owner, upload, start, DATA[start:stop])

        working = asyncio.create_task(work())
        reached = asyncio.create_task(pause.reached.wait())
        await asyncio.wait({working, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        if pause.reached.is_set():
            pauses += 1
            state = await held(pool, other, upload)
            await send_from(other, upload, state, DATA[state : state + 5])
            pool.time.advance(CONFIRM_SECONDS + 1)
            pause.wake()
        with suppress(HoldfastError):
            await working
        offset = await held(pool, other, upload)
        assert state is None or offset >= min(state + 5, len(DATA))
        await send_from(other, upload, offset, DATA[offset:])
        await owner.renew()
        await check_whole(pool, await end(other, upload))
        if not pause.reached.is_set():
            break
    assert 4 <= pauses < MOST_CALLS - 1
