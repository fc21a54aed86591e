"""Verifying: everything is read once, and damage is named without ending the work."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache

import pytest
from tests.archive.tars import CountingStore, file, large_tree, members_of, snapshot_of

from holdfast.archive.ports import Cancelled, Pack, Progress
from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.archive.read.verify import MAX_DAMAGED_PATHS, verify
from holdfast.domain.digest import Digest
from holdfast.domain.kept import PartialBytes, reduced
from holdfast.errors import UnavailableError


@cache
def archived() -> tuple[dict[Digest, bytes], Digest]:
    store = CountingStore()
    files = large_tree()
    reader = snapshot_of([*members_of(files), file("z/again", files["m/chunked"])], store)
    return store.packs, reader.digest


def stored() -> tuple[CountingStore, SnapshotReader]:
    packs, digest = archived()
    store = CountingStore()
    store.packs.update(packs)
    return store, SnapshotReader(store, digest)


def test_a_sound_snapshot_is_read_whole_and_each_pack_once() -> None:
    store, reader = stored()
    store.fetched.clear()

    result = verify(reader)

    assert result.damaged == ()
    assert result.next is None
    distinct = {page.frame(n).digest for _, page in reader.pages() for n in range(page.frame_count)}
    assert result.frames == len(distinct)
    assert sorted(store.fetched) == sorted({pack.hex() for pack in reader.root.packs})


def test_a_missing_pack_is_named_with_the_paths_that_need_it() -> None:
    store, reader = stored()
    number, index = reader.find(b"m/chunked") or (0, 0)
    page = reader.page(number)
    frame, _ = page.data_at(index)
    pack = page.frame(frame + 3).address
    store.lose(pack)

    result = verify(SnapshotReader(store, reader.digest))

    (damaged,) = result.damaged
    assert (damaged.pack, damaged.code) == (pack, "missing")
    assert pack in damaged.detail
    assert {b"m/chunked", b"z/again"} >= set(damaged.paths) >= {b"m/chunked"}
    assert result.damaged_count == 1


def test_a_pack_of_which_bytes_were_dropped_that_are_needed_is_named_with_the_paths() -> None:
    store, reader = stored()
    ref = reader.page(1).frame(4)
    data = store.packs[ref.address]
    left, kept = reduced(data, None, ((0, ref.offset), (ref.offset + ref.stored_size, len(data))))
    store.partial[ref.address] = PartialBytes(left, kept)

    result = verify(SnapshotReader(store, reader.digest))

    (damaged,) = result.damaged
    assert (damaged.pack, damaged.code) == (ref.address, "corrupt")
    assert "bytes were dropped" in damaged.detail
    first = bisect_right(reader.page(1).starts, reader.page(1).frame_starts[4]) - 1
    assert damaged.paths[0] == reader.page(1).paths[first]


def test_a_flipped_bit_is_found_and_the_rest_is_still_read() -> None:
    store, reader = stored()
    sound = verify(reader)
    ref = reader.page(1).frame(4)
    data = bytearray(store.packs[ref.address])
    data[ref.offset + ref.stored_size // 2] ^= 1
    store.packs[ref.address] = bytes(data)

    result = verify(SnapshotReader(store, reader.digest))

    (damaged,) = result.damaged
    assert (damaged.pack, damaged.code) == (ref.address, "corrupt")
    assert 0 < len(damaged.paths) <= MAX_DAMAGED_PATHS
    assert result.packs == sound.packs - 1


def test_a_store_that_does_not_check_is_not_trusted() -> None:
    store, reader = stored()
    number, index = reader.find(b"m/chunked") or (0, 0)
    ref = reader.page(number).frame(reader.page(number).data_at(index)[0])
    data = bytearray(store.packs[ref.address])
    data[ref.offset + ref.stored_size // 2] ^= 1
    store.false[ref.address] = bytes(data)

    result = verify(SnapshotReader(store, reader.digest))

    (damaged,) = result.damaged
    assert (damaged.pack, damaged.code) == (ref.address, "corrupt")
    assert damaged.paths[0] == b"m/chunked"


def test_an_unreadable_page_is_named_by_its_first_path() -> None:
    store, reader = stored()
    pack = reader.root.page_frames(1)[0].address
    with_pages = {reader.root.page_frames(n)[0].address for n in range(reader.page_count)}
    store.lose(pack)

    result = verify(SnapshotReader(store, reader.digest))

    assert with_pages == {pack}  # all the pages of so small a snapshot lie in one pack
    assert {(damaged.pack, damaged.code) for damaged in result.damaged} == {(pack, "missing")}
    assert [damaged.paths for damaged in result.damaged] == [
        (path,) for path in reader.root.first_paths
    ]


def test_more_damage_than_there_is_room_for_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.archive.read.verify.MAX_DAMAGED", 2)
    store, reader = stored()
    for pack in reader.root.packs:
        if pack.hex() != reader.root.page_frames(0)[0].address:
            store.lose(Digest(pack.hex()))

    result = verify(SnapshotReader(store, reader.digest))

    assert len(result.damaged) == 2
    assert result.damaged_count > 2
    assert (result.packs, result.frames, result.next) == (0, 0, None)


def test_it_goes_on_where_it_ended() -> None:
    _, reader = stored()
    whole = verify(reader)
    parts = [verify(reader, max_bytes=1)]
    while (following := parts[-1].next) is not None:
        parts.append(verify(reader, start=following, max_bytes=500_000))

    assert len(parts) > 3
    assert sum(part.packs for part in parts) == whole.packs
    assert sum(part.frames for part in parts) == whole.frames
    assert sum(part.bytes for part in parts) == whole.bytes


def test_progress_is_told_and_never_falls() -> None:
    _, reader = stored()
    told: list[Progress] = []

    result = verify(reader, progress=told.append)

    assert [step.bytes for step in told] == sorted(step.bytes for step in told)
    assert told[-1].bytes == result.bytes


def test_it_stops_when_it_is_asked_to() -> None:
    _, reader = stored()
    told: list[Progress] = []

    with pytest.raises(Cancelled):
        verify(reader, progress=told.append, stop=lambda: len(told) == 2)

    assert len(told) == 2


def test_a_store_that_is_not_reached_is_not_damage() -> None:
    class Away(CountingStore):
        def get(self, digest: Digest) -> Pack:
            if digest == archived()[1]:
                return super().get(digest)
            raise UnavailableError

    store = Away()
    store.packs.update(archived()[0])

    with pytest.raises(UnavailableError):
        verify(SnapshotReader(store, archived()[1]))
