"""Following an Object Store bucket: its stream is the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_changes import follow, for_watchers
from tests.contracts.blob_store import (
    FAR_AHEAD,
    PART_BYTES,
    fresh_staging,
    put,
    put_staged,
    some_bytes,
    write_parts,
)
from tests.nats.buckets import Bucket

from holdfast.domain.digest import digest_of
from holdfast.stores.jetstream.blobs import walk as walk_module
from holdfast.stores.jetstream.buckets.provisioning import ensure_stream, object_stream
from holdfast.stores.location import BucketLocation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from holdfast.transport.jetstream_messages import StoredMessage

pytestmark = pytest.mark.nats


async def test_who_has_read_all_asks_once_also_behind_chunks(bucket: Bucket) -> None:
    await put(bucket.store, b"a blob")
    staged = bucket.store.stage(fresh_staging(), PART_BYTES)
    await write_parts(staged, some_bytes(40 * PART_BYTES))
    _, seen = await follow(bucket.store)
    asked: list[str] = []

    def note(subject: str, _: Mapping[str, str]) -> bool:
        asked.append(subject)
        return False

    bucket.js.lose_request = note
    page = await bucket.store.changes(seen)

    assert (page.changes, page.position, page.is_end) == ((), seen, True)
    assert asked == [f"$JS.API.STREAM.INFO.{bucket.stream}"]


async def test_a_page_is_bounded_by_what_is_looked_through_for_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_module, "_SCAN_PER_PAGE", 10)
    infos = [(await put_staged(bucket.store, some_bytes(9000, seed=n))).info for n in range(9)]

    page = await bucket.store.changes(0)
    told, _ = await follow(bucket.store)

    assert not page.is_end
    assert len(page.changes) < len(infos)
    assert [one.info for one in told] == infos


async def test_a_replica_that_lags_has_nothing_passed_over(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    infos = [await put(bucket.store, b"%d" % number) for number in range(40)]
    told, seen = await follow(bucket.store)
    infos += [await put(bucket.store, b"%d" % number) for number in range(40, 80)]
    lacks, answers = (await bucket.store.extent()).last - 30, 0
    each, at = bucket.js.direct_each, bucket.js.direct_at

    def lags() -> bool:
        nonlocal answers
        answers += 1
        return answers % 4 != 0

    async def direct_each(stream: str, queries: Sequence[dict[str, Any]]) -> list[StoredMessage]:
        found = await each(stream, queries)
        return [one for one in found if one.sequence < lacks] if lags() else found

    async def direct_at(stream: str, query: dict[str, Any]) -> StoredMessage | None:
        found = await at(stream, query)
        return None if found is not None and found.sequence >= lacks and lags() else found

    monkeypatch.setattr(bucket.js, "direct_each", direct_each)
    monkeypatch.setattr(bucket.js, "direct_at", direct_at)
    more, _ = await follow(bucket.store, seen)

    assert [one.info for one in (*told, *more)] == infos


async def test_what_is_not_ours_and_what_cannot_be_read_are_left_out(bucket: Bucket) -> None:
    info = await put(bucket.store, b"ours")
    theirs = {"name": "photo", "bucket": bucket.name, "nuid": "theirs", "chunks": 0, "size": 0}
    digest = digest_of(b"theirs")
    await bucket.write_record("photo", theirs)
    await bucket.write_record(digest, {**theirs, "name": digest})
    await bucket.write_record(digest_of(b"spoilt"), b'{"name": broken')

    told, _ = await follow(bucket.store)

    assert for_watchers(told) == [("put", info.digest)]


@pytest.mark.parametrize("record", [b"", None], ids=["a marker", "a stock client's"])
async def test_a_blob_that_another_program_deleted_is_told(
    bucket: Bucket, record: bytes | None
) -> None:
    info = await put(bucket.store, b"ours")
    _, seen = await follow(bucket.store)
    grave = {"name": info.digest, "bucket": bucket.name, "nuid": "x", "deleted": True}
    await bucket.write_record(info.digest, grave if record is None else record)

    told, _ = await follow(bucket.store, seen)

    assert for_watchers(told) == [("deleted", info.digest)]


async def test_a_touch_of_an_older_version_may_be_told_as_a_put(bucket: Bucket) -> None:
    info = await put(bucket.store, b"ours")
    _, seen = await follow(bucket.store)
    await bucket.write_record(info.digest, await bucket.record(info.digest))

    told, seen = await follow(bucket.store, seen)
    assert for_watchers(told) == [("put", info.digest)]

    await bucket.store.touch(info.digest, unless_seen_since=FAR_AHEAD)
    told, _ = await follow(bucket.store, seen)
    assert for_watchers(told) == []


async def test_a_bucket_that_was_made_anew_is_another(bucket: Bucket) -> None:
    await put(bucket.store, b"ours")
    before = await bucket.store.extent()

    await bucket.remove()
    await ensure_stream(bucket.js, object_stream(bucket.name, BucketLocation(bucket=bucket.name)))
    after = await bucket.store.extent()

    assert (before.keys, before.last) == (2, 2)
    assert (after.keys, after.last) == (0, 0)
    assert before.created != after.created
