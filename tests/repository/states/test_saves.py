"""Saved states: the newest that is whole is loaded, and none is lost that anybody may need."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.repository.states.pool import MAX_BYTES, StatesPool, code_of

from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import ConflictError, CorruptError, InvalidError, NotFoundError
from holdfast.repository.states.keeping import StateKeeper, StateRoots
from holdfast.repository.states.record import STATE
from holdfast.repository.states.saves import NewSave
from holdfast.stores.ports import Attributes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.states.pool import StatesWorker


@pytest.fixture
def pool() -> StatesPool:
    return StatesPool()


def damage(pool: StatesPool, digest: str) -> None:
    """Flip a bit of a stored blob."""
    blob = pool.blobs._blobs[Digest(digest)]
    blob.data = b"\x00" + blob.data[1:]


async def test_the_newest_save_is_loaded_with_how_far_it_goes(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1, 2, 3)

    await worker.save("s", b"1", 1)
    made = await worker.save("s", b"[1,2]", 2)

    loaded = await pool.worker().latest("s")
    assert (loaded.save, loaded.data) == (made, b"[1,2]")
    assert loaded.save.digest == digest_of(b"[1,2]")
    assert loaded.save.previous == digest_of(b"1")
    assert await worker.replay("s", loaded.save.last_applied_index + 1) == [3]


async def test_a_save_that_is_older_than_the_newest_is_a_conflict_unless_it_is_forced(
    pool: StatesPool,
) -> None:
    worker = pool.worker()
    await worker.append("s", 1, 2, 3)
    await worker.save("s", b"new", 3)

    with pytest.raises(ConflictError) as older:
        await worker.save("s", b"old", 2)
    assert older.value.index == 3
    await worker.save("s", b"old", 2, force=True)

    assert (await worker.latest("s")).data == b"old"


async def test_a_save_of_a_command_that_the_log_does_not_have_is_invalid(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1, 2)

    with pytest.raises(InvalidError):
        await worker.save("s", b"x", 3)
    assert await code_of(worker.latest("s")) == "not_found"


async def test_a_state_without_a_log_is_saved_and_its_log_goes_on_from_there(
    pool: StatesPool,
) -> None:
    worker = pool.worker()
    await worker.save("s", b"elsewhere", 500)
    lineage = (await worker.latest("s")).lineage

    run = await worker.append("s", "next", lineage=lineage)

    assert run.index == 501
    assert await worker.replay("s", 501) == ["next"]
    with pytest.raises(NotFoundError) as below:
        await worker.replay("s", 500)
    assert below.value.index == 501


@pytest.mark.parametrize("has_log", [True, False])
async def test_whoever_read_a_state_that_was_only_saved_does_not_go_on_in_the_one_begun_anew(
    pool: StatesPool, *, has_log: bool
) -> None:
    worker = pool.worker()
    for _ in range(3):
        await worker.save("s", b"old", 5)
        lineage = (await worker.latest("s")).lineage
        await worker.upkeep.remove("s")
        await worker.save("s", b"new", 5)
        if has_log:
            await worker.append("s", 6)

        for work in (
            worker.append("s", "x", lineage=lineage),
            worker.append("s", "x", expected=6, lineage=lineage),
            worker.save("s", b"old", 5, lineage=lineage),
            worker.replays.page("s", 6, 10, lineage=lineage),
        ):
            assert await code_of(work) == "conflict"
        await worker.upkeep.remove("s")


async def test_a_repeated_save_is_answered_as_the_first(pool: StatesPool) -> None:
    one, two = pool.worker(), pool.worker()
    await one.append("s", 1, 2)
    first = await one.save("s", b"1", 1, op_id="op x")
    await two.save("s", b"2", 2)

    assert await two.save("s", b"1", 1, op_id="op x") == first
    with pytest.raises(ConflictError):
        await two.save("s", b"other", 2, op_id="op y")
    assert (await one.latest("s")).data == b"2"


async def _save_more(worker: StatesWorker) -> None:
    await worker.upkeep.policy("s", {"keep": 2})
    for index in (2, 3):
        await worker.save("s", b"more", index)


async def _go_on_elsewhere(worker: StatesWorker) -> None:
    await worker.upkeep.repair("s", 1)
    await worker.append("s", "other")


DROPS: Final[dict[str, Callable[[StatesWorker], Awaitable[Any]]]] = {
    "others came after it": _save_more,
    "the log was repaired": _go_on_elsewhere,
    "the state was removed": lambda worker: worker.upkeep.remove("s"),
}


@pytest.mark.parametrize("kind", ["bytes", "a blob that is there"])
@pytest.mark.parametrize("drop", DROPS)
async def test_a_repeated_save_that_is_not_kept_any_more_is_not_made_again(
    pool: StatesPool, drop: str, kind: str
) -> None:
    one, two = pool.worker(), pool.worker()
    for number in (1, 2, 3):
        await one.append("s", number)
    digest = digest_of(b"1")
    attributes = Attributes(type="a/b", created_at=pool.time.clock(), pinned=False)
    await pool.blobs.put(digest, b"1", attributes)
    by_digest = NewSave(last_applied_index=1, digest=digest)
    new = NewSave(last_applied_index=1, data=b"1") if kind == "bytes" else by_digest
    first = await one.saves.save("s", new, op_id="op x")
    await DROPS[drop](one)
    await pool.blobs.delete(digest)
    before = await pool.worker().states.find("s")

    assert await two.saves.save("s", new, op_id="op x") == first
    assert await pool.worker().states.find("s") == before


@pytest.mark.parametrize("by_digest", [False, True], ids=["bytes", "a blob that is there"])
async def test_a_repeat_of_a_save_whose_worker_died_has_the_blob_or_makes_no_save(
    pool: StatesPool, by_digest: bool
) -> None:
    digest = digest_of(b"1")
    await pool.blobs.put(digest, b"1", Attributes(type="a/b", created_at=pool.time.clock()))
    new = NewSave(
        last_applied_index=0,
        digest=digest if by_digest else None,
        data=None if by_digest else b"1",
    )
    await pool.worker().saves.save("s", new, op_id="op x")
    await pool.blobs.delete(digest)  # by whoever did not see the record yet

    code = await code_of(pool.worker().saves.save("s", new, op_id="op x"))
    assert code == ("not_found" if by_digest else "ok")
    assert await code_of(pool.worker().latest("s")) == code


async def test_a_repeat_does_not_take_back_a_save_whose_blob_is_damaged(pool: StatesPool) -> None:
    await pool.worker().save("other", b"1", 0)
    new = NewSave(last_applied_index=0, digest=digest_of(b"1"))
    first = await pool.worker().saves.save("s", new, op_id="op x")
    damage(pool, digest_of(b"1"))

    assert await pool.worker().saves.save("s", new, op_id="op x") == first
    with pytest.raises(CorruptError):
        await pool.worker().latest("s")


async def test_a_damaged_save_is_passed_over_and_told_of(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1, 2)
    await worker.save("s", b"first", 1)
    newest = await worker.save("s", b"second", 2)
    damage(pool, newest.digest)

    loaded = await worker.latest("s")

    assert (loaded.data, loaded.fell_back) == (b"first", [newest.number])


async def test_a_state_of_which_no_save_can_be_read_is_corrupt(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1)
    damage(pool, (await worker.save("s", b"only", 1)).digest)

    with pytest.raises(CorruptError):
        await worker.latest("s")


async def test_a_save_is_found_by_index_time_and_hash(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", *range(1, 31))
    for index in (10, 20, 30):
        await worker.save("s", str(index).encode(), index)
        pool.time.advance(60)

    by_index = await worker.saves.at("s", index=25)
    by_time = await worker.saves.at("s", time=pool.time.clock() - timedelta(seconds=61))
    by_hash = await worker.saves.at("s", digest=digest_of(b"30"))

    assert [one.data for one in (by_index, by_time, by_hash)] == [b"20", b"20", b"30"]
    with pytest.raises(NotFoundError):
        await worker.saves.at("s", index=9)
    with pytest.raises(InvalidError):
        await worker.saves.at("s")


async def test_saves_are_kept_by_count_and_age(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1)
    await worker.save("s", b"0", 1)
    await worker.upkeep.policy("s", {"keep": 2, "keep_seconds": 100})

    for n in range(1, 6):
        pool.time.advance(40)
        await worker.save("s", str(n).encode(), 1)

    saves, has_more = await worker.saves.page("s", below=None, limit=10)
    assert [save.number for save in saves] == [6, 5, 4]
    assert not has_more


async def test_saves_come_in_pages_newest_first(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1)
    for n in range(5):
        await worker.save("s", str(n).encode(), 1)

    first, has_more = await worker.saves.page("s", below=None, limit=3)
    rest, is_cut = await worker.saves.page("s", below=first[-1].number, limit=3)

    assert [save.number for save in (*first, *rest)] == [5, 4, 3, 2, 1]
    assert (has_more, is_cut) == (True, False)


async def test_a_blob_that_is_there_is_saved_by_its_digest(pool: StatesPool) -> None:
    worker = pool.worker()
    data = b"x" * MAX_BYTES
    digest = digest_of(data)
    attributes = Attributes(type="application/octet-stream", created_at=pool.time.clock())
    await pool.blobs.put(digest, data, attributes)

    await worker.saves.save("s", NewSave(last_applied_index=0, kind="bytes", digest=digest))

    loaded = await worker.latest("s")
    assert (loaded.save.digest, loaded.save.size, loaded.data) == (digest, MAX_BYTES, None)
    missing = NewSave(last_applied_index=0, digest=digest_of(b"not there"))
    assert await code_of(worker.saves.save("s", missing)) == "not_found"


async def test_the_blobs_of_saves_are_roots_for_the_collector(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1)
    await worker.save("s", b"1", 1)
    await worker.save("s", b"2", 1)

    roots = StateRoots(pool.records)
    [record] = [one async for one in pool.records.list_records(STATE.prefix)]

    assert set(roots.named(record)) == {digest_of(b"1"), digest_of(b"2")}
    with pytest.raises(CorruptError):
        roots.named(replace(record, value=b"{}"))


async def test_a_blob_leads_to_the_states_that_keep_it_for_as_long_as_they_do(
    pool: StatesPool,
) -> None:
    worker, keeper = pool.worker(), StateKeeper(pool.records)
    blob = digest_of(b"1")
    for name in ("a/b", "c"):
        await worker.save(name, b"1", 0)

    assert await keeper.keeps(blob)
    assert await keeper.kept_for(blob, 10) == ["state a/b", "state c"]
    await worker.upkeep.policy("c", {"keep": 2})
    await worker.save("c", b"2", 0)
    await worker.save("c", b"3", 0)
    assert await keeper.kept_for(blob, 10) == ["state a/b"]
    await worker.upkeep.remove("a/b")
    assert not await keeper.keeps(blob)


async def test_a_save_whose_blob_somebody_has_deleted_can_be_loaded(pool: StatesPool) -> None:
    worker, keeper = pool.worker(), StateKeeper(pool.records)
    digest = digest_of(b"\xff")
    new = NewSave(last_applied_index=0, kind="bytes", data=b"\xff")
    await worker.saves.save("s", new)
    await pool.blobs.delete(digest, kept=lambda: keeper.keeps(digest))
    assert (await pool.blobs.stat(digest)).deleted

    loaded = await worker.latest("s")

    assert (loaded.save.digest, list(loaded.fell_back)) == (digest, [])
    assert not (await pool.blobs.stat(digest)).deleted


async def test_a_state_is_not_loaded_again_by_whoever_has_it(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1)
    made = await worker.save("s", b"1", 1)

    loaded = await worker.saves.latest("s", unless=made.digest)

    assert (loaded.save, loaded.data) == (made, None)
