"""A tar file as the source of an archive, of any maker and any compression.

A tar lists its members in any order, and an archive wants them sorted, so the tar is unpacked into
an unnamed temporary file first, which vanishes with its descriptor, and indexed there. Nothing is
ever created under a name that the tar chose.
"""

from __future__ import annotations

import errno
import os
import tempfile
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, Final

from holdfast.archive.ports import (
    Cancelled,
    Described,
    FileReader,
    OnProgress,
    Progress,
    Scanned,
    Stop,
    Warn,
    ignore_progress,
    never_stop,
)
from holdfast.archive.tar.decompress import ByteStream, CountedStream, decompressed
from holdfast.archive.tar.index import TarIndex
from holdfast.archive.tar.members import DIRECTORY, FILE, SPECIAL, SYMLINK, Member, TarFile
from holdfast.archive.troubles import separate_symlink
from holdfast.domain.limits import GIB, MIB, TIB
from holdfast.errors import TooLargeError, UnavailableError
from holdfast.form.entries import Kind
from holdfast.form.terms import EntryWarning

if TYPE_CHECKING:
    from collections.abc import Generator

PHASE: Final = "unpacking"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True, kw_only=True)
class TarLimits:
    """The limits of a tar from outside.

    ``entries`` are held in memory, at about half a kilobyte each. ``expansion`` is unpacked bytes
    for each byte of the compressed archive, and counts from ``expansion_from_bytes`` on.
    ``window_bytes`` is what a decoder may hold: ``zstd --long`` asks for 128 MiB, RFC 8878
    recommends 8 MiB.
    """

    entries: int = 2_000_000
    unpacked_bytes: int = 1 * TIB
    expansion: int = 1_000
    expansion_from_bytes: int = 1 * GIB
    window_bytes: int = 128 * MIB


DEFAULT_LIMITS: Final = TarLimits()


class TarSource:
    """The members of a tar. Implements ``ports.Source``. Close it: it holds a temporary file.

    Directories that the tar leaves out get mode 0755 and the owner and time of the first entry in
    them. The last of several members with one name counts. Hard links are to what the name
    stood for at that moment. Devices and pipes are skipped with a warning.
    """

    def __init__(
        self,
        stream: ByteStream,
        directory: str | os.PathLike[str],
        *,
        limits: TarLimits = DEFAULT_LIMITS,
        progress: OnProgress = ignore_progress,
        stop: Stop = never_stop,
    ) -> None:
        """Unpack ``stream`` into an unnamed file in ``directory``, and index it.

        Raises InvalidError for what is no complete tar, and for paths that are absolute or have
        ``..``; TooLargeError beyond ``limits``; UnavailableError when ``directory`` is full.
        """
        self._spool = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115
        try:
            size = _unpack(CountedStream(stream), self._spool, limits, progress, stop)
            self._tar = TarFile(self._spool.fileno(), size)
            self._index = TarIndex(self._tar.members(), max_entries=limits.entries, stop=stop)
        except BaseException:
            self._spool.close()
            raise

    def scan(self, warn: Warn) -> Generator[Scanned]:
        """See ``ports.Source``."""
        for path, member, link in self._index.entries():
            if member.type == SPECIAL:
                warn(EntryWarning(kind="skipped", path=path, detail="a device or a pipe"))
                continue
            if link and member.type == SYMLINK:
                warn(separate_symlink(path, link))
                link = b""  # noqa: PLW2901 - an archive has no links to symlinks
            if not link:
                for name in member.lost:
                    warn(EntryWarning(kind="attribute", path=path, detail=f"{name} is left out"))
            yield _scanned(path, member, link)

    def is_current(self) -> bool:
        """See ``ports.Source``."""
        return True

    def describe(self, scanned: Scanned, content_limit: int, warn: Warn) -> Described | None:
        """See ``ports.Source``. Nothing is ever left out here."""
        del warn
        member = self._index.member(scanned.path)
        if scanned.kind == Kind.HARDLINK:
            return Described(size=0, mtime_ns=scanned.mtime_ns)
        content = None
        if scanned.kind == Kind.FILE and member.segments is None and member.size <= content_limit:
            content = self._tar.read(member.position, member.size)
        return Described(
            size=scanned.size,
            mtime_ns=scanned.mtime_ns,
            target=member.target if scanned.kind == Kind.SYMLINK else b"",
            xattrs=member.xattrs,
            segments=member.segments,
            content=content,
        )

    def open(self, scanned: Scanned, size: int, warn: Warn) -> FileReader | None:
        """See ``ports.Source``."""
        del size, warn
        return _MemberReader(self._tar, self._index.member(scanned.path))

    def close(self) -> None:
        """See ``ports.Source``."""
        self._spool.close()


class _MemberReader:
    """Reads by position, so that several may be at work in several threads."""

    def __init__(self, tar: TarFile, member: Member) -> None:
        self._tar = tar
        self._segments = ((0, member.size),) if member.segments is None else member.segments
        self._ends = [offset + length for offset, length in self._segments]
        lengths = [length for _, length in self._segments]
        self._positions = list(accumulate(lengths, initial=member.position))

    def read_into(self, buffer: memoryview, offset: int) -> None:
        stop = offset + len(buffer)
        filled = 0
        for number in range(bisect_right(self._ends, offset), len(self._ends)):
            begin = max(self._segments[number][0], offset)
            end = min(self._ends[number], stop)
            if begin >= end:
                break
            position = self._positions[number] + begin - self._segments[number][0]
            _zero(buffer[filled : begin - offset])
            filled = end - offset
            buffer[begin - offset : filled] = self._tar.read(position, end - begin)
        _zero(buffer[filled:])

    def close(self) -> bool:
        return True


def _zero(buffer: memoryview) -> None:
    buffer[:] = bytes(len(buffer))


def _scanned(path: bytes, member: Member, link: bytes) -> Scanned:
    kind = Kind.HARDLINK if link else _KINDS[member.type]
    stored = member.size
    if member.segments is not None:
        stored = sum([length for _, length in member.segments])
    return Scanned(
        path,
        kind,
        member.mode,
        member.uid,
        member.gid,
        member.size if kind == Kind.FILE else 0,
        member.mtime_ns,
        allocated=stored,
        link=link,
    )


_KINDS: Final = {FILE: Kind.FILE, DIRECTORY: Kind.DIRECTORY, SYMLINK: Kind.SYMLINK}


def _unpack(
    stream: CountedStream, spool: BinaryIO, limits: TarLimits, progress: OnProgress, stop: Stop
) -> int:
    """Write the uncompressed tar to ``spool``, and return its size."""
    size = 0
    for piece in decompressed(stream, max_window_bytes=limits.window_bytes):
        if stop():
            raise Cancelled
        size += len(piece)
        if size > limits.unpacked_bytes:
            msg = f"the unpacked archive is larger than {limits.unpacked_bytes} bytes"
            raise TooLargeError(msg)
        if size > max(limits.expansion_from_bytes, limits.expansion * stream.count):
            msg = f"the archive unpacks to more than {limits.expansion} times its size"
            raise TooLargeError(msg)
        _write(spool, piece)
        progress(Progress(phase=PHASE, bytes=size))
    return size


def _write(spool: BinaryIO, piece: bytes) -> None:
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[spool.write(rest) :]
    except OSError as error:
        if error.errno not in _FULL:
            raise
        msg = "there is no room for the unpacked archive in the directory for temporary files"
        raise UnavailableError(msg) from error
