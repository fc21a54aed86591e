"""Small puts: in two publishes where the blob is new, and in groups where many are under way.

However they go, a blob is created exactly once, what was acknowledged can be read, what is unknown
stays unknown, and losers leave nothing behind.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import nats
import pytest
from msgspec.structs import replace
from tests.contracts.blob_store import ATTRIBUTES, put, read, some_bytes
from tests.nats.buckets import Bucket
from tests.nats.tools import FlakyJetStream, Times, connected, kill, until

from holdfast.deadline import deadline
from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.limits import MIB
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.stores.jetstream.blobs import groups as put_groups_module
from holdfast.stores.jetstream.blobs.groups import (
    LEAST_PUTS,
    MOST_BYTES,
    MOST_BYTES_EACH,
    MOST_PUTS,
)
from holdfast.stores.jetstream.blobs.meta import meta_subject
from holdfast.stores.ports import BlobInfo
from holdfast.transport import jetstream_calls as jetstream_calls_module
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tests.conftest import StartServer

    from holdfast.stores.jetstream.blobs.objects import ObjectBlobStore
    from holdfast.stores.ports import Attributes, Stored
    from holdfast.transport.connection import Connection
    from holdfast.transport.jetstream_messages import Ack, BatchMessage, StoredMessage

pytestmark = pytest.mark.nats

DATA = some_bytes(4096)
DIGEST = digest_of(DATA)
MANY = 2 * LEAST_PUTS + 4
BLOBS = [some_bytes(300, seed=number) for number in range(MANY)]


def grouping(bucket: Bucket) -> ObjectBlobStore:
    """A store of another worker, which groups."""
    store = bucket.open()
    store.group_puts()
    return store


class Batches:
    """The batches that are published; ``before`` is awaited by each, with its number from 1."""

    def __init__(self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.before: Callable[[int], Awaitable[object]] | None = None
        self._js = bucket.js
        monkeypatch.setattr(bucket.js, "publish_batch", self._publish)

    async def _publish(self, messages: Sequence[BatchMessage], *, new_id: Callable[[], str]) -> Ack:
        self.sizes.append(len(messages) // 2)
        if self.before is not None:
            await self.before(len(self.sizes))
        return await FlakyJetStream.publish_batch(self._js, messages, new_id=new_id)


@pytest.fixture
def batches(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Batches:
    return Batches(bucket, monkeypatch)


class Requests:
    """The requests to JetStream, without their subjects."""

    def __init__(self, bucket: Bucket) -> None:
        self.verbs: list[str] = []
        bucket.js.lose_request = self._note

    def _note(self, subject: str, _headers: Mapping[str, str]) -> bool:
        head, _, _ = subject.removeprefix("$JS.API.").partition(".OBJ_")
        self.verbs.append(".".join(head.split(".")[::2]) if head.startswith("$O.") else head)
        return False


def is_record(subject: str, headers: Mapping[str, str]) -> bool:
    return ".M." in subject and bool(headers)


def is_batch(subject: str, headers: Mapping[str, str]) -> bool:
    """The first message of one: a chunk of a pair has an id, so that it may be repeated."""
    return ".C." in subject and "Nats-Msg-Id" not in headers


async def put_one(
    store: ObjectBlobStore, data: bytes, attributes: Attributes = ATTRIBUTES
) -> Stored | HoldfastError:
    try:
        return await store.put(digest_of(data), data, attributes)
    except HoldfastError as error:
        return error


async def put_all(
    store: ObjectBlobStore, blobs: Sequence[bytes] = BLOBS, attributes: Attributes = ATTRIBUTES
) -> list[Stored | HoldfastError]:
    return await asyncio.gather(*(put_one(store, data, attributes) for data in blobs))


def created(outcomes: Sequence[Stored | HoldfastError]) -> list[bool]:
    """Of each whether it was created. No failure is expected."""
    return [not isinstance(one, HoldfastError) and one.created for one in outcomes]


async def all_readable(bucket: Bucket, blobs: Sequence[bytes] = BLOBS) -> bool:
    """Whether a worker that remembers nothing, and one that does, read each of ``blobs``."""
    for store in (bucket.open(), bucket.store):
        for data in blobs:
            assert (await store.fetch(digest_of(data), len(data))).data == data
    return True


class TestPair:
    async def test_a_put_of_a_new_blob_is_two_publishes_and_no_read(self, bucket: Bucket) -> None:
        bucket.store.leave_young(timedelta(hours=1))
        requests = Requests(bucket)

        assert (await bucket.store.put(DIGEST, DATA, ATTRIBUTES)).created
        assert requests.verbs == ["$O.C", "$O.M"]

    async def test_where_a_collector_may_look_for_its_record_the_put_looks_for_the_collector(
        self, bucket: Bucket
    ) -> None:
        requests = Requests(bucket)

        assert (await bucket.store.put(DIGEST, DATA, ATTRIBUTES)).created
        assert requests.verbs == ["$O.C", "$O.M", "STREAM.INFO"]

    async def test_a_put_of_what_is_there_leaves_nothing_and_answers_what_was_first(
        self, bucket: Bucket
    ) -> None:
        info = await put(bucket.open(), DATA, replace(ATTRIBUTES, type="first/one"))

        stored = await bucket.store.put(DIGEST, DATA, replace(ATTRIBUTES, type="second/one"))

        assert (stored.created, stored.info) == (False, info)
        assert await bucket.messages() == 2

    async def test_a_repeated_put_writes_no_chunk(self, bucket: Bucket) -> None:
        await put(bucket.open(), DATA)
        await put(bucket.store, DATA)
        requests = Requests(bucket)

        assert not (await bucket.store.put(DIGEST, DATA, ATTRIBUTES)).created
        assert "$O.C" not in requests.verbs

    async def test_where_puts_mostly_find_their_blob_they_look_first(self, bucket: Bucket) -> None:
        await put_all(bucket.open())
        await put_all(bucket.store, BLOBS[:4])
        requests = Requests(bucket)

        for data in BLOBS[4:]:
            await put(bucket.store, data)

        assert "$O.C" not in requests.verbs

    async def test_a_put_over_a_tombstone_goes_through(self, bucket: Bucket) -> None:
        await put(bucket.store, DATA)
        await bucket.store.delete(DIGEST)

        assert (await bucket.open().put(DIGEST, DATA, ATTRIBUTES)).created
        assert await all_readable(bucket, [DATA])
        assert await bucket.messages() == 2

    @pytest.mark.fault("P08")
    async def test_who_is_overtaken_between_chunk_and_record_removes_its_chunk(
        self, bucket: Bucket
    ) -> None:
        winning: list[BlobInfo] = []
        slow = Bucket(bucket.js.connection, bucket.name)
        publish = slow.js.publish

        async def overtaken(subject: str, data: bytes, headers: Mapping[str, str]) -> Ack:
            if is_record(subject, headers) and not winning:
                winning.append(await put(bucket.store, DATA))
            return await publish(subject, data, headers)

        slow.js.publish = overtaken  # type: ignore[method-assign,assignment]  # in between

        stored = await slow.store.put(DIGEST, DATA, ATTRIBUTES)

        assert (stored.created, [stored.info]) == (False, winning)
        assert await bucket.messages() == 2
        assert await all_readable(bucket, [DATA])

    @pytest.mark.parametrize("lost", [1, 3])
    async def test_a_put_whose_record_was_written_is_known_to_have_created_the_blob(
        self, bucket: Bucket, lost: int
    ) -> None:
        bucket.js.lose_answer = Times(lost, is_record)

        assert (await bucket.store.put(DIGEST, DATA, ATTRIBUTES)).created
        assert await bucket.messages() == 2

    async def test_an_unknown_put_stays_unknown_and_its_repeat_says_created(
        self, bucket: Bucket
    ) -> None:
        mine = replace(ATTRIBUTES, op_id="mine")
        bucket.js.lose_answer = Times(3, is_record)
        bucket.js.lose_request = Times(1, lambda subject, _: ".MSG.GET." in subject)

        with pytest.raises(OutcomeUnknownError):
            await bucket.store.put(DIGEST, DATA, mine)
        assert await bucket.orphans() == 0  # it may be the blob's: nothing is removed

        assert (await bucket.store.put(DIGEST, DATA, mine)).created
        assert not (await bucket.store.put(DIGEST, DATA, ATTRIBUTES)).created
        assert await bucket.messages() == 2

    async def test_another_programs_object_is_a_conflict_and_nothing_is_left(
        self, bucket: Bucket
    ) -> None:
        foreign = {"name": DIGEST, "bucket": bucket.name, "nuid": "F" * 22, "size": 0, "chunks": 0}
        await bucket.write_record(DIGEST, foreign)

        with pytest.raises(ConflictError):
            await put(bucket.store, DATA)
        assert await bucket.messages() == 1


class TestGroups:
    async def test_many_puts_at_once_go_in_one_batch_each_with_its_own_answer(
        self, bucket: Bucket, batches: Batches
    ) -> None:
        store = grouping(bucket)

        outcomes = await put_all(store)

        assert created(outcomes) == [True] * MANY
        assert sum(batches.sizes) >= MANY - LEAST_PUTS
        assert len(batches.sizes) <= 2
        assert await bucket.messages() == 2 * MANY
        assert await all_readable(bucket)
        for data, stored in zip(BLOBS, outcomes, strict=True):
            assert not isinstance(stored, HoldfastError)
            assert await bucket.open().stat(digest_of(data)) == stored.info
            place = store._places.find(digest_of(data))
            assert place is not None
            chunk = (await bucket.chunks(stored.info.generation))[0]
            assert place.sequence == chunk.sequence

    async def test_a_stock_client_and_ranges_read_what_a_group_has_stored(
        self, bucket: Bucket, nats_url: str
    ) -> None:
        await put_all(grouping(bucket))
        client = await nats.connect(nats_url)
        stock = await client.jetstream().object_store(bucket.name)

        for data in BLOBS:
            info = await bucket.store.stat(digest_of(data))
            assert await read(bucket.store, info, 10, 90) == data[10:90]
            assert (await asyncio.wait_for(stock.get(info.digest), 20)).data == data
        await client.close()

    async def test_few_puts_go_alone(self, bucket: Bucket, batches: Batches) -> None:
        outcomes = await put_all(grouping(bucket), BLOBS[: LEAST_PUTS - 1])

        assert all(created(outcomes))
        assert batches.sizes == []

    async def test_large_puts_do_not_make_few_small_ones_many(
        self, bucket: Bucket, batches: Batches
    ) -> None:
        large = [some_bytes(MOST_BYTES_EACH + 1 + n, seed=n) for n in range(MANY)]

        outcomes = await put_all(grouping(bucket), [*large, *BLOBS[: LEAST_PUTS - 1]])

        assert all(created(outcomes))
        assert batches.sizes == []

    async def test_nothing_is_grouped_where_writes_are_not_synced(
        self, bucket: Bucket, batches: Batches
    ) -> None:
        assert all(created(await put_all(bucket.open())))
        assert batches.sizes == []

    async def test_groups_are_bounded_in_number_and_bytes_and_large_blobs_go_alone(
        self, bucket: Bucket, batches: Batches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(put_groups_module, "MOST_PUTS", 10)
        monkeypatch.setattr(put_groups_module, "MOST_BYTES", 10 * 300)
        assert (MOST_PUTS, MOST_BYTES) == (128, 2 * MIB)
        large = some_bytes(MOST_BYTES_EACH + 1)

        outcomes = await put_all(grouping(bucket), [*BLOBS, large, b""])

        assert all(created(outcomes))
        assert max(batches.sizes) <= 10
        assert await all_readable(bucket, [*BLOBS, large, b""])

    async def test_what_a_group_asks_and_sends_fits_into_messages(
        self, bucket: Bucket, batches: Batches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bucket.js.connection._client, "_max_payload", 1536)

        blobs = [some_bytes(300, seed=number) for number in range(MOST_PUTS)]

        assert all(created(await put_all(grouping(bucket), blobs)))
        assert max(batches.sizes) >= MANY
        assert await all_readable(bucket, blobs)

    async def test_the_same_blob_twice_among_many_is_created_once(
        self, bucket: Bucket, batches: Batches
    ) -> None:
        outcomes = await put_all(grouping(bucket), [*BLOBS, *BLOBS])

        assert sum(created(outcomes)) == MANY
        assert not [one for one in outcomes if isinstance(one, HoldfastError)]
        assert await bucket.messages() == 2 * MANY

    async def test_what_is_there_already_is_answered_as_ever_and_the_rest_is_grouped(
        self, bucket: Bucket, batches: Batches
    ) -> None:
        first = replace(ATTRIBUTES, type="first/one", op_id="first")
        await put_all(bucket.open(), BLOBS[-3:], first)
        await put(bucket.open(), BLOBS[-4])
        await bucket.open().delete(digest_of(BLOBS[-4]))

        outcomes = await put_all(grouping(bucket), BLOBS, replace(first, type="second/one"))

        assert created(outcomes) == [True] * MANY  # those three: for the same operation
        assert len(batches.sizes) <= 2
        types = [one.info.type for one in outcomes if not isinstance(one, HoldfastError)]
        assert types == ["second/one"] * (MANY - 3) + ["first/one"] * 3
        assert await bucket.messages() == 2 * MANY
        assert await all_readable(bucket)

    async def test_what_is_new_is_grouped_also_where_puts_mostly_find_their_blob(
        self, bucket: Bucket, batches: Batches
    ) -> None:
        store = grouping(bucket)
        for _ in range(MANY):
            await put_one(store, DATA)

        assert created(await put_all(store)) == [True] * MANY
        assert sum(batches.sizes) > MANY - LEAST_PUTS
        assert await all_readable(bucket)

    @pytest.mark.fault("P08")
    async def test_racing_workers_create_each_blob_exactly_once_and_leave_nothing(
        self, bucket: Bucket
    ) -> None:
        workers = [*(grouping(bucket) for _ in range(4)), bucket.open()]
        orders = [BLOBS, BLOBS[::-1], BLOBS[7:] + BLOBS[:7], BLOBS, BLOBS]

        outcomes = await asyncio.gather(
            *(put_all(worker, order) for worker, order in zip(workers, orders, strict=True))
        )

        by_blob: dict[Digest, list[bool]] = {}
        for one in outcomes:
            for stored in one:
                assert not isinstance(stored, HoldfastError)
                by_blob.setdefault(stored.info.digest, []).append(stored.created)
        assert [sum(many) for many in by_blob.values()] == [1] * MANY
        assert await bucket.messages() == 2 * MANY
        assert await all_readable(bucket)

    @pytest.mark.fault("P08")
    async def test_one_that_is_overtaken_goes_alone_and_the_others_go_on_together(
        self, bucket: Bucket, batches: Batches
    ) -> None:
        async def overtake(number: int) -> None:
            if number == 1:
                await put(bucket.open(), BLOBS[-2])

        batches.before = overtake

        outcomes = await put_all(grouping(bucket))

        assert [not one for one in created(outcomes)] == [n == MANY - 2 for n in range(MANY)]
        assert batches.sizes[1] == batches.sizes[0] - 1
        assert await bucket.messages() == 2 * MANY

    @pytest.mark.fault("P05")
    async def test_a_batch_that_was_stored_without_an_answer_is_known_by_its_records(
        self, bucket: Bucket
    ) -> None:
        bucket.js.lose_answer = Times(99, is_batch)

        outcomes = await put_all(grouping(bucket))

        assert all(created(outcomes))
        assert await bucket.messages() == 2 * MANY

    @pytest.mark.fault("P05")
    async def test_a_batch_that_was_lost_is_unknown_to_each_and_may_be_repeated(
        self, bucket: Bucket
    ) -> None:
        mine = replace(ATTRIBUTES, op_id="mine")
        bucket.js.lose_request = Times(99, is_batch)
        store = grouping(bucket)

        outcomes = await put_all(store, BLOBS, mine)

        unknown = [one for one in outcomes if isinstance(one, OutcomeUnknownError)]
        assert len(unknown) >= MANY - LEAST_PUTS
        assert await bucket.messages() == 2 * (MANY - len(unknown))
        bucket.js.lose_request = Times(0, is_batch)
        assert all(created(await put_all(store, BLOBS, mine)))
        assert await bucket.messages() == 2 * MANY

    @pytest.mark.fault("P05")
    async def test_what_may_have_been_stored_stays_unknown_if_nobody_can_be_asked(
        self, bucket: Bucket
    ) -> None:
        mine = replace(ATTRIBUTES, op_id="mine")
        store = grouping(bucket)
        bucket.js.lose_answer = Times(99, is_batch)
        reads = Times(99, lambda subject, _: ".MSG.GET." in subject)
        bucket.js.lose_request = reads

        outcomes = await put_all(store, BLOBS, mine)

        assert sum(isinstance(one, OutcomeUnknownError) for one in outcomes) >= MANY - LEAST_PUTS
        reads.left = 0
        bucket.js.lose_answer = Times(0, is_batch)
        assert all(created(await put_all(store, BLOBS, mine)))
        assert await bucket.messages() == 2 * MANY
        assert await all_readable(bucket)

    @pytest.mark.fault("P09")
    async def test_of_a_batch_without_an_answer_what_was_put_again_since_is_unknown(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket.js.lose_answer = Times(99, is_batch)
        other = Bucket(bucket.js.connection, bucket.name).store
        deleted, replaced = BLOBS[-2], BLOBS[-1]
        changed = False

        async def changed_before(stream: str, subject: str) -> StoredMessage | None:
            nonlocal changed
            if not changed:
                changed = True
                for data in (deleted, replaced):
                    await other.delete(digest_of(data))
                await put(other, replaced)
            return await FlakyJetStream.last_message(bucket.js, stream, subject)

        monkeypatch.setattr(bucket.js, "last_message", changed_before)

        outcomes = await put_all(grouping(bucket))

        assert created(outcomes) == [True] * (MANY - 1) + [False]
        assert isinstance(outcomes[-1], OutcomeUnknownError)
        with pytest.raises(NotFoundError):
            await other.stat(digest_of(deleted))

    async def test_a_bucket_that_takes_no_batches_gets_pairs(
        self, bucket: Bucket, batches: Batches
    ) -> None:
        config = (await bucket.js.api(f"STREAM.INFO.{bucket.stream}"))["config"]
        await bucket.js.api(f"STREAM.UPDATE.{bucket.stream}", {**config, "allow_atomic": False})
        store = grouping(bucket)

        assert all(created(await put_all(store)))
        assert await bucket.messages() == 2 * MANY
        tried = len(batches.sizes)
        more = [some_bytes(300, seed=100 + number) for number in range(MANY)]
        assert all(created(await put_all(store, more)))
        assert len(batches.sizes) == tried

    async def test_a_full_bucket_is_a_quota_for_each_and_keeps_what_it_has(
        self, connection: Connection
    ) -> None:
        bucket = await Bucket.create(connection, max_bytes=8 * 1024)
        store = grouping(bucket)
        blobs = [some_bytes(2000, seed=number) for number in range(MANY)]

        outcomes = await put_all(store, blobs)

        kept = [data for data, one in zip(blobs, created(outcomes), strict=True) if one]
        refused = [one for one in outcomes if isinstance(one, HoldfastError)]
        assert len(kept) + len(refused) == MANY
        assert refused
        assert all(isinstance(one, QuotaExceededError) for one in refused)
        assert await all_readable(bucket, kept)
        await bucket.remove()

    async def test_who_has_no_time_left_before_its_group_is_sent_is_surely_not_stored(
        self, bucket: Bucket, batches: Batches
    ) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def hold(_number: int) -> None:
            begun.set()
            await go_on.wait()

        batches.before = hold
        store = grouping(bucket)
        first = asyncio.create_task(put_all(store))
        await begun.wait()

        async def impatient(data: bytes) -> Stored:
            with deadline(0.05):
                return await store.put(digest_of(data), data, ATTRIBUTES)

        late = some_bytes(300, seed=99)
        with pytest.raises(UnavailableError):
            await impatient(late)
        go_on.set()

        assert all(created(await first))
        assert await bucket.messages() == 2 * MANY
        assert await bucket.meta(digest_of(late)) is None

    async def test_one_caller_that_gives_up_takes_none_of_the_others_with_it(
        self, bucket: Bucket, batches: Batches
    ) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def hold(_number: int) -> None:
            begun.set()
            await go_on.wait()

        batches.before = hold
        store = grouping(bucket)
        puts = [asyncio.create_task(put_one(store, data)) for data in BLOBS]
        await begun.wait()
        puts[-1].cancel()
        await asyncio.wait([puts[-1]])
        go_on.set()

        assert all(created(await asyncio.gather(*puts[:-1])))
        assert await all_readable(bucket)

    async def test_a_store_that_cannot_be_reached_is_unavailable_to_each(
        self, bucket: Bucket
    ) -> None:
        gone = await Bucket.create(bucket.js.connection)
        await gone.remove()

        outcomes = await put_all(grouping(gone))

        assert all(isinstance(one, UnavailableError) for one in outcomes)


async def test_of_a_tombstone_whose_time_was_up_the_marker_is_no_blob(bucket: Bucket) -> None:
    await put(bucket.store, BLOBS[-1])
    subject = meta_subject(bucket.name, digest_of(BLOBS[-1]))
    await bucket.js.publish(subject, b"", {"Nats-Rollup": "sub"})
    store = grouping(bucket)

    assert all(created(await put_all(store)))
    assert await all_readable(bucket)


@pytest.mark.fault("P05")
async def test_a_server_that_is_killed_amid_groups_loses_nothing_acknowledged_and_keeps_no_half(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    directory, port = server.log_file.parent, server.port
    async with connected(NatsOptions(servers=(server.url,))) as connection:
        bucket = await Bucket.create(connection)
        workers = [grouping(bucket), grouping(bucket)]
        outcomes: dict[Digest, list[Stored | HoldfastError]] = {}
        stopped = asyncio.Event()

        async def put_until_stopped(lane: int) -> None:
            """Each blob is put by both workers at once: they meet all the time."""
            while not stopped.is_set():
                data = b"%d of %d" % (len(outcomes), lane)
                both = asyncio.gather(*(put_one(worker, data) for worker in workers))
                outcomes[digest_of(data)] = []
                outcomes[digest_of(data)] = await both

        def are_more_than(count: int) -> bool:
            return len(outcomes) > count

        with monkeypatch.context() as impatient:
            impatient.setattr(jetstream_calls_module, "ATTEMPT_SECONDS", 1.0)
            lanes = [asyncio.create_task(put_until_stopped(lane)) for lane in range(24)]
            for killed in (1, 2):
                await until(partial(are_more_than, 100 * killed))
                kill(server)
                server = start_server(directory=directory, port=port)
                await connection.wait_connected(60)
            stopped.set()
            await asyncio.gather(*lanes)

        for digest, both in outcomes.items():
            acknowledged = [one for one in both if not isinstance(one, HoldfastError)]
            assert sum(one.created for one in acknowledged) <= 1
            if acknowledged:
                assert await bucket.store.stat(digest) == acknowledged[0].info
        page = await bucket.store.list_blobs(prefix="", cursor=None, limit=10_000)
        there = [entry for entry in page.entries if isinstance(entry, BlobInfo)]
        found = await asyncio.gather(*(bucket.store.get(info) for info in there))
        assert [digest_of(data) for data in found] == [info.digest for info in there]
