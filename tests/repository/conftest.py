"""A pool of workers without a connection."""

from __future__ import annotations

import pytest
from tests.repository.pool import Pool


@pytest.fixture
def pool() -> Pool:
    """Shared stores in memory, nothing in them, and no worker yet."""
    return Pool()
