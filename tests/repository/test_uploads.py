"""One worker, one upload: the order of parts, the end, giving up, the limits."""

from __future__ import annotations

import asyncio

import pytest
from tests.contracts.blob_store import some_bytes
from tests.repository.pool import (
    PART_BYTES,
    TYPE,
    Pool,
    finish,
    open_upload,
    parts_of,
    send,
)

from holdfast.domain.digest import digest_of
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    RateLimitedError,
    TooLargeError,
)
from holdfast.repository.uploads.owned import UploadLimits
from holdfast.repository.uploads.record import Result

DATA = some_bytes(3 * PART_BYTES + 100)
UNKNOWN = "x" * 22


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES])
async def test_parts_become_the_blob(pool: Pool, size: int) -> None:
    worker = pool.worker("a")
    data = some_bytes(size)
    opened = await open_upload(worker)

    await send(worker, opened.upload, data)
    result = await finish(worker, opened.upload, data)

    assert result == Result(digest=digest_of(data), size=size, created=True)
    assert await pool.stored() == {digest_of(data): data}
    assert await pool.leftovers() == {}
    assert worker.active == 0


async def test_an_upload_says_where_to_begin_and_how_far_ahead_to_send(pool: Pool) -> None:
    opened = await open_upload(pool.worker("a"))

    assert (opened.part_size, opened.next_part) == (PART_BYTES, 0)
    assert opened.window >= PART_BYTES


async def test_parts_that_overlap_in_time_are_stored_in_order(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)

    sending = [
        asyncio.create_task(worker.part(opened.upload, number, part))
        for number, part in enumerate(parts_of(DATA))
    ]
    result = await finish(worker, opened.upload, DATA) if await asyncio.gather(*sending) else None

    assert result is not None
    assert await pool.stored() == {digest_of(DATA): DATA}


async def test_the_type_and_the_time_of_an_upload_are_recorded(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    await send(worker, opened.upload, DATA)

    await finish(worker, opened.upload, DATA)

    info = await pool.blobs.stat(digest_of(DATA))
    assert (info.type, info.created_at, info.pinned) == (TYPE, pool.time.clock(), True)


@pytest.mark.fault("P14")
@pytest.mark.parametrize(
    ("sent", "wrong", "error"),
    [
        pytest.param([], (1, b"a" * PART_BYTES), InvalidError, id="the second part first"),
        pytest.param([0], (2, b"a" * PART_BYTES), InvalidError, id="a part is missing"),
        pytest.param([0, 1], (0, b"other" * 10), ConflictError, id="a repeat with other bytes"),
        pytest.param([0, 1, 2, 3], (4, b"a"), InvalidError, id="after a short one"),
        pytest.param([0], (1, b"a" * (PART_BYTES + 1)), InvalidError, id="too long"),
        pytest.param([0], (1, b""), InvalidError, id="empty"),
    ],
)
async def test_a_part_out_of_order_is_refused_and_the_upload_goes_on(
    pool: Pool, sent: list[int], wrong: tuple[int, bytes], error: type[HoldfastError]
) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    parts = parts_of(DATA)
    for number in sent:
        await worker.part(opened.upload, number, parts[number])

    with pytest.raises(error):
        await worker.part(opened.upload, *wrong)

    await send(worker, opened.upload, DATA, start=len(sent))
    await finish(worker, opened.upload, DATA)
    assert await pool.stored() == {digest_of(DATA): DATA}
    assert await pool.leftovers() == {}


@pytest.mark.fault("P13")
async def test_a_repeated_part_is_answered_again_and_stored_once(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    await send(worker, opened.upload, DATA)

    await send(worker, opened.upload, DATA)

    assert list((await pool.leftovers()).values()) == [4]
    await finish(worker, opened.upload, DATA)
    assert await pool.stored() == {digest_of(DATA): DATA}


async def test_a_commit_with_too_few_parts_is_refused_and_the_upload_goes_on(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    await worker.part(opened.upload, 0, parts_of(DATA)[0])

    for parts in (0, 2, 4):
        with pytest.raises(InvalidError):
            await worker.final(opened.upload, parts, None)

    assert await pool.stored() == {}
    await send(worker, opened.upload, DATA, start=1)
    await finish(worker, opened.upload, DATA)
    assert await pool.stored() == {digest_of(DATA): DATA}


@pytest.mark.fault("P04")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same worker", "another worker"])
async def test_a_second_commit_is_answered_like_the_first(pool: Pool, elsewhere: bool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    await send(worker, opened.upload, DATA)
    first = await finish(worker, opened.upload, DATA)
    other = pool.worker("b") if elsewhere else worker

    assert await finish(other, opened.upload, DATA) == first
    assert await other.resume(opened.upload) == first
    with pytest.raises(ConflictError):
        await other.final(opened.upload, 3, None)
    with pytest.raises(ConflictError):
        await other.final(opened.upload, 4, digest_of(b"other"))
    with pytest.raises(ConflictError):
        await other.part(opened.upload, 4, b"more")


async def test_commits_at_the_same_time_are_answered_alike(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    await send(worker, opened.upload, DATA)

    results = await asyncio.gather(*(finish(worker, opened.upload, DATA) for _ in range(8)))

    assert set(results) == {Result(digest=digest_of(DATA), size=len(DATA), created=True)}


@pytest.mark.fault("P20")
@pytest.mark.parametrize(
    "announce",
    [
        {"digest": digest_of(b"other")},
        {"size": len(DATA) + 1},
        {"size": 0},
    ],
    ids=["digest", "larger", "empty"],
)
async def test_bytes_that_are_not_those_announced_are_refused_and_nothing_is_stored(
    pool: Pool, announce: dict[str, object]
) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker, **announce)  # type: ignore[arg-type]  # a row of the table
    await send(worker, opened.upload, DATA)

    with pytest.raises(InvalidError):
        await worker.final(opened.upload, 4, None)

    assert await pool.stored() == {}
    assert await pool.leftovers() == {}
    assert worker.active == 0
    with pytest.raises(ConflictError):
        await worker.final(opened.upload, 4, None)


@pytest.mark.fault("P20")
async def test_bytes_that_are_not_those_of_the_commit_are_refused(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    await send(worker, opened.upload, DATA)

    with pytest.raises(InvalidError):
        await worker.final(opened.upload, 4, digest_of(b"other"))

    assert await pool.stored() == {}
    assert await pool.leftovers() == {}


async def test_an_unknown_upload_is_not_found(pool: Pool) -> None:
    worker = pool.worker("a")

    for attempt in (
        worker.part(UNKNOWN, 0, b"a"),
        worker.final(UNKNOWN, 1, None),
        worker.resume(UNKNOWN),
        worker.abort(UNKNOWN),
    ):
        with pytest.raises(NotFoundError):
            await attempt


async def test_an_aborted_upload_leaves_nothing_and_takes_nothing(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    await send(worker, opened.upload, DATA)

    assert await worker.abort(opened.upload)

    assert await pool.leftovers() == {}
    assert worker.active == 0
    assert not await worker.abort(opened.upload)
    assert not await pool.worker("b").abort(opened.upload)
    with pytest.raises(ConflictError):
        await worker.part(opened.upload, 4, b"a")
    with pytest.raises(NotFoundError):
        await worker.resume(opened.upload)


async def test_any_worker_may_abort_and_the_owner_finds_out(pool: Pool) -> None:
    owner, other = pool.worker("a"), pool.worker("b")
    opened = await open_upload(owner)
    await send(owner, opened.upload, DATA)

    assert await other.abort(opened.upload)

    assert await pool.leftovers() == {}
    with pytest.raises(ConflictError):
        await finish(owner, opened.upload, DATA)
    pool.time.advance(60)
    await owner.renew()
    assert owner.active == 0
    assert await pool.leftovers() == {}


async def test_what_is_committed_cannot_be_aborted(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    await send(worker, opened.upload, DATA)
    await finish(worker, opened.upload, DATA)

    assert not await worker.abort(opened.upload)

    assert await pool.stored() == {digest_of(DATA): DATA}


async def test_a_blob_that_is_there_needs_no_upload(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    await send(worker, opened.upload, DATA)
    await finish(worker, opened.upload, DATA)

    again = await worker.open(size=None, digest=digest_of(DATA), type=TYPE, op_id=None)

    assert again == Result(digest=digest_of(DATA), size=len(DATA), created=False)
    assert worker.active == 0


@pytest.mark.fault("P08")
async def test_of_two_uploads_of_the_same_bytes_one_creates_the_blob(pool: Pool) -> None:
    workers = [pool.worker("a"), pool.worker("b")]
    opened = [await open_upload(worker) for worker in workers]
    for worker, upload in zip(workers, opened, strict=True):
        await send(worker, upload.upload, DATA)

    results = await asyncio.gather(
        *(finish(worker, o.upload, DATA) for worker, o in zip(workers, opened, strict=True))
    )

    assert sorted(result.created for result in results) == [False, True]
    assert await pool.stored() == {digest_of(DATA): DATA}
    assert await pool.leftovers() == {}


@pytest.mark.fault("P13")
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same worker", "another worker"])
async def test_open_with_the_same_op_id_opens_one_upload(pool: Pool, elsewhere: bool) -> None:
    worker = pool.worker("a")
    other = pool.worker("b") if elsewhere else worker
    opened = await open_upload(worker, op_id="op 1/ü")
    await worker.part(opened.upload, 0, parts_of(DATA)[0])

    again = await open_upload(other, op_id="op 1/ü")

    assert (again.upload, again.next_part) == (opened.upload, 1)
    await send(other, opened.upload, DATA, start=1)
    first = await finish(other, opened.upload, DATA)
    assert await other.open(size=None, digest=None, type=TYPE, op_id="op 1/ü") == first
    assert await pool.leftovers() == {}


async def test_another_op_id_is_another_upload(pool: Pool) -> None:
    worker = pool.worker("a")

    first, second = await open_upload(worker, op_id="a"), await open_upload(worker, op_id="b")

    assert first.upload != second.upload


async def test_a_worker_owns_only_so_many_uploads(pool: Pool) -> None:
    worker = pool.worker("a", limits=UploadLimits(max_uploads=2))
    kept = [await open_upload(worker) for _ in range(2)]

    with pytest.raises(RateLimitedError):
        await open_upload(worker)
    with pytest.raises(RateLimitedError):
        await worker.resume((await open_upload(pool.worker("b"))).upload)

    await worker.abort(kept[0].upload)
    assert (await open_upload(worker)).upload != kept[0].upload


async def test_windows_never_exceed_the_memory_for_them(pool: Pool) -> None:
    memory = 20 * PART_BYTES
    worker = pool.worker("a", limits=UploadLimits(memory_bytes=memory, max_uploads=1000))

    windows: list[int] = []
    for _ in range(1000):
        try:
            opened = await open_upload(worker)
        except RateLimitedError:
            break
        windows.append(opened.window)

    assert sum(windows) <= memory
    assert len(windows) >= 4
    assert min(windows) == PART_BYTES


async def test_an_upload_that_is_refused_for_its_limits_leaves_no_record(pool: Pool) -> None:
    worker = pool.worker("a", limits=UploadLimits(max_uploads=1))
    await open_upload(worker)

    with pytest.raises(RateLimitedError):
        await open_upload(worker)

    assert len([record async for record in pool.records.list_records("u")]) == 1


async def test_a_blob_beyond_the_limit_is_refused_when_announced_and_when_sent(pool: Pool) -> None:
    worker = pool.worker("a", limits=UploadLimits(max_blob_bytes=2 * PART_BYTES))
    with pytest.raises(TooLargeError):
        await open_upload(worker, size=2 * PART_BYTES + 1)
    opened = await open_upload(worker)
    await send(worker, opened.upload, DATA[: 2 * PART_BYTES])

    with pytest.raises(TooLargeError):
        await worker.part(opened.upload, 2, b"a")

    assert (await worker.final(opened.upload, 2, None)).size == 2 * PART_BYTES


async def test_records_of_ended_uploads_go_away_by_themselves(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker, op_id="op")
    await send(worker, opened.upload, DATA)
    await finish(worker, opened.upload, DATA)

    pool.time.advance(25 * 3600)

    assert [record async for record in pool.records.list_records("")] == []
    with pytest.raises(NotFoundError):
        await finish(worker, opened.upload, DATA)


async def test_closing_waits_for_what_is_being_written(pool: Pool) -> None:
    worker = pool.worker("a")
    opened = await open_upload(worker)
    sending = asyncio.create_task(worker.part(opened.upload, 0, parts_of(DATA)[0]))
    await asyncio.sleep(0)

    await worker.aclose()

    assert list((await pool.leftovers()).values()) == [1]
    assert await sending == 0
    assert (await pool.worker("b").resume(opened.upload)).next_part == 1  # type: ignore[union-attr]  # it is open
