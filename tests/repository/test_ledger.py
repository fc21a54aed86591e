"""Typed records: no change is lost or made twice, whoever is paused, quicker or unheard."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from tests.repository.pool import Doom, DoomedRecordStore, Pause, Time

from holdfast.deadline import deadline
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE, Lapses, Watched
from holdfast.repository.ledger.lease import Carried
from holdfast.repository.ledger.ledger import Held, Ledger, RecordKind
from holdfast.repository.ledger.ops import OP, Ops
from holdfast.stores.memory import MemoryRecordStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from holdfast.stores.record_ports import Change, Record, RecordStore

    Put = Callable[[], Awaitable[int]]

LEASE_SECONDS: Final = 60.0


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is made; ``done`` are the ids of what was done to it."""

    name: str
    owner: str = "a"
    beat: int = 0
    over: bool = False
    done: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


TASK: Final = RecordKind(
    noun="task",
    form=Task,
    prefix="t",
    live_prefix="m",
    name=lambda task: task.name,
    is_live=lambda task: not task.over,
    renewed=lambda task: msgspec.structs.replace(task, beat=task.beat + 1),
    finders=lambda task: [f"f.{tag}.{task.name}" for tag in task.tags],
    ttl=lambda task: timedelta(hours=1) if task.over else None,
)


def do(what: str, task: Task) -> Task:
    """``task`` once ``what`` was done, which is done once."""
    if what in task.done:
        return task
    return msgspec.structs.replace(task, done=(*task.done, what))


def end(task: Task) -> Task:
    return msgspec.structs.replace(task, over=True)


def take_over(owner: str, task: Task) -> Task:
    return msgspec.structs.replace(task, owner=owner)


def check_owner(owner: str, task: Task) -> None:
    if task.owner != owner:
        raise ConflictError("another's")


class PutsAs(DoomedRecordStore):
    """Puts as ``around`` makes them of what would put."""

    def __init__(self, around: Callable[[Put], Awaitable[int]], inner: RecordStore) -> None:
        super().__init__(inner, Doom(0, applied=False))
        self._around = around

    async def _write(self, function: Callable[[], Awaitable[Any]]) -> Any:
        return await self._around(function)


class UnheardRecordStore(MemoryRecordStore):
    """Of the next write nothing is heard. It comes before the one after it, just after, or never.

    So it may be with a message that lies in a buffer of a server that is paused.
    """

    def __init__(self, arrives: str) -> None:
        super().__init__(lambda: 0.0)
        self.arrives = arrives
        self.is_losing = False
        self.late: list[Callable[[], Awaitable[object]]] = []

    async def _change(self, changes: Sequence[Change]) -> list[int]:
        write = partial(super()._change, changes)
        if self.is_losing:
            self.is_losing = False
            if self.arrives == "at once":
                await write()
            else:
                self.late.append(write)
            raise OutcomeUnknownError("the answer was lost")
        if self.arrives == "before":
            await self.arrive()
        try:
            return await write()
        finally:
            if self.arrives == "after":
                await self.arrive()

    async def arrive(self) -> None:
        """Have the message under way arrive; it may be refused."""
        late, self.late = self.late, []
        await asyncio.gather(*(write() for write in late), return_exceptions=True)


@pytest.fixture
def records() -> MemoryRecordStore:
    return MemoryRecordStore(lambda: 0.0)


async def begun(records: RecordStore, name: str = "x", **fields: object) -> Held[Task]:
    """A task that has been begun."""
    task = msgspec.structs.replace(Task(name=name), **fields)
    return await Ledger(records).begin(TASK, name, task)


async def keys(records: RecordStore) -> list[str]:
    """Every key that is there."""
    return [record.key async for record in records.list_records("")]


# --- one after the other ---


async def test_what_is_begun_is_found_until_it_is_removed_and_live_until_it_ends(
    records: MemoryRecordStore,
) -> None:
    ledger = Ledger(records)

    held = await begun(records, tags=("red", "blue"))
    assert await keys(records) == ["f.blue.x", "f.red.x", "m.x", "t.x"]
    assert [each async for each in ledger.live(TASK)] == [held]
    with pytest.raises(ConflictError):
        await begun(records)
    ended = await ledger.update(held, end)

    assert await keys(records) == ["f.blue.x", "f.red.x", "t.x"]
    assert [each async for each in ledger.live(TASK)] == []
    await ledger.remove(held)
    assert await keys(records) == []
    assert ended.record.over
    with pytest.raises(NotFoundError):
        await ledger.remove(held)


async def test_what_has_ended_is_changed_by_nobody(records: MemoryRecordStore) -> None:
    ledger = Ledger(records)
    held = await begun(records)
    ended = await ledger.update(held, end)

    for seen in (held, ended):
        with pytest.raises(ConflictError):
            await ledger.update(seen, partial(do, "1"))
        with pytest.raises(ConflictError):
            await ledger.take(seen, end)

    assert await ledger.get(TASK, "x") == ended


async def test_what_has_ended_may_be_amended(records: MemoryRecordStore) -> None:
    ledger = Ledger(records)
    ended = await ledger.update(await begun(records), end)

    amended = await ledger.amend(ended, partial(do, "noted"))

    assert (await ledger.get(TASK, "x")).record.done == ("noted",)
    assert (await ledger.amend(amended, partial(do, "noted"))).revision == amended.revision
    assert await keys(records) == ["t.x"]


async def test_a_record_is_removed_behind_a_fence_only_while_both_are_as_they_were() -> None:
    time = Time()
    records = MemoryRecordStore(time.monotonic, clock=time.clock)
    ledger = Ledger(records)
    fence = await begun(records, "fence")
    one, two, three = [await begun(records, name, tags=("a",)) for name in ("1", "2", "3")]
    changed = await ledger.update(two, partial(do, "a"))

    moved = await ledger.remove_behind(one, fence)
    for held, outdated in ((three, fence), (two, moved)):
        with pytest.raises(ConflictError):
            await ledger.remove_behind(held, outdated)
    again = await ledger.remove_behind(changed, moved)

    assert await ledger.written_at(again) == time.clock()
    with pytest.raises(ConflictError):
        await ledger.written_at(moved)
    assert await keys(records) == ["f.a.3", "m.3", "m.fence", "t.3", "t.fence"]


async def test_a_change_that_changes_nothing_writes_nothing_and_one_that_refuses_neither(
    records: MemoryRecordStore,
) -> None:
    ledger = Ledger(records)
    held = await begun(records)

    assert await ledger.update(held, lambda task: task) is held
    with pytest.raises(ConflictError):
        await Carried(ledger, held, partial(check_owner, "b")).renew(end)

    assert await ledger.get(TASK, "x") == held


async def test_a_record_that_lies_where_another_belongs_is_corrupt(
    records: MemoryRecordStore,
) -> None:
    await begun(records, "y")
    await records.put("t.x", (await records.get("t.y")).value, expected=0)
    await records.put("t.z", b"{", expected=0)
    ledger = Ledger(records)

    found, unreadable = await ledger.get_many(TASK, ["x", "y", "z", "nothing"])

    assert (list(found), sorted(unreadable)) == (["y"], ["x", "z"])
    for name in ("x", "z"):
        with pytest.raises(CorruptError):
            await ledger.get(TASK, name)


async def test_more_records_than_one_request_may_name_are_read(records: MemoryRecordStore) -> None:
    names = [f"n{number:04}" for number in range(1500)]
    for name in names:
        await begun(records, name)

    found, _ = await Ledger(records).get_many(TASK, names)

    assert list(found) == names


# --- several at once ---


@pytest.mark.fault("P07")
async def test_no_change_is_lost_among_racing_writers(records: MemoryRecordStore) -> None:
    held = await begun(records)
    ledger = Ledger(records)

    await asyncio.gather(*(ledger.update(held, partial(do, f"{n}")) for n in range(7)))

    task = (await ledger.get(TASK, "x")).record
    assert sorted(task.done) == [f"{n}" for n in range(7)]


@pytest.mark.fault("P07")
async def test_of_those_who_take_a_record_as_they_saw_it_one_gets_it(
    records: MemoryRecordStore,
) -> None:
    held = await begun(records)
    ledger = Ledger(records)

    taken = await asyncio.gather(
        *(ledger.take(held, partial(take_over, f"w{n}")) for n in range(8)), return_exceptions=True
    )

    [winner] = [each for each in taken if isinstance(each, Held)]
    assert await ledger.get(TASK, "x") == winner
    assert all(isinstance(each, ConflictError) for each in taken if each is not winner)


async def test_who_never_comes_first_is_told_so(records: MemoryRecordStore) -> None:
    held = await begun(records)
    numbers = itertools.count()

    async def busily(put: Put) -> int:
        other = await Ledger(records).get(TASK, "x")
        await Ledger(records).update(other, partial(do, f"{next(numbers)}"))
        return await put()

    busy = Ledger(PutsAs(busily, records))
    with pytest.raises(ConflictError, match="kept changing"):
        await busy.update(held, partial(do, "mine"))

    assert "mine" not in (await Ledger(records).get(TASK, "x")).record.done


# --- outcomes that are not known ---

ARRIVALS: Final = ("at once", "before", "after", "never")


@pytest.mark.fault("P05")
@pytest.mark.parametrize("arrives", ARRIVALS)
@pytest.mark.parametrize("step", ["begin", "update", "end", "take"])
async def test_a_write_of_which_nothing_was_heard_is_made_once(arrives: str, step: str) -> None:
    store = UnheardRecordStore(arrives)
    ledger = Ledger(store)
    held = await begun(store) if step != "begin" else None

    store.is_losing = True
    if held is None:
        written = await begun(store, tags=("red",))
    elif step == "take":
        written = await ledger.take(held, partial(take_over, "b"))
    else:
        written = await ledger.update(held, end if step == "end" else partial(do, "1"))
    await store.arrive()

    assert await ledger.get(TASK, "x") == written
    assert written.revision == (1 if held is None else 3), "written once, over what was begun"


@pytest.mark.fault("P05")
async def test_a_change_that_meets_its_own_work_beneath_anothers_is_not_made_again() -> None:
    store = UnheardRecordStore("at once")
    held = await begun(store)
    heard = asyncio.Event()

    async def slowly(put: Put) -> int:
        try:
            return await put()
        except OutcomeUnknownError:
            other = await Ledger(store).get(TASK, "x")
            await Ledger(store).update(other, partial(do, "another's"))
            heard.set()
            raise

    store.is_losing = True
    written = await Ledger(PutsAs(slowly, store)).update(held, partial(do, "mine"))

    assert heard.is_set()
    assert written.record.done == ("mine", "another's")


@pytest.mark.fault("P05")
async def test_that_nothing_is_there_does_not_say_that_nothing_was_written() -> None:
    store = UnheardRecordStore("at once")

    async def in_vain(put: Put) -> int:
        try:
            return await put()
        except OutcomeUnknownError:
            await Ledger(store).remove(await Ledger(store).get(TASK, "x"))
            raise

    held = await begun(store)
    store.is_losing = True
    with pytest.raises(OutcomeUnknownError):
        await Ledger(PutsAs(in_vain, store)).update(held, partial(do, "1"))


@pytest.mark.fault("P05")
@pytest.mark.parametrize("is_unheard", [False, True])
async def test_when_time_is_over_no_more_is_said_than_is_known(is_unheard: bool) -> None:
    class Away(UnheardRecordStore):
        async def _change(self, changes: Sequence[Change]) -> list[int]:
            if self.is_losing or not self.is_away:
                return await super()._change(changes)
            raise UnavailableError("away")

        is_away = False

    store = Away("never")
    held = await begun(store)
    store.is_away, store.is_losing = True, is_unheard

    with deadline(0.2), pytest.raises(OutcomeUnknownError if is_unheard else UnavailableError):
        await Ledger(store).update(held, partial(do, "1"))


@pytest.mark.fault("P05")
@pytest.mark.parametrize("by_another", [False, True], ids=["ours is there", "another's is there"])
async def test_a_write_that_cannot_be_looked_for_is_unknown(by_another: bool) -> None:
    store = UnheardRecordStore("at once")
    held = await begun(store)

    class Blind(PutsAs):
        """Its first write is not heard of; then nothing can be read."""

        is_blind = False

        async def get(self, key: str, *, sure: bool = False) -> Record:
            if self.is_blind:
                raise UnavailableError("no time left")
            return await super().get(key, sure=sure)

    async def unheard(put: Put) -> int:
        try:
            return await put()
        except OutcomeUnknownError:
            store.is_losing = False
            if by_another:
                other = await Ledger(store).get(TASK, "x")
                await Ledger(store).update(other, partial(do, "another's"))
            blind.is_blind = True
            raise

    blind = Blind(unheard, store)

    store.is_losing = True
    with pytest.raises(OutcomeUnknownError):
        await Ledger(blind).update(held, partial(do, "1"))


async def test_what_is_live_is_found_though_a_listing_with_values_would_fail() -> None:
    class Unlistable(DoomedRecordStore):
        def list_records(self, prefix: str) -> AsyncIterator[Record]:
            raise CorruptError(f"one of {prefix} is damaged")

    plain = dataclasses.replace(TASK, live_prefix="")
    store = MemoryRecordStore(lambda: 0.0)
    await Ledger(store).begin(plain, "x", Task(name="x"))
    unlistable = Unlistable(store, Doom(0, applied=False))
    assert [held.name async for held in Ledger(unlistable).live(plain)] == ["x"]


async def test_who_has_worked_for_long_outlasts_a_store_that_is_away_and_others_are_told_at_once(
    records: MemoryRecordStore,
) -> None:
    failures = 2

    async def fail_first(put: Put) -> int:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise UnavailableError("away")
        return await put()

    store = PutsAs(fail_first, records)
    carried = Carried(Ledger(store), await begun(records), lambda _task: None, is_patient=True)

    await carried.renew(partial(do, "1"))
    failures = 1
    with pytest.raises(UnavailableError):
        await Ledger(store).update(carried.held, partial(do, "2"))

    assert (await Ledger(records).get(TASK, "x")).record.done == ("1",)


@pytest.mark.fault("P05")
@pytest.mark.parametrize("arrives", ARRIVALS)
async def test_an_op_id_that_was_claimed_unheard_is_new_to_its_first_request(arrives: str) -> None:
    store = UnheardRecordStore(arrives)
    store.is_losing = True

    assert await Ops(store).claim("an-op digest", "first") == ("first", False)
    await store.arrive()
    assert await Ops(store).claim("an-op digest", "second") == ("first", True)
    with pytest.raises(ConflictError):
        await Ops(store).claim("an-op other", "third")


# --- somebody is held up between two messages, and others go on ---


async def renew(ledger: Ledger) -> None:
    await ledger.update(await ledger.get(TASK, "x"), TASK.renewed)


async def finish(ledger: Ledger) -> None:
    await ledger.update(await ledger.get(TASK, "x"), end)


async def be_taken(ledger: Ledger) -> None:
    await ledger.take(await ledger.get(TASK, "x"), partial(take_over, "b"))


async def be_removed(ledger: Ledger) -> None:
    await ledger.remove(await ledger.get(TASK, "x"))


@pytest.mark.fault("P05")
@pytest.mark.fault("P06")
@pytest.mark.parametrize("lost", [False, True], ids=["before a call", "its answer is lost"])
@pytest.mark.parametrize(
    "others", [(renew,), (finish,), (be_taken,), (be_removed,), (renew, finish)]
)
@pytest.mark.parametrize("own", [partial(do, "mine"), end], ids=["changes", "ends"])
async def test_who_was_held_up_changes_only_what_is_still_theirs(
    own: Callable[[Task], Task],
    others: Sequence[Callable[[Ledger], Awaitable[None]]],
    lost: bool,
) -> None:
    for call in range(1, 20):
        records = MemoryRecordStore(lambda: 0.0)
        held = await begun(records)
        pause = Pause(call, lost=lost)
        ledger, other = Ledger(DoomedRecordStore(records, pause)), Ledger(records)
        carried = Carried(ledger, held, partial(check_owner, "a"))
        working = asyncio.create_task(carried.renew(own))
        reached = asyncio.create_task(pause.reached.wait())
        await asyncio.wait({working, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        if not pause.reached.is_set():
            await working
            assert call > 1
            return
        for step in others:
            try:
                await step(other)
            except ConflictError:  # it was ended by who is held up
                assert lost

        before = [record async for record in records.list_records("t")]
        pause.wake()
        [failure] = await asyncio.gather(working, return_exceptions=True)

        after = [record async for record in records.list_records("t")]
        tasks = [msgspec.json.decode(record.value, type=Task) for record in (*before, *after)]
        if be_removed in others or any(task.over or task.owner == "b" for task in tasks[:1]):
            assert after == before, "nothing is brought back, reopened or taken back"
        if failure is None:
            assert tasks[-1].over or "mine" in tasks[-1].done
            assert carried.record == tasks[-1]
        else:
            assert isinstance(failure, ConflictError | OutcomeUnknownError)
            assert lost or not after or "mine" not in tasks[-1].done
    pytest.fail("it never gets through")


# --- leases ---


@pytest.fixture
def time() -> Time:
    return Time()


def lapses(records: RecordStore, time: Time, *, ours: Sequence[str] = ()) -> Lapses:
    """A worker that looks after tasks, and is itself at work on ``ours``."""
    ledger = Ledger(records)

    async def give_up(held: Held[Task]) -> None:
        await ledger.take(held, end)

    watched = Watched(
        kind=TASK,
        lease_seconds=lambda _task: LEASE_SECONDS,
        is_ours=lambda held: held.name in ours,
        give_up=give_up,
    )
    return Lapses(
        ledger,
        [watched],
        monotonic=time.monotonic,
        sweep_seconds=LEASE_SECONDS / SWEEPS_PER_LEASE,
    )


async def sweep_for_a_lease(sweeper: Lapses, time: Time) -> int:
    """Every sweep of one lease, and the one at its end; how many were given up."""
    given_up = 0
    for _ in range(SWEEPS_PER_LEASE):
        given_up += await sweeper.sweep()
        time.advance(LEASE_SECONDS / SWEEPS_PER_LEASE)
    return given_up + await sweeper.sweep()


@pytest.mark.fault("S01")
async def test_what_nobody_carries_on_is_ended_once_by_whoever_looks_first(
    records: MemoryRecordStore, time: Time
) -> None:
    for name in ("x", "y", "ours"):
        await begun(records, name)
    carried = Carried(Ledger(records), await Ledger(records).get(TASK, "y"), lambda _task: None)
    sweepers = [lapses(records, time, ours=["ours"]) for _ in range(2)]

    given_up = 0
    for _ in range(SWEEPS_PER_LEASE + 2):
        given_up += sum(await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers)))
        await carried.renew()
        time.advance(LEASE_SECONDS / SWEEPS_PER_LEASE)

    assert given_up == 1
    assert [held.name async for held in Ledger(records).live(TASK)] == ["ours", "y"]


@pytest.mark.fault("P06")
async def test_a_renewal_between_a_look_and_its_end_keeps_a_record_alive(
    records: MemoryRecordStore, time: Time
) -> None:
    for call in range(1, 20):
        held = await begun(records, f"n{call}")
        pause = Pause(SWEEPS_PER_LEASE * 2 + call)
        sweeper = lapses(DoomedRecordStore(records, pause), time)
        sweeping = asyncio.create_task(sweep_for_a_lease(sweeper, time))
        reached = asyncio.create_task(pause.reached.wait())
        await asyncio.wait({sweeping, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        if not pause.reached.is_set():
            break
        renewed = await Ledger(records).update(held, TASK.renewed)
        time.advance(3600)
        pause.wake()
        await sweeping

        found = await Ledger(records).get(TASK, held.name)
        assert found.record.over or found == renewed
        if call <= 3:  # held up before its last word
            assert found == renewed
        await Ledger(records).remove(found)
    else:
        pytest.fail("the sweep never gets through")


async def test_a_holder_that_looks_finds_out_that_it_holds_no_more(
    records: MemoryRecordStore,
) -> None:
    ledger = Ledger(records)
    for step, expected in [
        (renew, None),
        (be_taken, ConflictError),
        (finish, ConflictError),
        (be_removed, ConflictError),
    ]:
        held = await begun(records)
        carried = Carried(ledger, held, partial(check_owner, "a"))
        await step(ledger)

        failure: HoldfastError | None = None
        try:
            await carried.look()
        except HoldfastError as error:
            failure = error

        assert type(failure) is (expected or type(None))
        if step is not be_removed:
            await be_removed(ledger)


async def test_an_op_id_is_forgotten_after_a_day(time: Time) -> None:
    records = MemoryRecordStore(time.monotonic)
    ops = Ops(records)
    await ops.claim("x", "first")
    await ops.note_removed("x", "another")
    assert not await ops.was_removed("x")
    await ops.note_removed("x", "first")
    assert await ops.was_removed("x")

    time.advance(25 * 3600)

    assert not await ops.was_removed("x")
    assert [held async for held in Ledger(records).live(OP)] == []
    await ops.note_removed("x", "first")
    assert await ops.claim("x", "second") == ("second", False)
