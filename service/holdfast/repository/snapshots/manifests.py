"""Manifests that clients commit, looked through before their snapshots are ``ok``.

A client may have put anything. Its root is read, and every page of it, in a thread and one at a
time: that is what bounds the memory of all commits together. What was found sound stays so, for it
is named by its digest; a commit that is repeated, for it took longer than its caller waits, joins
the look that is under way, or finds its result.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.archive.read.check import check_manifest
from holdfast.archive.read.snapshot import ReaderLimits, SnapshotReader
from holdfast.deadline import look_at, outliving_task
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError, NotFoundError
from holdfast.form.root import CLIENTS_ROOT
from holdfast.repository.snapshots.needed import Needed
from holdfast.repository.snapshots.read_threads import ReadThreads
from holdfast.repository.snapshots.record import totals_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from concurrent.futures import Executor

    from holdfast.archive.ports import PackStore, Stop
    from holdfast.domain.digest import Digest
    from holdfast.repository.snapshots.packs import Packs
    from holdfast.repository.snapshots.reads import ClosablePackStore
    from holdfast.repository.snapshots.record import Totals

MAX_MISSING: Final = 1000
"""Digests of missing blobs in one answer to a commit."""

KEPT: Final = 16
"""Of manifests that were found sound, what is remembered: totals, and the digests of packs."""

MAX_KEPT_BYTES: Final = 16 * MIB
CACHE_BYTES: Final = 8 * MIB
LIMITS: Final = ReaderLimits(
    pack_cache_bytes=2 * MIB, frame_cache_bytes=1, page_cache_bytes=4 * MIB
)


@dataclass(frozen=True, slots=True)
class Sound:
    """A manifest that can be read: its totals, and every blob that the snapshot needs."""

    totals: Totals
    needed: Needed


class UnreadableError(Exception):
    """Blobs that a manifest consists of are not stored, or not as they were put."""

    def __init__(self, digests: Sequence[Digest]) -> None:
        """Which they are."""
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
        self._looks: dict[Digest, asyncio.Task[Sound]] = {}
        self._sound: OrderedDict[Digest, Sound] = OrderedDict()

    async def look_through(
        self, root: Digest, *, every_seconds: float, beat: Callable[[], Awaitable[None]]
    ) -> Sound:
        """What the manifest with this root says, once all of it was read.

        ``beat`` is awaited every so often meanwhile. Raises CorruptError (it is no sound
        manifest), UnreadableError, TooLargeError, and what ``beat`` raises.
        """
        if root in self._sound:
            self._sound.move_to_end(root)
            return self._sound[root]
        look = self._looks.get(root)
        if look is None:
            look = self._looks[root] = outliving_task(self._look(root))
            look.add_done_callback(look_at)
        while not look.done():
            await asyncio.wait([look], timeout=every_seconds)
            if not look.done():
                await beat()
        return look.result()

    async def _look(self, root: Digest) -> Sound:
        try:
            async with self._one:
                sound = await self._read(root)
        finally:
            self._looks.pop(root, None)
        self._sound[root] = sound
        while len(self._sound) > 1 and (
            len(self._sound) > KEPT
            or sum(kept.needed.size_bytes for kept in self._sound.values()) > MAX_KEPT_BYTES
        ):
            self._sound.popitem(last=False)
        return sound

    async def _read(self, root: Digest) -> Sound:
        store = self._open_store(CACHE_BYTES)
        noting = _Noting(store)

        def open_root(_: Stop) -> SnapshotReader:
            return SnapshotReader(noting, root, limits=LIMITS, root_limits=CLIENTS_ROOT)

        try:
            reader = await self._threads.run(open_root)
            needed = Needed(noting.fetched, reader.root.pieces.packs)
            missing = await self._packs.missing(needed, limit=MAX_MISSING)
            if missing:
                raise UnreadableError(missing)
            await self._threads.run(lambda stop: check_manifest(reader, stop))
            return Sound(totals_of(reader.root, added=0), needed)
        except CorruptError as error:
            if noting.unreadable:
                raise UnreadableError(noting.unreadable) from error
            raise
        finally:
            store.close()


class _Noting:
    """A pack store that notes what was asked for, and what of that could not be read."""

    def __init__(self, store: PackStore) -> None:
        self._store = store
        self.fetched: list[Digest] = []
        self.unreadable: list[Digest] = []
        self.prefetch = store.prefetch
        self.put = store.put
        self.flush = store.flush

    def get(self, digest: Digest) -> bytes:
        if len(self.fetched) <= CLIENTS_ROOT.pieces:
            self.fetched.append(digest)
        try:
            return self._store.get(digest)
        except (NotFoundError, CorruptError):
            self.unreadable.append(digest)
            raise
