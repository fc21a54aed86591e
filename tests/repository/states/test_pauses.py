"""A worker is held up before any of its calls to a store, while others change what it works on.

Or it does not hear that a write was made. Whatever was answered to whomever stays true.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.repository.names.gated import Gate
from tests.repository.names.simulation import JumpingLoop
from tests.repository.states.pool import FullJournal, StatesPool, StatesWorker

from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from holdfast.repository.states.record import Lineage

type Write = Callable[[StatesWorker, Lineage], Awaitable[Any]]
"""A write that is held up, to a log of that lineage."""

MOST_CALLS: Final = 40
_TURNS: Final = 40
"""More turns of the event loop than anything takes between two calls to a store."""


async def _begin_anew(worker: StatesWorker) -> None:
    await worker.upkeep.remove("s")
    await worker.append("s", "new", "newer", "newest")


async def _trim(worker: StatesWorker) -> None:
    for index in (2, 3):
        await worker.save("s", b"%d" % index, index, force=True)
    await worker.upkeep.trim("s", 2)


async def _cut(worker: StatesWorker) -> None:
    await worker.upkeep.repair("s", 3)


async def _see_and_write_down(worker: StatesWorker) -> None:
    await worker.states.look("s")
    await worker.states.write_ends_down()


WRITES: Final[dict[str, Write]] = {
    "append": lambda worker, _: worker.append("s", "w", op_id="op x"),
    "append behind the third": lambda worker, _: worker.append("s", "w", expected=3, op_id="op x"),
    "save": lambda worker, _: worker.save("s", b"w", 3),
    "trim": lambda worker, _: worker.upkeep.trim("s", 1),
    "remove": lambda worker, _: worker.upkeep.remove("s"),
    "repair": lambda worker, _: worker.upkeep.repair("s", 4),
    "write the end down": lambda worker, _: _see_and_write_down(worker),
}
TO_THAT_LOG: Final[dict[str, Write]] = {
    "append": lambda worker, log: worker.append("s", "w", lineage=log, op_id="op x"),
    "append behind the third": lambda worker, log: worker.append(
        "s", "w", expected=3, lineage=log, op_id="op x"
    ),
    "save": lambda worker, log: worker.save("s", b"w", 3, lineage=log),
}
MEANWHILE: Final[dict[str, Callable[[StatesWorker], Awaitable[Any]]]] = {
    "nothing": lambda worker: worker.states.look("s"),
    "others append": lambda worker: worker.append("s", "m"),
    "its caller asks another": lambda worker: worker.append("s", "w", op_id="op x"),
    "its end is written down": _see_and_write_down,
    "the log is trimmed": _trim,
    "the state is removed": lambda worker: worker.upkeep.remove("s"),
    "the state is begun anew": _begin_anew,
    "the log is repaired": _cut,
}
ENDS: Final = {"the state is removed", "the state is begun anew", "the log is repaired"}


class Outcome:
    """The answer to a write, which goes on call by call."""

    def __init__(self, pool: StatesPool, write: Write, lineage: Lineage) -> None:
        self._gate = Gate()
        self.answer: Any = None
        self.error: HoldfastError | None = None

        async def writing() -> None:
            try:
                self.answer = await write(pool.gated(self._gate), lineage)
            except HoldfastError as error:
                self.error = error

        self.task = asyncio.create_task(writing())

    async def go_on(self, calls: int, *, is_heard: bool = True) -> None:
        """Let so many calls through; whether the answer of the last of them ``is_heard``."""
        for call in range(calls):
            await _turns()
            if not self._gate.held:
                return
            self._gate.let_go(is_heard=is_heard or call < calls - 1)
        await _turns()

    async def finish(self) -> None:
        """Let everything through that it calls."""
        for _ in range(MOST_CALLS):
            await self.go_on(MOST_CALLS)
            if self.task.done():
                return
            await asyncio.sleep(1)  # until it tries again: no time passes here


async def _turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Where waiting takes no time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(work)


async def filled() -> tuple[StatesPool, StatesWorker, Lineage]:
    """A log of three commands, a worker, and the log's lineage."""
    pool = StatesPool()
    worker = pool.worker()
    lineages = [(await worker.append("s", n)).lineage for n in (1, 2, 3)]
    assert lineages[-1] is not None
    return pool, worker, lineages[-1]


async def held_up(outcome: Outcome, others: Awaitable[Any], call: int, *, is_heard: bool) -> bool:
    """One run; whether the write had ended before the others came."""
    await outcome.go_on(call, is_heard=is_heard)
    is_done = outcome.task.done()
    with suppress(ConflictError, NotFoundError, CorruptError):
        await others
    await outcome.finish()
    assert outcome.task.done()
    return is_done


async def check(
    pool: StatesPool, others: StatesWorker, write: str, meanwhile: str, outcome: Outcome
) -> None:
    """What there is, is what was answered, and every worker goes on with it."""
    if outcome.error is not None:
        assert isinstance(
            outcome.error,
            ConflictError
            | NotFoundError
            | UnavailableError
            | OutcomeUnknownError
            | (InvalidError if meanwhile in ENDS else ConflictError),
        ), outcome.error
    first, log = await everything(pool.worker())
    assert log or write == "remove" or meanwhile in ENDS
    assert len({str(command) for command in log}) == len(log)
    is_old = [command for command in log if isinstance(command, int)]
    assert is_old == list(range(first, first + len(is_old)))
    assert "new" not in log or not is_old
    if outcome.error is None and write.startswith("append") and meanwhile not in ENDS:
        assert log[outcome.answer.index - first] == "w"
    if outcome.error is None and write == "remove" and meanwhile == "nothing":
        assert log == []
    for worker in (others, pool.worker()):
        run_of = await worker.append("s", f"last {id(worker)}")
        assert (await pool.worker().replay("s", run_of.index)) == [f"last {id(worker)}"]


async def everything(worker: StatesWorker) -> tuple[int, list[object]]:
    """The first command that there is, and all of them."""
    try:
        return 1, await worker.replay("s")
    except NotFoundError as gone:
        first = gone.index
    return (1, []) if first is None else (first, await worker.replay("s", first))


def run_at_every_call(one: Callable[[int, bool], Awaitable[bool]]) -> None:
    """Hold a write up before each of its calls, until there are no more of them."""

    async def every_call() -> None:
        for call in range(MOST_CALLS):
            await one(call, False)
            if await one(call, True):
                break
        assert 1 < call < MOST_CALLS - 1

    run(every_call())


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("write", WRITES)
def test_what_was_answered_stays_true_wherever_a_write_is_held_up(
    write: str, meanwhile: str
) -> None:
    async def one(call: int, is_heard: bool) -> bool:
        pool, others, lineage = await filled()
        outcome = Outcome(pool, WRITES[write], lineage)
        is_done = await held_up(outcome, MEANWHILE[meanwhile](others), call, is_heard=is_heard)
        await check(pool, others, write, meanwhile, outcome)
        return is_done

    run_at_every_call(one)


@pytest.mark.parametrize("write", TO_THAT_LOG)
def test_what_is_meant_for_a_log_that_was_removed_does_not_go_to_the_one_begun_anew(
    write: str,
) -> None:
    async def one(call: int, is_heard: bool) -> bool:
        pool, others, lineage = await filled()
        outcome = Outcome(pool, TO_THAT_LOG[write], lineage)
        is_done = await held_up(outcome, _begin_anew(others), call, is_heard=is_heard)
        assert await pool.worker().replay("s") == ["new", "newer", "newest"]
        held = await others.states.find("s")
        assert held is not None
        assert held.record.saves == ()
        return is_done

    run_at_every_call(one)


@pytest.mark.parametrize("meanwhile", sorted(ENDS))
@pytest.mark.parametrize("write", ["remove", "repair"])
def test_a_damaged_log_is_ended_once_whoever_else_ends_it(write: str, meanwhile: str) -> None:
    async def one(call: int, is_heard: bool) -> bool:
        pool, others, lineage = await filled()
        await others.append("s", 4)
        pool.journal._logs["s"][-1].checksum ^= 1
        outcome = Outcome(pool, WRITES[write], lineage)
        is_done = await held_up(outcome, MEANWHILE[meanwhile](others), call, is_heard=is_heard)
        await check(pool, others, write, meanwhile, outcome)
        return is_done

    run_at_every_call(one)


@pytest.mark.parametrize("write", ["append", "remove", "repair"])
def test_what_may_have_been_written_is_not_told_to_be_surely_not_applied(write: str) -> None:
    async def unheard() -> None:
        for call in range(MOST_CALLS):
            pool, _, lineage = await filled()
            outcome = Outcome(pool, WRITES[write], lineage)
            await outcome.go_on(call, is_heard=False)
            before = len((await pool.journal.read("s", 0)).entries)
            pool.journal.reachable = pool.records.reachable = False
            await outcome.finish()
            pool.journal.reachable = pool.records.reachable = True
            if isinstance(outcome.error, UnavailableError):
                assert before == len((await pool.journal.read("s", 0)).entries) == 3
            elif outcome.error is None:
                break
        assert 1 < call < MOST_CALLS - 1

    run(unheard())


type Held = Callable[[StatesWorker], Awaitable[Any]]
BESIDE_A_TRIM: Final[dict[str, tuple[Held, Held]]] = {
    "a repeat is held up": (
        lambda worker: worker.append("s", "w", op_id="op x"),
        lambda others: others.upkeep.trim("s", 4),
    ),
    "a trim is held up": (
        lambda worker: worker.upkeep.trim("s", 4),
        lambda others: others.append("s", "w", op_id="op x"),
    ),
    "a trim beside another": (
        lambda worker: worker.upkeep.trim("s", 3),
        lambda others: others.upkeep.trim("s", 4),
    ),
}


@pytest.mark.parametrize("case", BESIDE_A_TRIM)
def test_what_is_trimmed_at_once_for_want_of_room_is_not_appended_again(case: str) -> None:
    write, meanwhile = BESIDE_A_TRIM[case]

    async def one(call: int, is_heard: bool) -> bool:
        pool = StatesPool()
        pool.journal = FullJournal(pool.time.clock)
        worker = pool.worker()
        for n in (1, 2, 3):
            await worker.append("s", n)
        first = await worker.append("s", "w", op_id="op x")
        await worker.append("s", "behind")
        for _ in range(2):
            await worker.save("s", b"w", 4)

        outcome = Outcome(pool, lambda worker, _: write(worker), ("", 0, 0))
        is_done = await held_up(outcome, meanwhile(pool.worker()), call, is_heard=is_heard)

        assert isinstance(outcome.error, UnavailableError | OutcomeUnknownError | None)
        assert await pool.worker().append("s", "w", op_id="op x") == first
        assert await pool.worker().replay("s", 5) == ["behind"]
        return is_done

    run_at_every_call(one)


# --- at random ---


class Crowd:
    """Clients that append by several workers, whose calls go on at random, or are not heard."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311  (to be repeatable)
        self.pool = StatesPool()
        self._gates = [Gate() for _ in range(3)]
        self._workers = [self.pool.gated(gate) for gate in self._gates]
        self.acknowledged: dict[str, int] = {}
        self.refused: set[str] = set()

    async def run(self, clients: int, requests: int) -> None:
        """Have each client append so much, one after the other."""
        tasks = [asyncio.create_task(self._client(n, requests)) for n in range(clients)]
        for _ in range(20_000):
            if all(task.done() for task in tasks):
                break
            await _turns()
            waiting = [gate for gate in self._gates if gate.held]
            if not waiting:
                await asyncio.sleep(0.01)
                continue
            gate = self._rng.choice(waiting)
            place = self._rng.randrange(len(gate.held))
            gate.let_go(place, is_heard=self._rng.random() > 0.1)
        await asyncio.gather(*tasks)

    async def _client(self, number: int, requests: int) -> None:
        for n in range(requests):
            value = f"{number}.{n}"
            expected = None
            if self._rng.random() < 0.2:
                expected = self._rng.randrange(4)
            while True:
                worker = self._rng.choice(self._workers)
                asked = worker.append("s", value, expected=expected, op_id=f"{value} x")
                try:
                    run = await asyncio.wait_for(asked, self._rng.choice([0.05, 5]))
                    if self._rng.random() < 0.1:
                        await worker.states.write_ends_down()
                except (TimeoutError, UnavailableError, OutcomeUnknownError):
                    continue
                except (ConflictError, NotFoundError):
                    self.refused.add(value)
                else:
                    self.acknowledged[value] = run.index
                break


@pytest.mark.parametrize("seed", range(40))
def test_appends_by_several_workers_are_in_the_log_once_each_where_it_was_said(seed: int) -> None:
    async def at_random() -> None:
        crowd = Crowd(seed)
        await crowd.run(clients=5, requests=6)

        log = await crowd.pool.worker().replay("s")
        places = {str(command): index for index, command in enumerate(log, start=1)}
        assert len(places) == len(log)
        assert places == crowd.acknowledged
        for number in range(5):
            own = [value for value in places if value.startswith(f"{number}.")]
            assert own == sorted(own, key=lambda value: int(value.split(".")[1]))

    run(at_random())
