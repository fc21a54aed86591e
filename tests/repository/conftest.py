"""A pool of workers without a connection, and a collector of garbage that is quick."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from tests.repository.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pool() -> Pool:
    """Shared stores in memory, nothing in them, and no worker yet."""
    return Pool()


@pytest.fixture
def quick_collections() -> Iterator[None]:
    """What was there before a test is garbage of nobody's: each collection passes over it."""
    gc.freeze()
    yield
    gc.unfreeze()
