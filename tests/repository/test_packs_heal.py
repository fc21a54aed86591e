"""A pack that was found damaged is put anew, and everything that shares it can be read again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.digest import digest_of
from holdfast.errors import CorruptError
from holdfast.repository.snapshots.packs import Packs
from holdfast.stores.memory import MemoryBlobStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DATA = b"a pack"
DIGEST = digest_of(DATA)


async def test_a_pack_that_was_read_and_found_damaged_is_shared_no_more() -> None:
    store = MemoryBlobStore()
    packs = Packs(
        store,
        sources=replace(SOURCES, clock=lambda: NOW),
        max_inline_bytes=1000,
        part_size=100,
        grace=timedelta(days=1),
    )
    await packs.put(DIGEST, DATA)
    store._blobs[DIGEST].data = b"other bytes"

    with pytest.raises(CorruptError):
        await packs.get(DIGEST)

    assert await packs.missing([DIGEST], limit=10) == [DIGEST]
    assert await packs.touch_all({DIGEST: None}, since=NOW) == [DIGEST]
    assert await packs.put(DIGEST, DATA)
    assert await packs.get(DIGEST) == DATA
    assert await packs.touch_all({DIGEST: None}, since=NOW) == []
