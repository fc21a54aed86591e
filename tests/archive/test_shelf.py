"""Placing frames: each once, in order, within bounds; and the pool that prepares them."""

from __future__ import annotations

import threading

import pytest
from tests.archive import trees
from tests.archive.memory import MemoryPackStore

from holdfast.archive.create.frame_pool import (
    MAX_IN_FLIGHT_BYTES,
    MAX_OPEN_FILES,
    FileData,
    FramePool,
    RawFrame,
)
from holdfast.archive.create.manifest_writer import MAX_WAITING_PAGES, ManifestWriter, NewPage
from holdfast.archive.create.shelf import Frame, KnownFrames, Shelf
from holdfast.domain.digest import digest_of
from holdfast.errors import InternalError
from holdfast.form.entries import Entry, Kind
from holdfast.form.frame_table import FrameRef, table_of
from holdfast.form.manifest import StatPage


class Data:
    """A reader of noise, which counts how many of them are open."""

    open_now = most = 0
    lock = threading.Lock()

    def __init__(self, size: int, seed: int) -> None:
        self._data = trees.noise(size, seed)
        with Data.lock:
            Data.open_now += 1
            Data.most = max(Data.most, Data.open_now)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self._data[offset : offset + len(buffer)]

    def close(self) -> bool:
        with Data.lock:
            Data.open_now -= 1
        return True


def frame_of(raw: bytes) -> Frame:
    frame = Frame(len(raw))
    frame.digest = bytes.fromhex(digest_of(raw))
    frame.stored = raw
    return frame


def ref_of(raw: bytes) -> FrameRef:
    digest = bytes.fromhex(digest_of(raw))
    return FrameRef(digest=digest, raw_size=len(raw), pack=digest, offset=0, stored_size=len(raw))


def test_frames_of_one_pack_get_their_places_when_it_is_closed() -> None:
    store = MemoryPackStore()
    shelf = Shelf(store, KnownFrames())
    first, second = frame_of(b"first"), frame_of(b"second")

    shelf.place(first)
    shelf.place(second)
    before = first.ref
    shelf.finish()

    assert before is None
    assert first.ref is not None
    assert second.ref is not None
    assert (first.ref.offset, second.ref.offset) == (0, 5)
    assert store.get(second.ref.address) == b"firstsecond"


def test_a_frame_is_stored_once_whether_its_pack_is_open_or_closed() -> None:
    store = MemoryPackStore()
    shelf = Shelf(store, KnownFrames())
    frames = [frame_of(b"same") for _ in range(3)]

    shelf.place(frames[0])
    shelf.place(frames[1])
    shelf.finish()
    shelf.place(frames[2])
    shelf.finish()

    assert frames[0].ref == frames[1].ref == frames[2].ref
    assert (shelf.new_raw_bytes, len(store.packs)) == (4, 1)


def test_a_frame_nobody_has_must_come_compressed() -> None:
    shelf = Shelf(MemoryPackStore(), KnownFrames())

    with pytest.raises(InternalError):
        shelf.place(Frame(4))


def test_known_frames_are_bounded() -> None:
    known = KnownFrames(limit=3)
    refs = [ref_of(b"%d" % number) for number in range(4)]

    taken = [known.add_table(table_of(refs[:2])), known.add_table(table_of(refs[2:]))]

    assert taken == [True, False]
    assert len(known) == 2
    assert known.find(refs[0].digest) == refs[0]
    assert known.find(refs[2].digest) is None


def test_a_pack_beyond_the_bound_is_stored_but_not_remembered() -> None:
    store = MemoryPackStore()
    shelf = Shelf(store, KnownFrames(limit=0))
    first, again = frame_of(b"same"), frame_of(b"same")

    for frame in (first, again):
        shelf.place(frame)
        shelf.finish()

    assert first.ref == again.ref
    assert shelf.new_raw_bytes == 8


def test_frames_files_and_marks_come_back_in_the_order_they_went_in() -> None:
    seen: list[object] = []
    expected: list[object] = []

    with FramePool(
        is_known=lambda _: False, deliver=lambda frame: seen.append(frame.digest), threads=3
    ) as pool:
        for number in range(40):
            raw = trees.noise(20_000 + number * 512, number)
            pool.add(RawFrame(raw))
            pool.add(FileData(Data(51_200, number), 51_200, None, 51_200))
            pool.add_mark(lambda number=number: seen.append(number))  # type: ignore[misc]
            expected += [bytes.fromhex(digest_of(raw))]
            expected += [bytes.fromhex(digest_of(trees.noise(51_200, number))), number]
        pool.finish()

    assert seen == expected


def test_a_mark_with_nothing_before_it_is_called_at_once() -> None:
    called: list[int] = []

    with FramePool(is_known=lambda _: False, deliver=lambda _: None, threads=1) as pool:
        pool.add_mark(lambda: called.append(1))

    assert called == [1]


def test_what_is_known_is_not_compressed() -> None:
    frames: list[Frame] = []

    with FramePool(is_known=lambda _: True, deliver=frames.append, threads=1) as pool:
        pool.add(RawFrame(b"data"))
        pool.finish()

    assert [frame.stored for frame in frames] == [None]


def test_only_so_many_files_are_open_at_once() -> None:
    Data.most = Data.open_now = 0

    with FramePool(is_known=lambda _: False, deliver=lambda _: None, threads=2) as pool:
        for number in range(3 * MAX_OPEN_FILES):
            pool.add(FileData(Data(100, number), 100, None, 100))
        pool.finish()

    assert Data.most <= MAX_OPEN_FILES + MAX_OPEN_FILES // 4
    assert Data.open_now == 0


def test_adding_waits_while_too_many_bytes_are_under_way() -> None:
    gate = threading.Event()
    delivered = threading.Event()
    raw = bytes(512 * 1024)
    added: list[int] = []

    def is_known(_: bytes) -> bool:
        return gate.wait(20)

    def fill() -> None:
        with FramePool(is_known=is_known, deliver=lambda _: delivered.set(), threads=2) as pool:
            for number in range(2 * MAX_IN_FLIGHT_BYTES // len(raw)):
                pool.add(RawFrame(raw))
                added.append(number)
            pool.finish()

    thread = threading.Thread(target=fill)
    thread.start()
    while len(added) < MAX_IN_FLIGHT_BYTES // len(raw):
        pass
    thread.join(0.1)  # it has the time to go on, if nothing held it
    held = len(added)
    gate.set()
    thread.join(20)

    assert held <= MAX_IN_FLIGHT_BYTES // len(raw)
    assert delivered.is_set()
    assert len(added) == 2 * MAX_IN_FLIGHT_BYTES // len(raw)


def test_a_file_whose_reading_fails_is_closed_and_fails_the_pool() -> None:
    class Broken(Data):
        def read_into(self, buffer: memoryview, offset: int) -> None:
            raise InternalError

    Data.open_now = 0

    with FramePool(is_known=lambda _: False, deliver=lambda _: None, threads=1) as pool:
        pool.add(FileData(Broken(100, 0), 100, None, 100))
        pool.add(FileData(Data(100, 1), 100, None, 100))
        with pytest.raises(InternalError):
            pool.finish()

    assert Data.open_now == 0


def test_pages_do_not_wait_for_ever_for_a_pack_that_fills_slowly() -> None:
    store = MemoryPackStore()
    data, pages = Shelf(store, KnownFrames()), Shelf(store, KnownFrames())
    manifest = ManifestWriter(store, data, pages)

    for number in range(MAX_WAITING_PAGES + 1):
        frame = frame_of(b"%512d" % number)
        data.place(frame)
        path = b"" if not number else b"%03d" % number
        entry = Entry(path=path, kind=Kind.DIRECTORY, mode=0o755, uid=0, gid=0)
        stat = StatPage(inodes=[number], ctimes_ns=[0])
        manifest.add(
            NewPage(
                entries=[entry],
                header_sizes=[512],
                frames=[frame],
                stat=stat,
                fingerprint=bytes(32),
            )
        )
    waiting = [digest for digest, blob in store.packs.items() if b"%512d" % 0 in blob]
    root = manifest.finish().root

    assert len(waiting) == 1
    assert root.page_count == MAX_WAITING_PAGES + 1
