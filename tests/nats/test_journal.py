"""The store of logs in a stream keeps the contract, and knows its own appends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import pytest
import pytest_asyncio
from tests.contracts.journal import LOG, JournalStoreContract, fill, new_id, read_all, values
from tests.nats.tools import FlakyJetStream, From, Times, connected, damage_block

from holdfast.errors import (
    ConflictError,
    CorruptError,
    OutcomeUnknownError,
    QuotaExceededError,
    TooLargeError,
)
from holdfast.stores.jetstream.buckets.provisioning import ensure_stream, log_stream
from holdfast.stores.jetstream.journal import CHECKSUM, StreamJournalStore
from holdfast.stores.journal_ports import DamagedEntryError
from holdfast.stores.location import BucketLocation
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.jetstream_messages import (
    EXPECTED_SUBJECT_SEQUENCE,
    MSG_ID,
    ROLLUP,
    TTL,
    RefusedError,
)
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from tests.conftest import StartServer

    from holdfast.stores.journal_ports import JournalEntry, JournalStore
    from holdfast.transport.connection import Connection
    from holdfast.transport.jetstream_messages import StoredMessage

pytestmark = pytest.mark.nats

FORGOTTEN_NS: Final = 100_000_000
"""The shortest time for which a server remembers the ids of messages."""


async def create_logs(
    connection: Connection, name: str, *, max_bytes: int | None = None
) -> StreamJournalStore:
    """A fresh stream of logs."""
    js = FlakyJetStream(connection, Inbox(connection))
    location = BucketLocation(bucket=name, states_max_bytes=max_bytes)
    await ensure_stream(js, log_stream(name, location))
    return StreamJournalStore(js, name)


@pytest_asyncio.fixture
async def store(connection: Connection, fresh_name: str) -> StreamJournalStore:
    return await create_logs(connection, fresh_name)


@pytest.fixture
def js(store: StreamJournalStore) -> FlakyJetStream:
    """The JetStream that ``store`` is on."""
    assert isinstance(store._js, FlakyJetStream)
    return store._js


class TestStreamJournalStore(JournalStoreContract):
    @pytest_asyncio.fixture
    async def other(
        self, nats_url: str, store: StreamJournalStore
    ) -> AsyncIterator[StreamJournalStore]:
        async with connected(NatsOptions(servers=(nats_url,))) as another:
            yield StreamJournalStore(FlakyJetStream(another, Inbox(another)), store.bucket)

    @pytest_asyncio.fixture
    async def unreachable_store(self, nats_url: str, fresh_name: str) -> StreamJournalStore:
        async with connected(NatsOptions(servers=(nats_url,))) as closed_at_once:
            return await create_logs(closed_at_once, fresh_name + "-gone")

    async def append_damaged(self, store: JournalStore, log: str, expected: int) -> int:
        assert isinstance(store, StreamJournalStore)
        headers = {MSG_ID: new_id(), EXPECTED_SUBJECT_SEQUENCE: str(expected), CHECKSUM: "00000000"}
        return (await store._js.publish(store._subject(log), b"sound", headers)).seq


def appends(subject: str, _headers: Mapping[str, str]) -> bool:
    return subject.startswith("$HF.")


def purges(subject: str, _headers: Mapping[str, str]) -> bool:
    return ".STREAM.PURGE." in subject


class TestAnswersThatAreLost:
    async def test_an_append_whose_answer_is_lost_is_sent_again_and_there_once(
        self, store: StreamJournalStore, js: FlakyJetStream
    ) -> None:
        js.lose_answer = Times(2, appends)

        sequence = await store.append(LOG, b"1", expected=0, message_id="one")

        assert [entry.sequence for entry in await read_all(store)] == [sequence]

    async def test_an_append_that_is_never_answered_is_unknown_and_known_when_it_is_repeated(
        self, store: StreamJournalStore, js: FlakyJetStream
    ) -> None:
        [first] = await fill(store, 1)
        js.lose_answer = appends_lost = Times(10, appends)

        with pytest.raises(OutcomeUnknownError):
            await store.append(LOG, b"2", expected=first, message_id="two")
        appends_lost.left = 0
        second = await store.append(LOG, b"2", expected=first, message_id="two")

        assert [entry.sequence for entry in await read_all(store)] == [first, second]

    async def test_an_append_is_told_from_others_after_its_id_is_forgotten(
        self, connection: Connection, fresh_name: str
    ) -> None:
        js = FlakyJetStream(connection, Inbox(connection))
        stream = log_stream(fresh_name, BucketLocation(bucket=fresh_name))
        await ensure_stream(js, {**stream, "duplicate_window": FORGOTTEN_NS})
        store = StreamJournalStore(js, fresh_name)
        first = await store.append(LOG, b"1", expected=0, message_id="one")
        second = await store.append(LOG, b"2", expected=first, message_id="two")
        await asyncio.sleep(2 * FORGOTTEN_NS / 1e9)  # the server's clock cannot be moved

        assert await store.append(LOG, b"1", expected=0, message_id="one") == first
        assert await store.append(LOG, b"2", expected=first, message_id="two") == second
        with pytest.raises(ConflictError):
            await store.append(LOG, b"2", expected=first, message_id="three")
        assert await values(store) == [b"1", b"2"]

    async def test_an_unknown_append_behind_which_the_log_was_trimmed_stays_unknown(
        self, store: StreamJournalStore, js: FlakyJetStream
    ) -> None:
        # Given an append whose answer is lost, behind which others append and trim,
        [first] = await fill(store, 1)
        meanwhile = Paused(js, appends)
        appending = asyncio.create_task(
            store.append(LOG, b"2", expected=first, message_id="x" * 20)
        )
        await meanwhile.reached.wait()
        others = StreamJournalStore(
            FlakyJetStream(js.connection, Inbox(js.connection)), store.bucket
        )
        second = await others.append(LOG, b"other", expected=first, message_id="other")
        third = await others.append(LOG, b"3", expected=second, message_id="third")
        await others.trim(LOG, second)

        # when it is sent again,
        meanwhile.go_on.set()

        # then it cannot say that it was not there.
        with pytest.raises(OutcomeUnknownError):
            await appending
        assert [entry.sequence for entry in await read_all(store)] == [third]

    async def test_a_trim_without_an_answer_is_unknown_and_may_be_repeated(
        self, store: StreamJournalStore, js: FlakyJetStream
    ) -> None:
        sequences = await fill(store, 3)
        js.lose_answer = From(purges)

        with pytest.raises(OutcomeUnknownError):
            await store.trim(LOG, sequences[0])
        js.lose_answer = Times(0, purges)
        await store.trim(LOG, sequences[0])

        assert await values(store) == [b"2", b"3"]


class Paused:
    """The first request that ``matches`` is lost, and the next waits for ``go_on``."""

    def __init__(
        self, js: FlakyJetStream, matches: Callable[[str, Mapping[str, str]], bool]
    ) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        request = js._request
        first = True

        async def gated(subject: str, data: Any, headers: Mapping[str, str] | None) -> Any:
            nonlocal first
            if matches(subject, headers or {}) and first:
                first = False
                self.reached.set()
                await self.go_on.wait()
                raise TimeoutError
            return await request(subject, data, headers)

        js._request = gated  # type: ignore[method-assign]


class TestAFullStream:
    async def test_appends_are_refused_and_everything_else_works(
        self, connection: Connection, fresh_name: str
    ) -> None:
        store = await create_logs(connection, fresh_name, max_bytes=20_000)
        sequences = [0]

        async def append_one() -> None:
            value = bytes(1000)
            sequences.append(
                await store.append(LOG, value, expected=sequences[-1], message_id=new_id())
            )

        async def append_all() -> None:
            while True:
                await append_one()

        with pytest.raises(QuotaExceededError):
            await append_all()
        assert await store.has_little_room()
        stored = sequences[1:]
        assert [entry.sequence for entry in await read_all(store)] == stored
        await store.trim(LOG, stored[4])
        await append_one()

        assert [entry.sequence for entry in await read_all(store)] == sequences[6:]

    async def test_an_entry_larger_than_a_message_is_too_large(
        self, store: StreamJournalStore, connection: Connection
    ) -> None:
        value = bytes(connection.max_payload)

        with pytest.raises(TooLargeError):
            await store.append(LOG, value, expected=0, message_id=new_id())

        assert await store.last(LOG) is None


class TestTheStoredForm:
    async def test_an_entry_is_one_message_with_three_headers(
        self, store: StreamJournalStore, js: FlakyJetStream
    ) -> None:
        first = await store.append("n.a=20b.c", b"first", expected=0, message_id="one")

        await store.append("n.a=20b.c", b"second", expected=first, message_id="two")

        assert first == 1
        subject = f"$HF.{store.bucket}.n.a=20b.c"
        message = await js.last_message(store.stream, subject)
        assert message is not None
        assert message.data == b"second"
        assert message.headers == {
            "Nats-Msg-Id": "two",
            "Nats-Expected-Last-Subject-Sequence": str(first),
            "Holdfast-Checksum": f"{crc32(b'n.a=20b.c 1 two\nsecond'):08x}",
        }


class TestRights:
    async def test_no_publish_removes_an_entry(
        self, store: StreamJournalStore, js: FlakyJetStream
    ) -> None:
        await fill(store, 2)

        for headers in ({ROLLUP: "sub"}, {ROLLUP: "all"}, {TTL: "1s"}):
            with pytest.raises(RefusedError):
                await js.publish(f"$HF.{store.bucket}.{LOG}", b"", headers)

        assert await values(store) == [b"1", b"2"]


class LaggingJetStream(FlakyJetStream):
    """Of direct reads what a replica gives that has nothing behind the sequence ``seen``."""

    seen = 0

    async def direct_batch(
        self, stream: str, query: Mapping[str, Any], *, idle_seconds: float = 4.0
    ) -> tuple[list[StoredMessage], int]:
        messages, _ = await super().direct_batch(stream, query, idle_seconds=idle_seconds)
        return [message for message in messages if message.sequence <= self.seen], 0

    async def direct_at(self, stream: str, query: Mapping[str, Any]) -> StoredMessage | None:
        found = await super().direct_at(stream, query)
        return found if found is not None and found.sequence <= self.seen else None


async def test_a_replica_that_lags_is_not_believed_where_it_matters(
    store: StreamJournalStore, connection: Connection
) -> None:
    sequences = await fill(store, 5)
    entries = await read_all(store)
    js = LaggingJetStream(connection, Inbox(connection))
    lagging = StreamJournalStore(js, store.bucket)

    for js.seen in (0, *sequences):
        assert await read_all(lagging, limit=2) == entries
        for entry in entries:
            assert await lagging.first_since(LOG, entry.at) in [
                other for other in entries if other.at == entry.at
            ]
        assert await lagging.first_since(LOG, entries[0].at - timedelta(days=1)) == entries[0]
        assert await lagging.first_since(LOG, entries[-1].at + timedelta(days=1)) is None


@pytest.mark.fault("N12")
@pytest.mark.parametrize("how", ["while it runs", "while it is stopped", "and its index is lost"])
@pytest.mark.parametrize("number", [1, 3, 5])
async def test_a_server_whose_block_is_damaged_gives_no_entry_that_is_another_than_was_appended(
    start_server: StartServer, tmp_path: Path, how: str, number: int
) -> None:
    """And of what is missing the entry behind it tells, or that the log cannot be read."""
    server = start_server(directory=tmp_path)
    async with connected(NatsOptions(servers=(server.url,))) as connection:
        sequences = await fill_marked(await create_logs(connection, "states"), 5)
    server.stop()
    if how == "while it runs":  # it has not read the block yet
        server = start_server(directory=tmp_path)
        damage_block(tmp_path, marked(number))
    else:
        index_is_lost = how == "and its index is lost"
        damage_block(tmp_path, marked(number), index_is_lost=index_is_lost)
        server = start_server(directory=tmp_path)

    found: list[JournalEntry] = []
    async with connected(NatsOptions(servers=(server.url,))) as connection:
        store = StreamJournalStore(JetStream(connection, Inbox(connection)), "states")
        with suppress(CorruptError):
            found = await read_all(store)

    kept = [entry.sequence for entry in found]
    assert all(entry.value == marked(sequences.index(entry.sequence) + 1) for entry in found)
    if how == "and its index is lost":  # then it goes by the block, to where that is damaged
        assert kept == sequences[: number - 1]
    elif number == 5:
        assert not kept, "the log's end is unreadable, and that is told"
    else:
        assert kept == [*sequences[: number - 1], *sequences[number:]]
        assert found[number - 1].previous == sequences[number - 1]


@pytest.mark.fault("N12")
async def test_a_log_whose_end_cannot_be_read_goes_on_behind_it_where_that_is_asked_for(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(directory=tmp_path)
    async with connected(NatsOptions(servers=(server.url,))) as connection:
        store = await create_logs(connection, "states")
        sequences = await fill_marked(store, 3)
        await fill(store, 3, "other")
    server.stop()
    damage_block(tmp_path, marked(3))
    server = start_server(directory=tmp_path)

    async with connected(NatsOptions(servers=(server.url,))) as connection:
        store = StreamJournalStore(JetStream(connection, Inbox(connection)), "states")
        with pytest.raises(DamagedEntryError) as damage:
            await store.last(LOG)
        end = damage.value.sequence
        for expected in (sequences[1], end, end + 1):
            with pytest.raises(CorruptError):
                await store.append(
                    LOG, b"4", expected=expected, message_id=new_id(), behind_damage=expected != end
                )
        appended, again = [
            await store.append(LOG, b"4", expected=end, message_id="four", behind_damage=True)
            for _ in range(2)
        ]
        with pytest.raises(ConflictError):
            await store.append(LOG, b"x", expected=damage.value.sequence, message_id=new_id())
        found = await read_all(store)

    assert again == appended
    assert [entry.sequence for entry in found] == [*sequences[:2], appended]
    assert sequences[1] < damage.value.sequence <= sequences[2]


def marked(number: int) -> bytes:
    """The value of an entry that can be found among the bytes of a block."""
    return b"entry number %d" % number * 4


async def fill_marked(store: StreamJournalStore, count: int) -> list[int]:
    sequences = [0]
    for number in range(1, count + 1):
        sequences.append(
            await store.append(LOG, marked(number), expected=sequences[-1], message_id=new_id())
        )
    return sequences[1:]
