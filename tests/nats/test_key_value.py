"""The KV record store keeps the contract, is a plain KV bucket, and knows its own writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import nats
import pytest
import pytest_asyncio
from nats.js.errors import KeyNotFoundError
from tests.contracts.record_store import RecordStoreContract, records
from tests.nats.buckets import create_records
from tests.nats.tools import Times, connected

from holdfast.errors import ConflictError, NotFoundError, OutcomeUnknownError, UnavailableError
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from datetime import timedelta

    from nats.js.kv import KeyValue
    from tests.nats.tools import FlakyJetStream

    from holdfast.stores.key_value import KeyValueRecordStore
    from holdfast.transport.connection import Connection

pytestmark = pytest.mark.nats


@pytest_asyncio.fixture
async def opened(
    connection: Connection, fresh_name: str
) -> tuple[FlakyJetStream, KeyValueRecordStore]:
    return await create_records(connection, fresh_name)


@pytest.fixture
def js(opened: tuple[FlakyJetStream, KeyValueRecordStore]) -> FlakyJetStream:
    return opened[0]


@pytest.fixture
def store(opened: tuple[FlakyJetStream, KeyValueRecordStore]) -> KeyValueRecordStore:
    return opened[1]


@pytest_asyncio.fixture
async def stock(nats_url: str, store: KeyValueRecordStore) -> AsyncIterator[KeyValue]:
    """The same bucket through nats-py's own client."""
    client = await nats.connect(nats_url)
    yield await client.jetstream().key_value(store.bucket)
    await client.close()


def writes(subject: str, headers: Mapping[str, str]) -> bool:
    return subject.startswith("$KV.") and bool(headers)


class TestKeyValueRecordStore(RecordStoreContract):
    @pytest_asyncio.fixture
    async def unreachable_store(self, nats_url: str, fresh_name: str) -> KeyValueRecordStore:
        async with connected(NatsOptions(servers=(nats_url,))) as closed_at_once:
            return (await create_records(closed_at_once, fresh_name + "-gone"))[1]

    @pytest.fixture
    def pass_time(self) -> Callable[[timedelta], Awaitable[None]]:
        async def pass_time(duration: timedelta) -> None:
            await asyncio.sleep(duration.total_seconds())  # the server's clock cannot be moved

        return pass_time


class TestAPlainBucket:
    async def test_stock_clients_read_what_is_written(
        self, store: KeyValueRecordStore, stock: KeyValue
    ) -> None:
        revision = await store.put("u.a", b"value", expected=0)

        entry = await stock.get("u.a")
        await store.delete("u.a", expected=revision)

        assert (entry.value, entry.revision) == (b"value", revision)
        with pytest.raises(KeyNotFoundError):
            await stock.get("u.a")

    async def test_what_stock_clients_write_and_delete_is_understood(
        self, store: KeyValueRecordStore, stock: KeyValue
    ) -> None:
        revision = await stock.create("a", b"theirs")
        await stock.create("b", b"gone")
        await stock.delete("b")
        await stock.create("c", b"purged")
        await stock.purge("c")

        listed = await records(store, "")

        assert [(one.key, one.value, one.revision) for one in listed] == [
            ("a", b"theirs", revision)
        ]
        for key in ("b", "c"):
            with pytest.raises(NotFoundError):
                await store.get(key)
            assert await store.put(key, b"again", expected=0) > revision

    async def test_a_listing_longer_than_a_page_has_every_record_once(
        self, store: KeyValueRecordStore
    ) -> None:
        keys = [f"k.{number}" for number in range(1201)]
        for start in range(0, len(keys), 100):
            some = keys[start : start + 100]
            await asyncio.gather(*(store.put(key, b"", expected=0) for key in some))

        listed = [record.key for record in await records(store, "k")]

        assert sorted(listed) == sorted(keys)


class TestLostAnswers:
    @pytest.mark.fault("P05")
    async def test_a_write_whose_answer_is_lost_is_known_as_its_own(
        self, js: FlakyJetStream, store: KeyValueRecordStore
    ) -> None:
        js.lose_answer = Times(1, writes)

        revision = await store.put("a", b"x", expected=0)

        assert (await store.get("a")).revision == revision

    @pytest.mark.fault("P05")
    async def test_even_after_the_server_has_forgotten_the_message_id(
        self, connection: Connection, fresh_name: str
    ) -> None:
        forgets_ns = 100_000_000  # the shortest there is; a repeat comes after twice that
        js, store = await create_records(
            connection, fresh_name + "-short", duplicate_window=forgets_ns
        )
        js.lose_answer = Times(1, writes)

        revision = await store.put("a", b"x", expected=0)

        assert (await store.get("a")).revision == revision
        with pytest.raises(ConflictError):
            await store.put("a", b"y", expected=0)

    @pytest.mark.fault("P05")
    async def test_without_any_answer_the_outcome_is_unknown(
        self, js: FlakyJetStream, store: KeyValueRecordStore
    ) -> None:
        js.lose_answer = Times(3, writes)

        with pytest.raises(OutcomeUnknownError):
            await store.put("a", b"x", expected=0)

        assert (await store.get("a")).value == b"x"

    async def test_a_write_that_lost_to_another_after_a_time_out_is_a_conflict(
        self, js: FlakyJetStream, store: KeyValueRecordStore
    ) -> None:
        await store.put("a", b"theirs", expected=0)
        js.lose_request = Times(1, writes)

        with pytest.raises(ConflictError):
            await store.put("a", b"mine", expected=77)

        assert (await store.get("a")).value == b"theirs"


async def test_a_bucket_that_was_deleted_is_unavailable_and_not_made_again(
    js: FlakyJetStream, store: KeyValueRecordStore
) -> None:
    await js.api(f"STREAM.DELETE.{store.stream}")

    with pytest.raises(UnavailableError):
        await store.get("a")
    with pytest.raises(UnavailableError):
        await store.put("a", b"x", expected=0)
    with pytest.raises(UnavailableError):
        await records(store, "")
    with pytest.raises(UnavailableError, match="holdfast admin init"):
        await store.check()
    with pytest.raises(NotFoundError):
        await js.api(f"STREAM.INFO.{store.stream}")
