"""Made-up trees for tests of manifests: entries in order, and pages whose frames hold them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from tests.form.plans import plan_page

from holdfast.form.entries import Entry, Kind, order_key, stored_bytes
from holdfast.form.frame_table import FrameRef
from holdfast.form.layout import MAX_CHUNK_BYTES
from holdfast.form.manifest import Page, new_page
from holdfast.form.packing import PACK_BYTES
from holdfast.form.sparse import to_blocks
from holdfast.form.tar_header import member_header

if TYPE_CHECKING:
    from collections.abc import Sequence

names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)
owners = st.sampled_from([0, 1000, 0o7777777, 0o7777777 + 1, 2**32 - 2])
times = st.one_of(
    st.integers(min_value=-(10**18), max_value=2 * 10**18), st.sampled_from([0, -1, 2**63 - 1])
)
sizes = st.one_of(
    st.integers(min_value=0, max_value=20_000), st.sampled_from([511, 512, 16384, 2_000_000])
)
xattrs = st.dictionaries(
    st.binary(min_size=1, max_size=9)
    .filter(lambda name: b"\0" not in name)
    .map(lambda name: b"user." + name),
    st.binary(max_size=40),
    max_size=2,
).map(lambda found: tuple(found.items()))


@st.composite
def segments_within(draw: st.DrawFn, size: int) -> tuple[tuple[int, int], ...]:
    """Segments of a file of ``size`` bytes."""
    ends = sorted(draw(st.sets(st.integers(min_value=0, max_value=size), max_size=6)))
    return to_blocks([(a, b - a) for a, b in zip(ends[::2], ends[1::2], strict=False)], size)


@st.composite
def entries_at(draw: st.DrawFn, path: bytes, kind: Kind, files: Sequence[bytes]) -> Entry:
    """An entry of some kind at ``path``; ``files`` come before it."""
    size = draw(sizes) if kind is Kind.FILE else 0
    target = b""
    if kind is Kind.SYMLINK:
        target = draw(st.binary(min_size=1, max_size=150).filter(lambda text: b"\0" not in text))
    elif kind is Kind.HARDLINK:
        target = draw(st.sampled_from(files))
    sparse = kind is Kind.FILE and draw(st.booleans())
    return Entry(
        path=path,
        kind=kind,
        mode=draw(st.integers(min_value=0, max_value=0o7777)),
        uid=draw(owners),
        gid=draw(owners),
        size=size,
        mtime_ns=draw(times),
        target=target,
        xattrs=draw(xattrs),
        segments=draw(segments_within(size)) if sparse else None,
    )


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    """A directory with what is in it, in order."""
    directories = [b""]
    taken = {b""}
    for _ in range(draw(st.integers(min_value=0, max_value=8))):
        above = draw(st.sampled_from(directories))
        path = b"/".join(filter(None, (above, draw(names))))
        if path not in taken and draw(st.booleans()):
            directories.append(path)
        taken.add(path)
    found: list[Entry] = []
    for path in sorted(taken, key=order_key):
        files = [entry.path for entry in found if entry.kind is Kind.FILE]
        kinds = [Kind.FILE, Kind.SYMLINK, *([Kind.HARDLINK] if files else [])]
        kind = Kind.DIRECTORY if path in directories else draw(st.sampled_from(kinds))
        found.append(draw(entries_at(path, kind, files)))
    return found


def frames_of(entries: Sequence[Entry]) -> list[FrameRef]:
    """Frames as a writer would make them, with digests of nothing in particular."""
    headers = [len(member_header(entry)) for entry in entries]
    data = [stored_bytes(entry) for entry in entries]
    frames: list[FrameRef] = []
    at = pack = 0
    for part in plan_page([entry.path for entry in entries], headers, data):
        left = part.raw_size
        while left:
            raw_size = min(left, MAX_CHUNK_BYTES)
            stored_size = raw_size // 3 + 20
            if at + stored_size > PACK_BYTES:
                at, pack = 0, pack + 1
            frames.append(
                FrameRef(
                    digest=hashlib.sha256(b"frame %d" % len(frames)).digest(),
                    raw_size=raw_size,
                    pack=hashlib.sha256(b"pack %d" % pack).digest(),
                    offset=at,
                    stored_size=stored_size,
                )
            )
            at += stored_size
            left -= raw_size
    return frames


def page_with(entries: Sequence[Entry]) -> Page:
    """The page of ``entries``."""
    return new_page(entries, [len(member_header(entry)) for entry in entries], frames_of(entries))


def file(path: bytes, size: int = 0) -> Entry:
    """A plain file."""
    return Entry(path=path, kind=Kind.FILE, mode=0o644, uid=1, gid=1, size=size, mtime_ns=10**18)


def directory(path: bytes) -> Entry:
    """A directory."""
    return Entry(path=path, kind=Kind.DIRECTORY, mode=0o755, uid=1, gid=1, mtime_ns=10**18)


def hard_link(path: bytes, target: bytes) -> Entry:
    """A further name of the file ``target``."""
    return Entry(path=path, kind=Kind.HARDLINK, mode=0o644, uid=1, gid=1, target=target)


def symlink(path: bytes, target: bytes) -> Entry:
    """A symbolic link."""
    return Entry(path=path, kind=Kind.SYMLINK, mode=0o777, uid=1, gid=1, target=target)
