"""Archiving: walk, compare with the parent snapshot, read what is new, store it, write the root.

One thread walks, compares and reads; others hash and compress (``frame_pool``); everything is put
together in the order of the archive, so that the result depends on the files alone. Memory is
bounded whatever the size of the tree: see the limits in the modules used here.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.archive.create.columns import columns_of, pages_of
from holdfast.archive.create.content import check_chunker
from holdfast.archive.create.frame_pool import FileData, FramePool, RawFrame
from holdfast.archive.create.links import Links
from holdfast.archive.create.manifest_writer import ManifestWriter, NewPage, WrittenRoot
from holdfast.archive.create.members import PageMember, PageMembers
from holdfast.archive.create.parent import Parent
from holdfast.archive.create.shelf import KnownFrames, Shelf
from holdfast.archive.file_systems import RACY_NS
from holdfast.archive.ports import (
    Cancelled,
    EntrySource,
    OnProgress,
    PackStore,
    Progress,
    Scanned,
    Stop,
    ignore_progress,
    never_stop,
)
from holdfast.archive.warnings import Warnings
from holdfast.errors import ConflictError, ForbiddenError, InvalidError
from holdfast.form.entries import MAX_TIME_NS
from holdfast.form.fingerprint import NEVER_EQUAL, SeenColumns
from holdfast.form.manifest import Page, StatPage
from holdfast.form.terms import EntryWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.domain.digest import Digest

MAX_WALKS: Final = 8
"""Times that a directory exchanged meanwhile is archived anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """A finished archive: ``root`` is the digest that everything else is found by.

    ``written`` is the root itself. ``files`` are regular files, further names of one not counted,
    and ``size_bytes`` their apparent size. ``raw_bytes`` is the size of the tar without its end,
    ``stored_bytes`` that of its compressed frames. ``new_bytes`` of the tar had to be stored, in
    ``added_bytes`` of packs, pages and root (which the store may have had nevertheless).
    ``reused_pages`` of ``pages`` are the parent's. ``warnings`` are the first of ``warning_count``.
    """

    root: Digest
    written: WrittenRoot
    entries: int
    files: int
    size_bytes: int
    raw_bytes: int
    stored_bytes: int
    new_bytes: int
    added_bytes: int
    pages: int
    reused_pages: int
    warnings: tuple[EntryWarning, ...]
    warning_count: int


def create_archive(
    source: EntrySource,
    store: PackStore,
    *,
    parent: Digest | None,
    started_at_ns: int,
    racy_ns: int = RACY_NS,
    threads: int = 0,
    progress: OnProgress = ignore_progress,
    stop: Stop = never_stop,
) -> Archived:
    """Archive ``source`` into ``store``; everything is durable when this returns.

    ``parent`` is the root of a snapshot whose packs are still in the store. ``started_at_ns`` is
    the time before the walk, on the clock that the source's file system has; what changed less
    than ``racy_ns`` before it is read again next time. ``threads`` hash and compress (0: one per
    core). The source is not closed.

    Raises Cancelled when ``stop`` says so; ForbiddenError and InvalidError naming what cannot be
    read; ConflictError when the source is exchanged again and again; CorruptError for a damaged
    parent (archive without one, then); and what the store raises.
    """
    check_chunker()
    before = Progress(phase="reading")
    for _ in range(MAX_WALKS):
        archiver = _Archiver(
            source, store, parent, started_at_ns - racy_ns, progress, stop, before=before
        )
        archived = archiver.run(threads)
        if archived is not None:
            return archived
        before = archiver.state("reading")
    msg = "the directory was exchanged for another again and again while it was archived"
    raise ConflictError(msg)


class _Archiver:
    def __init__(
        self,
        source: EntrySource,
        store: PackStore,
        parent: Digest | None,
        settled_before_ns: int,
        progress: OnProgress,
        stop: Stop,
        *,
        before: Progress,
    ) -> None:
        self._before = before
        self._source = source
        self._store = store
        self._parents_root = parent
        self._settled_before_ns = settled_before_ns
        self._progress = progress
        self._stop = stop
        self._warnings = Warnings()
        self._links = Links()
        self._known = KnownFrames()
        known_pages = KnownFrames()
        self._parent = None if parent is None else Parent(store, parent)
        if self._parent is not None:
            self._parent.remember_page_frames(known_pages)
        self._is_index_loaded = self._parent is None
        self._data = Shelf(store, self._known)
        self._pages = Shelf(store, known_pages)
        self._manifest = ManifestWriter(store, self._data, self._pages)
        self._entries = self._bytes = self._reused = 0

    def run(self, threads: int) -> Archived | None:
        """The archive; None if the source was exchanged for another meanwhile."""
        try:
            self._read_source(threads)
        except (ForbiddenError, InvalidError):
            if self._source.is_current():
                raise
            return None
        self._check_stop()
        return self._finish() if self._source.is_current() else None

    def _read_source(self, threads: int) -> None:
        with (
            FramePool(
                is_known=self._data.has, deliver=self._data.place, threads=threads
            ) as self._pool,
            closing(self._source.scan(self._warnings)) as scan,
        ):
            for page in pages_of(scan):
                self._add_page(page)
            self._pool.finish()

    def _finish(self) -> Archived:
        written = self._manifest.finish(self._parents_root)
        root = written.root
        self._store.flush()
        self._report("done")
        return Archived(
            root=written.blobs[-1],
            written=written,
            entries=root.entries,
            files=root.files,
            size_bytes=root.size_bytes,
            raw_bytes=root.raw_bytes,
            stored_bytes=root.stored_bytes,
            new_bytes=self._data.new_raw_bytes,
            added_bytes=self._data.put_bytes + self._pages.put_bytes + written.put_bytes,
            pages=root.page_count,
            reused_pages=self._reused,
            warnings=self._warnings.first,
            warning_count=self._warnings.count,
        )

    def _add_page(self, page: list[Scanned]) -> None:
        self._check_stop()
        page = [self._links.resolve(scanned) for scanned in page]
        columns = columns_of(page, self._settled_before_ns)
        if max(columns.mtimes_ns) >= MAX_TIME_NS or min(columns.mtimes_ns) <= -MAX_TIME_NS:
            self._warn_of_times(page)
        row = self._parent.same_page(columns.fingerprint) if self._parent is not None else None
        if row is not None:
            self._reused += 1
            self._pool.add_mark(lambda: self._manifest.take_over(row))
        else:
            self._read_page(page, columns)
        self._entries += len(page)
        self._bytes += sum(columns.sizes)
        self._report("reading")

    def _read_page(self, page: list[Scanned], columns: SeenColumns) -> None:
        if self._parent is None:
            places: Sequence[tuple[Page, int] | None] = [None] * len(page)
        else:
            places = self._parent.unchanged(columns, page)
        members = PageMembers(
            list(map(PageMember.placed, page, places)),
            self._source,
            self._links,
            self._add,
            self._warnings,
        )
        members.read()
        if not members.members:
            return
        self._pool.add_mark(lambda: self._manifest.add(self._new_page(members, columns)))

    def _new_page(self, read: PageMembers, columns: SeenColumns) -> NewPage:
        frames = read.finish()
        ctimes = dict(zip(columns.paths, columns.ctimes_ns, strict=True))
        members = read.members
        is_settled = read.is_complete and all(member.settled for member in members)
        return NewPage(
            entries=[member.known_entry() for member in members],
            header_sizes=[member.header_size for member in members],
            frames=frames,
            stat=StatPage(
                inodes=[member.scanned.inode for member in members],
                ctimes_ns=[
                    ctimes[member.scanned.path] if member.settled else 0 for member in members
                ],
            ),
            fingerprint=columns.fingerprint if is_settled else NEVER_EQUAL,
        )

    def _add(self, item: RawFrame | FileData) -> None:
        if not self._is_index_loaded and self._parent is not None:
            self._is_index_loaded = True
            self._parent.remember_frames(self._known)
        self._pool.add(item)  # from here on it closes the item's file, whatever happens
        self._check_stop()

    def _warn_of_times(self, page: list[Scanned]) -> None:
        for scanned in page:
            if abs(scanned.mtime_ns) >= MAX_TIME_NS:
                detail = "its time is outside of 1677 to 2262, and the nearest in these is kept"
                self._warnings(EntryWarning(kind="attribute", path=scanned.path, detail=detail))

    def _check_stop(self) -> None:
        if self._stop():
            raise Cancelled

    def _report(self, phase: str) -> None:
        self._progress(self.state(phase))

    def state(self, phase: str) -> Progress:
        """The progress of this and those before it."""
        before = self._before
        return Progress(
            phase=phase,
            entries=before.entries + self._entries,
            bytes=before.bytes + self._bytes,
            new_bytes=before.new_bytes + self._data.new_raw_bytes,
            stored_bytes=before.stored_bytes + self._data.new_stored_bytes,
        )
