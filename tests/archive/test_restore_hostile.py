"""Restoring what somebody made to do harm: nothing outside the target is ever touched."""

from __future__ import annotations

import os
import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import zstandard
from tests.archive.compare import look_at
from tests.archive.memory import MemoryPackStore
from tests.archive.tars import CountingStore, file, large_tree, members_of, restore, snapshot_of

from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.archive.restore.options import RestoreLimits
from holdfast.domain.digest import digest_of
from holdfast.errors import (
    CorruptError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from holdfast.form.entries import Entry, Kind
from holdfast.form.fingerprint import NEVER_EQUAL
from holdfast.form.frame_table import FrameRef
from holdfast.form.frames import compress_frame, new_compressor
from holdfast.form.manifest import Page, encode_page, new_page, page_pieces
from holdfast.form.root import page_row, root_of, split_root
from holdfast.form.sparse import padding, sparse_map
from holdfast.form.tar_header import member_header

if TYPE_CHECKING:
    from pathlib import Path

ROOT = Entry(path=b"", kind=Kind.DIRECTORY, mode=0o755, uid=0, gid=0)
CANARY = b"canary"


def entry(path: bytes, kind: Kind = Kind.FILE, **fields: Any) -> Entry:
    defaults: dict[str, Any] = {"mode": 0o755, "uid": os.geteuid(), "gid": os.getegid()}
    return Entry(path=path, kind=kind, **(defaults | fields))


def content(path: bytes, data: bytes) -> tuple[Entry, bytes]:
    return entry(path, size=len(data)), data


class Unchecked(SnapshotReader):
    """Takes pages as they are, as if nobody had checked them when they were decoded."""

    forged: list[Page]

    def page(self, number: int) -> Page:
        return self.forged[number]


class Forger:
    """Writes snapshots that a proper writer would not."""

    def __init__(self) -> None:
        self.store = MemoryPackStore()
        self.pages: list[Page] = []

    def frame(self, raw: bytes, **lies: Any) -> FrameRef:
        data = compress_frame(new_compressor(), raw)
        return self.stored(raw, data, **lies)

    def stored(self, raw: bytes, data: bytes, **lies: Any) -> FrameRef:
        digest = digest_of(data)
        self.store.put(digest, data)
        ref = FrameRef(
            digest=bytes.fromhex(digest_of(raw)),
            raw_size=len(raw),
            pack=bytes.fromhex(digest),
            offset=0,
            stored_size=len(data),
        )
        return msgspec.structs.replace(ref, **lies)

    def add(self, *members: Entry | tuple[Entry, bytes], frames: Any = None) -> None:
        pairs = [member if isinstance(member, tuple) else (member, b"") for member in members]
        headers = [member_header(item) for item, _ in pairs]
        raw = b"".join(
            header + data + bytes(padding(len(data)))
            for header, (_, data) in zip(headers, pairs, strict=True)
        )
        refs = [self.frame(raw)] if frames is None else frames(raw)
        entries = [item for item, _ in pairs]
        self.pages.append(new_page(entries, [len(header) for header in headers], refs))

    def snapshot(self, *, unchecked: bool = False) -> SnapshotReader:
        rows = [
            page_row(
                page,
                page_frames=tuple(map(self.frame, page_pieces(encode_page(page)))),
                stat_frames=(),
                fingerprint=NEVER_EQUAL,
            )
            for page in self.pages
        ]
        blobs = split_root(root_of(rows))
        for digest, blob in blobs:
            self.store.put(digest, blob)
        if not unchecked:
            return SnapshotReader(self.store, blobs[-1][0])
        reader = Unchecked(self.store, blobs[-1][0])
        reader.forged = self.pages
        return reader


def check_harmless(tmp_path: Path, forger: Forger, **options: Any) -> None:
    """Both with the checks of pages and without them, nothing outside the target changes."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_bytes(CANARY)
    before = look_at(outside)
    apps = tmp_path / "apps"
    apps.mkdir()
    for unchecked in (False, True):
        for mode in ("new", "replace", "merge"):
            if mode == "merge":
                (apps / "live").mkdir()
            name = "live" if mode == "merge" else "app"

            with pytest.raises((CorruptError, InvalidError, UnavailableError)):
                restore(forger.snapshot(unchecked=unchecked), apps / name, mode=mode, **options)

            assert look_at(outside) == before
            assert os.listdir(apps) == (["live"] if mode == "merge" else [])
            if mode == "merge":
                assert not [path for path in look_at(apps) if b".holdfast" in path]
                for path in sorted((apps / "live").rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
                (apps / "live").rmdir()


@pytest.mark.fault("T01")
@pytest.mark.parametrize(
    "path", [b"../outside/x", b"..", b"a/../../outside/x", b"./x", b"a//x", b"a/..", b"/tmp/x"]
)
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.SYMLINK])
def test_no_path_leads_out(tmp_path: Path, path: bytes, kind: Kind) -> None:
    forger = Forger()
    forger.add(
        ROOT,
        entry(b"a", Kind.DIRECTORY),
        entry(path, kind, target=b"x" if kind is Kind.SYMLINK else b""),
    )

    check_harmless(tmp_path, forger)


@pytest.mark.fault("T01")
@pytest.mark.parametrize("in_one_page", [True, False])
@pytest.mark.parametrize("below", [b"link/x", b"link/canary", b"link/d/x"])
def test_nothing_is_written_through_a_symlink(
    tmp_path: Path, in_one_page: bool, below: bytes
) -> None:
    forger = Forger()
    link = entry(b"link", Kind.SYMLINK, target=os.fsencode(tmp_path / "outside"))
    if in_one_page:
        forger.add(ROOT, link, content(below, b"harm"))
    else:
        forger.add(ROOT, link)
        forger.add(content(below, b"harm"))

    check_harmless(tmp_path, forger)


@pytest.mark.fault("T01")
@pytest.mark.parametrize(
    "target", [b"../outside/canary", b"link/canary", b"link", b"d", b"z", b"hard"]
)
def test_no_hard_link_is_made_to_anything_but_a_file_of_the_snapshot(
    tmp_path: Path, target: bytes
) -> None:
    forger = Forger()
    forger.add(
        ROOT,
        entry(b"d", Kind.DIRECTORY),
        entry(b"hard", Kind.HARDLINK, target=target),
        entry(b"link", Kind.SYMLINK, target=os.fsencode(tmp_path / "outside")),
    )

    check_harmless(tmp_path, forger)


@pytest.mark.fault("T07")
@pytest.mark.parametrize("in_one_page", [True, False])
def test_a_file_that_comes_twice_is_corrupt(tmp_path: Path, in_one_page: bool) -> None:
    forger = Forger()
    if in_one_page:
        forger.add(ROOT, content(b"f", b"1"), content(b"f", b"2"))
    else:
        forger.add(ROOT, content(b"f", b"1"))
        forger.add(content(b"f", b"2"))

    with pytest.raises(CorruptError):
        restore(forger.snapshot(), tmp_path / "app")
    with pytest.raises(CorruptError):
        restore(forger.snapshot(unchecked=True), tmp_path / "app", threads=1)

    assert os.listdir(tmp_path) == []


@pytest.mark.fault("T07")
@pytest.mark.parametrize("in_one_page", [True, False])
def test_entries_out_of_order_are_corrupt(tmp_path: Path, in_one_page: bool) -> None:
    forger = Forger()
    if in_one_page:
        forger.add(ROOT, entry(b"b"), entry(b"a"))
    else:
        forger.add(ROOT, entry(b"b"))
        forger.add(entry(b"a"))

    with pytest.raises(CorruptError):
        restore(forger.snapshot(), tmp_path / "app")

    assert os.listdir(tmp_path) == []


@pytest.mark.fault("T07")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.SYMLINK, None])
def test_what_entries_lie_in_is_a_directory_of_the_snapshot(
    tmp_path: Path, kind: Kind | None, threads: int
) -> None:
    forger = Forger()
    forger.add(ROOT, entry(b"a"))
    if kind is not None:
        forger.add(entry(b"p", kind, target=b"x" if kind is Kind.SYMLINK else b""))
    forger.add(content(b"p/q/f", b"1"))

    with pytest.raises(CorruptError, match="not a directory"):
        restore(forger.snapshot(), tmp_path / "app", threads=threads)

    assert os.listdir(tmp_path) == []


@pytest.mark.fault("T07")
@pytest.mark.parametrize("lie", ["digest", "raw_size", "stored_size", "offset", "pack"])
def test_a_frame_that_is_not_what_the_manifest_says_is_corrupt(tmp_path: Path, lie: str) -> None:
    forger = Forger()
    lies: dict[str, Any] = {
        "digest": bytes(32),
        "raw_size": 2048,
        "stored_size": 20,
        "offset": 3,
        "pack": bytes(32),
    }
    forger.add(
        ROOT,
        content(b"f", b"x" * 512),
        frames=lambda raw: [forger.frame(raw, **{lie: lies[lie]})],
    )

    with pytest.raises(CorruptError):
        restore(forger.snapshot(), tmp_path / "app")

    assert os.listdir(tmp_path) == []


@pytest.mark.fault("T05")
def test_a_frame_cannot_hold_more_than_the_manifest_says(tmp_path: Path) -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(256 * 2**20))
    forger = Forger()
    forger.add(
        ROOT,
        content(b"f", bytes(4096)),
        frames=lambda raw: [forger.stored(raw, bomb)],
    )
    snapshot = forger.snapshot()
    tracemalloc.start()

    try:
        with pytest.raises(CorruptError):
            restore(snapshot, tmp_path / "app")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 16 * 2**20
    assert os.listdir(tmp_path) == []


@pytest.mark.fault("T03")
def test_a_sparse_file_may_be_huge_only_within_the_limits(tmp_path: Path) -> None:
    size = 2**40
    segments = ((0, 512), (size - 5, 5))
    data = sparse_map(segments, size) + b"begin".ljust(512) + b"finis"
    item = entry(b"sparse", size=size, segments=segments)
    forger = Forger()
    header = member_header(item)
    raw = member_header(ROOT) + header + data + bytes(padding(len(data)))
    forger.pages.append(new_page([ROOT, item], [512, len(header)], [forger.frame(raw)]))
    snapshot = forger.snapshot()

    with pytest.raises(TooLargeError, match="file_bytes"):
        restore(
            snapshot, tmp_path / "app", limits=RestoreLimits(file_bytes=size - 1, expansion=2**40)
        )
    assert os.listdir(tmp_path) == []
    # Its holes take nothing: only what is written counts for the other limits.
    limits = RestoreLimits(total_bytes=4096, expansion=0, expansion_free_bytes=4096)
    restore(snapshot, tmp_path / "app", limits=limits)
    restore(snapshot, tmp_path / "one", limits=limits, paths=("sparse",))

    status = os.stat(tmp_path / "app" / "sparse")
    assert status.st_size == size
    assert status.st_blocks < 1000


@pytest.mark.fault("T02")
@pytest.mark.parametrize("kind", [4, 5, 6, 255])
def test_devices_pipes_and_sockets_are_no_kinds_of_entries(tmp_path: Path, kind: int) -> None:
    forger = Forger()
    forger.add(ROOT, entry(b"device"))
    (page,) = forger.pages
    object.__setattr__(page, "kinds", bytes([Kind.DIRECTORY, kind]))

    with pytest.raises(CorruptError):
        restore(forger.snapshot(), tmp_path / "app")

    assert os.listdir(tmp_path) == []


@pytest.mark.fault("T04")
def test_a_path_of_thousands_of_levels_is_restored_or_refused_by_its_limit(tmp_path: Path) -> None:
    names = [b"/".join([b"d"] * level) for level in range(1, 1000)]
    forger = Forger()
    forger.add(ROOT, *[entry(name, Kind.DIRECTORY) for name in names], frames=cut(forger))

    with pytest.raises(TooLargeError, match="depth"):
        restore(forger.snapshot(), tmp_path / "app", limits=RestoreLimits(depth=998))
    assert os.listdir(tmp_path) == []
    restore(forger.snapshot(), tmp_path / "app")
    restore(forger.snapshot(), tmp_path / "app", mode="replace")

    assert max(len(path) for path in look_at(tmp_path / "app")) == len(names[-1])


def cut(forger: Forger) -> Any:
    return lambda raw: [
        forger.frame(raw[at : at + 512 * 1024]) for at in range(0, len(raw), 512 * 1024)
    ]


@pytest.mark.fault("T07")
@pytest.mark.parametrize("mode", ["new", "replace", "merge"])
def test_a_snapshot_with_a_missing_pack_is_corrupt_and_the_old_tree_stays(
    tmp_path: Path, mode: str
) -> None:
    store = CountingStore()
    files = {name: data for name, data in large_tree().items() if name >= "d33"}
    snapshot = snapshot_of(members_of(files), store)
    target = tmp_path / "app"
    if mode != "new":
        target.mkdir()
        (target / "old").write_bytes(b"old")
    page = snapshot.page(snapshot.page_count - 1)
    store.lose(page.frame(page.frame_count - 1).address)

    with pytest.raises(CorruptError, match="missing"):
        restore(SnapshotReader(store, snapshot.digest), target, mode=mode)

    assert os.listdir(tmp_path) == ([] if mode == "new" else ["app"])
    if mode != "new":
        assert (target / "old").read_bytes() == b"old"


@pytest.mark.fault("T07")
def test_a_manifest_with_a_flipped_byte_never_gives_a_wrong_tree(tmp_path: Path) -> None:
    random_ = random.Random(3)  # noqa: S311 - the same flips every time
    files = {f"d{n % 3}/f{n}": random_.randbytes(n * 100) for n in range(20)}
    store = MemoryPackStore()
    snapshot = snapshot_of([file(name, data) for name, data in files.items()], store)
    (ref,) = snapshot.root.page_frames(0)
    raw = snapshot.fresh_frame(ref)

    for _ in range(25):
        at = random_.randrange(len(raw))
        flipped = bytearray(raw)
        flipped[at] ^= 1 << random_.randrange(8)
        forger = Forger()
        forger.store = store
        row = msgspec.structs.replace(
            snapshot.root.row(0), page_frames=(forger.frame(bytes(flipped)),), stat_frames=()
        )
        for digest, blob in split_root(root_of([row])):
            store.put(digest, blob)
        try:
            restore(SnapshotReader(store, digest_of(blob)), tmp_path / "app")
        except HoldfastError:
            assert os.listdir(tmp_path) == []
        else:
            # A flipped bit of a time, mode or name is a tree like any other.
            assert os.listdir(tmp_path) == ["app"]
            (tmp_path / "app").rename(tmp_path / "done")
            remove(tmp_path / "done")


def remove(tree: Path) -> None:
    from holdfast.archive.directories import open_directory, remove_entry

    parent = open_directory(tree.parent)
    try:
        remove_entry(parent, os.fsencode(tree.name))
    finally:
        os.close(parent)


@pytest.mark.fault("T04")
@pytest.mark.slow
def test_a_great_many_tiny_entries_take_little_memory(tmp_path: Path) -> None:
    """What is held does not grow with their number."""
    count, per_page = 10_000, 2_000
    forger = Forger()
    for start in range(0, count, per_page):
        entries = [
            entry(b"d%06d" % number, Kind.DIRECTORY) for number in range(start, start + per_page)
        ]
        forger.add(*([] if start else [ROOT]), *entries, frames=cut(forger))
    snapshot = forger.snapshot()
    forger.pages.clear()
    tracemalloc.start()

    try:
        restore(snapshot, tmp_path / "app")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 16 * 2**20
    assert len(os.listdir(tmp_path / "app")) == count


def test_a_part_that_nobody_has_is_not_found_before_anything_is_read(tmp_path: Path) -> None:
    store = CountingStore()
    snapshot = snapshot_of(members_of(large_tree()), store)
    store.fetched.clear()

    with pytest.raises(NotFoundError):
        restore(snapshot, tmp_path / "app", paths=("nothing/here",))

    assert len(store.fetched) <= 1
    assert os.listdir(tmp_path) == []
