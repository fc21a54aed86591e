"""The apps of a machine, also where the directory that holds them does not answer."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from holdfast.errors import InvalidError, UnavailableError
from holdfast.repository.snapshots.apps import LOOK_THREADS, MAX_LOOKS, Apps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

AT_ONCE = 0.0
LONG = 30.0


@pytest_asyncio.fixture
async def apps(tmp_path: Path) -> AsyncIterator[Apps]:
    (tmp_path / "shop").mkdir()
    apps = Apps(tmp_path)
    yield apps
    apps.close()


async def test_an_app_is_looked_for(apps: Apps) -> None:
    assert await apps.look_for("shop")
    assert not await apps.look_for("blog")
    assert not await Apps(None).look_for("shop")
    with pytest.raises(InvalidError):
        await apps.look_for("../shop")


async def test_looks_that_hang_keep_nothing_else_waiting(apps: Apps) -> None:
    back = threading.Event()

    for _ in range(2 * MAX_LOOKS):  # those that wait for a thread are given up for good
        with pytest.raises(UnavailableError):
            await apps.look(back.wait, seconds=AT_ONCE)

    assert await asyncio.to_thread(lambda: "answered") == "answered"
    back.set()
    assert await apps.look(lambda: "back", seconds=LONG) == "back"


async def test_only_so_many_looks_are_under_way(apps: Apps) -> None:
    back = threading.Event()
    looks = [asyncio.create_task(apps.look(back.wait, seconds=LONG)) for _ in range(MAX_LOOKS)]
    await asyncio.sleep(0)

    with pytest.raises(UnavailableError):
        await apps.look(lambda: None, seconds=LONG)

    back.set()
    assert all(await asyncio.gather(*looks))
    assert len(looks) > LOOK_THREADS
    assert await apps.look(lambda: "again", seconds=LONG) == "again"


async def test_after_the_end_nothing_is_looked_at(apps: Apps) -> None:
    apps.close()

    with pytest.raises(UnavailableError):
        await apps.look_for("shop")
