"""Tar headers that GNU tar and every other tar of this century reads (POSIX.1-2001, "pax").

A member has a ustar block, which says all if it can. Values that do not fit (long or non-ASCII
names, large numbers, extended attributes, sparse files) go into an extended header before it.
Times are whole seconds, rounded down; the manifest has the nanoseconds.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from holdfast.form.acl import ACL_KEYWORDS, acl_text
from holdfast.form.entries import Kind, stored_bytes
from holdfast.form.sparse import padding

if TYPE_CHECKING:
    from holdfast.form.entries import Entry

_NAME_BYTES: Final = 100
_PREFIX_BYTES: Final = 155
_MAX_ID: Final = 0o7777777
_MAX_NUMBER: Final = 0o77777777777
_SECOND_NS: Final = 1_000_000_000

_TYPES: Final = {Kind.FILE: b"0", Kind.DIRECTORY: b"5", Kind.SYMLINK: b"2", Kind.HARDLINK: b"1"}
_AFTER_LINK: Final = b"ustar\x0000" + bytes(32 + 32) + b"0000000\x000000000\0"
_END: Final = bytes(12)
_BLANK_SUM: Final = 8 * ord(" ")
"""The checksum is made with its own field blank."""

_ASCII: Final = bytes(range(128)) + b"_" * 128
_EXTENDED_NAME: Final = b"././@PaxHeader"
_SPARSE_DIRECTORY: Final = b"GNUSparseFile.0/"
_NAMES: Final = (b"path", b"linkpath", b"GNU.sparse.name")


def member_header(entry: Entry) -> bytes:
    """The header of ``entry`` in the tar: one block, or more with an extended header.

    Its data follows: ``stored_bytes(entry)`` bytes and padding.
    """
    name = _tar_name(entry)
    target = entry.target
    seconds = entry.mtime_ns // _SECOND_NS
    if (
        len(name) <= _NAME_BYTES
        and len(target) <= _NAME_BYTES
        and name.isascii()
        and target.isascii()
        and not entry.xattrs
        and entry.segments is None
        and entry.uid <= _MAX_ID
        and entry.gid <= _MAX_ID
        and entry.size <= _MAX_NUMBER
        and 0 <= seconds <= _MAX_NUMBER
    ):
        tail = _tail(_TYPES[entry.kind], target) if target else _PLAIN[entry.kind]
        return _block(
            name, entry.mode, entry.uid, entry.gid, b"%011o\0" % entry.size, seconds, tail
        )
    return _with_records(entry, name, seconds, _acls(entry))


def former_header(entry: Entry) -> bytes:
    """``member_header`` as release 0.1 wrote it: without the text of access control lists."""
    if not _acls(entry):
        return member_header(entry)
    return _with_records(entry, _tar_name(entry), entry.mtime_ns // _SECOND_NS, [])


def _tar_name(entry: Entry) -> bytes:
    """The member's name: directories end in a slash."""
    if entry.kind is Kind.DIRECTORY:
        return entry.path + b"/" if entry.path else b"./"
    return entry.path


def _block(
    name: bytes, mode: int, uid: int, gid: int, size: bytes, seconds: int, tail: tuple[bytes, int]
) -> bytes:
    """A ustar block. ``tail`` is what follows the checksum, and the sum of its bytes."""
    head = b"%b%07o\0%07o\0%07o\0%b%011o\0" % (
        name.ljust(_NAME_BYTES, b"\0"),
        mode,
        uid,
        gid,
        size,
        seconds,
    )
    rest, rest_sum = tail
    return b"%b%06o\0 %b" % (head, _sum(head) + _BLANK_SUM + rest_sum, rest)


def _sum(data: bytes) -> int:
    """The sum of less than 257 bytes.

    Half of an Adler-32 is 1 and that sum modulo 65,521, at many times the speed of sum().
    """
    return (zlib.adler32(data) & 0xFFFF) - 1


def _tail(letter: bytes, target: bytes = b"", prefix: bytes = b"") -> tuple[bytes, int]:
    """The end of a block behind the checksum, and the sum of its bytes."""
    target_field = target.ljust(_NAME_BYTES, b"\0")
    rest = letter + target_field + _AFTER_LINK + prefix.ljust(_PREFIX_BYTES, b"\0") + _END
    return rest, sum(map(_sum, (letter, target_field, _AFTER_LINK, prefix)))


def _with_records(
    entry: Entry, name: bytes, seconds: int, more: list[tuple[bytes, bytes]]
) -> bytes:
    """The header of a member for which one plain block may not be enough, with ``more`` records."""
    records: list[tuple[bytes, bytes]] = []
    prefix, short = _place_name(entry, name, records)
    if len(entry.target) > _NAME_BYTES or not entry.target.isascii():
        records.append((b"linkpath", entry.target))
    uid = _number(b"uid", entry.uid, _MAX_ID, records)
    gid = _number(b"gid", entry.gid, _MAX_ID, records)
    mtime = _number(b"mtime", seconds, _MAX_NUMBER, records)
    if entry.segments is None:
        size = b"%011o\0" % _number(b"size", entry.size, _MAX_NUMBER, records)
    else:
        size = _sparse_size(stored_bytes(entry))
    records += [(b"SCHILY.xattr." + _keyword(key), value) for key, value in entry.xattrs]
    records += more
    target = entry.target.translate(_ASCII)[:_NAME_BYTES]
    block = _block(
        short, entry.mode, uid, gid, size, mtime, _tail(_TYPES[entry.kind], target, prefix)
    )
    return _extended(records) + block if records else block


def _place_name(
    entry: Entry, name: bytes, records: list[tuple[bytes, bytes]]
) -> tuple[bytes, bytes]:
    """``(prefix, name)`` for the block, and records of what it cannot say."""
    if entry.segments is not None:
        records += [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % entry.size),
        ]
        name = _SPARSE_DIRECTORY + name.rpartition(b"/")[2]
        return b"", name.translate(_ASCII)[:_NAME_BYTES]
    if name.isascii():
        if len(name) <= _NAME_BYTES:
            return b"", name
        # The first slash that leaves a name short enough; not a directory's own last one.
        slash = name.find(b"/", len(name) - _NAME_BYTES - 1, -1)
        if 0 < slash <= _PREFIX_BYTES:
            return name[:slash], name[slash + 1 :]
    records.append((b"path", name))
    return b"", name.translate(_ASCII)[:_NAME_BYTES]


def _number(key: bytes, value: int, limit: int, records: list[tuple[bytes, bytes]]) -> int:
    """``value`` for a field that holds 0 to ``limit``; else a record says it and the field 0."""
    if 0 <= value <= limit:
        return value
    records.append((key, b"%d" % value))
    return 0


def _sparse_size(size: int) -> bytes:
    """The size field. A record ``size`` would be taken for the apparent size by some readers.

    Beyond 8 GiB the number is binary, as GNU tar writes it.
    """
    return b"%011o\0" % size if size <= _MAX_NUMBER else b"\x80" + size.to_bytes(11)


def _keyword(name: bytes) -> bytes:
    """An attribute's name as part of a keyword, which ends at ``=``; escaped as GNU tar does."""
    return name.replace(b"%", b"%25").replace(b"=", b"%3D")


def _acls(entry: Entry) -> list[tuple[bytes, bytes]]:
    """Access control lists once more, as the text that ``tar --acls`` and bsdtar look for."""
    xattrs = dict(entry.xattrs)
    texts = [(key, acl_text(xattrs[name])) for key, name in ACL_KEYWORDS if name in xattrs]
    return [(key, text) for key, text in texts if text is not None]


def _extended(records: list[tuple[bytes, bytes]]) -> bytes:
    """The extended header (its own block, and padded records) that goes before a block."""
    text = b"".join([_record(key, value) for key, value in records])
    if not all(_is_utf8(key + value) for key, value in records if key in _NAMES):
        text = _record(b"hdrcharset", b"BINARY") + text
    block = _block(_EXTENDED_NAME, 0o644, 0, 0, b"%011o\0" % len(text), 0, _EXTENDED_TAIL)
    return block + text + bytes(padding(len(text)))


def _record(key: bytes, value: bytes) -> bytes:
    """One line of an extended header, which begins with its own length."""
    rest = len(key) + len(value) + 3
    size = rest + len(b"%d" % rest)
    if len(b"%d" % size) > len(b"%d" % rest):
        size += 1
    return b"%d %b=%b\n" % (size, key, value)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


_PLAIN: Final = {kind: _tail(letter) for kind, letter in _TYPES.items()}
"""The tails without a link's target and a prefix: nearly all there are."""

_EXTENDED_TAIL: Final = _tail(b"x")
