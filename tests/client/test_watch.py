"""Watching through a pool of workers: nothing is missed, whatever becomes of them."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
from nats.aio.client import Client as NatsClient
from tests.deployment import code_of, deployed
from tests.watching import SECONDS, Watcher, check_complete, types, write_until

from holdfast.bootstrap.admin import init_store
from holdfast.client import connect, connect_sync
from holdfast.client.watch import watched
from holdfast.domain.digest import digest_of
from holdfast.domain.limits import MAX_WATCHES
from holdfast.errors import ConflictError, InvalidError
from holdfast.protocol.watch import WatchChanges

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats.aio.msg import Msg
    from tests.deployment import Asker, Deployment

    from holdfast.client import Client
    from holdfast.protocol.watch import WatchKind
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats


@asynccontextmanager
async def watching(client: Client, kind: WatchKind, prefix: str = "") -> AsyncIterator[Watcher]:
    """A watcher of all that changes from now on."""
    watcher = Watcher(client, kind, await client.position(kind), prefix)
    try:
        yield watcher
    finally:
        await watcher.stop()


@pytest.fixture
def alone(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """A pool of one worker, which a test may stop."""
    with deployed(nats_server.url, "one") as deployment:
        yield deployment


@pytest.fixture(params=["jetstream", "disk"])
def three(
    request: pytest.FixtureRequest, nats_server: EmbeddedServer, tmp_path: Path
) -> Iterator[Deployment]:
    """A pool of three workers, which a test may kill, on each kind of store."""
    store = "nats://blobs" if request.param == "jetstream" else f"disk://{tmp_path}/store"
    with deployed(nats_server.url, "one", "two", "three", store=store) as deployment:
        yield deployment


@pytest.mark.parametrize("name", ["a//b/é", "/", "x" * 512])
async def test_what_becomes_of_a_name_is_told(holdfast: Client, name: str) -> None:
    async with watching(holdfast, "names", name) as watcher:
        await holdfast.names.create("other", b"")
        await holdfast.names.create(name, b"one", type="text/plain")
        await holdfast.names.replace(name, b"two")
        await holdfast.names.delete(name)
        await holdfast.names.delete("other")
        had = await watcher.wait_for(4)

    assert types(had) == ["name.pending", "name.ok", "name.ok", "name.deleted"]
    assert {event.subject for event in had} == {name}
    assert [event.data["version"] for event in had[:3]] == [0, 1, 2]
    assert had[2].data["digest"] == digest_of(b"two")
    assert len({event.id for event in had}) == 4
    assert [event.sequence for event in had] == sorted(event.sequence for event in had)


async def test_puts_and_deletions_of_blobs_are_told_and_nothing_else_of_them(
    holdfast: Client,
) -> None:
    async with watching(holdfast, "blobs") as watcher:
        digest = (await holdfast.put(b"watched", type="text/plain")).digest
        await holdfast.put(b"watched")
        await holdfast.names.put("name of it", b"watched")
        await watcher.wait_for(1)
        await holdfast.names.delete("name of it")
        await holdfast.delete(digest)
        had = await watcher.wait_for(2)

    assert types(had) == ["blob.put", "blob.deleted"]
    assert [event.subject for event in had] == [digest, digest]
    assert had[0].data == {"digest": digest, "size": 7, "type": "text/plain"}


async def test_what_becomes_of_a_snapshot_is_told(holdfast: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    async with watching(holdfast, "snapshots", "shop:") as watcher:
        made = await holdfast.snapshots.create_from(tmp_path, app="shop")
        await watcher.wait_for_type("snapshot.ok")
        await holdfast.snapshots.delete(made.key)
        await watcher.wait_for_type("snapshot.deleted")
        had = [event for event in watcher.had if event.type != "holdfast.snapshot.pending"]

    assert types(had) == ["snapshot.ok", "snapshot.deleted"]
    assert {event.subject for event in watcher.had} == {made.key}
    assert had[0].data["digest"] == made.digest


@pytest.mark.slow
async def test_each_watcher_has_every_step_in_order_though_a_worker_is_killed(
    three: Deployment,
) -> None:
    async with await connect(servers=three.url, prefix=three.prefix) as client:
        names = [f"{folder}/{number}" for folder in "ab" for number in range(200)]
        since = await client.position("names")
        watchers = [Watcher(client, "names", since, prefix) for prefix in ("", "a/", "b/") * 4]
        stop = asyncio.Event()
        writing = [
            asyncio.create_task(write_until(client, stop, names[start::4])) for start in range(4)
        ]
        await watchers[0].wait_for(60)
        three.kill("one")
        await watchers[0].wait_for(len(watchers[0].had) + 60)
        stop.set()
        await asyncio.gather(*writing)
        for folder in "ab":
            await client.names.put(f"{folder}/last", b"")
        for watcher in watchers:
            await watcher.wait_for_last(2 if watcher.prefix else 4)
            await watcher.stop()
        await check_complete(client, watchers)


async def test_a_reader_who_is_slow_has_everything_in_the_end(holdfast: Client) -> None:
    since = await holdfast.position("names")
    request = WatchChanges(kind="names", prefix="slow", since=since, credit=5)
    async with aclosing(watched(holdfast.requester, request)) as events:
        await holdfast.names.create("slow", b"")
        had = [await anext(events)]
        for number in range(30):
            await holdfast.names.put(f"slow/{number % 10}", bytes([number]))
        had += [await anext(events) for _ in range(1 + 40)]

    versions = [event.data["version"] for event in had if event.subject == "slow/9"]
    assert versions == [0, 1, 2, 3]
    assert len({event.id for event in had}) == len(had)


async def test_a_watch_may_go_on_from_any_event(holdfast: Client) -> None:
    since = await holdfast.position("names")
    for number in range(5):
        await holdfast.names.put("goes on", bytes([number]))
    first = Watcher(holdfast, "names", since)
    had = list(await first.wait_for(6))
    await first.stop()

    for number, event in enumerate(had):
        again = Watcher(holdfast, "names", int(event.position))
        await holdfast.names.put(f"{number}/last", b"")
        await again.wait_for_last(1)
        await again.stop()

        # A position that is told while others write may be before its event, never behind it.
        behind = [e.id for e in again.had if int(e.sequence) > int(event.sequence)]
        assert behind[: len(had) - number - 1] == [e.id for e in had[number + 1 :]]


def test_without_await_the_events_are_the_same(deployment: Deployment) -> None:
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as client:
        since = client.position("names")
        client.names.put("in a thread", b"")

        events = client.watch("names", prefix="in a", since=since)

        assert [next(events).type for _ in range(2)] == [
            "holdfast.name.pending",
            "holdfast.name.ok",
        ]
        events.close()


@pytest.mark.fault("store made anew")
async def test_who_watches_a_store_that_is_made_anew_is_told_to_list_again(
    alone: Deployment,
) -> None:
    async with await connect(servers=alone.url, prefix=alone.prefix) as client:
        await client.names.put("a", b"")
        async with watching(client, "names") as watcher:
            await client.names.put("a", b"b")
            await watcher.wait_for(1)

            other = NatsClient()
            await other.connect(alone.url)
            await other.jetstream().delete_stream(f"KV_{alone.prefix}_names")
            await other.close()
            await init_store(alone.config)

            async with asyncio.timeout(SECONDS):
                await asyncio.wait([watcher.task])
            with pytest.raises(ConflictError, match="list what is there"):
                watcher.task.result()


class Raw:
    """The answers to one ``blob.watch``, as any client would have them."""

    def __init__(self, ask: Asker) -> None:
        self._ask = ask

    async def until_end(self, **request: object) -> list[Msg]:
        """All messages up to the last, or the failure."""
        client = self._ask.client
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        subject = self._ask.deployment.subject("blob.watch")
        await client.publish(subject, json.dumps(request).encode(), reply=inbox)
        had: list[Msg] = []
        while not had or not {"Blob-End", "Nats-Service-Error"} & (had[-1].headers or {}).keys():
            had.append(await subscription.next_msg(SECONDS))
        await subscription.unsubscribe()
        return had


@pytest.mark.parametrize(
    "request_",
    [
        {"kind": "apps"},
        {},
        {"kind": "names", "since": 10**9},
        {"kind": "names", "since": -1},
        {"kind": "names", "cursor": "1.2"},
        {"kind": "names", "cursor": "0.0.0123456789abcdef", "since": 0},
        {"kind": "names", "prefix": "x" * 513},
        {"kind": "names", "credit": 10**6},
        {"kind": "names", "from": 1},
    ],
    ids=str,
)
async def test_what_cannot_be_watched_is_invalid(request_: dict[str, object], ask: Asker) -> None:
    had = await Raw(ask).until_end(**request_)

    assert [code_of(message) for message in had] == ["invalid"]


async def test_a_cursor_of_another_store_is_a_conflict(ask: Asker) -> None:
    had = await Raw(ask).until_end(kind="names", cursor="0.0.0123456789abcdef")

    assert [code_of(message) for message in had] == ["conflict"]


async def test_a_worker_tells_no_more_than_the_credit_and_goes_on_from_the_cursor(
    holdfast: Client, ask: Asker
) -> None:
    since = await holdfast.position("names")
    for number in range(300):
        await holdfast.names.put(f"credit/{number % 100}", bytes([number % 256]))

    had: set[str] = set()
    request: dict[str, object] = {"since": since}
    rounds = 0
    while len(had) < 400:
        answered = await Raw(ask).until_end(kind="names", prefix="credit/", credit=1, **request)
        events = [event for message in answered for event in json.loads(message.data)]
        assert events
        had |= {event["id"] for event in events}
        last = answered[-1].headers or {}
        assert last["Blob-End"] == "credit"
        assert last["Content-Type"] == "application/cloudevents-batch+json"
        request, rounds = {"cursor": last["Blob-Cursor"]}, rounds + 1

    assert len(had) == 400
    assert rounds <= 400


async def test_a_worker_that_stops_ends_its_watches_at_once(alone: Deployment) -> None:
    client = NatsClient()
    await client.connect(alone.url)
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    body = msgspec.json.encode({"kind": "names"})
    await client.publish(alone.subject("blob.watch"), body, reply=inbox)
    first = await subscription.next_msg(SECONDS)

    status = await asyncio.to_thread(alone.stop, "one")

    last = await subscription.next_msg(SECONDS)
    assert status == 0
    assert (first.headers or {})["Blob-Heartbeat"] == "2"
    assert (last.headers or {})["Blob-End"] == "drain"
    assert (last.headers or {})["Blob-Position"] == (first.headers or {})["Blob-Position"]
    await client.close()


async def test_a_worker_has_so_many_watches_and_no_more(alone: Deployment) -> None:
    client = NatsClient()
    await client.connect(alone.url)
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    body = msgspec.json.encode({"kind": "names"})
    for _ in range(MAX_WATCHES + 5):
        await client.publish(alone.subject("blob.watch"), body, reply=inbox)

    had = [await subscription.next_msg(SECONDS) for _ in range(MAX_WATCHES + 5)]

    refused = [message for message in had if "Nats-Service-Error" in (message.headers or {})]
    assert [code_of(message) for message in refused] == ["rate_limited"] * 5
    await client.close()


async def test_a_position_beyond_the_end_is_refused_by_the_client_too(holdfast: Client) -> None:
    with pytest.raises(InvalidError, match="beyond the end"):
        await anext(holdfast.watch("names", since=10**9))
