"""The wrapper keeps the contract of the store it wraps, and adds what it says and no more."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from tests.contracts.blob_changes import BlobChangesContract
from tests.contracts.blob_collecting import BlobCollectingContract
from tests.contracts.blob_repacking import BlobRepackingContract
from tests.contracts.blob_store import (
    ATTRIBUTES,
    FAR_AHEAD,
    PART_BYTES,
    BlobStoreContract,
    fresh_staging,
    put,
    put_staged,
    read,
    some_bytes,
    staged_bytes,
)

from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    TooLargeError,
    UnavailableError,
)
from holdfast.stores.memory import MemoryBlobStore
from holdfast.stores.wrappers.guarded import GuardedBlobStore, Limits, Retries, StoreMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Buffer, Callable
    from datetime import datetime

    from holdfast.domain.kept import Ranges
    from holdfast.stores.ports import (
        Attributes,
        BlobInfo,
        BlobStore,
        Claiming,
        DirectDelivery,
        Keeping,
        Stored,
    )

ATTRIBUTES_WITH_OP = type(ATTRIBUTES)(type="", created_at=ATTRIBUTES.created_at, op_id="op")


def guarded(
    inner: BlobStore,
    *,
    max_bytes: int = 1_000_000,
    at_once: int = 4,
    attempts: int = 3,
    when_full: str = "",
    registry: CollectorRegistry | None = None,
) -> GuardedBlobStore:
    """``inner``, wrapped."""
    ticks = iter(range(1_000_000))
    return GuardedBlobStore(
        inner,
        limits=Limits(max_blob_bytes=max_bytes, max_concurrent=at_once, when_full=when_full),
        retries=Retries(attempts=attempts, timeout_seconds=30, first_wait_seconds=0),
        metrics=StoreMetrics.register(registry or CollectorRegistry()),
        monotonic=lambda: float(next(ticks)),
    )


class TestWrappedBlobStore(
    BlobRepackingContract, BlobCollectingContract, BlobChangesContract, BlobStoreContract
):
    """Around the memory store."""

    @pytest.fixture
    def memory(self) -> MemoryBlobStore:
        return MemoryBlobStore()

    @pytest.fixture
    def store(self, memory: MemoryBlobStore) -> BlobStore:
        return guarded(memory)

    @pytest.fixture
    def unreachable_store(self) -> BlobStore:
        memory = MemoryBlobStore()
        memory.reachable = False
        return guarded(memory)

    @pytest.fixture(autouse=True)
    def _memory_for_the_hooks(self, memory: MemoryBlobStore) -> None:
        self.inner = memory

    async def alter(
        self, store: BlobStore, digest: Digest, mutate: Callable[[bytes], bytes]
    ) -> None:
        self.inner._blobs[digest].data = mutate(self.inner._blobs[digest].data)

    async def leftovers(self, store: BlobStore) -> int:
        return sum(len(parts) for parts in self.inner._staged.values())


# Limits


async def test_a_blob_of_exactly_the_limit_is_stored_and_one_byte_more_is_too_large() -> None:
    memory = MemoryBlobStore()
    store = guarded(memory, max_bytes=3000)

    await put(store, some_bytes(3000))
    with pytest.raises(TooLargeError):
        await put(store, some_bytes(3001))

    assert await store.missing([digest_of(some_bytes(3001))]) == [digest_of(some_bytes(3001))]


async def test_parts_up_to_exactly_the_limit_are_stored_and_one_byte_more_is_too_large() -> None:
    memory = MemoryBlobStore()
    store = guarded(memory, max_bytes=2 * PART_BYTES + 10)

    assert (await put_staged(store, some_bytes(2 * PART_BYTES + 10))).created
    with pytest.raises(TooLargeError):
        await store.stage(fresh_staging(), PART_BYTES).write(2, bytes(11))
    with pytest.raises(TooLargeError):
        await store.stage(fresh_staging(), PART_BYTES).commit(
            digest_of(b""), 2 * PART_BYTES + 11, ATTRIBUTES
        )

    assert memory._staged == {}


class BusyStore(MemoryBlobStore):
    """Counts how many operations are under way, and ends none before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0
        self.most = 0
        self.released = asyncio.Event()

    async def _reach(self) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.released.wait()
            await super()._reach()
        finally:
            self.under_way -= 1


async def run_until_nothing_moves() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_exactly_as_many_operations_run_at_once_as_allowed_and_the_rest_wait() -> None:
    busy = BusyStore()
    store = guarded(busy, at_once=3)
    working = [asyncio.create_task(put(store, b"%d" % n)) for n in range(10)]
    staged = store.stage(fresh_staging(), PART_BYTES)
    working_too = asyncio.create_task(staged.write(0, b"part"))

    await run_until_nothing_moves()
    assert busy.under_way == 3
    busy.released.set()
    await asyncio.gather(working_too, *working)

    assert busy.most == 3


async def test_a_reader_that_pauses_holds_no_slot() -> None:
    store = guarded(MemoryBlobStore(), at_once=1)
    info = (await put_staged(store, some_bytes(3 * PART_BYTES))).info
    reading = store.read(info, 0, info.size)

    async with aclosing(reading), asyncio.timeout(30):
        await anext(reading)
        await put(store, b"meanwhile")
        rest = [bytes(piece) async for piece in reading]

    assert len(rest) == 2


async def test_an_operation_that_fails_or_is_cancelled_gives_its_slot_back() -> None:
    busy = BusyStore()
    store = guarded(busy, at_once=1)
    cancelled = asyncio.create_task(put(store, b"cancelled"))
    await run_until_nothing_moves()
    cancelled.cancel()
    busy.released.set()
    with pytest.raises(NotFoundError):
        await store.stat(digest_of(b"cancelled"))

    async with asyncio.timeout(30):
        await put(store, b"next")


# Retries


class FlakyStore(MemoryBlobStore):
    """Fails as often as told; with ``applied`` only after it has done what was asked."""

    def __init__(self, failures: int, error: Exception, *, applied: bool = False) -> None:
        super().__init__()
        self.failures = failures
        self.error = error
        self.applied = applied
        self.calls = 0
        self.closed = 0

    def fail(self, *, applied: bool) -> None:
        if not applied:
            self.calls += 1
        if applied == self.applied and self.failures:
            self.failures -= 1
            raise self.error

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        self.fail(applied=False)
        stored = await super().put(digest, data, attributes)
        self.fail(applied=True)
        return stored

    async def stat(self, digest: Digest, *, sure: bool = False, partial: bool = False) -> BlobInfo:
        self.fail(applied=False)
        return await super().stat(digest, sure=sure, partial=partial)

    async def touch(
        self, digest: Digest, *, unless_seen_since: datetime, needed: Ranges | None = None
    ) -> bool:
        self.fail(applied=False)
        touched = await super().touch(digest, unless_seen_since=unless_seen_since, needed=needed)
        self.fail(applied=True)
        return touched

    async def delete(
        self, digest: Digest, *, op_id: str | None = None, kept: Keeping | None = None
    ) -> bool:
        self.fail(applied=False)
        deleted = await super().delete(digest, op_id=op_id, kept=kept)
        self.fail(applied=True)
        return deleted

    async def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        try:
            self.fail(applied=False)
            async with aclosing(super().read(info, start, stop)) as pieces:
                async for piece in pieces:
                    yield piece
                    self.fail(applied=True)
        finally:
            self.closed += 1

    async def _write_part(self, staging: str, part: int, data: Buffer) -> None:
        self.fail(applied=False)
        await super()._write_part(staging, part, data)

    async def _commit(
        self, info: BlobInfo, attributes: Attributes, claim: Claiming | None
    ) -> Stored:
        self.fail(applied=False)
        stored = await super()._commit(info, attributes, claim)
        self.fail(applied=True)
        return stored

    async def check(self) -> None:
        self.fail(applied=False)


async def test_what_could_not_be_reached_is_tried_again_up_to_the_limit() -> None:
    enough = FlakyStore(2, UnavailableError())
    too_few = FlakyStore(3, UnavailableError())

    assert (await guarded(enough, attempts=3).put(digest_of(b"x"), b"x", ATTRIBUTES)).created
    with pytest.raises(UnavailableError):
        await guarded(too_few, attempts=3).put(digest_of(b"x"), b"x", ATTRIBUTES)

    assert (enough.calls, too_few.calls) == (3, 3)


@pytest.mark.parametrize("error", [NotFoundError(), ConflictError(), ValueError()])
async def test_other_failures_are_not_tried_again(error: Exception) -> None:
    flaky = FlakyStore(1, error)

    with pytest.raises(type(error)):
        await guarded(flaky).stat(digest_of(b"x"))

    assert flaky.calls == 1


@pytest.mark.fault("P05")
async def test_a_touch_of_unknown_outcome_is_repeated() -> None:
    flaky = FlakyStore(0, OutcomeUnknownError(), applied=True)
    info = await put(flaky, b"x")
    flaky.failures = 1

    assert await guarded(flaky).touch(info.digest, unless_seen_since=FAR_AHEAD)

    assert flaky.failures == 0


@pytest.mark.fault("P05")
async def test_a_put_of_unknown_outcome_is_repeated_if_the_repeat_gives_the_same_answer() -> None:
    known = FlakyStore(1, OutcomeUnknownError(), applied=True)
    anonymous = FlakyStore(1, OutcomeUnknownError(), applied=True)

    stored = await guarded(known).put(digest_of(b"x"), b"x", ATTRIBUTES_WITH_OP)
    with pytest.raises(OutcomeUnknownError):
        await guarded(anonymous).put(digest_of(b"x"), b"x", ATTRIBUTES)

    assert stored.created
    assert (known.calls, anonymous.calls) == (2, 1)


@pytest.mark.fault("P05")
async def test_a_delete_of_unknown_outcome_is_repeated_only_under_an_operation_id() -> None:
    known = FlakyStore(0, OutcomeUnknownError(), applied=True)
    anonymous = FlakyStore(0, OutcomeUnknownError(), applied=True)
    for flaky in (known, anonymous):
        await put(flaky, b"x")
        flaky.failures, flaky.calls = 1, 0

    assert await guarded(known).delete(digest_of(b"x"), op_id="op") is True
    with pytest.raises(OutcomeUnknownError):
        await guarded(anonymous).delete(digest_of(b"x"))

    assert (known.calls, anonymous.calls) == (2, 1)


async def test_who_meets_a_full_store_is_told_when_there_is_room_again() -> None:
    flaky = FlakyStore(1, QuotaExceededError("the store is full"))
    store = guarded(flaky, when_full="with the next collection")

    with pytest.raises(QuotaExceededError, match="the store is full: with the next collection"):
        await store.put(digest_of(b"x"), b"x", ATTRIBUTES)


class FullAfterwards(FlakyStore):
    """Fails with an unknown outcome; by the time of the repeat the store is full."""

    def fail(self, *, applied: bool) -> None:
        if not applied and self.calls == 1:
            self.calls += 1
            raise QuotaExceededError
        super().fail(applied=applied)


@pytest.mark.fault("P05")
async def test_what_was_unknown_stays_so_when_the_store_is_full_by_then() -> None:
    flaky = FullAfterwards(1, OutcomeUnknownError(), applied=True)

    with pytest.raises(OutcomeUnknownError):
        await guarded(flaky).put(digest_of(b"x"), b"x", ATTRIBUTES_WITH_OP)


@pytest.mark.fault("P05")
async def test_a_commit_of_unknown_outcome_is_repeated_and_says_created() -> None:
    flaky = FlakyStore(0, OutcomeUnknownError(), applied=True)
    staged = guarded(flaky).stage(fresh_staging(), PART_BYTES)
    await staged.write(0, b"part")
    flaky.failures = 1

    stored = await staged.commit(digest_of(b"part"), 4, ATTRIBUTES)

    assert stored.created
    assert await flaky.get(stored.info) == b"part"


async def test_a_part_is_never_written_again_behind_its_successors() -> None:
    flaky = FlakyStore(1, UnavailableError())

    with pytest.raises(UnavailableError):
        await guarded(flaky).stage(fresh_staging(), PART_BYTES).write(0, b"part")

    assert flaky.calls == 1


async def test_a_check_tells_how_the_store_is_now() -> None:
    flaky = FlakyStore(1, UnavailableError())

    with pytest.raises(UnavailableError):
        await guarded(flaky).check()

    assert flaky.calls == 1


async def test_a_read_is_tried_again_until_its_first_piece_and_not_after_it() -> None:
    before = FlakyStore(0, UnavailableError())
    after = FlakyStore(0, UnavailableError(), applied=True)
    data = some_bytes(3 * PART_BYTES)
    infos = [(await put_staged(flaky, data)).info for flaky in (before, after)]
    before.failures = after.failures = 2

    assert await read(guarded(before), infos[0], 0, len(data)) == data
    with pytest.raises(UnavailableError):
        await read(guarded(after), infos[1], 0, len(data))

    assert before.closed == 3
    assert after.closed == 1


async def test_a_read_that_is_stopped_early_closes_the_store_s_own() -> None:
    flaky = FlakyStore(0, UnavailableError())
    info = (await put_staged(flaky, some_bytes(3 * PART_BYTES))).info
    reading = guarded(flaky).read(info, 0, info.size)

    await anext(reading)
    assert flaky.closed == 0
    await reading.aclose()

    assert flaky.closed == 1


async def test_what_the_store_can_send_by_itself_is_reached_through_the_wrappers() -> None:
    class Delivering(MemoryBlobStore):
        def direct_delivery(self) -> DirectDelivery:  # type: ignore[override]  # memory has none
            return delivery

    class Delivery:
        async def locate(self, info: BlobInfo, part: int) -> tuple[int, int]:
            return part, 1

        def deliver_bare(self, digest: Digest, at_most: int) -> None:
            """Know no place."""

        async def deliver(self, info: BlobInfo, position: int, chunks: int, subject: str) -> None:
            """Deliver nothing."""

    delivery: DirectDelivery = Delivery()

    assert guarded(Delivering()).direct_delivery() is delivery
    assert guarded(MemoryBlobStore()).direct_delivery() is None


class CrowdedStore(FlakyStore):
    """Tells when one attempt has failed."""

    def __init__(self, failures: int, error: Exception) -> None:
        super().__init__(failures, error)
        self.failed = asyncio.Event()

    def fail(self, *, applied: bool) -> None:
        try:
            super().fail(applied=applied)
        except Exception:
            self.failed.set()
            raise


async def test_what_waits_for_its_next_attempt_holds_no_slot() -> None:
    crowded = CrowdedStore(0, UnavailableError())
    await put(crowded, b"x")
    crowded.failures = 1
    store = GuardedBlobStore(
        crowded,
        limits=Limits(max_blob_bytes=10, max_concurrent=1),
        retries=Retries(attempts=2, timeout_seconds=3600, first_wait_seconds=3600),
        metrics=StoreMetrics.register(CollectorRegistry()),
        monotonic=lambda: 0.0,
    )
    waiting = asyncio.create_task(store.stat(digest_of(b"x")))
    await crowded.failed.wait()

    async with asyncio.timeout(30):
        assert (await store.stat(digest_of(b"x"))).size == 1

    waiting.cancel()


# Metrics


async def test_operations_bytes_seconds_and_errors_are_counted() -> None:
    registry = CollectorRegistry()
    store = guarded(MemoryBlobStore(), registry=registry)
    data = some_bytes(3 * PART_BYTES)

    info = await put(store, data)
    await put(store, data)
    await store.get(info)
    await store.fetch(info.digest, info.size)
    await read(store, info, 0, 100)
    staging = fresh_staging()
    await store.stage(staging, PART_BYTES).write(0, bytes(50))
    await staged_bytes(store, staging)
    with pytest.raises(NotFoundError):
        await store.stat(digest_of(b"absent"))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"holdfast_store_{name}", labels)

    assert value("operations_total", operation="put") == 2
    assert value("operations_total", operation="get") == 1
    assert value("operations_total", operation="fetch") == 1
    assert value("operations_total", operation="read") == 1
    assert value("operations_total", operation="stat") == 1
    assert value("errors_total", operation="stat", code="not_found") == 1
    assert value("errors_total", operation="put", code="internal") is None
    assert value("bytes_total", direction="written") == len(data) + 50
    assert value("bytes_total", direction="read") == 2 * len(data) + 100 + 50
    assert value("seconds_count", operation="put") == 2
    assert value("seconds_sum", operation="put") == 2
    assert value("seconds_sum", operation="read") == 2


async def test_a_bug_in_a_store_is_counted_as_internal() -> None:
    registry = CollectorRegistry()
    store = guarded(FlakyStore(1, ValueError()), registry=registry)

    with pytest.raises(ValueError, match=r"^$"):
        await store.stat(digest_of(b"x"))

    labels = {"operation": "stat", "code": "internal"}
    assert registry.get_sample_value("holdfast_store_errors_total", labels) == 1
