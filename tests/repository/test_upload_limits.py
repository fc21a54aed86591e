"""How many uploads one worker carries, and with how much memory, however many come at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.contracts.blob_store import some_bytes
from tests.repository.pool import (
    PART_BYTES,
    TYPE,
    Pause,
    Pool,
    carry_on,
    finish,
    open_upload,
    parts_of,
    send,
)

from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, RateLimitedError, UnavailableError
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE
from holdfast.repository.uploads.owned import CONFIRM_SECONDS, Opened, UploadLimits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DATA: Final = some_bytes(2 * PART_BYTES + 7)
LIMITS: Final = UploadLimits(max_uploads=4, memory_bytes=20 * PART_BYTES)
MANY: Final = 200


async def outcomes(calls: list[Awaitable[Any]]) -> tuple[list[Opened], list[BaseException]]:
    """The outcomes of calls made at once."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    opened = [answer for answer in answers if isinstance(answer, Opened)]
    return opened, [answer for answer in answers if isinstance(answer, BaseException)]


@pytest.mark.parametrize("has_op_ids", [False, True])
async def test_of_many_uploads_opened_at_once_no_more_begin_than_may(
    pool: Pool, has_op_ids: bool
) -> None:
    worker = pool.worker("a", limits=LIMITS)

    opened, refused = await outcomes(
        [
            worker.open(
                size=None, digest=None, type=TYPE, op_id=str(number) if has_op_ids else None
            )
            for number in range(MANY)
        ]
    )

    assert len(opened) == worker.active == LIMITS.max_uploads
    assert sum(each.window for each in opened) <= LIMITS.memory_bytes
    assert {type(error) for error in refused} == {RateLimitedError}


async def test_of_many_uploads_taken_over_at_once_no_more_are_than_may(pool: Pool) -> None:
    uploads = [(await open_upload(pool.worker("a"))).upload for _ in range(20)]
    successor = pool.worker("b", limits=LIMITS)

    taken, refused = await outcomes([successor.resume(upload) for upload in uploads])

    assert len(taken) == successor.active == LIMITS.max_uploads
    assert sum(each.window for each in taken) <= LIMITS.memory_bytes
    assert {type(error) for error in refused} == {RateLimitedError}


async def test_places_of_uploads_that_did_not_begin_are_free_again(pool: Pool) -> None:
    worker = pool.worker("a", limits=LIMITS)
    elsewhere = (await open_upload(pool.worker("b"))).upload
    for _ in range(2 * LIMITS.max_uploads):
        opening = asyncio.create_task(open_upload(worker))
        taking = asyncio.create_task(worker.resume(elsewhere))
        await asyncio.sleep(0)
        pool.records.reachable = False
        for work in (opening, taking):
            with pytest.raises(UnavailableError):
                await work
        pool.records.reachable = True

    opened = [await open_upload(worker) for _ in range(LIMITS.max_uploads)]

    assert len(opened) == worker.active


async def test_a_worker_without_room_may_go_on_with_an_upload_of_its_own(pool: Pool) -> None:
    worker = pool.worker("a", limits=UploadLimits(max_uploads=1))
    upload = (await open_upload(worker)).upload
    await worker.part(upload, 0, parts_of(DATA)[0])
    pool.blobs.reachable = False
    with pytest.raises(UnavailableError):
        await worker.part(upload, 1, parts_of(DATA)[1])
    pool.blobs.reachable = True

    state = await worker.resume(upload)

    assert isinstance(state, Opened)
    assert state.next_part == 1
    await send(worker, upload, DATA, start=1)
    assert (await finish(worker, upload, DATA)).created


@pytest.mark.parametrize("goes_on", [True, False], ids=["goes on elsewhere", "client gone"])
async def test_an_upload_that_could_not_be_written_gives_its_place_back(
    pool: Pool, goes_on: bool
) -> None:
    worker, other = pool.worker("a", limits=UploadLimits(max_uploads=1)), pool.worker("b")
    upload = (await open_upload(worker)).upload
    pool.blobs.reachable = False
    with pytest.raises(UnavailableError):
        await worker.part(upload, 0, parts_of(DATA)[0])
    pool.blobs.reachable = True

    if goes_on:
        await carry_on(pool, other, upload, DATA)
    for _ in range(SWEEPS_PER_LEASE + 1):
        pool.time.advance(max(CONFIRM_SECONDS, UploadLimits().lease_seconds / SWEEPS_PER_LEASE))
        await other.sweep()
        await worker.renew()

    assert worker.active == 0
    assert await pool.leftovers() == {}


class LateFailure(Pause):
    """The store holds back what it is asked while ``armed``, and then fails, once."""

    def __init__(self) -> None:
        super().__init__(0)
        self.armed = False
        self.go = asyncio.Event()

    async def run[T](self, function: Callable[[], Awaitable[T]]) -> T:
        """Do one call to a store, or fail late."""
        if self.armed:
            self.reached.set()
            await self.go.wait()
            if self.armed:
                self.armed = False
                msg = "no leader"
                raise UnavailableError(msg)
        return await function()


@pytest.fixture
def failure() -> LateFailure:
    return LateFailure()


async def commit_in_vain(pool: Pool, failure: LateFailure) -> tuple[Any, str]:
    """A worker with one place, and its upload whose commit fails after its client has gone."""
    worker = pool.worker("a", doom=failure, limits=UploadLimits(max_uploads=1))
    upload = (await open_upload(worker)).upload
    await send(worker, upload, DATA)
    failure.armed = True
    finishing = asyncio.create_task(finish(worker, upload, DATA))
    await failure.reached.wait()
    finishing.cancel()
    with suppress(asyncio.CancelledError):
        await finishing
    failure.go.set()
    with suppress(UnavailableError):
        await worker.resume(upload)  # waits for the commit that is under way
    return worker, upload


async def test_an_upload_whose_commit_failed_unheard_goes_on(
    pool: Pool, failure: LateFailure
) -> None:
    worker, upload = await commit_in_vain(pool, failure)

    state = await worker.resume(upload)

    assert isinstance(state, Opened)
    assert state.next_part == len(parts_of(DATA))
    assert (await finish(worker, upload, DATA)).created
    assert await pool.stored() == {digest_of(DATA): DATA}
    assert worker.active == 0


async def test_an_upload_whose_commit_failed_unheard_may_be_given_up(
    pool: Pool, failure: LateFailure
) -> None:
    worker, upload = await commit_in_vain(pool, failure)

    assert await worker.abort(upload)

    assert worker.active == 0
    assert await pool.leftovers() == {}
    assert (await open_upload(worker)).window >= PART_BYTES
    with pytest.raises(ConflictError):
        await worker.part(upload, 0, parts_of(DATA)[0])


async def test_an_upload_whose_commit_failed_unheard_is_swept_in_time(
    pool: Pool, failure: LateFailure
) -> None:
    worker, _ = await commit_in_vain(pool, failure)

    swept = 0
    for _ in range(8):
        await worker.renew()
        swept += await worker.sweep()
        pool.time.advance(75)
    await worker.renew()

    assert (swept, worker.active) == (1, 0)
    assert await pool.leftovers() == {}
