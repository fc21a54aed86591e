"""Deleting a blob that is kept, where the store does not take the batch that moves its chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import put, said, some_bytes
from tests.nats.buckets import Bucket
from tests.nats.tools import connected

from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

_SMALL_ACCOUNT = """accounts { A {
    users: [ { user: "ann", password: "one" } ]
    jetstream: { max_file: 64KB, max_mem: 64KB }
} }"""


async def stays_in_its_place(bucket: Bucket) -> None:
    data = some_bytes(40 * 1024)
    info = await put(bucket.store, data)

    assert await bucket.store.delete(info.digest, kept=said(True))

    now = await bucket.store.stat(info.digest, sure=True)
    assert now.deleted
    assert now.generation == info.generation
    assert await bucket.store.get(now) == data


async def test_a_blob_that_is_kept_can_be_deleted_in_a_bucket_that_takes_no_batches(
    bucket: Bucket,
) -> None:
    config = (await bucket.js.api(f"STREAM.INFO.{bucket.stream}"))["config"]
    await bucket.js.api(f"STREAM.UPDATE.{bucket.stream}", {**config, "allow_atomic": False})

    await stays_in_its_place(bucket)


async def test_a_blob_that_is_kept_can_be_deleted_where_its_account_has_no_room_for_it_again(
    start_server: Callable[..., EmbeddedServer],
) -> None:
    server = start_server(extra_configuration=_SMALL_ACCOUNT)
    options = NatsOptions(servers=(server.url,), user="ann", password="one")
    async with connected(options) as connection:
        await stays_in_its_place(await Bucket.create(connection))
