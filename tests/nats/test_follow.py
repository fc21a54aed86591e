"""Changes of a KV bucket are read whole, among gaps of any size and from replicas that lag."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from msgspec.structs import replace
from tests.contracts.record_changes import Follower, listed
from tests.nats.buckets import create_records

from holdfast.errors import UnavailableError
from holdfast.stores.jetstream import follow as follow_module
from holdfast.stores.record_ports import Put

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.nats.tools import FlakyJetStream

    from holdfast.stores.jetstream.records import KeyValueRecordStore
    from holdfast.transport.connection import Connection
    from holdfast.transport.jetstream_messages import StoredMessage, StreamState

pytestmark = pytest.mark.nats

type Opened = tuple[FlakyJetStream, KeyValueRecordStore]


@pytest_asyncio.fixture
async def opened(connection: Connection, fresh_name: str) -> Opened:
    return await create_records(connection, fresh_name)


async def fill(store: KeyValueRecordStore, rng: random.Random, *, writes: int, keys: int) -> None:
    """Write so often to so many keys: the fewer there are, the larger are the gaps."""
    for first in range(0, writes, keys):
        some = rng.sample(range(keys), k=min(keys, writes - first))
        await store.batch([Put(key=f"k.{key}", value=b"1", expected=None) for key in some])


@pytest.fixture(params=[1, 4])
def looks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How often the end is looked for before a batch is asked for."""
    monkeypatch.setattr(follow_module, "_LOOKS", request.param)


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize("stretches", [1, 3, 512])
@pytest.mark.parametrize("keys", [1, 5, 150])
async def test_nothing_is_passed_over_among_gaps_of_any_size(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, keys: int, stretches: int
) -> None:
    monkeypatch.setattr(follow_module, "_STRETCHES", stretches)
    _, store = opened
    rng = random.Random(keys)  # noqa: S311
    await store.batch([Put(key=f"first.{key}", value=b"1", expected=0) for key in range(20)])
    await fill(store, rng, writes=400, keys=keys)
    await store.batch([Put(key=f"last.{key}", value=b"1", expected=0) for key in range(20)])

    for limit in (1, 7, 1000):
        follower = Follower(store)
        await follower.catch_up(limit)

        assert follower.records == await listed(store)
        assert len(follower.changes) == len(follower.records)
        assert follower.position == (await store.extent()).last


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize("last", [1, 30, 100])
async def test_where_the_last_messages_are_gone_the_end_is_reached(
    opened: Opened, last: int
) -> None:
    js, store = opened
    await store.batch([Put(key=f"k.{key}", value=b"1", expected=0) for key in range(120)])
    for key in range(120 - last, 120):
        await js.purge(store.stream, f"$KV.{store.bucket}.k.{key}")
    follower = Follower(store)

    await follower.catch_up()

    assert len(follower.records) == 120 - last
    assert follower.position == (await store.extent()).last == 120


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize("seed", range(4))
async def test_what_some_of_the_replicas_lack_is_not_passed_over(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    js, store = opened
    rng = random.Random(seed)  # noqa: S311
    await fill(store, rng, writes=300, keys=100)
    each, at, batch = js.direct_each, js.direct_at, js.direct_batch

    def has(message: StoredMessage) -> bool:
        """Whether the replica that was asked has it: each time another one, as far as it is."""
        return message.sequence <= rng.choice((120, 250, 300, 300, 300))

    async def direct_batch(
        stream: str, query: Mapping[str, Any], **_options: float
    ) -> tuple[list[StoredMessage], int]:
        messages, pending = await batch(stream, query)
        end = rng.choice((120, 250, 300, 300, 300))
        has_all = end == 300
        return [one for one in messages if one.sequence <= end], pending if has_all else 0

    async def direct_each(stream: str, queries: Sequence[Mapping[str, Any]]) -> list[StoredMessage]:
        return [message for message in await each(stream, queries) if has(message)]

    async def direct_at(stream: str, query: Mapping[str, Any]) -> StoredMessage | None:
        message = await at(stream, query)
        return message if message is not None and has(message) else None

    monkeypatch.setattr(js, "direct_each", direct_each)
    monkeypatch.setattr(js, "direct_at", direct_at)
    monkeypatch.setattr(js, "direct_batch", direct_batch)

    for limit in (1, 7, 1000):
        follower = Follower(store)
        await follower.catch_up(limit)
        with monkeypatch.context() as patches:
            patches.setattr(js, "direct_batch", batch)
            assert follower.records == await listed(store)


async def test_an_end_that_a_replica_tells_of_is_that_of_its_own_answer(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "_LOOKS", 1)
    js, store = opened
    for key in ("a", "k", "z"):
        await store.put(key, b"1", expected=0)
    lagging, _ = await js.direct_batch(store.stream, {"seq": 1, "batch": 10})
    each = js.direct_each

    async def direct_each(stream: str, queries: Sequence[Mapping[str, Any]]) -> list[StoredMessage]:
        present = await store.get("k")
        if present.value == b"1":
            await store.put("k", b"2", expected=present.revision)
        return await each(stream, queries)

    async def direct_batch(
        _stream: str, query: Mapping[str, Any], **_options: float
    ) -> tuple[list[StoredMessage], int]:
        return [message for message in lagging if message.sequence >= query["seq"]], 0

    monkeypatch.setattr(js, "direct_each", direct_each)
    monkeypatch.setattr(js, "direct_batch", direct_batch)
    follower = Follower(store)

    await follower.catch_up()

    assert set(follower.records) == {"a", "k", "z"}


async def test_a_leader_that_has_not_caught_up_does_not_end_it(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    js, store = opened
    revision = await store.put("a", b"1", expected=0)
    state = js.state
    states = 0

    async def behind(stream: str) -> StreamState:
        nonlocal states
        states += 1
        found = await state(stream)
        # The first leader had one more message than the next one, which lacks it so far.
        return replace(found, last_sequence=found.last_sequence + (states == 1))

    monkeypatch.setattr(js, "state", behind)

    with pytest.raises(UnavailableError, match="has not caught up yet"):
        await store.changes(revision)
