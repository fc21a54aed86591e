"""Reading all of a snapshot back and comparing it with its digests.

Every pack is fetched once, however many pages share it, and damage does not end the work: the
answer names the packs to bring back and the paths that need them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from holdfast.archive.ports import (
    Cancelled,
    OnProgress,
    Progress,
    Stop,
    ignore_progress,
    never_stop,
)
from holdfast.archive.read.headers import check_headers, headers_in
from holdfast.archive.read.snapshot import PREFETCH_PACKS, SnapshotReader
from holdfast.domain.digest import Digest
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError, NotFoundError
from holdfast.form.frame_table import split_digests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.form.manifest import Page

PHASE: Final = "verifying"
MAX_DAMAGED: Final = 1_000
"""Packs that are told of by name; further ones are only counted."""

MAX_DAMAGED_PATHS: Final = 16
"""Paths that are told for each of them."""


PAGE_COST_BYTES: Final = 1 * MIB
"""Bytes that reading a page of the manifest counts for towards ``max_bytes``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A pack that is missing or corrupt, and the first of the paths that need it.

    Where a page of the manifest is unreadable, these are the first path of that page alone.
    """

    pack: Digest
    code: Literal["missing", "corrupt"]
    detail: str
    paths: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Counts of what was read: packs of data, frames in them that were compared, their raw bytes.

    ``damaged_count`` counts ``damaged`` and those that it has no room for. ``next`` is where to go
    on, None when all was read.
    """

    packs: int
    frames: int
    bytes: int
    damaged: tuple[Damaged, ...]
    damaged_count: int
    next: int | None = None


def verify(
    reader: SnapshotReader,
    *,
    start: int = 0,
    max_bytes: int | None = None,
    progress: OnProgress = ignore_progress,
    stop: Stop = never_stop,
) -> Verified:
    """Compare everything with its digest: the pages first, then the packs in the pages' order.

    ``start`` is the ``next`` of an earlier call. Ends early, not before one step, once about
    ``max_bytes`` raw bytes were compared. Raises what the store raises when it is not reached,
    and Cancelled.
    """
    work = _Verification(reader)
    position = start
    while position < work.steps:
        if stop():
            raise Cancelled
        if max_bytes is not None and work.spent_bytes >= max_bytes:
            return work.result(position)
        work.step(position)
        position += 1
        progress(Progress(phase=PHASE, bytes=work.bytes, stored_bytes=work.stored_bytes))
    return work.result(None)


class _Verification:
    """The steps: one for each page of the manifest, then one for each pack of data."""

    def __init__(self, reader: SnapshotReader) -> None:
        self._reader = reader
        self._pages: dict[int, list[int]] = {}
        for number, packs in enumerate(reader.root.pack_numbers):
            for pack in packs:
                self._pages.setdefault(pack, []).append(number)
        self._order = list(self._pages)
        self._damaged: list[Damaged] = []
        self._damaged_count = 0
        self._packs = 0
        self._frames = 0
        self.bytes = 0
        self.spent_bytes = 0
        self.stored_bytes = 0
        self.steps = reader.page_count + len(self._order)

    def result(self, following: int | None) -> Verified:
        return Verified(
            packs=self._packs,
            frames=self._frames,
            bytes=self.bytes,
            damaged=tuple(self._damaged),
            damaged_count=self._damaged_count,
            next=following,
        )

    def step(self, position: int) -> None:
        if position < self._reader.page_count:
            self._check_page(position)
            return
        at = position - self._reader.page_count
        if at % (PREFETCH_PACKS // 2) == 0:
            ahead = self._order[at : at + PREFETCH_PACKS]
            self._reader.prefetch([self._reader.root.packs[pack] for pack in ahead])
        self._check_pack(self._order[at])

    def _check_page(self, number: int) -> None:
        root = self._reader.root
        self.spent_bytes += PAGE_COST_BYTES
        self._reader.prefetch_page(number + 1)
        refs = root.page_frames(number)
        try:
            self._reader.page(number)
            refs = root.stat_frames(number)
            self._reader.stat_page(number)
        except CorruptError as error:
            self._report(refs[0].pack, error, (root.first_paths[number],))

    def _check_pack(self, pack_number: int) -> None:
        pack = self._reader.root.packs[pack_number]
        pages = self._pages[pack_number]
        try:
            stored_bytes = len(self._reader.pack(pack))
        except CorruptError as error:
            self._report(pack, error, self._paths_in(pack, pages))
            return
        self._packs += 1
        self.stored_bytes += stored_bytes
        self.spent_bytes += stored_bytes
        self._check_frames(pack, pages)

    def _check_frames(self, pack: bytes, pages: Sequence[int]) -> None:
        """Compare every frame that a page has in ``pack``, each once, and the headers in it."""
        known = set()
        failure: CorruptError | None = None
        paths: list[bytes] = []
        for page_number, number in self._frames_in(pack, pages):
            page = self._reader.page(page_number)
            ref = page.frame(number)
            identity = (ref.digest, ref.raw_size, ref.offset, ref.stored_size)
            if identity in known and not headers_in(page, number):
                continue
            try:
                raw = self._reader.fresh_frame(ref)
                check_headers(self._reader, page, number, raw)
            except CorruptError as error:
                failure = failure or error
                paths += _paths_of(page, number)
                continue
            if identity not in known:
                known.add(identity)
                self._frames += 1
                self.bytes += len(raw)
                self.spent_bytes += len(raw)
        if failure is not None:
            self._report(pack, failure, paths)

    def _frames_in(self, pack: bytes, pages: Sequence[int]) -> Iterator[tuple[int, int]]:
        """The frames, by the number of the page and theirs in it, that lie in ``pack``."""
        for page_number in pages:
            try:
                page = self._reader.page(page_number)
            except CorruptError:
                continue  # which has been reported as the page's own damage
            packs = split_digests(page.frames.packs)
            for number, pack_number in enumerate(page.frames.pack_numbers):
                if packs[pack_number] == pack:
                    yield page_number, number

    def _paths_in(self, pack: bytes, pages: Sequence[int]) -> list[bytes]:
        paths: list[bytes] = []
        for page_number, number in self._frames_in(pack, pages):
            paths += _paths_of(self._reader.page(page_number), number)
            if len(set(paths)) >= MAX_DAMAGED_PATHS:
                break
        return paths

    def _report(self, pack: bytes, error: CorruptError, paths: Sequence[bytes]) -> None:
        self._damaged_count += 1
        if len(self._damaged) >= MAX_DAMAGED:
            return
        self._damaged.append(
            Damaged(
                pack=Digest(pack.hex()),
                code="missing" if _tells_of_missing(error) else "corrupt",
                detail=error.detail,
                paths=tuple(dict.fromkeys(paths))[:MAX_DAMAGED_PATHS],
            )
        )


def _tells_of_missing(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, NotFoundError):
        error = error.__cause__
    return error is not None


def _paths_of(page: Page, number: int) -> Sequence[bytes]:
    """The entries of which a part, be it only the header, lies in frame ``number``."""
    first = bisect_right(page.starts, page.frame_starts[number]) - 1
    last = bisect_left(page.starts, page.frame_starts[number + 1])
    return page.paths[first : min(last, first + MAX_DAMAGED_PATHS)]
