"""A worker is held up before any of its calls to a store, while others change what it works on.

And while what removes blobs looks, and then removes them: no name has a blob that cannot be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
from tests.repository.names.gated import Gate, GatedPool

from holdfast.domain.blob_names import Conditions
from holdfast.domain.digest import digest_of
from holdfast.errors import HoldfastError, NotFoundError

if TYPE_CHECKING:
    from tests.repository.names.pool import NamesWorker

    from holdfast.repository.targets import Named

OLD: Final = b"the old bytes"
NEW: Final = b"the new bytes"
MOST_CALLS: Final = 60
"""More than any write needs here; a test that never gets through fails."""

_TURNS: Final = 50
"""More turns of the event loop than anything takes between two calls to a store."""


def copy_digest(worker: NamesWorker) -> Awaitable[Named]:
    """A copy of a blob, whatever names it has."""
    return worker.names.copy(
        "n",
        source=None,
        version=None,
        digest=digest_of(NEW),
        conditions=Conditions(),
        op_id="op",
    )


WRITES: Final[dict[str, Callable[[NamesWorker], Awaitable[object]]]] = {
    "create": lambda worker: worker.create("fresh", NEW, op_id="op"),
    "replace": lambda worker: worker.replace("n", NEW, op_id="op"),
    "copy": lambda worker: worker.copy("n", "source", op_id="op"),
    "copy by digest": copy_digest,
    "rename": lambda worker: worker.rename("n", "source", op_id="op"),
    "delete": lambda worker: worker.delete("source", op_id="op"),
}
MEANWHILE: Final[dict[str, Callable[[NamesWorker], Awaitable[object]]]] = {
    "nothing": lambda worker: worker.find("n"),
    "its source goes": lambda worker: worker.delete("source"),
    "its source is replaced": lambda worker: worker.replace("source", b"other"),
    "its target goes": lambda worker: worker.delete("n"),
    "its target is replaced": lambda worker: worker.replace("n", b"other"),
}


class Held:
    """A write whose calls to the stores are let through one by one."""

    def __init__(self, pool: GatedPool, write: Callable[[NamesWorker], Awaitable[object]]) -> None:
        self._gate = Gate()

        async def writing() -> None:
            with suppress(HoldfastError):
                await write(pool.gated("w", self._gate))

        self.task = asyncio.create_task(writing())

    async def go_on(self, calls: int = MOST_CALLS) -> None:
        """Let so many calls through, or as many as there are."""
        for _ in range(calls):
            await self._settle()
            if not self._gate.held:
                return
            self._gate.let_go()
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)


async def check_readable(pool: GatedPool) -> None:
    """Every name that has a blob can be read."""
    for record in await pool.name_records():
        with suppress(NotFoundError):
            found = await pool.worker().find(record.name)
            assert digest_of(await pool.worker().read(record.name)) == found.content.digest


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("write", WRITES)
async def test_no_name_loses_its_bytes_to_what_happens_while_a_write_is_held_up(
    write: str, meanwhile: str
) -> None:
    for call in range(MOST_CALLS):
        pool = GatedPool()
        others = pool.worker()
        await others.create("n", OLD)
        await others.create("source", NEW)
        held = Held(pool, WRITES[write])

        await held.go_on(call)
        with suppress(HoldfastError):
            await MEANWHILE[meanwhile](others)
        await pool.look_for_garbage()
        is_done = held.task.done()
        await held.go_on()
        pool.collect()

        assert held.task.done()
        await check_readable(pool)
        await pool.lapse()
        assert all(record.pending == () for record in await pool.name_records())
        if is_done:
            break
    assert 1 < call < MOST_CALLS - 1
