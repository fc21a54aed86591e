"""Policies on JetStream: what holds on every store."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.contracts.prune import PruneContract
from tests.nats.buckets import create_records
from tests.repository.retention_pool import Archive

from holdfast.sources import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.transport.connection import Connection

pytestmark = [pytest.mark.nats, pytest.mark.long]


class TestPruningOnJetStream(PruneContract):
    every = 4

    @pytest_asyncio.fixture
    async def archives(self, connection: Connection, fresh_name: str) -> Callable[[], Archive]:
        _, store = await create_records(connection, fresh_name)
        numbers = itertools.count()
        return lambda: Archive(store, clock=utc_now, app=f"shop{next(numbers)}")
