"""Reading a whole manifest before it is believed: every page, and what pages say of one another.

A page by itself tells nearly everything (``form.checks``). Here it is found out
whether the directories of its first path, and the files of its hard links, lie in earlier pages.

Why: docs/decisions.md, "What a client commits".
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from holdfast.archive.ports import Cancelled, Stop
from holdfast.archive.read.verify import verify
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError
from holdfast.form.entries import Kind, order_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.form.manifest import Page

SMALL_BYTES: Final = 1 * MIB
"""A snapshot stored in so little is read whole."""

MAX_LINKS_HELD: Final = 65_536
"""Targets in other pages that are remembered, before these pages are read again for them."""


def check_manifest(reader: SnapshotReader, stop: Stop) -> None:
    """Raises CorruptError unless every page can be read and they make up one tree; Cancelled.

    All data of a small snapshot is compared, too. Raises what the store raises.
    """
    above: frozenset[bytes] = frozenset()
    targets: set[bytes] = set()
    for number, page in reader.pages():
        if stop():
            raise Cancelled
        reader.stat_page(number)
        if number and not above.issuperset(_ancestors(page.paths[0])):
            raise CorruptError("an entry lies in something that is not a directory of the snapshot")
        above = _open_directories(page)
        targets.update(_targets_before(page))
        if len(targets) >= MAX_LINKS_HELD:
            _check_targets(reader, targets, stop)
            targets = set()
    _check_targets(reader, targets, stop)
    if reader.root.stored_bytes <= SMALL_BYTES:
        found = verify(reader, stop=stop)
        for damaged in found.damaged:
            raise CorruptError(damaged.detail)


def _ancestors(path: bytes) -> Iterable[bytes]:
    """The directories that ``path`` is in, but the root, which is there."""
    while path := path.rpartition(b"/")[0]:
        yield path


def _open_directories(page: Page) -> frozenset[bytes]:
    """The directories, but the root, that what follows ``page`` may lie in."""
    last = page.paths[-1]
    itself = [last] if page.kinds[-1] == Kind.DIRECTORY else []
    return frozenset([*itself, *_ancestors(last)])


def _targets_before(page: Page) -> Iterable[bytes]:
    first = order_key(page.paths[0])
    for index, target in page.targets.items():
        if page.kinds[index] == Kind.HARDLINK and order_key(target) < first:
            yield target


def _check_targets(reader: SnapshotReader, targets: set[bytes], stop: Stop) -> None:
    """Raises CorruptError unless each is a file; each page with some is read once."""
    ordered = sorted(targets, key=order_key)
    for number, of_page in groupby(ordered, reader.root.page_of_path):
        if stop():
            raise Cancelled
        page = reader.page(number)
        kinds = dict(zip(page.paths, page.kinds, strict=True))
        if any(kinds.get(target) != Kind.FILE for target in of_page):
            raise CorruptError("a hard link's target is not an earlier file")
