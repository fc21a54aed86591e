"""Copies and renames whose source is given something else meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.repository.names.gated import Gate, GatedPool

from holdfast.domain.blob_names import Said
from holdfast.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.repository.names.pool import NamesWorker

    from holdfast.repository.targets import Named

OLD, NEW = {"edition": "old"}, {"edition": "new"}
CALLS = 16
"""More than a copy or a rename makes to the stores."""


def said(labels: dict[str, str]) -> Said:
    return Said(labels=labels)


async def held_up(gate: Gate, write: Awaitable[Named], before: int) -> asyncio.Task[Named]:
    """``write`` under way, with ``before`` of its calls to the stores made, or all."""
    task = asyncio.ensure_future(write)
    made = 0
    while not task.done() and made < before:
        await asyncio.sleep(0)
        if gate.held:
            gate.let_go()
            made += 1
    return task


async def finish(gate: Gate, task: asyncio.Task[Named]) -> Named:
    while not task.done():
        await asyncio.sleep(0)
        if gate.held:
            gate.let_go()
    return await task


async def labels_of(worker: NamesWorker, name: str) -> dict[str, str]:
    return dict((await worker.find(name)).content.labels)


@pytest.mark.parametrize("data", [b"one", b"two"], ids=["the-same-bytes", "other-bytes"])
@pytest.mark.parametrize("before", range(CALLS))
async def test_a_rename_brings_the_last_that_was_said_of_the_source(
    before: int, data: bytes
) -> None:
    pool, gate = GatedPool(), Gate()
    other = pool.worker("other")
    await other.create("a", b"one", said=said(OLD))

    renaming = await held_up(gate, pool.gated("w", gate).rename("b", "a"), before)
    try:
        await other.replace("a", data, said=said(NEW))
        is_replaced = True
    except NotFoundError:
        is_replaced = False  # it was renamed before
    await finish(gate, renaming)

    assert await other.read("b") == (data if is_replaced else b"one")
    assert await labels_of(other, "b") == (NEW if is_replaced else OLD)


@pytest.mark.parametrize("before", range(CALLS))
async def test_a_copy_has_the_bytes_and_labels_of_one_moment(before: int) -> None:
    pool, gate = GatedPool(), Gate()
    other = pool.worker("other")
    await other.create("a", b"one", said=said(OLD))

    copying = await held_up(gate, pool.gated("w", gate).copy("b", "a"), before)
    await other.replace("a", b"two", said=said(NEW))
    await pool.look_for_garbage()
    pool.collect()
    await finish(gate, copying)

    found = await other.read("b"), await labels_of(other, "b")
    assert found in [(b"one", OLD), (b"two", NEW)]
