"""A page of the walk, turned on its side: columns are compared and hashed at the speed of C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.domain.limits import KIB
from holdfast.form.entries import Kind
from holdfast.form.fingerprint import NEVER_EQUAL, fingerprint
from holdfast.form.layout import MIN_PAGE_WEIGHT, cuts_page, page_weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast.archive.ports import Scanned

_WEIGHTY_BYTES: Final = 64 * KIB  # no smaller file weighs more than any other entry
_FILE: Final = Kind.FILE
_HARDLINK: Final = Kind.HARDLINK


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What the walk saw of a page's entries.

    ``ctimes_ns`` are 0 for entries that changed too recently to be sure that the next change will
    show; ``sizes`` are 0 for all but FILEs. ``fingerprint`` is NEVER_EQUAL where there are any
    such entries.
    """

    paths: Sequence[bytes]
    kinds: bytes
    modes: Sequence[int]
    uids: Sequence[int]
    gids: Sequence[int]
    sizes: Sequence[int]
    mtimes_ns: Sequence[int]
    inodes: Sequence[int]
    ctimes_ns: Sequence[int]
    fingerprint: bytes

    def rows(self) -> list[tuple[int, ...]]:
        """Per entry what must be equal for it to be unchanged."""
        return list(
            zip(
                self.kinds,
                self.modes,
                self.uids,
                self.gids,
                self.sizes,
                self.mtimes_ns,
                self.inodes,
                self.ctimes_ns,
                strict=True,
            )
        )


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


def columns_of(entries: Sequence[Scanned], settled_before_ns: int) -> Columns:
    """The columns of ``entries``, which are sure to be settled if changed before that time."""
    paths = [entry.path for entry in entries]
    sizes = [entry.size for entry in entries]
    ctimes_ns = [entry.ctime_ns for entry in entries]
    modes = [entry.mode for entry in entries]
    uids = [entry.uid for entry in entries]
    gids = [entry.gid for entry in entries]
    mtimes_ns = [entry.mtime_ns for entry in entries]
    inodes = [entry.inode for entry in entries]
    packed = bytes([entry.kind for entry in entries])
    if packed.count(_FILE) != len(packed):
        sizes = [0 if kind else size for kind, size in zip(packed, sizes, strict=True)]
    targets = {}
    if _HARDLINK in packed:
        targets = {index: entry.link for index, entry in enumerate(entries) if entry.link}
    if max(ctimes_ns) >= settled_before_ns or min(ctimes_ns) <= 0:
        ctimes_ns = [ctime if 0 < ctime < settled_before_ns else 0 for ctime in ctimes_ns]
        print_of_page = NEVER_EQUAL
    else:
        print_of_page = fingerprint(
            paths=paths,
            kinds=packed,
            modes=modes,
            uids=uids,
            gids=gids,
            sizes=sizes,
            mtimes_ns=mtimes_ns,
            inodes=inodes,
            ctimes_ns=ctimes_ns,
            links=targets,
        )
    return Columns(
        paths=paths,
        kinds=packed,
        modes=modes,
        uids=uids,
        gids=gids,
        sizes=sizes,
        mtimes_ns=mtimes_ns,
        inodes=inodes,
        ctimes_ns=ctimes_ns,
        fingerprint=print_of_page,
    )
