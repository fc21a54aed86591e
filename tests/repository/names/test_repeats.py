"""Repeats of writes of a name that others have written many times since."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.repository.names.pool import NamesPool

from holdfast.errors import ConflictError, NotFoundError
from holdfast.repository.names.past import REMEMBERED
from holdfast.repository.names.record import MAX_TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.names.pool import NamesWorker

LAST = b"the last"
OP, OTHER_REQUEST = "id asked", "id otherwise"


@pytest.fixture
def pool() -> NamesPool:
    """Empty stores."""
    return NamesPool()


async def write_often(worker: NamesWorker) -> None:
    """Have the name written until its record tells of nothing before."""
    for number in range(MAX_TRANSITIONS):
        await worker.replace("n", b"%d" % number, op_id=f"o{number} r")
    await worker.replace("n", LAST)


async def check_nothing_announced(worker: NamesWorker) -> None:
    held = await worker.writes.look("n")
    assert held is not None
    assert held.record.pending == ()


WRITES: dict[str, Callable[[NamesWorker], Awaitable[object]]] = {
    "replace": lambda worker: worker.replace("n", b"mine", op_id=OP),
    "copy": lambda worker: worker.copy("n", "source", op_id=OP),
    "rename": lambda worker: worker.rename("n", "source", op_id=OP),
    "delete": lambda worker: worker.delete("n", op_id=OP),
}


@pytest.mark.parametrize("write", WRITES)
async def test_a_repeat_after_many_writes_is_answered_as_before_and_changes_nothing(
    pool: NamesPool, write: str
) -> None:
    worker = pool.worker()
    await worker.create("n", b"one")
    await worker.create("source", b"source")
    answer = await WRITES[write](worker)
    if write == "delete":
        await worker.create("n", b"again")
    await write_often(worker)
    before = await worker.find("n")

    assert await WRITES[write](pool.worker("b")) == answer

    assert await worker.find("n") == before
    await check_nothing_announced(worker)


async def test_a_create_repeated_after_many_writes_is_no_conflict(pool: NamesPool) -> None:
    worker = pool.worker()
    made = await worker.create("n", b"one", op_id=OP)
    await write_often(worker)

    assert await pool.worker("b").create("n", b"one", op_id=OP) == made

    await worker.delete("n")
    assert await worker.create("n", b"one", op_id=OP) == made
    with pytest.raises(NotFoundError):
        await worker.read("n")


async def test_after_many_writes_an_op_id_still_is_of_one_request(pool: NamesPool) -> None:
    worker = pool.worker()
    await worker.create("n", b"one", op_id=OP)
    await write_often(worker)

    with pytest.raises(ConflictError, match="Op-Id"):
        await worker.replace("n", b"two", op_id=OTHER_REQUEST)

    assert await worker.read("n") == LAST
    await check_nothing_announced(worker)


async def test_what_is_written_now_and_then_costs_no_notes(pool: NamesPool) -> None:
    worker = pool.worker()
    await worker.create("n", b"one", op_id=OP)
    for number in range(2 * MAX_TRANSITIONS):
        pool.time.advance(REMEMBERED / timedelta(seconds=1) / MAX_TRANSITIONS)
        await worker.replace("n", b"%d" % number, op_id=f"o{number} r")

    assert await pool.records.list_keys("w") == []
