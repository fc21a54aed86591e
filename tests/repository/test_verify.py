"""Verifying page by page: each blob is read once, whatever the time; damage is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contracts.blob_store import put, put_staged, some_bytes

from holdfast.domain.digest import digest_of
from holdfast.errors import NotFoundError, UnavailableError
from holdfast.repository.blobs import BLOBS, BlobRepository
from holdfast.stores.memory import MemoryBlobStore

if TYPE_CHECKING:
    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobInfo


def repository_on(store: MemoryBlobStore) -> BlobRepository:
    return BlobRepository({BLOBS: store}, max_inline_bytes=1024)


@given(
    sizes=st.lists(st.sampled_from((0, 1, 1000, 3000)), max_size=40),
    times=st.lists(st.booleans(), max_size=60),
    limit=st.integers(1, 30),
)
async def test_every_blob_is_read_exactly_once_however_often_the_time_is_up(
    sizes: list[int], times: list[bool], limit: int
) -> None:
    store = MemoryBlobStore()
    stored = [
        (await put_staged(store, some_bytes(size, seed))).info for seed, size in enumerate(sizes)
    ]
    answers = iter(times)
    checked = size = pages = 0
    cursor = None

    while True:
        report = await repository_on(store).verify_page(
            cursor=cursor, limit=limit, has_time=lambda: next(answers, True)
        )
        checked, size, pages = checked + report.checked, size + report.bytes, pages + 1
        assert report.checked <= limit
        assert report.damaged == []
        cursor = report.cursor
        if cursor is None:
            break
        assert pages <= len(stored) + 1, "no page is without progress"

    there = {info.digest: info.size for info in stored}
    assert (checked, size) == (len(there), sum(there.values()))


class ForgetfulStore(MemoryBlobStore):
    """Cannot be written to when damage is reported."""

    async def report_damage(self, info: BlobInfo) -> bool:
        del info
        raise UnavailableError


@pytest.mark.parametrize("store_type", [MemoryBlobStore, ForgetfulStore])
async def test_damage_is_told_whether_or_not_it_can_be_remembered(
    store_type: type[MemoryBlobStore],
) -> None:
    store = store_type()
    intact, bad = await put(store, b"intact"), await put(store, b"bad")
    store._blobs[bad.digest].data = b"other"

    report = await repository_on(store).verify_page(cursor=None, limit=10, has_time=lambda: True)

    assert (report.checked, [row.digest for row in report.damaged]) == (2, [bad.digest])
    remembered: list[Digest] = [bad.digest] if store_type is MemoryBlobStore else []
    assert await store.missing([intact.digest, bad.digest]) == remembered


async def test_one_blob_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        await repository_on(MemoryBlobStore()).verify(digest_of(b"never put"))
