"""Repacking in an Object Store bucket, where others have changed the record since it was listed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_collecting import surveyed
from tests.contracts.blob_store import UNPINNED, put, some_bytes

from holdfast.stores.jetstream.meta import meta_subject

if TYPE_CHECKING:
    from tests.nats.buckets import Bucket

pytestmark = pytest.mark.nats
DATA = some_bytes(5000)


@pytest.mark.parametrize("is_newer", [True, False], ids=["a later version's", "damaged"])
async def test_chunks_stay_that_a_record_may_name_which_cannot_be_read(
    bucket: Bucket, is_newer: bool
) -> None:
    info = await put(bucket.store, DATA, UNPINNED)
    listed = await surveyed(bucket.store, DATA)
    there = await bucket.chunk_counts()
    message = await bucket.js.last_message(bucket.stream, meta_subject(bucket.name, info.digest))
    assert message is not None
    record = json.loads(bytes(message.data))
    record["metadata"]["hf-format"] = "99"
    await bucket.write_record(info.digest, record if is_newer else b"{")

    assert await bucket.store.repack(listed, ((0, 10),)) is None
    assert not await bucket.store.collect(listed)

    assert there
    assert await bucket.chunk_counts() == there
