"""A service without a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio
from tests.handlers.service import Service, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    """Everything but the connection, with nothing stored."""
    async with serving() as service:
        yield service
