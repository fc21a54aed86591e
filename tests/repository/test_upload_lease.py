"""Uploads that nobody carries on turn into failures and free their space; progress keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import some_bytes
from tests.repository.pool import (
    PART_BYTES,
    CommitsAs,
    Pool,
    finish,
    open_upload,
    parts_of,
    send,
)

from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, NotFoundError
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE
from holdfast.repository.uploads.owned import UploadLimits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.stores.ports import Claiming, Stored

LEASE = 300.0
LIMITS = UploadLimits(lease_seconds=LEASE)
DATA = some_bytes(3 * PART_BYTES)


@pytest.mark.fault("P17")
@pytest.mark.fault("P21")
async def test_an_upload_that_nobody_carries_on_fails_after_its_lease_and_frees_its_space(
    pool: Pool,
) -> None:
    owner, sweeper = pool.worker("a", limits=LIMITS), pool.worker("b", limits=LIMITS)
    upload = (await open_upload(owner)).upload
    await send(owner, upload, DATA)

    for seconds in (LEASE / 2, LEASE / 2 - 1, 1):
        assert await sweeper.sweep() == 0
        pool.time.advance(seconds)
    assert await sweeper.sweep() == 1

    assert await pool.leftovers() == {}
    assert await pool.stored() == {}
    assert await sweeper.sweep() == 0
    with pytest.raises(NotFoundError):
        await sweeper.resume(upload)
    with pytest.raises(ConflictError):
        await finish(owner, upload, DATA)


async def test_a_worker_counts_only_the_time_that_it_has_seen_itself(pool: Pool) -> None:
    upload = (await open_upload(pool.worker("a", limits=LIMITS))).upload
    pool.time.advance(10 * LEASE)
    newcomer = pool.worker("b", limits=LIMITS)

    assert await newcomer.sweep() == 0

    assert (await newcomer.resume(upload)) is not None


@pytest.mark.fault("P19")
async def test_time_in_which_nobody_could_look_ends_no_upload(pool: Pool) -> None:
    owner, sweeper = pool.worker("a", limits=LIMITS), pool.worker("b", limits=LIMITS)
    upload = (await open_upload(owner)).upload
    await sweeper.sweep()
    pool.time.advance(LEASE / 4)
    await sweeper.sweep()

    pool.time.advance(10 * LEASE)  # the store is away

    assert await sweeper.sweep() == 0
    await send(owner, upload, DATA)
    assert (await finish(owner, upload, DATA)).created


@pytest.mark.fault("P19")
async def test_a_worker_does_not_end_what_it_has_itself_seen_progress(pool: Pool) -> None:
    owner = pool.worker("a", limits=LIMITS)
    upload = (await open_upload(owner)).upload
    swept = 0

    for number, part in enumerate(parts_of(DATA)):
        await owner.part(upload, number, part)
        for _ in range(3):  # the store takes no renewals
            swept += await owner.sweep()
            pool.time.advance(LEASE / 4)

    assert swept == 0
    assert (await finish(owner, upload, DATA)).created


@pytest.mark.fault("P19")
async def test_a_slow_upload_is_kept_for_as_long_as_it_progresses(pool: Pool) -> None:
    owner, sweeper = pool.worker("a", limits=LIMITS), pool.worker("b", limits=LIMITS)
    data = some_bytes(20 * PART_BYTES)
    upload = (await open_upload(owner)).upload

    for number, part in enumerate(parts_of(data)):
        await owner.part(upload, number, part)
        for _ in range(4):
            pool.time.advance(LEASE / 4)
            await owner.renew()
            assert await sweeper.sweep() == 0

    assert (await finish(owner, upload, data)).created
    assert await pool.stored() == {digest_of(data): data}


@pytest.mark.fault("P17")
async def test_a_worker_does_not_renew_an_upload_whose_client_is_gone(pool: Pool) -> None:
    owner, sweeper = pool.worker("a", limits=LIMITS), pool.worker("b", limits=LIMITS)
    upload = (await open_upload(owner)).upload
    await send(owner, upload, DATA)
    swept = 0

    for _ in range(8):
        pool.time.advance(LEASE / 4)
        await owner.renew()
        swept += await sweeper.sweep()
    pool.time.advance(LEASE / 4)
    await owner.renew()

    assert swept == 1
    assert owner.active == 0, "the owner noticed"
    assert await pool.leftovers() == {}


@pytest.mark.fault("P19")
async def test_an_upload_whose_client_has_nothing_to_send_yet_is_renewed_when_it_says_so(
    pool: Pool,
) -> None:
    owner, sweeper = pool.worker("a", limits=LIMITS), pool.worker("b", limits=LIMITS)
    upload = (await open_upload(owner)).upload
    await send(owner, upload, DATA)
    swept = 0

    for _ in range(20):
        pool.time.advance(LEASE / 4)
        await owner.keep(upload)
        swept += await sweeper.sweep()

    assert swept == 0
    assert (await finish(owner, upload, DATA)).created
    with pytest.raises(ConflictError):
        await owner.keep(upload)


async def test_ended_uploads_are_not_swept(pool: Pool) -> None:
    owner, sweeper = pool.worker("a", limits=LIMITS), pool.worker("b", limits=LIMITS)
    committed, aborted = await open_upload(owner), await open_upload(owner)
    await send(owner, committed.upload, DATA)
    await finish(owner, committed.upload, DATA)
    await owner.abort(aborted.upload)

    for _ in range(4):
        await sweeper.sweep()
        pool.time.advance(LEASE / 2)

    assert await sweeper.sweep() == 0
    assert await pool.stored() == {digest_of(DATA): DATA}


async def test_two_sweepers_end_an_upload_once(pool: Pool) -> None:
    await open_upload(pool.worker("a", limits=LIMITS))
    sweepers = [pool.worker("b", limits=LIMITS), pool.worker("c", limits=LIMITS)]
    for _ in range(2):
        for sweeper in sweepers:
            await sweeper.sweep()
        pool.time.advance(LEASE / 2)

    assert sum([await sweeper.sweep() for sweeper in sweepers]) == 1


async def test_an_upload_is_not_given_up_while_it_is_committed(pool: Pool) -> None:
    other = pool.worker("b")

    async def slowly(
        staging: str, claim: Claiming, finish: Callable[..., Awaitable[Stored]]
    ) -> Stored:
        """Parts are written once more, which takes longer than a lease."""
        for _ in range(3 * SWEEPS_PER_LEASE):
            await claim(staging)
            pool.time.advance(UploadLimits().lease_seconds / SWEEPS_PER_LEASE)
            await other.sweep()
        return await finish(claim=claim)

    worker = pool.worker("a", blobs=CommitsAs(slowly, pool.blobs))
    upload = (await open_upload(worker)).upload
    await send(worker, upload, DATA)

    assert (await finish(worker, upload, DATA)).created
    assert await pool.stored() == {digest_of(DATA): DATA}
