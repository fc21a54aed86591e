"""Time that workers of a test have for each other."""

from __future__ import annotations

import pytest

from holdfast.runtime import peers


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have longer to answer: whoever is silent is taken for one that is not there."""
    monkeypatch.setattr(peers, "WHERE_SECONDS", 2.5)
    monkeypatch.setattr(peers, "LOOK_SECONDS_AT_MOST", 1.25)
