"""A service without a connection."""

from __future__ import annotations

import pytest
from tests.handlers.service import Service


@pytest.fixture
def service() -> Service:
    """Everything but the connection, with nothing stored."""
    return Service()
