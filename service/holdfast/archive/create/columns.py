"""A page of the walk, turned on its side: columns are compared and hashed at the speed of C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.domain.limits import KIB
from holdfast.form.entries import Kind
from holdfast.form.fingerprint import SeenColumns
from holdfast.form.layout import MIN_PAGE_WEIGHT, cuts_page, page_weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast.archive.ports import Scanned

_WEIGHTY_BYTES: Final = 64 * KIB  # no smaller file weighs more than any other entry
_FILE: Final = Kind.FILE
_HARDLINK: Final = Kind.HARDLINK


def pages_of(entries: Iterable[Scanned]) -> Iterator[list[Scanned]]:
    """``entries`` divided into pages, each at least one entry."""
    page: list[Scanned] = []
    weight = 0
    for entry in entries:
        added = 1
        if entry.size >= _WEIGHTY_BYTES and entry.kind is _FILE:
            added = page_weight(min(entry.size, entry.allocated))
        # The second condition includes the first, which costs nothing.
        if (weight >= MIN_PAGE_WEIGHT or added > 1) and cuts_page(entry.path, added, weight):
            yield page
            page, weight = [], 0
        page.append(entry)
        weight += added
    if page:
        yield page


def columns_of(entries: Sequence[Scanned], settled_before_ns: int) -> SeenColumns:
    """The columns of ``entries``, which are sure to be settled if changed before that time."""
    sizes = [entry.size for entry in entries]
    ctimes_ns = [entry.ctime_ns for entry in entries]
    packed = bytes([entry.kind for entry in entries])
    if packed.count(_FILE) != len(packed):
        sizes = [0 if kind else size for kind, size in zip(packed, sizes, strict=True)]
    links = {}
    if _HARDLINK in packed:
        links = {index: entry.link for index, entry in enumerate(entries) if entry.link}
    if max(ctimes_ns) >= settled_before_ns or min(ctimes_ns) <= 0:
        ctimes_ns = [ctime if 0 < ctime < settled_before_ns else 0 for ctime in ctimes_ns]
    return SeenColumns(
        paths=[entry.path for entry in entries],
        kinds=packed,
        modes=[entry.mode for entry in entries],
        uids=[entry.uid for entry in entries],
        gids=[entry.gid for entry in entries],
        sizes=sizes,
        mtimes_ns=[entry.mtime_ns for entry in entries],
        inodes=[entry.inode for entry in entries],
        ctimes_ns=ctimes_ns,
        links=links,
    )
