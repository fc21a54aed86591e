"""The cache of a reader: bounded, and loading a value once however many threads want it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.archive.tars import CountingStore, large_tree, members_of, snapshot_of

from holdfast.archive.read.lru import ByteLru
from holdfast.archive.read.snapshot import SnapshotReader

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
