"""For the tests of stores that lie in an SQLite database."""

from __future__ import annotations

import pytest

from holdfast.stores.disk import database


@pytest.fixture(params=[1, 1000], ids="checkpoint-after-{}".format)
def checkpoint_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """After how many pages in the log a commit copies them: each time, or as seldom as usual."""
    pages: int = request.param
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", pages)
    return pages
