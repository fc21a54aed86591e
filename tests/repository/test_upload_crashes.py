"""A worker dies at every single call to a store, and the upload ends as if it had not.

First one worker at each of its calls; then, for each of those deaths, its successor at each of its
own. What a client sees is the blob, once, and nothing is left in the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import some_bytes
from tests.repository.pool import (
    PART_BYTES,
    Doom,
    Pool,
    carry_on,
    is_stored,
    lives,
    open_upload,
    parts_of,
    put_anew,
)

from holdfast.domain.digest import digest_of
from holdfast.stores.ports import Attributes

if TYPE_CHECKING:
    from holdfast.repository.uploads.record import Result

DATA = some_bytes(2 * PART_BYTES + 7)
DIGEST = digest_of(DATA)
OP_ID = "an-operation"
MOMENTS = [pytest.param(False, id="before"), pytest.param(True, id="after")]
MOST_CALLS = 60
"""More than any worker needs here; a test that never gets through fails."""


async def check_end(pool: Pool, result: Result) -> None:
    assert (result.digest, result.size, result.created) == (DIGEST, len(DATA), True)
    assert await pool.stored() == {DIGEST: DATA}
    assert await pool.leftovers() == {}


@pytest.mark.fault("P01")
@pytest.mark.fault("P02")
@pytest.mark.fault("P03")
@pytest.mark.fault("P04")
@pytest.mark.parametrize("applied", MOMENTS)
async def test_a_worker_may_die_at_any_call_to_a_store(applied: bool) -> None:
    deaths = 0
    for call in range(1, MOST_CALLS):
        pool = Pool()
        doom = Doom(call, applied=applied)

        done = await lives(put_anew(pool, pool.worker("a", doom=doom), DATA, OP_ID), doom)
        if done is not None:
            break
        deaths += 1
        before = await is_stored(pool, DIGEST)
        result = await put_anew(pool, pool.worker("b"), DATA, OP_ID)

        assert not before or result.created, "the repeat is answered as the first would have been"
        await check_end(pool, result)
    assert 8 <= deaths < MOST_CALLS - 1


@pytest.mark.fault("P03")
@pytest.mark.parametrize("applied", MOMENTS)
async def test_its_successor_may_die_at_any_call_too(applied: bool) -> None:
    deaths = 0
    for call in range(1, MOST_CALLS):
        first_lived = True
        for successors_call in range(1, MOST_CALLS):
            pool = Pool()
            first, second = Doom(call, applied=applied), Doom(successors_call, applied=applied)

            done = await lives(put_anew(pool, pool.worker("a", doom=first), DATA, OP_ID), first)
            if done is not None:
                break
            first_lived = False
            successor = pool.worker("b", doom=second)
            done = await lives(put_anew(pool, successor, DATA, OP_ID), second)
            if done is None:
                deaths += 1
                done = await put_anew(pool, pool.worker("c"), DATA, OP_ID)

            await check_end(pool, done)
            if not second.dead.is_set():
                break
        else:
            pytest.fail("the successor never gets through")
        if first_lived:
            break
    assert deaths >= 50


@pytest.mark.parametrize("deleted", [False, True], ids=["not pinned", "deleted and kept"])
@pytest.mark.parametrize("applied", MOMENTS)
async def test_an_acknowledged_upload_is_pinned_whatever_others_made_of_the_blob(
    applied: bool, deleted: bool
) -> None:
    async def is_kept() -> bool:
        return True

    for call in range(1, MOST_CALLS):
        pool = Pool()
        doom = Doom(call, applied=applied)
        if await lives(put_anew(pool, pool.worker("a", doom=doom), DATA, OP_ID), doom) is not None:
            break
        if await is_stored(pool, DIGEST):  # it was put, and may be deleted again
            continue
        attributes = Attributes(type="a/b", created_at=pool.time.clock(), pinned=False)
        await pool.blobs.put(DIGEST, DATA, attributes)
        if deleted:
            await pool.blobs.delete(DIGEST, kept=is_kept)

        await put_anew(pool, pool.worker("b"), DATA, OP_ID)

        info = await pool.blobs.stat(DIGEST, sure=True)
        assert (info.pinned, info.deleted) == (True, False), call
        assert await pool.stored() == {DIGEST: DATA}
    assert 8 <= call < MOST_CALLS - 1


@pytest.mark.fault("P17")
@pytest.mark.parametrize("applied", MOMENTS)
async def test_nothing_is_left_of_an_upload_whose_worker_and_client_both_died(
    applied: bool,
) -> None:
    for call in range(1, MOST_CALLS):
        pool = Pool()
        doom = Doom(call, applied=applied)
        if await lives(put_anew(pool, pool.worker("a", doom=doom), DATA, OP_ID), doom):
            break
        sweeper = pool.worker("b")

        for _ in range(3):
            await sweeper.sweep()
            pool.time.advance(150)

        doubtful = await left_in_doubt(pool)
        assert await pool.leftovers() == doubtful
        assert await pool.stored() in ({}, {DIGEST: DATA})
    else:
        pytest.fail("the worker never gets through")


async def left_in_doubt(pool: Pool) -> dict[str, int]:
    """Parts of an owner that died between its claim and the blob: only the collector may judge."""
    if await is_stored(pool, DIGEST):
        return {}
    found = await pool.leftovers()
    claimed = [
        record.value
        async for record in pool.records.list_records("u")
        if b'"claims"' in record.value
    ]
    return {
        nuid: parts for nuid, parts in found.items() if any(nuid.encode() in c for c in claimed)
    }


@pytest.mark.fault("P02")
@pytest.mark.parametrize("call", range(1, 25))
async def test_a_worker_that_dies_while_it_takes_over_is_followed_by_another(
    pool: Pool, call: int
) -> None:
    owner = pool.worker("a")
    upload = (await open_upload(owner)).upload
    for number, part in enumerate(parts_of(DATA)[:2]):
        await owner.part(upload, number, part)
    doom = Doom(call, applied=True)

    done = await lives(carry_on(pool, pool.worker("b", doom=doom), upload, DATA), doom)
    if done is None:
        done = await carry_on(pool, pool.worker("c"), upload, DATA)

    await check_end(pool, done)
