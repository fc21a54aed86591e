"""What was stored once stays readable: pages, a root and an archive that this code did not write.

The files in ``tests/golden`` are never written again. A form that cannot read them any more is
another format, with another number.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import zstandard
from tests.form.plans import Own, Run, plan_page

from holdfast.domain.digest import Digest
from holdfast.errors import NotFoundError
from holdfast.form.entries import Entry, Kind, stored_bytes
from holdfast.form.fingerprint import SeenColumns
from holdfast.form.frame_table import FrameRef
from holdfast.form.frames import END_FRAME, decompress_frame
from holdfast.form.manifest import (
    Page,
    StatPage,
    decode_page,
    decode_stat_page,
    encode_page,
    encode_stat_page,
    new_page,
)
from holdfast.form.root import Root, join_root, page_row, root_of
from holdfast.form.seek_table import seek_table
from holdfast.form.sparse import padding, sparse_map
from holdfast.form.tar_header import member_header

GOLDEN = Path(__file__).parents[1] / "golden"
SECOND = 10**9
ENTRIES = (
    Entry(
        path=b"", kind=Kind.DIRECTORY, mode=0o755, uid=1000, gid=1000, mtime_ns=1700000000 * SECOND
    ),
    Entry(path=b"data", kind=Kind.DIRECTORY, mode=0o2750, uid=0, gid=2**31, mtime_ns=-1),
    Entry(path=b"data/large", kind=Kind.FILE, mode=0o640, uid=0, gid=0, size=20_000, mtime_ns=5),
    Entry(
        path=b"data/name \xff\n",
        kind=Kind.FILE,
        mode=0o4755,
        uid=0,
        gid=0,
        size=3,
        mtime_ns=2**62,
        xattrs=((b"user.k=", b"\0v"),),
    ),
    Entry(
        path=b"data/sparse",
        kind=Kind.FILE,
        mode=0o600,
        uid=0,
        gid=0,
        size=2**40,
        segments=((4096, 512), (2**39, 100)),
    ),
    Entry(path=b"hard", kind=Kind.HARDLINK, mode=0o640, uid=0, gid=0, target=b"data/large"),
    Entry(path=b"soft", kind=Kind.SYMLINK, mode=0o777, uid=0, gid=0, target="ü".encode() * 80),
)
HEADERS = [member_header(entry) for entry in ENTRIES]
STAT = StatPage(
    inodes=[9, 2**64 - 1, 3, 4, 5, 3, 7], ctimes_ns=[1700000000 * SECOND, 2, 3, 4, 0, 3, 2**63 - 1]
)


def raw_frames() -> list[bytes]:
    """The raw bytes of the frames that hold ENTRIES."""
    data = [stored_bytes(entry) for entry in ENTRIES]
    plan = plan_page([entry.path for entry in ENTRIES], [len(header) for header in HEADERS], data)
    frames = []
    for part in plan:
        match part:
            case Run(start, stop, _):
                own = {own.index for own in plan if isinstance(own, Own)}
                frames.append(
                    b"".join(
                        HEADERS[index] + (b"" if index in own else content(ENTRIES[index]))
                        for index in range(start, stop)
                    )
                )
            case Own(index, _, _):
                frames.append(content(ENTRIES[index]))
    return frames


def content(entry: Entry) -> bytes:
    """The tar after the header of ``entry``: its map, and bytes that count up."""
    size = stored_bytes(entry)
    leading = b"" if entry.segments is None else sparse_map(entry.segments, entry.size)
    data = leading + bytes(range(256)) * 80
    return data[:size] + bytes(padding(size))


def sha256(data: bytes) -> bytes:
    """The digest of ``data``."""
    return hashlib.sha256(data).digest()


def golden(name: str) -> bytes:
    """A file that was written once."""
    return (GOLDEN / name).read_bytes()


def page() -> Page:
    """The page of ENTRIES, its frames all in one pack."""
    refs = []
    offset = 0
    for raw in raw_frames():
        refs.append(
            FrameRef(
                digest=sha256(raw),
                raw_size=len(raw),
                pack=sha256(b"p"),
                offset=offset,
                stored_size=77,
            )
        )
        offset += 77
    return new_page(ENTRIES, [len(header) for header in HEADERS], refs)


def root() -> Root:
    """A root with that page."""
    row = page_row(
        page(),
        page_frames=(
            FrameRef(
                digest=sha256(b"page"), raw_size=900, pack=sha256(b"m"), offset=0, stored_size=500
            ),
        ),
        stat_frames=(
            FrameRef(
                digest=sha256(b"stat"), raw_size=90, pack=sha256(b"m"), offset=500, stored_size=60
            ),
        ),
        fingerprint=SeenColumns(
            paths=page().paths,
            kinds=page().kinds,
            modes=page().modes,
            uids=page().uids,
            gids=page().gids,
            sizes=page().sizes,
            mtimes_ns=page().mtimes_ns,
            inodes=STAT.inodes,
            ctimes_ns=STAT.ctimes_ns,
            links={5: b"data/large"},
        ).digest(),
    )
    return root_of([row])


def nothing(digest: Digest) -> bytes:
    """A store without blobs."""
    raise NotFoundError(digest)


def test_a_stored_page_stays_readable() -> None:
    assert decode_page(golden("snapshot_page.msgpack")) == page()


def test_a_page_is_written_as_it_always_was() -> None:
    assert encode_page(page()) == golden("snapshot_page.msgpack")


def test_a_stored_stat_page_stays_readable() -> None:
    assert decode_stat_page(golden("snapshot_stat_page.msgpack"), page()) == STAT
    assert encode_stat_page(STAT, page()) == golden("snapshot_stat_page.msgpack")


def test_a_stored_root_stays_readable() -> None:
    assert join_root(golden("snapshot_root.bin"), nothing) == root()


def test_the_frames_of_an_exported_archive_stay_readable() -> None:
    archive = golden("snapshot.tar.zst")
    raws = [*raw_frames(), bytes(1024)]

    found = []
    rest = archive
    for raw in raws:
        size = frame_size(rest)
        found.append((size, len(raw)))
        assert decompress_frame(rest[:size], len(raw)) == raw
        rest = rest[size:]

    assert archive[-len(rest) - len(END_FRAME) : -len(rest)] == END_FRAME
    assert rest == seek_table(found)


def frame_size(data: bytes) -> int:
    """The length of the frame that ``data`` begins with."""
    reader = zstandard.ZstdDecompressor().decompressobj()
    reader.decompress(data)
    return len(data) - len(reader.unused_data)


def test_an_exported_archive_is_a_plain_tar() -> None:
    with zstandard.ZstdDecompressor().stream_reader(
        golden("snapshot.tar.zst"), read_across_frames=True
    ) as reader:
        tar = reader.read()

    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as members:
        names = [member.name.encode("utf-8", "surrogateescape") for member in members]

    assert names == [b".", *(entry.path for entry in ENTRIES[1:])]


def test_headers_are_written_as_they_always_were() -> None:
    # Otherwise every frame of every snapshot would be stored once more.
    assert sha256(b"".join(HEADERS)).hex() == golden("snapshot_headers.sha256").decode().strip()
