"""Manifests that clients commit, looked through before their snapshots are ``ok``.

A client may have put anything. Its root is read, and every page of it, in a thread and one at a
time, which bounds the memory of all commits together. A manifest found sound stays so, for it
is named by its digest; a commit that is repeated, for it took longer than its caller waits, joins
the look that is under way, or finds its result.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Final

from holdfast.archive.read.check import check_manifest
from holdfast.archive.read.snapshot import ReaderLimits, SnapshotReader
from holdfast.deadline import shared_task
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError, NotFoundError
from holdfast.form.root import CLIENTS_ROOT
from holdfast.repository.snapshots.needs import Needed
from holdfast.repository.snapshots.reading.read_threads import ReadThreads
from holdfast.repository.snapshots.record import Totals, totals_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from concurrent.futures import Executor

    from holdfast.archive.ports import Pack, PackStore
    from holdfast.domain.digest import Digest
    from holdfast.repository.snapshots.packs import Packs
    from holdfast.repository.snapshots.reading.reads import ClosablePackStore

MAX_MISSING: Final = 1000
"""Digests of missing blobs in one answer to a commit."""

KEPT: Final = 64
"""Manifests that were found sound and are remembered as such, with their totals."""

CACHE_BYTES: Final = 8 * MIB
LIMITS: Final = ReaderLimits(
    pack_cache_bytes=2 * MIB, frame_cache_bytes=1, page_cache_bytes=4 * MIB
)


class UnreadableError(Exception):
    """Blobs that a manifest consists of are not stored, or not as they were put."""

    def __init__(self, digests: Sequence[Digest]) -> None:
        """Their digests."""
        super().__init__(f"{len(digests)} blobs of the manifest cannot be read")
        self.digests = digests


class Manifests:
    """Looks through manifests."""

    def __init__(
        self, packs: Packs, open_store: Callable[[int], ClosablePackStore], executor: Executor
    ) -> None:
        """``open_store`` gives the packs with a cache of so many bytes."""
        self._packs = packs
        self._open_store = open_store
        self._threads = ReadThreads(executor)
        self._one = asyncio.Semaphore(1)
        self._looks: dict[Digest, asyncio.Task[Totals]] = {}
        self._sound: OrderedDict[Digest, Totals] = OrderedDict()

    async def look_through(
        self, root: Digest, *, every_seconds: float, beat: Callable[[], Awaitable[None]]
    ) -> Totals:
        """The totals of the manifest with this root, once all of it was read.

        ``beat`` is awaited every so often meanwhile. Raises CorruptError (it is no sound
        manifest), UnreadableError, TooLargeError, and what ``beat`` raises.
        """
        if root in self._sound:
            self._sound.move_to_end(root)
            return self._sound[root]
        look = self._looks.get(root)
        if look is None:
            look = self._looks[root] = shared_task(self._look(root))
        return await _beating(look, every_seconds, beat)

    @asynccontextmanager
    async def opened(
        self, root: Digest, *, every_seconds: float, beat: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[SnapshotReader]:
        """A manifest that was looked through, to be read once more, in its turn.

        ``beat`` is awaited as in `look_through`. Raises CorruptError, UnreadableError (it was
        stored when it was looked through, and is not any more), TooLargeError.
        """
        turn = asyncio.ensure_future(self._one.acquire())
        try:
            await _beating(turn, every_seconds, beat)
            with closing(self._open_store(CACHE_BYTES)) as store:
                noting = _Noting(store)
                try:
                    yield await self._open(noting, root)
                except CorruptError as error:
                    if not noting.wanting:
                        raise
                    self._sound.pop(root, None)
                    raise UnreadableError([*noting.wanting]) from error
        finally:
            if not turn.cancel() and not turn.cancelled():
                self._one.release()

    async def _look(self, root: Digest) -> Totals:
        try:
            async with self._one:
                sound = await self._read(root)
        finally:
            self._looks.pop(root, None)
        self._sound[root] = sound
        if len(self._sound) > KEPT:
            self._sound.popitem(last=False)
        return sound

    async def _read(self, root: Digest) -> Totals:
        store = self._open_store(CACHE_BYTES)
        noting = _Noting(store)
        try:
            reader = await self._open(noting, root)
            needed = Needed(reader.root_blobs, reader.root.pieces.packs)
            missing = await self._packs.missing(needed, limit=MAX_MISSING)
            if missing:
                raise UnreadableError(missing)
            await self._threads.run(lambda stop: check_manifest(reader, stop))
            return totals_of(reader.root, added=0)
        except CorruptError as error:
            if noting.wanting:
                raise UnreadableError([*noting.wanting]) from error
            raise
        finally:
            store.close()

    async def _open(self, store: PackStore, root: Digest) -> SnapshotReader:
        return await self._threads.run(
            lambda _: SnapshotReader(store, root, limits=LIMITS, root_limits=CLIENTS_ROOT)
        )


async def _beating[T](
    task: asyncio.Future[T], every_seconds: float, beat: Callable[[], Awaitable[None]]
) -> T:
    """The result of ``task``; ``beat`` is awaited every so often until it is there."""
    while not task.done():
        await asyncio.wait([task], timeout=every_seconds)
        if not task.done():
            await beat()
    return task.result()


class _Noting:
    """A pack store that notes what could not be read, or was partial: bytes may be missing."""

    def __init__(self, store: PackStore) -> None:
        self._store = store
        self.wanting: dict[Digest, None] = {}
        self.prefetch = store.prefetch
        self.put = store.put
        self.flush = store.flush

    def get(self, digest: Digest) -> Pack:
        return self._noted(self._store.get, digest)

    def get_latest(self, digest: Digest) -> Pack:
        return self._noted(self._store.get_latest, digest)

    def _noted(self, get: Callable[[Digest], Pack], digest: Digest) -> Pack:
        try:
            pack = get(digest)
        except (NotFoundError, CorruptError):
            self.wanting[digest] = None
            raise
        if not isinstance(pack, bytes):
            self.wanting[digest] = None
        return pack
