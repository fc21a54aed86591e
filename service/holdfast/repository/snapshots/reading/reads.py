"""Contents of a snapshot: lists, differences, file contents, the whole as an archive.

A snapshot never changes, so what was opened for one request serves the next. The work is done in
threads and waits for packs there; memory is bounded by the limits of the caches.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from holdfast.archive.ports import Pack, PackStore, Stop
from holdfast.archive.read.diff import PathChange, diff
from holdfast.archive.read.export import ExportPlan
from holdfast.archive.read.lru import ByteLru
from holdfast.archive.read.snapshot import (
    SCATTERED_PACKS_BYTES,
    Located,
    ReaderLimits,
    SnapshotReader,
)
from holdfast.archive.read.verify import Verified, verify
from holdfast.deadline import shared_task
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError
from holdfast.repository.blobs import Content
from holdfast.repository.snapshots.reading.content import ContentWindows, ReadableBytes
from holdfast.repository.snapshots.reading.cursors import (
    decode_change,
    decode_place,
    encode_change,
    encode_place,
    path_at,
)
from holdfast.repository.snapshots.reading.read_threads import ReadThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import Executor

    from holdfast.domain.digest import Digest
    from holdfast.form.manifest import Page

MAX_OPEN: Final = 4
"""Snapshots that are kept open, beyond those in use."""

READER_LIMITS: Final = ReaderLimits(frame_cache_bytes=2 * MIB, page_cache_bytes=6 * MIB)
READ_CACHE_BYTES: Final = 24 * MIB
"""Packs that were read ahead, for all snapshots together."""

MAX_VERIFYING: Final = 2
"""Verifications at once; others wait for their turn."""

VERIFY_CACHE_BYTES: Final = 8 * MIB
VERIFY_STEP_BYTES: Final = 32 * MIB
VERIFY_LIMITS: Final = ReaderLimits(
    pack_cache_bytes=2 * MIB, frame_cache_bytes=1, page_cache_bytes=8 * MIB
)
"""For bytes read once."""

FILE_TYPE: Final = "application/octet-stream"
EXPORT_TYPE: Final = "application/zstd"


class ClosablePackStore(PackStore, Protocol):
    """Packs, for as long as they are wanted."""

    def close(self) -> None:
        """Give up reads under way."""


@dataclass(slots=True)
class _Opened:
    """A snapshot that is open, or being opened, for all who ask for it."""

    reader: asyncio.Task[SnapshotReader]
    plans: dict[bool, ExportPlan] = field(default_factory=dict)


class SnapshotReads:
    """Reads snapshots by their roots."""

    def __init__(
        self,
        open_store: Callable[[int], ClosablePackStore],
        executor: Executor,
        *,
        max_inline_bytes: int,
    ) -> None:
        """``open_store`` gives the packs with a cache of so many bytes.

        ``executor`` runs what waits for packs. One message carries ``max_inline_bytes``.
        """
        self._open_store = open_store
        self._store = open_store(READ_CACHE_BYTES)
        self._packs: ByteLru[bytes, Pack] = ByteLru(SCATTERED_PACKS_BYTES, len)
        self._threads = ReadThreads(executor)
        self.max_inline_bytes = max_inline_bytes
        self._open: OrderedDict[Digest, _Opened] = OrderedDict()
        self._verifying = asyncio.Semaphore(MAX_VERIFYING)
        self._contents = ContentWindows(self._threads, max_inline_bytes=max_inline_bytes)

    def close(self) -> None:
        """Let threads that still read come to an end."""
        self._store.close()

    async def _reader(self, root: Digest) -> SnapshotReader:
        """The snapshot with this root, opened. Raises CorruptError, UnavailableError."""
        return await asyncio.shield(self._opened(root).reader)

    def _opened(self, root: Digest) -> _Opened:
        """The snapshot with this root: opened once, however many ask; a failure is not kept."""
        opened = self._open.get(root)
        if opened is None:
            opened = self._open[root] = _Opened(shared_task(self._read_root(root)))
        self._open.move_to_end(root)
        while len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return opened

    async def _read_root(self, root: Digest) -> SnapshotReader:
        mine = asyncio.current_task()
        try:
            return await self._threads.run(
                lambda _: SnapshotReader(self._store, root, limits=READER_LIMITS, packs=self._packs)
            )
        except BaseException:
            opened = self._open.get(root)
            if opened is not None and opened.reader is mine:
                del self._open[root]
            raise

    # --- checking ---

    async def verify(
        self, root: Digest, cursor: str | None, has_time: Callable[[], bool]
    ) -> tuple[list[Verified], str | None]:
        """Read data back for as long as ``has_time``; what was found, and where to go on.

        It reads the store itself, never what was kept of it. Raises CorruptError for a damaged
        root, InvalidError.
        """
        start = 0 if cursor is None else decode_place(cursor, root)[0]
        await self._verifying.acquire()
        store = self._open_store(VERIFY_CACHE_BYTES)

        def read(stop: Stop) -> tuple[list[Verified], int | None]:
            reader = SnapshotReader(store, root, limits=VERIFY_LIMITS)
            found: list[Verified] = []
            following: int | None = start
            while following is not None:
                step = verify(reader, start=following, max_bytes=VERIFY_STEP_BYTES, stop=stop)
                found.append(step)
                following = step.next
                if step.damaged or not has_time():
                    break
            return found, following

        with closing(store):
            # Its turn lasts until the thread has ended, even if nobody waits for that any more.
            found, following = await self._threads.run(read, on_end=self._verifying.release)
        return found, None if following is None else encode_place(root, following, 0)

    # --- lists ---

    async def files(
        self,
        root: Digest,
        under: bytes,
        cursor: str | None,
        limit: int,
        has_time: Callable[[], bool],
    ) -> tuple[list[Located], bool]:
        """Up to ``limit`` entries at and below ``under``, and whether more may follow.

        Fewer, but one, where there is no more time. Raises NotFoundError (no such path),
        InvalidError.
        """
        reader = await self._reader(root)

        def read(stop: Stop) -> tuple[list[Located], bool]:
            after = None
            if cursor is not None:
                after = path_at(reader, *decode_place(cursor, root))
            elif under:
                reader.entry(under)
            found: list[Located] = []
            for located in reader.entries(under, after):
                if len(found) == limit or (found and (stop() or not has_time())):
                    return found, True
                found.append(located)
            return found, False

        return await self._threads.run(read)

    async def changes(
        self, a: Digest, b: Digest, cursor: str | None, limit: int, has_time: Callable[[], bool]
    ) -> tuple[list[PathChange], bytes | None]:
        """Up to ``limit`` changes from ``a`` to ``b``, and the path up to which was compared.

        There are fewer, maybe none, where there is no more time; the path is behind the cursor all
        the same, and None where all was compared.
        """
        reader_a, reader_b = await self._reader(a), await self._reader(b)

        def read(stop: Stop) -> tuple[list[PathChange], bytes | None]:
            after = None
            if cursor is not None:
                side, page, index = decode_change(cursor, a, b)
                after = path_at(reader_a if side == "a" else reader_b, page, index)
            return _first(
                diff(reader_a, reader_b, behind=after, stop=lambda: stop() or not has_time()), limit
            )

        return await self._threads.run(read)

    async def cursor_after_change(self, a: Digest, b: Digest, path: bytes) -> str:
        """The cursor of the changes behind ``path``, which one of the two has."""
        reader_a, reader_b = await self._reader(a), await self._reader(b)

        def find(_: Stop) -> str:
            for side, reader in (("b", reader_b), ("a", reader_a)):
                place = reader.find(path)
                if place is not None:
                    return encode_change(a, b, side, *place)
            raise CorruptError("a path is in neither snapshot")

        return await self._threads.run(find)

    # --- content ---

    async def read(
        self,
        root: Digest,
        path: bytes,
        *,
        offset: int,
        length: int | None,
        cursor: str | None,
        wait_seconds: float,
    ) -> Content:
        """Bytes of one file. Raises NotFoundError, InvalidError (no file, a foreign cursor).

        ``wait_seconds`` is what a window may wait for its turn. Raises RateLimitedError.
        """
        reader = await self._reader(root)

        def open_file() -> ReadableBytes:
            located = reader.entry(path)
            page, index = reader.content(located.page_no, located.index)
            # Also finds out whether it is a file.
            list(reader.read_file(page, index, 0, 0))
            return ReadableBytes(
                root=root,
                size=reader.page(page).sizes[index],
                type=FILE_TYPE,
                read=lambda start, stop: reader.read_file(page, index, start, stop),
                read_ahead=lambda start, stop: reader.prefetch(
                    _packs_of(reader.page(page), index, start, stop)
                ),
            )

        return await self._contents.content(
            open_file, offset, length, cursor, wait_seconds=wait_seconds
        )

    async def export(
        self,
        root: Digest,
        *,
        is_ours: bool,
        offset: int,
        length: int | None,
        cursor: str | None,
        wait_seconds: float,
    ) -> Content:
        """Bytes of the snapshot as a ``.tar.zst``; ``wait_seconds`` as in ``read``.

        ``is_ours`` as in ``ExportPlan``.
        """
        opened = self._opened(root)
        reader = await asyncio.shield(opened.reader)
        plan = opened.plans.get(is_ours)
        if plan is None:
            plan = opened.plans[is_ours] = ExportPlan(reader, is_ours=is_ours)

        def open_export() -> ReadableBytes:
            return ReadableBytes(
                root=root,
                size=plan.size,
                type=EXPORT_TYPE,
                read=plan.read,
                # Bytes looked at are kept for a while: that is all it takes.
                read_ahead=lambda start, stop: deque(plan.read(start, stop), maxlen=0),
            )

        return await self._contents.content(
            open_export, offset, length, cursor, wait_seconds=wait_seconds
        )


def _first(
    changes: Generator[PathChange, None, bytes | None], limit: int
) -> tuple[list[PathChange], bytes | None]:
    """Up to ``limit`` changes, and the path up to which they go; None if there are no more."""
    found: list[PathChange] = []
    while True:
        try:
            change = next(changes)
        except StopIteration as end:
            reached: bytes | None = end.value
            return found, reached
        if len(found) == limit:
            return found, found[-1].path
        found.append(change)


def _packs_of(page: Page, index: int, start: int, stop: int) -> list[bytes]:
    """The packs with bytes ``start`` to ``stop`` of a plain file; of a sparse one, none."""
    if page.segments.get(index) is not None:
        return []
    begin = page.starts[index] + page.header_sizes[index]
    first = bisect_right(page.frame_starts, begin + start) - 1
    last = bisect_left(page.frame_starts, begin + stop)
    return [page.frame(number).pack for number in range(first, last)]
