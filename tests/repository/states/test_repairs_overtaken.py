"""A repair is held up before any of its calls to a store, while what it builds on is given up.

What is answered is so, and the state can be loaded and appended to whatever comes of them.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Final

import pytest
from tests.repository.names.gated import Gate
from tests.repository.states.pool import MAX_BYTES, StatesPool, code_of, let_through

from holdfast.errors import InvalidError, NotFoundError
from holdfast.repository.states.purging import OP_IDS_KEPT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.states.pool import StatesWorker

    from holdfast.repository.states.record import Lineage

LAST: Final = 10
SECONDS: Final = 60.0


async def filled(saves: tuple[int, ...]) -> tuple[StatesPool, StatesWorker]:
    """A log of ten commands, as is noted, and those saves; what was appended is old by now."""
    pool = StatesPool()
    worker = pool.worker()
    for number in range(1, LAST + 1):
        await worker.append("s", number)
    await worker.states.write_ends_down()
    for index in saves:
        await worker.save("s", b"%d" % index, index)
    pool.time.advance(OP_IDS_KEPT.total_seconds() + 1)
    return pool, worker


async def codes_at_every_moment(
    index: int,
    filled: Callable[[], Awaitable[tuple[StatesPool, StatesWorker]]],
    meanwhile: Callable[[StatesWorker], Awaitable[object]],
) -> set[tuple[str, str]]:
    """The answers to a repair and to what came in between, whenever that was."""
    codes = set()
    for step in count():
        gate = Gate()
        pool, worker = await filled()
        lineage = (await worker.latest("s")).lineage
        repair = pool.gated(gate).upkeep.repair("s", index, op_id="op x")
        repairing = asyncio.create_task(code_of(repair))
        calls = await let_through(gate, repairing, step)

        other = await code_of(meanwhile(worker))
        await let_through(gate, repairing, 1000)

        code = repairing.result()
        if code == "ok":
            await check_whole(pool.worker(), index - 1)
        else:
            await check_whole(pool.worker(), LAST, lineage)
        codes.add((code, other))
        if calls < step:
            return codes
    raise AssertionError


async def check_whole(worker: StatesWorker, last: int, lineage: Lineage | None = None) -> None:
    """The state goes up to the command ``last`` for whoever loads it, and goes on from there.

    So does whoever reads the log from its first command on, and who has read all of it while it was
    of that ``lineage``.
    """
    assert (await worker.append("s", "on", lineage=lineage)).index == last + 1
    page = await worker.replays.page("s", last + 1, 10, lineage=lineage)
    assert await worker.replay("s", page.first) == [*range(page.first, last + 1), "on"]
    try:
        loaded = int((await worker.latest("s")).data or b"")
    except NotFoundError:
        loaded = 0
    assert page.first <= loaded + 1 <= page.next_index


FIRST_WINS: Final = {("invalid", "ok"), ("ok", "invalid")}


@pytest.mark.parametrize(
    ("index", "saves", "expected"),
    [(4, (2, 6, 7), FIRST_WINS), (4, (6, 7), FIRST_WINS), (8, (6, 7), {("ok", "ok")})],
)
async def test_a_repair_beside_a_trim_takes_back_nothing_where_that_was_first(
    index: int, saves: tuple[int, ...], expected: set[tuple[str, str]]
) -> None:
    codes = await codes_at_every_moment(
        index, lambda: filled(saves), lambda worker: worker.upkeep.trim("s", 6)
    )

    assert codes == expected


async def drop_saves(worker: StatesWorker) -> None:
    """Save the state twice, and keep no other saves."""
    for index in (LAST - 1, LAST):
        await worker.save("s", b"%d" % index, index)
    await worker.upkeep.policy("s", {"keep": 2})


async def test_a_repair_behind_a_save_that_is_dropped_meanwhile_takes_back_nothing() -> None:
    async def trimmed() -> tuple[StatesPool, StatesWorker]:
        pool, worker = await filled((4, 5))
        await worker.upkeep.trim("s", 4)
        return pool, worker

    codes = await codes_at_every_moment(5, trimmed, drop_saves)

    assert codes == FIRST_WINS


async def test_a_repair_needs_a_save_between_what_was_trimmed_and_its_place() -> None:
    _, worker = await filled((6, 7))
    await worker.upkeep.trim("s", 6)
    await drop_saves(worker)

    with pytest.raises(InvalidError, match="at 10, 11"):
        await worker.upkeep.repair("s", 9)

    await worker.upkeep.repair("s", 10)


async def test_a_log_is_followed_and_repaired_on_over_a_repair_that_took_back_nothing() -> None:
    is_vain = set()
    for step in count():
        gate = Gate()
        pool, worker = await filled((6, 7))
        async with pool.worker().replays.follow("s", LAST + 1) as following:
            assert await following.next(0, MAX_BYTES) == []
            repairing = asyncio.create_task(code_of(pool.gated(gate).upkeep.repair("s", 4)))
            await let_through(gate, repairing, step)
            await code_of(worker.upkeep.trim("s", 6))
            await let_through(gate, repairing, 1000)
            if repairing.result() == "ok":
                break
            held = await worker.states.find("s")
            is_vain.add(held is not None and held.record.voids != ())

            await worker.append("s", "on")
            while not (told := await following.next(SECONDS, MAX_BYTES)):
                pass
            assert [one.index for one in told] == [LAST + 1]

        await worker.upkeep.repair("s", 9)
        await pool.worker().append("s", "again")
        assert await worker.replay("s", 7) == [7, 8, "again"]
    assert is_vain == {False, True}
