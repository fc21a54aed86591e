"""A worker is paused before any of its calls to a store, and wakes up much later.

Meanwhile others have taken its upload over, ended it, deleted the blob and put it again, and the
upload's record has gone. Its successor may be paused as well. Whoever wakes up when: each blob that
is there can be read, and what was acknowledged last is there.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest
from tests.contracts.blob_store import some_bytes
from tests.repository.pool import (
    PART_BYTES,
    TYPE,
    CommitsAs,
    Pause,
    Pool,
    finish,
    open_upload,
    put_anew,
    send,
)

from holdfast.domain.digest import digest_of
from holdfast.errors import HoldfastError, OutcomeUnknownError, UnavailableError
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE
from holdfast.repository.uploads.owned import CONFIRM_SECONDS
from holdfast.repository.uploads.record import ENDED_TTL, UPLOAD
from holdfast.stores.ports import Attributes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

    from holdfast.repository.uploads.uploads import UploadService
    from holdfast.stores.ports import Claiming, Stored

DATA: Final = some_bytes(2 * PART_BYTES + 7)
DIGEST: Final = digest_of(DATA)
OP_ID: Final = "an-operation"
MOST_CALLS: Final = 60
"""More than any worker needs here; a test that never gets through fails."""

LATER: Final = [(), ("delete",), ("delete", "put"), ("hour",), ("hour", "delete", "put")]


async def until_paused(work: Coroutine[Any, Any, Any], pause: Pause) -> asyncio.Task[Any] | None:
    """``work``, held up; None when it got through, or was refused."""
    working = asyncio.create_task(work)
    reached = asyncio.create_task(pause.reached.wait())
    await asyncio.wait({working, reached}, return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    if pause.reached.is_set():
        return working
    with suppress(HoldfastError):
        await working
    return None


async def happen(pool: Pool, later: tuple[str, ...]) -> None:
    """Do what others do meanwhile."""
    for event in later:
        match event:
            case "delete":
                await pool.blobs.delete(DIGEST)
            case "put":
                await put_again(pool)
            case _:
                pool.time.advance(ENDED_TTL / timedelta(seconds=1) + 1)


async def put_again(pool: Pool) -> None:
    """A client of its own puts the same bytes, and is told that they are there."""
    await pool.blobs.put(DIGEST, DATA, Attributes(type=TYPE, created_at=pool.time.clock()))


async def wake(pool: Pool, pause: Pause, worker: UploadService, work: asyncio.Task[Any]) -> None:
    """Let a paused worker go on until it knows how things are."""
    pause.wake()
    with suppress(HoldfastError, AssertionError):  # its client has gone long ago
        await work
    pool.time.advance(CONFIRM_SECONDS)
    await worker.renew()


async def check(pool: Pool, *, deleted: bool = False) -> None:
    stored = await pool.stored()
    assert stored == {DIGEST: DATA} or (deleted and stored == {})


@pytest.mark.fault("P05")
@pytest.mark.fault("P06")
@pytest.mark.parametrize("lost", [False, True], ids=["before a call", "its answer is lost"])
@pytest.mark.parametrize("later", LATER, ids=["", "deleted", "put again", "hour", "hour, again"])
async def test_a_paused_owner_spoils_nothing_when_it_wakes(
    later: tuple[str, ...], lost: bool
) -> None:
    for call in range(1, MOST_CALLS):
        pool = Pool()
        pause = Pause(call, lost=lost)
        owner = pool.worker("a", doom=pause)
        work = await until_paused(put_anew(pool, owner, DATA, OP_ID), pause)
        if work is None:
            break
        await put_anew(pool, pool.worker("b"), DATA, OP_ID)
        await happen(pool, later)

        await wake(pool, pause, owner, work)

        await check(pool, deleted=later == ("delete",))
        await put_again(pool)
        await check(pool)
    assert 8 <= call < MOST_CALLS - 1


@pytest.mark.fault("P06")
@pytest.mark.parametrize("by_another", [False, True], ids=["", "put by another"])
@pytest.mark.parametrize("first", ["the owner", "its successor"])
@pytest.mark.parametrize("later", LATER[:4], ids=["", "deleted", "put again", "hour"])
async def test_a_paused_owner_and_a_paused_successor_spoil_nothing(
    later: tuple[str, ...], first: str, by_another: bool
) -> None:
    pairs = 0
    for call in range(1, MOST_CALLS):
        for successors_call in range(1, MOST_CALLS):
            pool = Pool()
            pauses = [Pause(call, after=True), Pause(successors_call)]
            workers = [pool.worker("a", doom=pauses[0]), pool.worker("b", doom=pauses[1])]
            work = await until_paused(put_anew(pool, workers[0], DATA, OP_ID), pauses[0])
            if work is None:
                break
            works = [work]
            if by_another:
                await put_again(pool)
            work = await until_paused(put_anew(pool, workers[1], DATA, OP_ID), pauses[1])
            if work is None:
                await wake(pool, pauses[0], workers[0], works[0])
                break
            works.append(work)
            pairs += 1
            if not by_another:  # else the client has seen that it is there, and gone
                await put_anew(pool, pool.worker("c"), DATA, OP_ID)
            await happen(pool, later)

            for number in (0, 1) if first == "the owner" else (1, 0):
                await wake(pool, pauses[number], workers[number], works[number])
                await put_again(pool)

            await check(pool)
        if successors_call == 1:  # the owner got through
            break
    assert pairs >= 50


@pytest.mark.fault("P06")
@pytest.mark.parametrize("ending", ["abort", "sweep"])
@pytest.mark.parametrize("later", LATER, ids=["", "deleted", "put again", "hour", "hour, again"])
async def test_a_paused_owner_and_a_paused_worker_that_gives_the_upload_up_spoil_nothing(
    ending: str, later: tuple[str, ...]
) -> None:
    for call in range(2, MOST_CALLS):
        work: asyncio.Task[Any] | None = None
        for enders_call in range(1, MOST_CALLS):
            pool = Pool()
            pauses = [Pause(call), Pause(enders_call)]
            owner, ender = (pool.worker("w", doom=pause) for pause in pauses)
            work = await until_paused(put_anew(pool, owner, DATA, OP_ID), pauses[0])
            if work is None:
                break
            giving_up = await until_paused(give_up(pool, ender, ending), pauses[1])
            await put_again(pool)
            await happen(pool, later)

            await wake(pool, pauses[0], owner, work)
            await put_again(pool)
            if giving_up is not None:
                await wake(pool, pauses[1], ender, giving_up)

            await check(pool)
            if giving_up is None:
                break
        if work is None:
            break
    assert call < MOST_CALLS - 1


async def give_up(pool: Pool, worker: UploadService, ending: str) -> None:
    """End the upload that another worker owns."""
    if ending == "abort":
        async for record in pool.records.list_records(UPLOAD.prefix):
            await worker.abort(record.key.partition(".")[2])
        return
    for _ in range(SWEEPS_PER_LEASE + 1):
        await worker.sweep()
        pool.time.advance(300 / SWEEPS_PER_LEASE)


@pytest.mark.fault("N16")
async def test_what_a_lagging_replica_has_is_not_acknowledged(pool: Pool) -> None:
    await put_again(pool)
    pool.blobs.lag()
    await pool.blobs.delete(DIGEST)

    opened = await open_upload(pool.worker("a"), size=len(DATA), digest=DIGEST)

    assert opened.next_part == 0
    assert await pool.stored() == {}


@pytest.mark.fault("N16")
@pytest.mark.parametrize("ending", ["take over", "abort"])
async def test_nothing_is_removed_on_the_word_of_a_lagging_replica(ending: str) -> None:
    """An owner has claimed its parts, and is held up, while a replica knows of a former blob."""
    for call in range(1, MOST_CALLS):
        pool = Pool()
        await put_again(pool)
        pool.blobs.lag()
        await pool.blobs.delete(DIGEST)
        pause = Pause(call)
        owner = pool.worker("a", doom=pause)
        work = await until_paused(put_anew(pool, owner, DATA, OP_ID), pause)
        if work is None:
            break
        if ending == "abort":
            with suppress(HoldfastError):
                await give_up(pool, pool.worker("b"), "sweep")
        else:
            await put_anew(pool, pool.worker("b"), DATA, OP_ID)
            await check(pool)

        await wake(pool, pause, owner, work)

        await check(pool, deleted=ending == "abort")
    assert call < MOST_CALLS - 1


@pytest.mark.parametrize("ending", ["abort", "sweep"])
async def test_what_may_have_become_a_blob_stays_although_a_later_try_surely_failed(
    pool: Pool, ending: str
) -> None:
    on_their_way: list[Callable[[], Awaitable[Stored]]] = []

    async def lost_once(
        staging: str, claim: Claiming, finish: Callable[..., Awaitable[Stored]]
    ) -> Stored:
        await claim(staging)
        if on_their_way:
            raise UnavailableError
        on_their_way.append(finish)
        raise OutcomeUnknownError

    worker = pool.worker("a", blobs=CommitsAs(lost_once, pool.blobs))
    upload = (await open_upload(worker)).upload
    await send(worker, upload, DATA)
    with pytest.raises(OutcomeUnknownError):
        await finish(worker, upload, DATA)
    with pytest.raises(UnavailableError):
        await finish(worker, upload, DATA)

    await on_their_way[0]()
    await put_again(pool)
    await give_up(pool, pool.worker("b") if ending == "sweep" else worker, ending)

    await check(pool)


async def test_parts_that_were_sent_after_the_end_go_although_their_owner_was_to_commit_them(
    pool: Pool,
) -> None:
    owner = pool.worker("a")
    upload = (await open_upload(owner)).upload
    await pool.worker("b").abort(upload)

    await send(owner, upload, DATA)
    with pytest.raises(HoldfastError):
        await finish(owner, upload, DATA)
    pool.time.advance(CONFIRM_SECONDS)
    await owner.renew()

    assert await pool.leftovers() == {}
