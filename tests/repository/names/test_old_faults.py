"""Faults of earlier servers of named blobs: each has a test that fails when it is back."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import pytest
from tests.repository.names.gated import GatedPool
from tests.repository.names.pool import NamesWorker
from tests.repository.pool import PART_BYTES, Doom, DoomedBlobStore, finish, lives, send

from holdfast.domain.blob_names import Said
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.repository.names.record import MAX_TRANSITIONS, VERSION
from holdfast.repository.names.rules import Rule
from holdfast.repository.targets import NewTarget
from holdfast.repository.uploads.owned import Opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
OLD = b"the old bytes"
NEW = b"the new bytes"
LONG = b"the new bytes" * PART_BYTES
MOMENTS = [pytest.param(False, id="before"), pytest.param(True, id="after")]
MOST_CALLS = 60
"""More than any worker needs here; a test that never gets through fails."""


@pytest.fixture
def pool() -> GatedPool:
    """Empty stores."""
    return GatedPool()


async def stream(worker: NamesWorker, verb: str, data: bytes) -> bool:
    """Write ``data`` under the name, part by part."""
    new = NewTarget(name="n", verb="replace" if verb == "replace" else "create", said=Said())
    opened = await worker.uploads.open(size=None, digest=None, type="t", op_id="op", new=new)
    assert isinstance(opened, Opened)
    await send(worker.uploads, opened.upload, data)
    await finish(worker.uploads, opened.upload, data)
    return True


async def write(worker: NamesWorker, verb: str, data: bytes) -> bool:
    """Write ``data`` under the name, in one message."""
    if verb == "replace":
        await worker.replace("n", data, op_id="op")
    else:
        await worker.create("n", data, op_id="op")
    return True


class Fails:
    """Lets no call to a store succeed from the ``call``-th on."""

    def __init__(self, call: int, failure: type[HoldfastError]) -> None:
        self._left = call - 1
        self._failure = failure

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """See `Holdup.run`."""
        self._left -= 1
        if self._left < 0:
            raise self._failure
        return await function()


async def collect(pool: GatedPool) -> None:
    await pool.look_for_garbage()
    pool.collect()


@pytest.mark.parametrize("applied", MOMENTS)
@pytest.mark.parametrize("is_streamed", [False, True], ids=["in one message", "streamed"])
async def test_a_replace_that_is_killed_anywhere_leaves_the_old_bytes_or_the_new(
    applied: bool, is_streamed: bool
) -> None:
    new = LONG if is_streamed else NEW
    pool = GatedPool()
    for call in range(1, MOST_CALLS):
        pool = GatedPool()
        await pool.worker().create("n", OLD)
        doom = Doom(call, applied=applied)
        worker = pool.doomed("w", doom)

        done = await lives((stream if is_streamed else write)(worker, "replace", new), doom)

        assert await pool.worker().read("n") in {OLD, new}
        await collect(pool)
        assert await pool.worker().read("n") in {OLD, new}
        await pool.lapse()
        await pool.lapse()
        await collect(pool)
        assert await pool.worker().read("n") in {OLD, new}
        assert [record.pending for record in await pool.name_records()] == [()]
        if done:
            break
    assert 5 <= call < MOST_CALLS - 1
    assert await pool.worker().read("n") == new


@pytest.mark.parametrize("is_streamed", [False, True], ids=["in one message", "streamed"])
async def test_a_replace_that_fails_leaves_the_old_bytes(
    pool: GatedPool, is_streamed: bool
) -> None:
    await pool.worker().create("n", OLD)
    pool.blobs.reachable = False

    with pytest.raises(UnavailableError):
        await (stream if is_streamed else write)(pool.worker(), "replace", LONG)
    pool.blobs.reachable = True

    assert await pool.worker().read("n") == OLD
    await pool.lapse()
    await collect(pool)
    assert await pool.worker().read("n") == OLD


async def test_a_duplicate_create_is_a_conflict_and_neither_a_bug_nor_a_success(
    pool: GatedPool,
) -> None:
    async def create(number: int) -> str:
        try:
            await pool.worker(f"w{number}").create("n", b"%d" % number)
        except HoldfastError as error:
            return error.code
        return "ok"

    told = Counter(await asyncio.gather(*map(create, range(64))))

    assert told == {"ok": 1, "conflict": 63}
    with pytest.raises(ConflictError, match="taken") as later:
        await pool.worker().create("n", NEW)
    assert later.value.version == 1
    assert (await pool.worker().find("n")).version == 1


@pytest.mark.parametrize("applied", MOMENTS)
@pytest.mark.parametrize("is_streamed", [False, True], ids=["in one message", "streamed"])
async def test_a_create_that_is_killed_anywhere_ends_and_the_name_is_free_or_whole(
    applied: bool, is_streamed: bool
) -> None:
    new = LONG if is_streamed else NEW
    pool = GatedPool()
    for call in range(1, MOST_CALLS):
        pool = GatedPool()
        doom = Doom(call, applied=applied)
        worker = pool.doomed("w", doom)

        done = await lives((stream if is_streamed else write)(worker, "create", new), doom)
        await pool.lapse()
        await pool.lapse()
        await collect(pool)

        assert {r.state for r in await pool.name_records()} <= {"ok", "failure"}
        with suppress(ConflictError):
            await pool.worker().create("n", OLD)
        assert await pool.worker().read("n") in {OLD, new}
        if done:
            break
    assert 5 <= call < MOST_CALLS - 1
    assert await pool.worker().read("n") == new


async def test_bytes_that_are_named_again_while_they_are_collected_stay(pool: GatedPool) -> None:
    worker = pool.worker()
    await worker.create("n", OLD)
    await worker.delete("n")
    await pool.look_for_garbage()
    await worker.create("n", OLD)

    pool.collect()

    assert await worker.read("n") == OLD


async def test_a_write_that_did_not_reach_the_store_is_no_success(pool: GatedPool) -> None:
    pool.blobs.reachable = False

    with pytest.raises(UnavailableError):
        await pool.worker().create("n", NEW)

    pool.blobs.reachable = True
    with pytest.raises(NotFoundError):
        await pool.worker().find("n")
    assert [record.state for record in await pool.name_records()] == ["failure"]


@pytest.mark.parametrize("failure", [UnavailableError, OutcomeUnknownError, QuotaExceededError])
async def test_a_write_whose_blob_was_perhaps_not_made_is_no_success(
    pool: GatedPool, failure: type[HoldfastError]
) -> None:
    worker = pool.on(DoomedBlobStore(pool.blobs, Fails(2, failure)))

    with pytest.raises((UnavailableError, QuotaExceededError)):
        await worker.create("n", NEW)

    with pytest.raises(NotFoundError):
        await pool.worker().find("n")
    assert [record.state for record in await pool.name_records()] == ["failure"]


async def test_history_and_versions_go_on_and_stay_small_however_long_a_worker_runs(
    pool: GatedPool,
) -> None:
    worker = pool.worker()
    await worker.names.rules.change([Rule(prefix="", keep_versions=3)], expected=0)
    await worker.create("n", b"1")
    for number in range(2, 3 * MAX_TRANSITIONS):
        await worker.replace("n", b"%d" % number)

        history = await worker.names.history("n")
        assert history.record.transitions[-1].version == number
        assert len(history.record.transitions) <= MAX_TRANSITIONS
        kept = [record async for record in pool.names.list_records(VERSION.prefix)]
        assert [one.version for one in history.versions] == [*range(number, 0, -1)][:3]
        assert len(kept) <= 3
