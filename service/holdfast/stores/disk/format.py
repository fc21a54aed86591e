"""The stored form of disk blobs: one line of text about the bytes, then the bytes.

``holdfast-blob 1 <crc32 of the JSON> <JSON>`` and a newline precede a blob's bytes, so a file is
complete or invalid but never without its metadata, and ``tail -n +2 FILE | sha256sum`` prints its
name.

The form is for ever: a reader of a later version must still take it.
"""

from __future__ import annotations

import zlib
from datetime import datetime  # at run time too: msgspec decodes by the annotations
from typing import Final

import msgspec

from holdfast.domain.digest import Digest
from holdfast.errors import CorruptError, InvalidError
from holdfast.stores.ports import BlobInfo

MAX_HEADER_BYTES: Final = 4096
"""Longer than any header: type and operation id are bounded by the protocol."""

_BLOB: Final = b"holdfast-blob 1 "
_CRC_CHARS: Final = 8


class BlobHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a blob's file says of its bytes."""

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

    @property
    def is_hidden(self) -> bool:
        """Whether somebody has deleted the blob, which is kept for what names it."""
        return self.deleted is True

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
        )


_decode_blob_header: Final = msgspec.json.Decoder(BlobHeader).decode


def encode_blob_header(header: BlobHeader) -> bytes:
    """The line that precedes the bytes. Raises InvalidError if it would be too long to read."""
    fields = msgspec.json.encode(header)
    line = _BLOB + b"%08x " % zlib.crc32(fields) + fields + b"\n"
    if len(line) > MAX_HEADER_BYTES:
        msg = "the blob's attributes are too long for the disk store"
        raise InvalidError(msg)
    return line


def decode_blob_header(start: bytes) -> tuple[BlobHeader, int]:
    """The header at the ``start`` of a file, and where the bytes begin. Raises CorruptError."""
    end = start.find(b"\n")
    head = len(_BLOB) + _CRC_CHARS + 1
    fields = start[head:end]
    if end < 0 or start[:head] != _BLOB + b"%08x " % zlib.crc32(fields):
        msg = "the blob's stored header is unreadable"
        raise CorruptError(msg)
    try:
        return _decode_blob_header(fields), end + 1
    except msgspec.MsgspecError as error:
        msg = "the blob's stored header is not understood"
        raise CorruptError(msg) from error
