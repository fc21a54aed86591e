"""An upload that changes its worker: the owner died, or was paused and wakes up too late."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import some_bytes
from tests.repository.pool import (
    PART_BYTES,
    Pause,
    Pool,
    carry_on,
    finish,
    open_upload,
    parts_of,
    resume,
    send,
)
from tests.repository.snapshot_records_tools import LossyRecordStore

from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, HoldfastError, NotFoundError, UnavailableError
from holdfast.repository.uploads.owned import CONFIRM_SECONDS, Opened, UploadLimits
from holdfast.repository.uploads.record import Result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.repository.uploads.uploads import UploadService

DATA = some_bytes(4 * PART_BYTES + 7)
PARTS = len(parts_of(DATA))


async def send_first(worker: UploadService, upload: str, count: int) -> None:
    """Send the first ``count`` parts."""
    for number in range(count):
        await worker.part(upload, number, parts_of(DATA)[number])


async def begun(worker: UploadService, count: int) -> str:
    """An upload of this worker, which has its first ``count`` parts."""
    upload = (await open_upload(worker)).upload
    await send_first(worker, upload, count)
    return upload


async def check_stored(pool: Pool) -> None:
    """The blob is there, and nothing else is left."""
    assert await pool.stored() == {digest_of(DATA): DATA}
    assert await pool.leftovers() == {}


@pytest.mark.fault("P02")
@pytest.mark.parametrize("sent", range(PARTS + 1))
async def test_another_worker_goes_on_after_the_parts_that_were_acknowledged(
    pool: Pool, sent: int
) -> None:
    owner, other = pool.worker("a"), pool.worker("b")
    opened = await open_upload(owner)
    await send_first(owner, opened.upload, sent)

    state = await other.resume(opened.upload)
    assert isinstance(state, Opened)
    assert (state.upload, state.next_part, state.part_size) == (opened.upload, sent, PART_BYTES)
    await send(other, opened.upload, DATA, start=sent)
    result = await finish(other, opened.upload, DATA)

    assert result == Result(digest=digest_of(DATA), size=len(DATA), created=True)
    await check_stored(pool)


@pytest.mark.fault("P05")
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("unheard", ["open", "keep", "finish"])
async def test_an_owner_that_did_not_hear_of_its_own_change_goes_on(
    pool: Pool, unheard: str, applied: bool
) -> None:
    records = LossyRecordStore(pool.records, applied=applied)
    owner = pool.worker("a", records=records)

    def lose(step: str) -> None:
        if step == unheard:
            records.lose_next()

    lose("open")
    upload = (await open_upload(owner)).upload
    await send(owner, upload, DATA)
    pool.time.advance(UploadLimits().lease_seconds / 2)
    lose("keep")
    await owner.keep(upload)
    lose("finish")
    result = await finish(owner, upload, DATA)

    assert result == Result(digest=digest_of(DATA), size=len(DATA), created=True)
    await check_stored(pool)


@pytest.mark.parametrize("workers", [3, 5])
async def test_an_upload_survives_one_worker_after_the_other(pool: Pool, workers: int) -> None:
    upload = (await open_upload(pool.worker("first"))).upload

    for number in range(workers):
        worker = pool.worker(f"w{number}")
        state = await worker.resume(upload)
        assert isinstance(state, Opened)
        if state.next_part < PARTS:
            await worker.part(upload, state.next_part, parts_of(DATA)[state.next_part])
    await carry_on(pool, pool.worker("last"), upload, DATA)

    await check_stored(pool)


async def test_the_part_size_stays_what_it_was(pool: Pool) -> None:
    upload = (await open_upload(pool.worker("a"))).upload
    await send_first(pool.worker("a"), upload, 0)

    state = await pool.worker("b").resume(upload)

    assert isinstance(state, Opened)
    assert state.part_size == PART_BYTES


async def test_the_owner_answers_a_resume_without_taking_over(pool: Pool) -> None:
    owner = pool.worker("a")
    upload = await begun(owner, 2)

    state = await owner.resume(upload)

    assert isinstance(state, Opened)
    assert state.next_part == 2
    assert list((await pool.leftovers()).values()) == [2]


@pytest.mark.parametrize("racers", [2, 5])
async def test_of_workers_that_take_over_at_once_one_wins(pool: Pool, racers: int) -> None:
    upload = await begun(pool.worker("a"), 3)
    workers = [pool.worker(f"w{number}") for number in range(racers)]

    states = await asyncio.gather(
        *(worker.resume(upload) for worker in workers), return_exceptions=True
    )

    winners = [w for w, state in zip(workers, states, strict=True) if isinstance(state, Opened)]
    losers = [state for state in states if not isinstance(state, Opened)]
    assert len(winners) == 1
    assert all(isinstance(state, UnavailableError) for state in losers)
    await send(winners[0], upload, DATA, start=3)
    await finish(winners[0], upload, DATA)
    await check_stored(pool)


@pytest.mark.parametrize("call", range(1, 20))
async def test_who_loses_the_upload_while_taking_it_over_says_that_another_is_at_it(
    pool: Pool, call: int
) -> None:
    upload = await begun(pool.worker("a"), 3)
    pause = Pause(call)
    taking = asyncio.create_task(pool.worker("b", doom=pause).resume(upload))
    reached = asyncio.create_task(pause.reached.wait())
    await asyncio.wait([taking, reached], return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    third = pool.worker("c")
    await resume(pool, third, upload)
    pause.wake()

    with suppress(UnavailableError):
        assert isinstance(await taking, Opened)

    await carry_on(pool, third, upload, DATA)
    assert await pool.stored() == {digest_of(DATA): DATA}


async def test_clients_that_ask_the_same_worker_share_one_takeover(pool: Pool) -> None:
    upload = await begun(pool.worker("a"), 2)
    other = pool.worker("b")

    states = await asyncio.gather(*(other.resume(upload) for _ in range(4)))

    assert len({(s.next_part if isinstance(s, Opened) else None) for s in states}) == 1
    assert sorted((await pool.leftovers()).values()) == [2, 2]
    await carry_on(pool, other, upload, DATA)
    assert await pool.leftovers() == {}


@pytest.mark.parametrize("steps", range(1, 30))
async def test_a_client_that_asks_again_during_the_takeover_hears_of_every_part(
    pool: Pool, steps: int
) -> None:
    upload = await begun(pool.worker("a"), 4)
    other = pool.worker("b")
    taking = asyncio.create_task(other.resume(upload))
    for _ in range(steps):
        await asyncio.sleep(0)

    again = await other.resume(upload)

    assert isinstance(again, Opened)
    assert again.next_part == 4
    assert await taking == again


class Held(Pause):
    """The store holds back what it is asked from a moment on, and then fails or does it."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__(0)
        self.armed = False
        self.go = asyncio.Event()
        self._fails = fails

    async def run[T](self, function: Callable[[], Awaitable[T]]) -> T:
        """Do one call to a store, late if that is said."""
        if self.armed:
            self.armed = False
            self.reached.set()
            await self.go.wait()
            if self._fails:
                raise UnavailableError
        return await function()


@pytest.mark.parametrize("fails", [False, True])
async def test_the_owner_counts_no_part_that_is_not_stored_yet(pool: Pool, fails: bool) -> None:
    """A client keeps nothing of what the answer to its resume says is there."""
    held = Held(fails=fails)
    owner = pool.worker("a", doom=held)
    upload = await begun(owner, 2)
    held.armed = True
    part = asyncio.create_task(owner.part(upload, 2, parts_of(DATA)[2]))
    await held.reached.wait()
    part.cancel()  # its client has waited for long enough

    resuming = asyncio.create_task(resume(pool, owner, upload))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not resuming.done()
    held.go.set()
    state = await resuming

    assert isinstance(state, Opened)
    assert state.next_part == (2 if fails else 3)
    await send(owner, upload, DATA, start=state.next_part)
    await finish(owner, upload, DATA)
    await check_stored(pool)


async def test_a_commit_that_lacks_a_part_makes_the_client_resume(pool: Pool) -> None:
    held = Held(fails=True)
    owner = pool.worker("a", doom=held)
    upload = await begun(owner, 2)
    held.armed = True
    part = asyncio.create_task(owner.part(upload, 2, parts_of(DATA)[2]))
    await held.reached.wait()
    part.cancel()
    held.go.set()
    await send(owner, upload, DATA, start=3)

    with pytest.raises(UnavailableError):
        await finish(owner, upload, DATA)
    state = await resume(pool, owner, upload)

    assert isinstance(state, Opened)
    assert state.next_part == 2
    await carry_on(pool, owner, upload, DATA)
    assert await pool.stored() == {digest_of(DATA): DATA}


async def test_a_former_owner_that_is_asked_to_resume_does_not_answer_from_memory(
    pool: Pool,
) -> None:
    owner, other = pool.worker("a"), pool.worker("b")
    upload = await begun(owner, 2)
    await other.resume(upload)
    await other.part(upload, 2, parts_of(DATA)[2])

    state = await owner.resume(upload)

    assert isinstance(state, Opened)
    assert state.next_part == 3
    await send(owner, upload, DATA, start=3)
    assert await finish(owner, upload, DATA) == await owner.resume(upload)
    pool.time.advance(CONFIRM_SECONDS)
    await other.renew()
    assert await pool.leftovers() == {}


@pytest.mark.fault("P06")
async def test_parts_that_a_former_owner_acknowledged_are_not_lost(pool: Pool) -> None:
    """A resume that a stopped worker finds when it wakes up takes the upload from its owner."""
    owner, late = pool.worker("a"), pool.worker("b")
    upload = await begun(owner, 1)
    await late.resume(upload)
    await owner.part(upload, 1, parts_of(DATA)[1])
    await owner.part(upload, 2, parts_of(DATA)[2])
    pool.time.advance(CONFIRM_SECONDS)
    with pytest.raises(ConflictError):
        await owner.part(upload, 3, parts_of(DATA)[3])

    state = await late.resume(upload)

    assert isinstance(state, Opened)
    assert state.next_part == 3
    await send(late, upload, DATA, start=3)
    await finish(late, upload, DATA)
    await check_stored(pool)


@pytest.mark.fault("P06")
@pytest.mark.parametrize("wakes", ["part", "repeat", "final", "renew"])
@pytest.mark.parametrize("committed", [False, True], ids=["goes on", "committed"])
async def test_an_owner_that_was_paused_and_wakes_up_spoils_nothing(
    pool: Pool, wakes: str, committed: bool
) -> None:
    owner, other = pool.worker("a"), pool.worker("b")
    upload = await begun(owner, 2)

    pool.time.advance(CONFIRM_SECONDS + 1)  # the owner is stopped meanwhile
    await other.resume(upload)
    await send(other, upload, DATA, start=2)
    if committed:
        await finish(other, upload, DATA)

    match wakes:
        case "part":
            with pytest.raises(ConflictError):
                await owner.part(upload, 2, parts_of(DATA)[2])
        case "repeat":
            with pytest.raises(ConflictError):
                await owner.part(upload, 1, parts_of(DATA)[1])
        case "final":
            with pytest.raises(ConflictError):
                await owner.final(upload, 2, None)
        case _:
            pass
    await owner.renew()

    await finish(other, upload, DATA)
    assert await pool.stored() == {digest_of(DATA): DATA}
    assert owner.active == 0
    assert await pool.leftovers() == {}


@pytest.mark.parametrize("paused_seconds", [1, CONFIRM_SECONDS + 1])
async def test_a_former_owner_may_be_asked_to_abort_what_another_carries_on(
    pool: Pool, paused_seconds: float
) -> None:
    owner, other = pool.worker("a"), pool.worker("b")
    upload = await begun(owner, 2)
    pool.time.advance(paused_seconds)
    await other.resume(upload)

    assert await owner.abort(upload)

    with pytest.raises(HoldfastError):
        await other.final(upload, 2, None)
    pool.time.advance(CONFIRM_SECONDS + 1)
    await owner.renew()
    await other.renew()
    assert (owner.active, other.active) == (0, 0)
    assert await pool.stored() == {}
    assert await pool.leftovers() == {}


@pytest.mark.fault("P06")
async def test_an_owner_that_has_not_looked_yet_writes_where_it_hurts_nobody(pool: Pool) -> None:
    owner, other = pool.worker("a"), pool.worker("b")
    upload = await begun(owner, 2)
    await carry_on(pool, other, upload, DATA)

    await owner.part(upload, 2, b"other bytes".ljust(PART_BYTES))
    with pytest.raises(ConflictError):
        await owner.final(upload, 3, None)

    assert await pool.stored() == {digest_of(DATA): DATA}
    pool.time.advance(CONFIRM_SECONDS)
    await owner.renew()
    assert owner.active == 0
    assert await pool.leftovers() == {}


async def test_the_owner_that_lost_the_upload_may_take_it_back(pool: Pool) -> None:
    owner, other = pool.worker("a"), pool.worker("b")
    upload = await begun(owner, 1)
    pool.time.advance(CONFIRM_SECONDS + 1)
    await other.resume(upload)
    await other.part(upload, 1, parts_of(DATA)[1])
    with pytest.raises(ConflictError):
        await owner.part(upload, 1, parts_of(DATA)[1])

    result = await carry_on(pool, owner, upload, DATA)

    assert result.created
    assert await pool.stored() == {digest_of(DATA): DATA}
    pool.time.advance(CONFIRM_SECONDS + 1)
    await other.renew()
    assert await pool.leftovers() == {}


async def test_a_worker_that_has_no_room_takes_nothing_over(pool: Pool) -> None:
    upload = await begun(owner := pool.worker("a"), 2)
    full = pool.worker("b", limits=UploadLimits(max_uploads=1))
    await open_upload(full)

    with pytest.raises(HoldfastError) as refused:
        await full.resume(upload)

    assert refused.value.code == "rate_limited"
    await send(owner, upload, DATA, start=2)
    assert (await finish(owner, upload, DATA)).created


@pytest.mark.fault("N16")
async def test_a_store_that_is_cut_off_during_a_takeover_costs_nothing_but_time(
    pool: Pool,
) -> None:
    upload = await begun(pool.worker("a"), 3)
    other = pool.worker("b")

    taking = asyncio.create_task(other.resume(upload))
    await asyncio.sleep(0)
    pool.blobs.reachable = False
    with pytest.raises(UnavailableError):
        await taking
    pool.blobs.reachable = True

    state = await resume(pool, other, upload)
    assert isinstance(state, Opened)
    assert state.next_part == 3
    await send(other, upload, DATA, start=3)
    await finish(other, upload, DATA)
    await check_stored(pool)


async def test_a_part_that_could_not_be_stored_makes_the_client_resume(pool: Pool) -> None:
    worker = pool.worker("a")
    upload = await begun(worker, 2)
    pool.blobs.reachable = False
    with pytest.raises(UnavailableError):
        await worker.part(upload, 2, parts_of(DATA)[2])
    pool.blobs.reachable = True

    with pytest.raises(ConflictError):
        await worker.part(upload, 3, parts_of(DATA)[3])
    result = await carry_on(pool, worker, upload, DATA)

    assert result.created
    await check_stored(pool)


async def test_what_was_given_up_cannot_be_resumed(pool: Pool) -> None:
    worker = pool.worker("a")
    upload = (await open_upload(worker)).upload
    await worker.abort(upload)

    with pytest.raises(NotFoundError):
        await pool.worker("b").resume(upload)


@pytest.mark.parametrize("call", range(8, 20))
async def test_whoever_resumes_at_an_owner_that_loses_its_commit_is_told_how_to_go_on(
    pool: Pool, call: int
) -> None:
    pause = Pause(call)
    owner, other = pool.worker("a", doom=pause), pool.worker("b")
    opened = await open_upload(owner)
    await send(owner, opened.upload, DATA)
    ending = asyncio.create_task(finish(owner, opened.upload, DATA))
    reached = asyncio.create_task(pause.reached.wait())
    await asyncio.wait({ending, reached}, return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    if pause.reached.is_set():
        with suppress(HoldfastError):
            await other.resume(opened.upload)

    again = asyncio.create_task(owner.resume(opened.upload))
    await asyncio.sleep(0)
    pause.wake()

    with suppress(HoldfastError):
        await ending
    with suppress(UnavailableError, NotFoundError):
        assert isinstance(await again, Opened | Result)
