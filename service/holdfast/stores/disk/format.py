"""The stored form of disk blobs: one line of text about the bytes, then the bytes.

``holdfast-blob 1 <crc32 of the JSON> <JSON>`` and a newline precede a blob's bytes, so a file is
complete or invalid but never without its metadata, and ``tail -n +2 FILE | sha256sum`` prints its
name. A partial blob's line begins with ``holdfast-blob 2``, says in ``kept`` which bytes of it
follow, one range after the other, and the digest that they have.

The form is for ever: a reader of a later version must still take it.
"""

from __future__ import annotations

import zlib
from datetime import datetime  # at run time too: msgspec decodes by the annotations
from typing import Final

import msgspec

from holdfast.domain.digest import Digest
from holdfast.domain.kept import KeptBytes
from holdfast.errors import CorruptError, InvalidError
from holdfast.stores.ports import BlobInfo

MAX_HEADER_BYTES: Final = 4096
"""Longer than any header: type and operation id are bounded by the protocol."""

MAX_PARTIAL_HEADER_BYTES: Final = 64 * 1024
"""The same of a partial blob, which is at most a pack: its ranges are as many as gaps fit in."""

_BLOB: Final = b"holdfast-blob 1 "
_PARTIAL: Final = b"holdfast-blob 2 "
_CRC_CHARS: Final = 8


class BlobHeader(msgspec.Struct, frozen=True, kw_only=True):
    """A blob file's account of its bytes. ``kept`` is there where it is partial, as written."""

    digest: str
    size: int
    chunks: int
    part_size: int
    type: str
    created_at: datetime
    pinned: bool
    generation: str
    op_id: str | None = None
    deleted: bool | msgspec.UnsetType = msgspec.UNSET
    kept: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_hidden(self) -> bool:
        """Whether somebody has deleted the blob, which is there for its keepers alone."""
        return self.deleted is True

    @property
    def is_partial(self) -> bool:
        """Whether only some bytes of the blob are in the file."""
        return self.kept is not msgspec.UNSET

    @property
    def stored_digest(self) -> str:
        """The digest of the file's bytes."""
        return self.info.stored_digest

    @property
    def info(self) -> BlobInfo:
        """The same as the port has it."""
        return BlobInfo(
            digest=Digest(self.digest),
            size=self.size,
            chunks=self.chunks,
            part_size=self.part_size,
            type=self.type,
            created_at=self.created_at,
            pinned=self.pinned,
            generation=self.generation,
            deleted=self.is_hidden,
            kept=None if self.kept is msgspec.UNSET else KeptBytes.written(self.kept),
        )


_decode_blob_header: Final = msgspec.json.Decoder(BlobHeader).decode


def encode_blob_header(header: BlobHeader) -> bytes:
    """The line that precedes the bytes. Raises InvalidError if it would be too long to read."""
    fields = msgspec.json.encode(header)
    magic = _PARTIAL if header.is_partial else _BLOB
    line = magic + b"%08x " % zlib.crc32(fields) + fields + b"\n"
    if len(line) > (MAX_PARTIAL_HEADER_BYTES if header.is_partial else MAX_HEADER_BYTES):
        raise InvalidError("the blob's attributes are too long for the disk store")
    return line


def header_of(info: BlobInfo, op_id: str | None) -> BlobHeader:
    """The header of a blob that is as ``info`` says, and was put by ``op_id``."""
    return BlobHeader(
        digest=info.digest,
        size=info.size,
        chunks=info.chunks,
        part_size=info.part_size,
        type=info.type,
        created_at=info.created_at,
        pinned=info.pinned,
        generation=info.generation,
        op_id=op_id,
        deleted=info.deleted or msgspec.UNSET,
        kept=info.kept.text if info.kept is not None else msgspec.UNSET,
    )


def is_longer(start: bytes) -> bool:
    """Whether the header may go on behind the first ``MAX_HEADER_BYTES`` of a file."""
    return start.startswith(_PARTIAL) and b"\n" not in start


def decode_blob_header(start: bytes) -> tuple[BlobHeader, int]:
    """The header at the ``start`` of a file, and where the bytes begin. Raises CorruptError."""
    end = start.find(b"\n")
    head = len(_BLOB) + _CRC_CHARS + 1
    fields = start[head:end]
    magic = start[: len(_BLOB)]
    is_known = magic in {_BLOB, _PARTIAL}
    if end < 0 or not is_known or start[:head] != magic + b"%08x " % zlib.crc32(fields):
        raise CorruptError("the blob's stored header is unreadable")
    try:
        header = _decode_blob_header(fields)
    except msgspec.MsgspecError as error:
        raise CorruptError("the blob's stored header is not understood") from error
    kept = header.info.kept
    if (kept is not None) != (magic == _PARTIAL) or (kept and kept.size != header.size):
        raise CorruptError("the blob's stored header contradicts itself")
    return header, end + 1
