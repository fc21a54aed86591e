"""The cache of a reader: bounded, and loading a value once however many threads want it."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.archive.tars import CountingStore, file, large_tree, members_of, snapshot_of

from holdfast.archive.read.lru import ByteLru
from holdfast.archive.read.snapshot import ReaderLimits, SnapshotReader
from holdfast.domain.digest import digest_of
from holdfast.domain.kept import PartialBytes, reduced

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.archive.ports import Pack
    from holdfast.domain.digest import Digest

THREADS = 8


def loaded(cache: ByteLru[str, bytes], key: str, size: int) -> bool:
    """Whether ``key`` had to be loaded."""
    loads: list[str] = []

    def load() -> bytes:
        loads.append(key)
        return bytes(size)

    assert cache.get(key, load) == bytes(size)
    return bool(loads)


def test_a_value_is_loaded_once() -> None:
    cache: ByteLru[str, bytes] = ByteLru(100, len)

    assert [loaded(cache, "a", 10), loaded(cache, "a", 10)] == [True, False]
    assert "a" in cache


def test_the_least_recently_used_is_forgotten_first() -> None:
    cache: ByteLru[str, bytes] = ByteLru(30, len)
    for key in "abc":
        loaded(cache, key, 10)
    loaded(cache, "a", 10)

    loaded(cache, "d", 20)

    assert [key for key in "abcd" if key in cache] == ["a", "d"]


def test_what_is_larger_than_the_limit_is_not_kept_and_displaces_nothing() -> None:
    cache: ByteLru[str, bytes] = ByteLru(30, len)
    loaded(cache, "a", 30)

    assert loaded(cache, "b", 31)

    assert "a" in cache
    assert "b" not in cache


def test_a_failure_reaches_the_asker_and_is_not_remembered() -> None:
    cache: ByteLru[str, bytes] = ByteLru(30, len)

    def fail() -> bytes:
        raise LookupError

    with pytest.raises(LookupError):
        cache.get("a", fail)

    assert loaded(cache, "a", 1)


def test_what_is_put_takes_the_place_of_what_is_held() -> None:
    cache: ByteLru[str, bytes] = ByteLru(30, len)
    loaded(cache, "a", 10)
    loaded(cache, "b", 10)

    cache.put("a", bytes(20))

    assert not loaded(cache, "a", 20)
    assert "b" in cache, "what was held counts no more"


def test_what_is_put_while_a_value_is_loaded_stays() -> None:
    cache: ByteLru[str, bytes] = ByteLru(30, len)

    def load() -> bytes:
        cache.put("a", b"put")
        return b"loaded"

    assert [cache.get("a", load), cache.get("a", load)] == [b"loaded", b"put"]


@pytest.mark.parametrize("fails", [False, True])
def test_threads_that_want_one_value_share_one_load(*, fails: bool) -> None:
    cache: ByteLru[str, bytes] = ByteLru(30, len)
    started = threading.Barrier(THREADS + 1)
    let_go = threading.Event()
    loads: list[int] = []

    def load() -> bytes:
        loads.append(1)
        assert let_go.wait(30)
        if fails:
            raise LookupError
        return b"value"

    def ask() -> bytes | None:
        started.wait()
        try:
            return cache.get("a", load)
        except LookupError:
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        asked = [pool.submit(ask) for _ in range(THREADS)]
        started.wait()
        let_go.set()
        results = {future.result() for future in asked}

    assert results == ({None} if fails else {b"value"})
    assert len(loads) == 1 or fails  # one that came after a failure tried for itself


def test_several_threads_read_a_snapshot_and_fetch_each_pack_once() -> None:
    store = CountingStore()
    files = large_tree()
    reader = SnapshotReader(store, snapshot_of(members_of(files), store).digest)
    store.fetched.clear()

    def read(path: str) -> bytes:
        located = reader.entry(path.encode())
        return b"".join(reader.read_file(located.page_no, located.index))

    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(files, pool.map(read, files), strict=True))

    assert found == files
    assert len(store.fetched) == len(set(store.fetched))


def test_the_part_of_a_pack_that_another_thread_is_loading_is_not_the_latest_of_it() -> None:
    """As on a replica that is behind. The other thread begins once the first has met the part."""
    data = bytes(range(256)) * 8
    digest = digest_of(data)
    pack = bytes.fromhex(digest)
    met, begun, has_latest = threading.Event(), threading.Event(), threading.Event()

    class Part(PartialBytes):
        def cuts(self, spans: Iterable[tuple[int, int]]) -> list[memoryview] | None:
            if not met.is_set():
                met.set()
                others.append(pool.submit(reader.pack, pack))
                assert begun.wait(30)
            return super().cuts(spans)

    class Behind(CountingStore):
        def get(self, digest: Digest) -> Pack:
            if met.is_set():
                begun.set()
                has_latest.wait(5)
            found = super().get(digest)
            return Part(*reduced(data, None, ((0, 512),))) if found == data else found

        def get_latest(self, digest: Digest) -> Pack:
            has_latest.set()
            return super().get(digest)

    others: list[Future[Pack]] = []
    store = Behind()
    root = snapshot_of([file("f", b"f")], store).digest
    store.put(digest, data)
    reader = SnapshotReader(store, root, limits=ReaderLimits(pack_cache_bytes=0))
    with ThreadPoolExecutor(1) as pool:
        assert reader.cuts(pack, [(1000, 100)]) == [data[1000:1100]]
        assert len(others[0].result()) == 512
