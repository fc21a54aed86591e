"""The members of an uncompressed tar: ustar, PAX, GNU and old V7 headers, as bytes.

Written for tars that strangers made. Python's ``tarfile`` is not used: it takes the first header
that it cannot read for the end of the archive, reads headers of any declared size into memory,
goes through names by way of text, and misreads sparse members beyond 8 GiB. Only headers are read
here; where a member's data lies is told as positions in the file.
"""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.archive.tar.attributes import attributes
from holdfast.archive.tar.sparse import Sparse, gnu_sparse, pax_sparse
from holdfast.domain.limits import MIB
from holdfast.errors import InvalidError, TooLargeError
from holdfast.form.entries import MAX_FILE_BYTES, MAX_OWNER, clamped
from holdfast.form.sparse import BLOCK_BYTES, padding

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_EXTENDED_BYTES: Final = 1 * MIB
"""Of one extended header. Ours hold at most the extended attributes of one entry."""

MAX_EXTENDED_HEADERS: Final = 16
"""In front of one member. Real archives have three at most."""

FILE: Final = b"0"
LINK: Final = b"1"
SYMLINK: Final = b"2"
DIRECTORY: Final = b"5"
SPECIAL: Final = b"6"
"""Devices and pipes."""

_TYPES: Final = {
    b"\0": FILE,
    b"0": FILE,
    b"7": FILE,  # "contiguous": no difference today
    b"S": FILE,  # GNU sparse
    b"1": LINK,
    b"2": SYMLINK,
    b"5": DIRECTORY,
    b"D": DIRECTORY,  # GNU incremental: a directory, with its listing as data
    b"3": SPECIAL,
    b"4": SPECIAL,
    b"6": SPECIAL,
}
_WITH_DATA: Final = frozenset({b"\0", b"0", b"7", b"S", b"D"})
_GNU_NAME, _GNU_LINK, _GNU_SPARSE, _GNU_VOLUME = b"L", b"K", b"S", b"V"
_PAX, _PAX_SOLARIS, _PAX_GLOBAL = b"x", b"X", b"g"
_EXTENDED: Final = frozenset({_GNU_NAME, _GNU_LINK, _PAX, _PAX_SOLARIS, _PAX_GLOBAL, _GNU_VOLUME})

_OCTAL: Final = re.compile(rb"[ \0]*([0-7]*)(?:[ \0].*)?", re.DOTALL)
_TIME: Final = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")
_DECIMAL: Final = re.compile(rb"[0-9]{1,20}")
_RECORD_LENGTH: Final = re.compile(rb"([0-9]{1,10}) ")
_ZERO_BLOCK: Final = bytes(BLOCK_BYTES)
_SPARSE_PAIR: Final = frozenset({b"GNU.sparse.offset", b"GNU.sparse.numbytes"})
_ADLER: Final = 65_521
_NS: Final = 10**9


class Member(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One member as the tar has it; nothing about its name has been checked.

    ``type`` is one of the five above. ``size`` is the apparent size of a FILE, otherwise 0;
    ``position`` where its data begins, that of the segments one after the other if it is sparse.
    ``lost`` are attributes that are not kept, as the tar calls them.
    """

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    segments: tuple[tuple[int, int], ...] | None = None
    position: int = 0
    lost: tuple[str, ...] = ()


class TarFile:
    """An uncompressed tar of ``size`` bytes behind a descriptor, read by position."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    def read(self, position: int, length: int) -> bytes:
        """Exactly these bytes. Raises InvalidError where the tar ends before."""
        if position + length > self.size:
            msg = f"the tar is truncated: it ends at byte {self.size}, within a member"
            raise InvalidError(msg)
        pieces = []
        while length > 0:
            piece = os.pread(self._descriptor, length, position)
            if not piece:
                raise InvalidError("the unpacked tar is shorter than it was")
            pieces.append(piece)
            position += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def members(self) -> Iterator[Member]:
        """All members in the order of the tar.

        Raises InvalidError for what is no tar, for one that is damaged or truncated, that has no
        end-of-archive marker, or goes on after it; TooLargeError beyond a limit of this module.
        """
        defaults: dict[bytes, bytes] = {}
        position = 0
        while (found := _next_member(self, position, defaults)) is not None:
            member, position = found
            yield member
        self._check_end(position)

    def _check_end(self, position: int) -> None:
        while position < self.size:
            length = min(MIB, self.size - position)
            if self.read(position, length).count(0) != length:
                raise InvalidError("data follows the tar's end-of-archive marker; it would be lost")
            position += length


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """One header block; ``type`` as it stands there."""

    block: bytes
    name: bytes
    type: bytes
    size: int
    target: bytes


@dataclass(slots=True)
class _Extended:
    """The extended headers' account of the member that follows."""

    records: dict[bytes, bytes] = field(default_factory=dict)
    pairs: list[bytes] = field(default_factory=list)
    name: bytes | None = None
    target: bytes | None = None
    headers: int = 0


def _next_member(
    tar: TarFile, position: int, defaults: dict[bytes, bytes]
) -> tuple[Member, int] | None:
    """The member whose headers begin at ``position``, and where the next one's begin."""
    extended = _Extended(dict(defaults))
    while True:
        if position == 0 and tar.size < BLOCK_BYTES:
            msg = f"this is not a tar: it has {tar.size} bytes, and a tar at least {BLOCK_BYTES}"
            raise InvalidError(msg)
        if position == tar.size:
            raise InvalidError("the tar has no end-of-archive marker: it is truncated")
        block = tar.read(position, BLOCK_BYTES)
        if block == _ZERO_BLOCK:
            if extended.name or extended.target or extended.records != defaults:
                raise InvalidError("the tar ends after an extended header")
            return None
        header = _header(block, position)
        position += BLOCK_BYTES
        if header.type not in _EXTENDED:
            return _member(tar, header, extended, position)
        position = _extend(tar, header, position, extended, defaults)


def _header(block: bytes, position: int) -> _Header:
    if not _is_header(block):
        what = "not a tar" if position == 0 else f"damaged: no header at byte {position}"
        raise InvalidError(f"this is {what} (wrong checksum)")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    size = _number(block[124:136])
    if not 0 <= size <= MAX_FILE_BYTES:
        raise InvalidError(f"the tar member at byte {position} has the impossible size {size}")
    return _Header(
        block=block, name=name, type=block[156:157], size=size, target=_text(block[157:257])
    )


def _is_header(block: bytes) -> bool:
    """Whether the sum is right; some old tars took bytes for numbers from -128 to 127."""
    try:
        difference = _number(block[148:156]) - _checksum(block)
    except InvalidError:
        return False
    if difference % _ADLER == 0:
        return True
    high = sum([byte >= 0x80 for byte in block[:148] + block[156:]])
    return (difference + 256 * high) % _ADLER == 0


def _checksum(block: bytes) -> int:
    """The sum of all bytes, of the checksum itself as blanks, modulo _ADLER.

    Adler-32 has the sum of all bytes in its lower half, at ten times the speed of ``sum``.
    """
    return (zlib.adler32(block) & 0xFFFF) - 1 - sum(block[148:156]) + 8 * ord(" ")


def _text(value: bytes) -> bytes:
    return value.partition(b"\0")[0]


def _number(value: bytes) -> int:
    """An octal number, or GNU's base-256 where the first bit is set."""
    if value[0] & 0x80:
        number = int.from_bytes(value)
        bits = 8 * len(value)
        return number - (1 << bits) if value[0] & 0x40 else number - (1 << (bits - 1))
    digits = value.strip(b" \0")
    if digits.isdigit() and not (b"8" in digits or b"9" in digits):
        return int(digits, 8)
    match = _OCTAL.fullmatch(value)
    if match is None:
        raise InvalidError("a number in a tar header is not octal")
    return int(match[1] or b"0", 8)


def _extend(
    tar: TarFile,
    header: _Header,
    position: int,
    extended: _Extended,
    defaults: dict[bytes, bytes],
) -> int:
    """Take an extended header in, and return where the next header begins."""
    extended.headers += 1
    if extended.headers > MAX_EXTENDED_HEADERS or header.size > MAX_EXTENDED_BYTES:
        msg = (
            f"a tar member has more than {MAX_EXTENDED_HEADERS} extended headers, "
            f"or one of more than {MAX_EXTENDED_BYTES} bytes"
        )
        raise TooLargeError(msg)
    body = tar.read(position, header.size)
    if header.type == _GNU_NAME:
        extended.name = _text(body)
    elif header.type == _GNU_LINK:
        extended.target = _text(body)
    elif header.type == _PAX_GLOBAL:
        for key, value in _records(body):
            defaults[key] = extended.records[key] = value
    elif header.type != _GNU_VOLUME:
        for key, value in _records(body):
            if key in _SPARSE_PAIR:
                extended.pairs.append(value)
            else:
                extended.records[key] = value
    return position + header.size + padding(header.size)


def _records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of a PAX header: a length, a blank, key=value and a line feed each."""
    at = 0
    while at < len(body) and body[at]:
        match = _RECORD_LENGTH.match(body, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(body) or body[end - 1] != ord("\n"):
            raise InvalidError("a PAX header of the tar is damaged")
        key, equals, value = body[match.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise InvalidError("a PAX header of the tar is damaged: a record without '='")
        yield key, value
        at = end


def _member(
    tar: TarFile, header: _Header, extended: _Extended, position: int
) -> tuple[Member, int]:
    records = extended.records
    kind = _TYPES.get(header.type)
    if kind is None:
        raise InvalidError(f"the tar has a member of type {header.type!r}, which is not supported")
    stored = _decimal(records, b"size", header.size) if header.type in _WITH_DATA else 0
    sparse: Sparse | None = None
    if header.type == _GNU_SPARSE:
        sparse, position = gnu_sparse(header.block, tar.read, position)
    end = position + stored + padding(stored)
    if end > tar.size:
        raise InvalidError(f"the tar is truncated: it ends at byte {tar.size}, within a member")
    if kind == FILE:
        sparse = sparse or pax_sparse(records, extended.pairs, tar.read, position, stored)
    name = records.get(b"GNU.sparse.name") or records.get(b"path") or extended.name or header.name
    if kind == FILE and name.endswith(b"/"):
        kind = DIRECTORY  # as V7 wrote them
    plain = stored if kind == FILE else 0
    if sparse is not None and sparse.map_bytes + sparse.data_bytes > stored:
        raise InvalidError("the map of a sparse tar member tells of more data than there is")
    xattrs, lost = attributes(records)
    member = Member(
        name=name,
        type=kind,
        mode=_number(header.block[100:108]) & 0o7777,
        uid=_owner(records, b"uid", header.block[108:116]),
        gid=_owner(records, b"gid", header.block[116:124]),
        mtime_ns=_mtime_ns(records, header.block[136:148]),
        size=plain if sparse is None else sparse.size,
        target=records.get(b"linkpath") or extended.target or header.target,
        xattrs=xattrs,
        lost=lost,
        segments=None if sparse is None or sparse.is_whole else sparse.segments,
        position=position if sparse is None else position + sparse.map_bytes,
    )
    return member, end


def _decimal(records: dict[bytes, bytes], key: bytes, default: int) -> int:
    value = records.get(key)
    if not value:
        return default
    if _DECIMAL.fullmatch(value) is None or int(value) > MAX_FILE_BYTES:
        msg = f"a PAX header of the tar has an impossible {key.decode(errors='replace')}"
        raise InvalidError(msg)
    return int(value)


def _owner(records: dict[bytes, bytes], key: bytes, field_: bytes) -> int:
    owner = _decimal(records, key, -1)
    if owner < 0:
        owner = _number(field_)
    if not 0 <= owner <= MAX_OWNER:
        raise InvalidError(f"a tar member has the impossible {key.decode()} {owner}")
    return owner


def _mtime_ns(records: dict[bytes, bytes], field_: bytes) -> int:
    value = records.get(b"mtime")
    if not value:
        return clamped(_number(field_) * _NS)
    match = _TIME.fullmatch(value)
    if match is None:
        raise InvalidError("a PAX header of the tar has an impossible mtime")
    sign, seconds, fraction = match[1], match[2], (match[3] or b"")[:9]
    nanoseconds = int(seconds) * _NS + int(fraction.ljust(9, b"0"))
    return clamped(-nanoseconds if sign else nanoseconds)
