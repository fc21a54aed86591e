"""The KV record store keeps the contract, is a plain KV bucket, and knows its own writes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import nats
import pytest
import pytest_asyncio
from nats.js.errors import KeyNotFoundError
from tests.contracts.record_store import RecordStoreContract, records
from tests.nats.buckets import create_records, new_nuid
from tests.nats.tools import Times, connected

from holdfast.errors import ConflictError, NotFoundError, OutcomeUnknownError, UnavailableError
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.stores.record_ports import Delete, Put
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.jetstream_messages import TTL
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from nats.js.kv import KeyValue
    from tests.nats.tools import FlakyJetStream

    from holdfast.transport.connection import Connection
    from holdfast.transport.jetstream_messages import StoredMessage

pytestmark = pytest.mark.nats

type Told = tuple[list[str], int]


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
    short = timedelta(seconds=3)

    @pytest_asyncio.fixture
    async def unreachable_store(self, nats_url: str, fresh_name: str) -> KeyValueRecordStore:
        async with connected(NatsOptions(servers=(nats_url,))) as closed_at_once:
            return (await create_records(closed_at_once, fresh_name + "-gone"))[1]

    @pytest.fixture
    def pass_time(self) -> Callable[[timedelta], Awaitable[None]]:
        async def pass_time(duration: timedelta) -> None:
            await asyncio.sleep(duration.total_seconds())  # the server's clock cannot be moved

        return pass_time

    @pytest.fixture
    def lasting(self, js: FlakyJetStream, store: KeyValueRecordStore) -> KeyValueRecordStore:
        return KeyValueRecordStore(js, store.bucket, new_id=new_nuid)

    @pytest.fixture
    def clean_up(self, store: KeyValueRecordStore) -> Callable[[], Awaitable[None]]:
        async def clean_up() -> None:
            async with asyncio.timeout(30):
                while await fading_keys(store):  # noqa: ASYNC110  (no event tells)
                    await asyncio.sleep(0.1)

        return clean_up

    @pytest.fixture
    def made_anew(
        self, connection: Connection, js: FlakyJetStream, store: KeyValueRecordStore
    ) -> Callable[[], Awaitable[KeyValueRecordStore]]:
        async def made_anew() -> KeyValueRecordStore:
            await js.api(f"STREAM.DELETE.{store.stream}")
            return (await create_records(connection, store.bucket))[1]

        return made_anew


async def fading_keys(store: KeyValueRecordStore) -> list[str]:
    """Those of which the bucket still knows for a while."""
    query = {"batch": 1000, "seq": 1}
    messages, _ = await store._js.direct_batch(store.stream, query)
    return [message.subject for message in messages if TTL in message.headers]


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

    async def test_stock_clients_see_a_grave_as_deleted(
        self, store: KeyValueRecordStore, stock: KeyValue
    ) -> None:
        revision = await store.put("n.a", b"value", expected=0)
        await store.put("n.b", b"value", expected=0)

        grave = await store.put("n.a", b"grave", expected=revision, grave=True)

        with pytest.raises(KeyNotFoundError):
            await stock.get("n.a")
        assert await stock.keys() == ["n.b"]
        assert (await store.get("n.a")).revision == grave

    async def test_what_stock_clients_write_and_delete_is_understood(
        self, store: KeyValueRecordStore, stock: KeyValue
    ) -> None:
        revision = await stock.create("a", b"theirs")
        await stock.create("b", b"gone")
        await stock.delete("b")
        await stock.create("c", b"purged")
        await stock.purge("c")

        listed = await records(store, "")
        changes = (await store.changes(0)).changes

        assert [(one.key, one.value, one.revision) for one in listed] == [
            ("a", b"theirs", revision)
        ]
        assert [(one.key, one.value) for one in changes] == [
            ("a", b"theirs"),
            ("b", None),
            ("c", None),
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


class TestBatchesOverALossyNetwork:
    @pytest.mark.fault("P05")
    async def test_a_batch_whose_answer_is_lost_is_known_as_its_own(
        self, js: FlakyJetStream, store: KeyValueRecordStore
    ) -> None:
        old = await store.put("c", b"", expected=0)
        js.lose_answer = Times(1, writes)

        revisions = await store.batch([new("a"), Delete(key="c", expected=old), new("b")])

        assert [(await store.get(key)).revision for key in "ab"] == [revisions[0], revisions[2]]
        assert revisions[1] == 0
        with pytest.raises(NotFoundError):
            await store.get("c")

    @pytest.mark.fault("P05")
    async def test_even_after_the_server_has_forgotten_the_message_ids(
        self, connection: Connection, fresh_name: str
    ) -> None:
        js, store = await create_records(
            connection, fresh_name + "-short", duplicate_window=100_000_000
        )
        js.lose_answer = Times(1, writes)

        revisions = await store.batch([new("a"), new("b")])

        assert [(await store.get(key)).revision for key in "ab"] == revisions

    @pytest.mark.fault("P05")
    async def test_without_any_answer_the_outcome_is_unknown(
        self, js: FlakyJetStream, store: KeyValueRecordStore
    ) -> None:
        js.lose_answer = Times(3, writes)

        with pytest.raises(OutcomeUnknownError):
            await store.batch([new("a"), new("b")])

        assert [record.key for record in await store.get_many(["a", "b"])] == ["a", "b"]

    @pytest.mark.fault("P05")
    async def test_a_batch_whose_records_have_all_changed_since_is_unknown(
        self, js: FlakyJetStream, store: KeyValueRecordStore
    ) -> None:
        class Meddling(KeyValueRecordStore):
            """Somebody else is faster than the repeat."""

            async def _last_of(self, keys: Sequence[str]) -> list[StoredMessage | None]:
                for key in "ab":
                    await store.put(key, b"", expected=(await store.get(key)).revision)
                return await super()._last_of(keys)

        js.lose_answer = Times(1, writes)

        with pytest.raises(OutcomeUnknownError):
            await Meddling(js, store.bucket, new_id=new_nuid).batch([new("a"), new("b")])

    @pytest.mark.fault("P05")
    async def test_a_batch_that_lost_to_another_after_a_time_out_is_a_conflict(
        self, js: FlakyJetStream, store: KeyValueRecordStore
    ) -> None:
        await store.put("b", b"theirs", expected=0)
        js.lose_request = Times(1, writes)

        with pytest.raises(ConflictError):
            await store.batch([new("a"), new("b")])

        assert await store.list_keys("") == ["b"]


class TestManyKeys:
    async def test_pages_of_keys_are_put_together(
        self, connection: Connection, store: KeyValueRecordStore
    ) -> None:
        keys = [f"k.{number:02}" for number in range(20)]
        await store.batch([new(key) for key in keys])
        paging = Paging(connection, Inbox(connection))

        assert await keys_by(paging, store) == keys
        assert paging.asked > 6

    @pytest.mark.parametrize(("at", "gone"), [(2, 3), (1, 8)])
    async def test_keys_that_move_to_an_earlier_page_meanwhile_are_not_passed_over(
        self,
        connection: Connection,
        store: KeyValueRecordStore,
        js: FlakyJetStream,
        at: int,
        gone: int,
    ) -> None:
        keys = [f"k.{number:02}" for number in range(10)]
        await store.batch([new(key) for key in keys])

        async def purge() -> None:
            for key in keys[:gone]:
                await js.purge(store.stream, f"$KV.{store.bucket}.{key}")

        paging = Paging(connection, Inbox(connection))
        paging.after[at] = purge

        assert await keys_by(paging, store) == keys[gone:]

    async def test_keys_that_never_stop_moving_cannot_be_listed(
        self, connection: Connection, store: KeyValueRecordStore
    ) -> None:
        class Moving(JetStream):
            async def subjects(self, stream: str, filtered: str, offset: int) -> Told:
                del stream
                head = filtered.removesuffix(">")
                names = [f"{head}{2 * offset + number:06}" for number in range(4)]
                return names, offset + 8

        moving = Moving(connection, Inbox(connection))

        with pytest.raises(UnavailableError):
            await keys_by(moving, store)

    async def test_keys_that_come_meanwhile_do_no_harm(
        self, connection: Connection, store: KeyValueRecordStore
    ) -> None:
        keys = [f"k.{number:02}" for number in range(10)]
        await store.batch([new(key) for key in keys])

        async def grow() -> None:
            await store.batch([new(f"k.0{number}-") for number in (0, 1)])

        paging = Paging(connection, Inbox(connection))
        paging.after[1] = grow

        found = await keys_by(paging, store)

        assert set(keys) <= set(found)
        assert found == sorted(set(found))

    async def test_a_record_that_a_replica_does_not_have_yet_is_asked_of_the_leader(
        self, connection: Connection, store: KeyValueRecordStore
    ) -> None:
        class Lagging(JetStream):
            async def direct_batch(
                self, stream: str, query: Mapping[str, Any], *, idle_seconds: float = 5
            ) -> tuple[list[StoredMessage], int]:
                found, pending = await super().direct_batch(
                    stream, query, idle_seconds=idle_seconds
                )
                return found[1:], pending

        await store.batch([new("a"), new("b")])
        lagging = Lagging(connection, Inbox(connection))

        found = await KeyValueRecordStore(lagging, store.bucket, new_id=new_nuid).get_many(
            ["b", "c", "a"]
        )

        assert [record.key for record in found] == ["b", "a"]


def new(key: str) -> Put:
    return Put(key=key, value=b"", expected=0)


async def test_a_record_is_sure_by_the_word_of_a_leader_that_is_believed_alone(
    connection: Connection, js: FlakyJetStream, store: KeyValueRecordStore
) -> None:
    """Here it lacks what was acknowledged, as one before its log is read."""
    for key in "abc":
        await store.put(key, b"1", expected=0)
    await js.api(f"STREAM.DELETE.{store.stream}")
    _, elsewhere = await create_records(connection, store.bucket)
    await elsewhere.put("a", b"2", expected=0)

    assert (await store.get("a")).value == b"2"
    with pytest.raises(UnavailableError, match="not caught up"):
        await store.get("a", sure=True)
    assert (await elsewhere.get("a", sure=True)).value == b"2"


async def keys_by(js: JetStream, store: KeyValueRecordStore) -> list[str]:
    """The keys of ``store`` below ``k``, as they are listed by ``js``."""
    return await KeyValueRecordStore(js, store.bucket, new_id=new_nuid).list_keys("k")


class Paging(JetStream):
    """A server that tells few subjects at once: a real one begins to at 100,000.

    Something may happen ``after`` so many pages.
    """

    def __init__(self, connection: Connection, inbox: Inbox) -> None:
        super().__init__(connection, inbox)
        self.asked = 0
        self.after: dict[int, Callable[[], Awaitable[None]]] = {}

    async def subjects(self, stream: str, filtered: str, offset: int) -> Told:
        self.asked += 1
        found, total = await super().subjects(stream, filtered, 0)
        page = sorted(found)[offset : offset + 4]
        if self.asked in self.after:
            await self.after[self.asked]()
        return page[::-1], total


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
    with pytest.raises(UnavailableError):
        await store.list_keys("")
    with pytest.raises(UnavailableError):
        await store.get_many(["a"])
    with pytest.raises(UnavailableError):
        await store.batch([new("a"), new("b")])
    with pytest.raises(UnavailableError, match="holdfast admin init"):
        await store.check()
    with pytest.raises(NotFoundError):
        await js.api(f"STREAM.INFO.{store.stream}")
