"""The rules for a page of a manifest by any writer.

A manifest is read from a store, and a path, a size or a link in it that nobody checked would act
on the machine that restores it. All checks run over whole columns, for they run on every read;
each raises CorruptError.
"""

from __future__ import annotations

from itertools import chain, pairwise
from operator import lt
from typing import TYPE_CHECKING, Final, NoReturn

from holdfast.domain.limits import MAX_TOTAL
from holdfast.errors import CorruptError
from holdfast.form.columns import FORMAT, MAX_PAGE_BYTES, MAX_PAGE_ENTRIES, MAX_PAGES, PackNumbers
from holdfast.form.entries import (
    MAX_COMPONENT_BYTES,
    MAX_PATH_BYTES,
    MAX_TARGET_BYTES,
    MAX_XATTR_NAME_BYTES,
    MAX_XATTRS,
    MAX_XATTRS_BYTES,
    Kind,
    order_key,
)
from holdfast.form.fingerprint import FINGERPRINT_BYTES
from holdfast.form.frame_table import digest_at, split_digests
from holdfast.form.frames import max_raw_bytes
from holdfast.form.sparse import BLOCK_BYTES, are_segments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Sized

    from holdfast.form.columns import RootColumns

_FILE: Final = int(Kind.FILE)
_DIRECTORY: Final = int(Kind.DIRECTORY)
_HARDLINK: Final = int(Kind.HARDLINK)
_UNCLEAN: Final = frozenset((b"", b".", b".."))


def check_columns(count: int, kinds: bytes, columns: Sequence[Sized]) -> None:
    """All columns have ``count`` rows, which is not too many, and kinds are known."""
    if count > MAX_PAGE_ENTRIES:
        _refuse(f"it has more than {MAX_PAGE_ENTRIES} entries")
    if {len(kinds), *map(len, columns)} != {count}:
        _refuse("its columns differ in length")
    if max(kinds) > max(Kind):
        _refuse("an entry is of no known kind")


def check_paths(paths: Sequence[bytes], kinds: bytes) -> None:
    """Paths are relative, clean and ascending; what holds other entries is a directory.

    The path b"" may come first: it is the directory itself.
    """
    keys = [path.replace(b"/", b"\0") for path in paths]
    if not all(map(lt, keys, keys[1:])):
        _refuse("its entries are out of order")
    below = paths if paths[0] else paths[1:]
    if not paths[0] and kinds[0] != _DIRECTORY:
        _refuse("the root is not a directory")
    if not below:
        return
    # The order puts absolute paths first, and each other path is a directory's that is here or
    # that the first path is in: the first path and all last components tell about all of it.
    check_clean(below[:1])
    parents, _, names = zip(*[path.rpartition(b"/") for path in below], strict=True)
    if not _UNCLEAN.isdisjoint(names):
        _refuse("a path has an empty, . or .. component")
    if max(map(len, names)) > MAX_COMPONENT_BYTES or max(map(len, below)) > MAX_PATH_BYTES:
        _refuse("a path is too long")
    orphans = set(parents)
    orphans.difference_update(
        [path for path, kind in zip(paths, kinds, strict=True) if kind == _DIRECTORY]
    )
    orphans.difference_update(_ancestors(below[0]))
    if orphans:
        _refuse("an entry lies in something that is not a directory of the snapshot")


def check_clean(paths: Sequence[bytes]) -> None:
    """Paths (without NUL) are relative, not too long, and have no empty, . or .. component."""
    for path in paths:
        components = path.split(b"/")
        if not _UNCLEAN.isdisjoint(components):
            _refuse("a path is absolute or has an empty, . or .. component")
        if len(path) > MAX_PATH_BYTES or max(map(len, components)) > MAX_COMPONENT_BYTES:
            _refuse("a path is too long")


def _ancestors(path: bytes) -> list[bytes]:
    """The directories that ``path`` is in, up to b""."""
    found = []
    while path:
        path = path.rpartition(b"/")[0]
        found.append(path)
    return found


def check_sizes(kinds: bytes, sizes: Sequence[int], header_sizes: Sequence[int]) -> None:
    """Only files have a size, and headers are whole blocks."""
    if any(map((BLOCK_BYTES - 1).__and__, header_sizes)):
        _refuse("a header is not made of whole blocks")
    if kinds.count(_FILE) != len(kinds) and any(
        size for size, kind in zip(sizes, kinds, strict=True) if kind
    ):
        _refuse("something that is not a file has a size")


def check_links(paths: Sequence[bytes], kinds: bytes, targets: Mapping[int, bytes]) -> None:
    """Just the links have targets; a hard link's comes before it, and if it is here it is a file.

    Chains and cycles of hard links are thereby impossible.
    """
    if targets.keys() != {index for index, kind in enumerate(kinds) if kind > _DIRECTORY}:
        _refuse("a link has no target, or another entry has one")
    if any(not 0 < len(target) <= MAX_TARGET_BYTES or 0 in target for target in targets.values()):
        _refuse("a link's target is empty or too long")
    hard = [index for index in targets if kinds[index] == _HARDLINK]
    if not hard:
        return
    check_clean([targets[index] for index in hard])
    kind_at = dict(zip(paths, kinds, strict=True))
    first = order_key(paths[0])
    for index in hard:
        target = targets[index]
        key = order_key(target)
        here = first <= key
        if key >= order_key(paths[index]) or (here and kind_at.get(target) != _FILE):
            _refuse("a hard link's target is not an earlier file")


def check_xattrs(count: int, xattrs: Mapping[int, tuple[tuple[bytes, bytes], ...]]) -> None:
    """Extended attributes belong to entries, have names, and are not too many or too large."""
    if max(xattrs, default=-1) >= count:
        _refuse("extended attributes belong to no entry")
    for of_entry in xattrs.values():
        names = {name for name, _ in of_entry}
        if not 0 < len(names) == len(of_entry) <= MAX_XATTRS:
            _refuse("an entry has no, too many or equal extended attributes")
        if any(not 0 < len(name) <= MAX_XATTR_NAME_BYTES or 0 in name for name in names):
            _refuse("an extended attribute has no proper name")
        if sum(len(name) + len(value) for name, value in of_entry) > MAX_XATTRS_BYTES:
            _refuse("an entry's extended attributes are too large")


def check_sparse(
    kinds: bytes, sizes: Sequence[int], segments: Mapping[int, tuple[tuple[int, int], ...]]
) -> None:
    """Only files are sparse; their segments ascend and lie within the file."""
    for index, of_file in segments.items():
        if index >= len(kinds) or kinds[index] != _FILE or not are_segments(of_file, sizes[index]):
            _refuse("the segments of a sparse file are out of order or outside it")


def check_root(columns: RootColumns) -> None:
    """All columns have a row for each page; pages and packs ascend; the first page has the root."""
    paths = columns.first_paths.split(b"\0", MAX_PAGES)
    lists = (
        columns.entries,
        columns.files,
        columns.size_bytes,
        columns.raw_bytes,
        columns.stored_bytes,
        columns.frames,
        columns.pack_numbers,
        columns.page_pieces,
        columns.stat_pieces,
    )
    if columns.format != FORMAT:
        msg = f"the manifest is of format {columns.format}, which this version cannot read"
        raise CorruptError(msg)
    if (
        {len(column) for column in lists} != {len(paths)}
        or len(columns.fingerprints) != len(paths) * FINGERPRINT_BYTES
        or sum(columns.page_pieces) + sum(columns.stat_pieces) != len(columns.pieces.raw_sizes)
        or sum(columns.pieces.raw_sizes) > 2 * MAX_PAGE_BYTES * len(paths)
    ):
        raise CorruptError("the columns of the manifest's root differ in length")
    keys = list(map(order_key, paths))
    if paths[0] or any(a >= b for a, b in pairwise(keys)):
        raise CorruptError("the pages of the manifest are out of order")
    check_clean(paths[1:])
    excess = excessive_total(columns.size_bytes, columns.raw_bytes, columns.stored_bytes)
    if excess is not None:
        raise CorruptError(excess)
    _check_ratios(columns)
    packs = split_digests(columns.pieces.packs)
    if any(a >= b for a, b in pairwise(packs)) or not all(
        all(map(lt, row, row[1:])) and (not row or row[-1] < len(packs))
        for row in PackNumbers(columns.pack_numbers)
    ):
        raise CorruptError("the packs of the manifest's root are out of order")


def excessive_total(*columns: Sequence[int]) -> str | None:
    """The sentence where rows of one of ``columns`` make more than any snapshot may have."""
    for total in map(sum, columns):
        if total > MAX_TOTAL:
            return f"the files have {total} bytes together, holes included, of {MAX_TOTAL} at most"
    return None


def _check_ratios(columns: RootColumns) -> None:
    """A page's stored size bounds its unpacked size. A piece that comes often counts once."""
    pieces = columns.pieces
    stop = 0
    for count in chain.from_iterable(zip(columns.page_pieces, columns.stat_pieces, strict=True)):
        start, stop = stop, stop + count
        if count < 2:
            continue
        digests = [digest_at(pieces.digests, number) for number in range(start, stop)]
        stored = dict(zip(digests, pieces.stored_sizes[start:stop], strict=False))
        if sum(pieces.raw_sizes[start:stop]) > max_raw_bytes(sum(stored.values())):
            raise CorruptError("a page of the manifest unpacks to more than its stored bytes allow")


def _refuse(what: str) -> NoReturn:
    raise CorruptError(f"a page of the manifest is damaged: {what}")
