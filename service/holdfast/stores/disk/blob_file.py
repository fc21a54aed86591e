"""One blob's file: its header, its identity, and whether it is still the one that was seen."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from holdfast.domain.limits import MIB
from holdfast.domain.op_id import is_repeat
from holdfast.errors import CorruptError
from holdfast.stores.disk.files import open_regular, read_exactly
from holdfast.stores.disk.format import (
    MAX_HEADER_BYTES,
    MAX_PARTIAL_HEADER_BYTES,
    BlobHeader,
    decode_blob_header,
    encode_blob_header,
    is_longer,
)
from holdfast.stores.ports import SurveyedBlob

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterable, Iterator
    from pathlib import Path

READ_BYTES: Final = MIB


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Marks that change whenever a file does, or is another."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def same_file(self, other: FileIdentity) -> bool:
        """Whether both are one unwritten file; a rename alone changes only the ctime."""
        mine = (self.device, self.inode, self.size, self.mtime_ns)
        return mine == (other.device, other.inode, other.size, other.mtime_ns)

    @property
    def mark(self) -> str:
        """The same in one word."""
        return f"{self.device}.{self.inode}.{self.size}.{self.mtime_ns}.{self.ctime_ns}"


def identity_of(status: os.stat_result) -> FileIdentity:
    """The identity of the file that has this ``status``."""
    return FileIdentity(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """A blob's file as it was at one time; no ``header`` where that cannot be read.

    Without an ``identity`` nothing was there.
    """

    identity: FileIdentity | None
    header: BlobHeader | None

    @property
    def is_there(self) -> bool:
        """Whether there was anything."""
        return self.identity is not None

    def refuse_id_of_put(self, op_id: str | None) -> None:
        """Raises ConflictError where ``op_id`` is that of the put of the blob seen."""
        if self.header is not None:
            is_repeat(self.header.op_id, op_id)


@dataclass(frozen=True, slots=True)
class OpenBlob:
    """A blob's file that is open for reading; the bytes begin at ``offset``."""

    path: Path
    descriptor: int
    header: BlobHeader
    offset: int
    identity: FileIdentity


def surveyed(blob: OpenBlob) -> SurveyedBlob:
    """The blob as a survey meets it."""
    seen_at = datetime.fromtimestamp(blob.identity.mtime_ns / 1e9, UTC)
    return SurveyedBlob.of(blob.header.info, seen_at=seen_at, mark=blob.identity.mark)


def seen_at(path: Path) -> Seen:
    """The thing at ``path``, of any kind."""
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return Seen(None, None)
    except CorruptError:
        return Seen(identity_of(path.lstat()), None)
    try:
        identity = identity_of(os.fstat(descriptor))
        try:
            header, _ = _header_of(descriptor)
        except CorruptError:
            return Seen(identity, None)
    finally:
        os.close(descriptor)
    return Seen(identity, header)


def pieces_of(blob: OpenBlob) -> Iterator[bytes]:
    """The bytes of a blob."""
    offset = blob.offset
    while piece := os.pread(blob.descriptor, READ_BYTES, offset):
        yield piece
        offset += len(piece)


def read_header(descriptor: int, digest: str, file_size: int) -> tuple[BlobHeader, int]:
    """The header, and where the bytes begin. Raises CorruptError if it is not that blob's."""
    header, offset = _header_of(descriptor)
    if header.digest != digest or file_size != offset + header.size:
        raise CorruptError(f"the stored file of blob {digest} has the wrong length or name")
    return header, offset


def _header_of(descriptor: int) -> tuple[BlobHeader, int]:
    start = read_exactly(descriptor, 0, MAX_HEADER_BYTES)
    if is_longer(start):
        start = read_exactly(descriptor, 0, MAX_PARTIAL_HEADER_BYTES)
    return decode_blob_header(start)


def checked_content(header: BlobHeader, pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    """The file of a blob; ends with CorruptError if the bytes are not those of the header."""
    yield encode_blob_header(header)
    hasher = hashlib.sha256()
    size = 0
    for piece in pieces:
        with memoryview(piece) as view:
            hasher.update(view)
            size += view.nbytes
        yield piece
    if size != header.size or hasher.hexdigest() != header.stored_digest:
        raise CorruptError("the stored parts are not the bytes that were announced")


def is_at(path: Path, seen: FileIdentity) -> bool:
    """Whether the file that was opened is still the one at ``path``."""
    try:
        return path.lstat().st_ino == seen.inode
    except FileNotFoundError:
        return False


def is_the_bad_one(path: Path, seen: FileIdentity | None) -> bool:
    """Whether ``path`` is the file that was ``seen`` to be bad; None: no regular file at all.

    Raises OSError.
    """
    if seen is not None:
        return seen.same_file(identity_of(path.lstat()))
    try:
        os.close(open_regular(path))
    except CorruptError:
        return True
    return False
