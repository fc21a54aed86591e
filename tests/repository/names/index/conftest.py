"""Stores of records of each kind, with nothing in them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.nats.buckets import create_records, new_nuid
from tests.stores.disk_tools import record_store

from holdfast.stores.memory import MemoryRecordStore
from holdfast.transport.connection import connect
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast.stores.record_ports import RecordStore

KINDS = ["memory", "disk", pytest.param("nats", marks=pytest.mark.nats)]


@pytest_asyncio.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RecordStore]:
    """One of them."""
    if request.param == "memory":
        yield MemoryRecordStore(time.monotonic)
    elif request.param == "disk":
        async with record_store(tmp_path / "store") as store:
            yield store
    else:
        url: str = request.getfixturevalue("nats_url")
        connection = await connect(NatsOptions(servers=(url,)))
        yield (await create_records(connection, f"names-{new_nuid()}"))[1]
        await connection.close()
