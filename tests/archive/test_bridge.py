"""The pack store over an event loop: windows, failures, and packs fetched ahead."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from holdfast.archive.bridge import BridgedPackStore
from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import (
    CorruptError,
    InternalError,
    NotFoundError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.form.packing import PACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable


class Remote:
    """A store on the loop's side, whose puts wait for ``gate``."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.gets: list[Digest] = []
        self.under_way = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.started = asyncio.Event()
        self.failure: Exception | None = None

    async def get(self, digest: Digest) -> bytes:
        self.gets.append(digest)
        self.started.set()
        await self.gate.wait()
        if digest not in self.blobs:
            raise NotFoundError
        return self.blobs[digest]

    async def put(self, digest: Digest, data: bytes) -> bool:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.started.set()
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        created = digest not in self.blobs
        self.blobs[digest] = data
        return created

    def add(self, data: bytes) -> Digest:
        self.blobs[digest_of(data)] = data
        return digest_of(data)


@pytest.fixture
def remote() -> Remote:
    return Remote()


def bridged(remote: Remote, window: int = 1000, cache: int = 4 * PACK_BYTES) -> BridgedPackStore:
    return BridgedPackStore(
        asyncio.get_running_loop(),
        remote.get,
        remote.put,
        window_bytes=window,
        cache_bytes=cache,
    )


async def in_thread(call: Callable[[], object]) -> object:
    return await asyncio.wait_for(asyncio.to_thread(call), 20)


def put(store: BridgedPackStore, *blobs: bytes) -> None:
    for data in blobs:
        store.put(digest_of(data), data)


def put_all(store: BridgedPackStore, *blobs: bytes) -> None:
    put(store, *blobs)
    store.flush()


async def test_what_was_put_and_flushed_is_there(remote: Remote) -> None:
    store = bridged(remote)

    await in_thread(lambda: put_all(store, b"a", b"bc"))
    got = await in_thread(lambda: store.get(digest_of(b"bc")))

    assert got == b"bc"
    assert sorted(remote.blobs.values()) == [b"a", b"bc"]


async def test_only_what_was_new_counts_as_created(remote: Remote) -> None:
    store = bridged(remote)
    remote.add(b"known")

    await in_thread(lambda: put_all(store, b"known", b"new"))

    assert store.created_bytes == len(b"new")


async def test_puts_go_on_side_by_side_up_to_the_window(remote: Remote) -> None:
    store = bridged(remote, window=250)
    blobs = [b"%d" % number * 100 for number in range(8)]
    remote.gate.clear()

    task = asyncio.create_task(in_thread(lambda: put_all(store, *blobs)))
    while remote.under_way < 2:  # noqa: ASYNC110 - each turn lets the puts begin
        await asyncio.sleep(0)
    remote.gate.set()
    await task

    assert remote.most == 2
    assert len(remote.blobs) == 8


async def test_a_pack_larger_than_the_window_is_put_alone(remote: Remote) -> None:
    store = bridged(remote, window=10)

    await in_thread(lambda: put_all(store, b"x" * 100, b"y" * 100))

    assert (remote.most, len(remote.blobs)) == (1, 2)


async def test_a_failed_put_fails_the_next_call_and_all_after_it(remote: Remote) -> None:
    store = bridged(remote)
    remote.failure = QuotaExceededError()

    await in_thread(lambda: put(store, b"a"))
    with pytest.raises(QuotaExceededError):
        await in_thread(store.flush)
    remote.failure = None
    with pytest.raises(QuotaExceededError):
        await in_thread(lambda: put(store, b"b"))

    assert remote.blobs == {}


async def test_a_failure_wakes_a_put_that_waits_for_room(remote: Remote) -> None:
    store = bridged(remote, window=1)
    remote.failure = QuotaExceededError()
    remote.gate.clear()

    task = asyncio.create_task(in_thread(lambda: put(store, b"a", b"b")))
    await remote.started.wait()
    remote.gate.set()

    with pytest.raises(QuotaExceededError):
        await task


async def test_what_is_not_there_is_not_found(remote: Remote) -> None:
    store = bridged(remote)

    with pytest.raises(NotFoundError):
        await in_thread(lambda: store.get(digest_of(b"nothing")))


async def test_a_prefetched_pack_is_fetched_once(remote: Remote) -> None:
    store = bridged(remote)
    digest = remote.add(b"pack")

    await in_thread(lambda: store.prefetch([digest, digest]))
    got = await in_thread(lambda: store.get(digest))

    assert got == b"pack"
    assert remote.gets == [digest]


async def test_prefetching_what_is_not_there_does_not_fail_until_it_is_asked_for(
    remote: Remote,
) -> None:
    store = bridged(remote)
    digest = digest_of(b"late")

    await in_thread(lambda: store.prefetch([digest]))
    await remote.started.wait()
    await asyncio.sleep(0)
    remote.add(b"late")

    assert await in_thread(lambda: store.get(digest)) == b"late"


async def test_no_more_is_fetched_ahead_than_there_is_room_for(remote: Remote) -> None:
    store = bridged(remote, cache=2 * PACK_BYTES)
    digests = [remote.add(b"%d" % number) for number in range(5)]

    await in_thread(lambda: store.prefetch(digests))
    last = await in_thread(lambda: store.get(digests[4]))

    assert last == b"4"
    assert remote.gets == [digests[0], digests[1], digests[4]]


async def test_as_many_bytes_are_fetched_ahead_however_small_the_packs_are(remote: Remote) -> None:
    store = bridged(remote, cache=2 * PACK_BYTES)
    digests = [remote.add(b"%d" % number) for number in range(40)]

    async with asyncio.timeout(20):
        while len(remote.gets) < len(digests):
            await in_thread(lambda: store.prefetch(digests))
    await in_thread(lambda: [store.get(digest) for digest in digests])

    assert remote.gets == digests


async def test_packs_that_are_ahead_take_no_more_than_there_is_room_for(remote: Remote) -> None:
    store = bridged(remote, cache=2 * PACK_BYTES)
    digests = [remote.add(bytes([number]) * (PACK_BYTES // 2)) for number in range(8)]

    async with asyncio.timeout(20):
        while len(remote.gets) < 3:
            await in_thread(lambda: store.prefetch(digests))
    for _ in range(3):
        await in_thread(lambda: store.prefetch(digests))

    assert len(remote.gets) == 3, "a fourth might be a whole pack, for which there is no room"


async def test_a_pack_is_compared_by_the_thread_that_asks_and_fetched_anew_if_it_is_another(
    remote: Remote,
) -> None:
    threads: list[int] = []

    class Unchecked:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def __len__(self) -> int:
            return len(self.data)

        def checked(self) -> bytes:
            threads.append(threading.get_ident())
            if len(threads) == 1:
                raise CorruptError("other bytes came")
            return self.data

    async def get(digest: Digest) -> Unchecked:
        return Unchecked(await remote.get(digest))

    store = BridgedPackStore(asyncio.get_running_loop(), get, remote.put, cache_bytes=PACK_BYTES)
    digest = remote.add(b"pack")

    await in_thread(lambda: store.prefetch([digest]))
    got = await in_thread(lambda: store.get(digest))

    assert got == b"pack"
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_what_was_fetched_in_vain_makes_room(remote: Remote) -> None:
    store = bridged(remote, cache=PACK_BYTES)
    first, second = remote.add(b"1"), remote.add(b"2")

    await in_thread(lambda: store.prefetch([first]))
    await in_thread(lambda: store.prefetch([second]))
    got = await in_thread(lambda: store.get(second))

    assert got == b"2"
    assert remote.gets.count(second) == 1


async def test_closing_ends_what_is_under_way(remote: Remote) -> None:
    store = bridged(remote)
    remote.gate.clear()
    await in_thread(lambda: put(store, b"a"))
    flushing = asyncio.create_task(in_thread(store.flush))
    await remote.started.wait()

    store.close()

    with pytest.raises(UnavailableError):
        await flushing


@pytest.mark.parametrize("ahead", [False, True])
async def test_closing_ends_a_get_that_is_waited_for(remote: Remote, *, ahead: bool) -> None:
    store = bridged(remote)
    remote.gate.clear()
    if ahead:
        store.prefetch([digest_of(b"a")])
    getting = asyncio.create_task(in_thread(lambda: store.get(digest_of(b"a"))))
    await remote.started.wait()
    await asyncio.sleep(0.05)  # the thread is likely to wait by then: either way it ends

    store.close()

    with pytest.raises(UnavailableError):
        await getting


async def test_nothing_begins_once_it_is_closed(remote: Remote) -> None:
    """A thread whose caller gave up ends with its next call, and asks the loop for nothing."""
    store = bridged(remote)
    digest = remote.add(b"a")
    store.close()

    for call in (
        lambda: store.get(digest),
        lambda: store.get_latest(digest),
        lambda: store.put(digest_of(b"b"), b"b"),
    ):
        with pytest.raises(UnavailableError):
            await in_thread(call)
    await in_thread(lambda: store.prefetch([digest]))

    assert remote.gets == []
    assert list(remote.blobs) == [digest]


async def test_the_loop_itself_may_not_wait_for_itself(remote: Remote) -> None:
    store = bridged(remote)

    with pytest.raises(InternalError):
        store.get(digest_of(b"a"))


def test_a_loop_that_is_closed_is_unavailable() -> None:
    async def make() -> BridgedPackStore:
        return bridged(Remote())

    store = asyncio.run(make())

    with pytest.raises(UnavailableError):
        store.get(digest_of(b"a"))
    with pytest.raises(UnavailableError):
        store.put(digest_of(b"a"), b"a")
    store.prefetch([digest_of(b"a")])
