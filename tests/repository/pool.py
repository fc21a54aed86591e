"""Workers without a connection: upload services that share stores, and time that a test moves.

A worker may be doomed: at a call of its choosing to a store it stops, as kill -9 would stop it.
Nothing it awaits ever returns, so what it had not said by then is never said. Or it is paused
there, and goes on when it is woken, however much has happened meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import NotFoundError, OutcomeUnknownError, UnavailableError
from holdfast.repository.names.bytes import NamedBytes
from holdfast.repository.names.past import PastWrites
from holdfast.repository.names.rules import NameRules
from holdfast.repository.names.targets import NameTargets
from holdfast.repository.names.writes import NameWrites
from holdfast.repository.uploads.owned import Opened, UploadLimits
from holdfast.repository.uploads.record import Result
from holdfast.repository.uploads.uploads import UploadService
from holdfast.stores.memory import MemoryBlobStore, MemoryRecordStore
from holdfast.stores.ports import BlobInfo
from holdfast.stores.record_ports import CHANGES_LIMIT
from holdfast.stores.wrappers.forwarding import ForwardingBlobStore, ForwardingStagedBlob, Repeat

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Buffer,
        Callable,
        Coroutine,
        Sequence,
    )
    from typing import Any

    from holdfast.repository.targets import Targets
    from holdfast.sources import Sources
    from holdfast.stores.ports import Attributes, BlobStore, Claiming, StagedBlob, Stored
    from holdfast.stores.record_ports import Change, Changes, Extent, Record, RecordStore

    Committing = Callable[[str, Claiming, Callable[..., Awaitable[Stored]]], Awaitable[Stored]]

T = TypeVar("T")

START: Final = datetime(2026, 3, 1, tzinfo=UTC)
PART_BYTES: Final = 1024
TYPE: Final = "text/plain"


class Time:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    @property
    def sources(self) -> Sources:
        """Those of a process, at this time."""
        return replace(SOURCES, clock=self.clock, monotonic=self.monotonic)

    def monotonic(self) -> float:
        """Seconds that only rise."""
        return self.seconds

    def clock(self) -> datetime:
        """The wall clock."""
        return START + timedelta(seconds=self.seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


class Doom:
    """Stops a worker at its ``call``-th call to a store, before it is done or just after."""

    def __init__(self, call: int, *, applied: bool) -> None:
        self.dead = asyncio.Event()
        self._buried = asyncio.Event()
        self._calls = itertools.count(1)
        self._call = call
        self._applied = applied

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Do one call to a store, if the worker lives to see it."""
        number = next(self._calls)
        if self.dead.is_set() or (number == self._call and not self._applied):
            await self.die()
        try:
            return await function()
        finally:
            if self.dead.is_set() or number == self._call:
                await self.die()

    async def die(self) -> None:
        """Never return."""
        self.dead.set()
        await self._buried.wait()
        raise asyncio.CancelledError

    def bury(self) -> None:
        """End the tasks of the dead worker. None of them reaches a store any more."""
        self._buried.set()


class Pause:
    """Stops a worker at its ``call``-th call to a store, as SIGSTOP would, until it is woken.

    Before the call; or ``after`` it was done, when its answer may be ``lost`` as well.
    """

    def __init__(self, call: int, *, after: bool = False, lost: bool = False) -> None:
        self.reached = asyncio.Event()
        self._calls = itertools.count(1)
        self._call = call
        self._after = after or lost
        self._lost = lost
        self._woken = asyncio.Event()

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Do one call to a store, once the worker is awake."""
        is_it = next(self._calls) == self._call
        if is_it and not self._after:
            self.reached.set()
        await self._awake()
        try:
            result = await function()
            if is_it and self._after:
                self.reached.set()
        finally:
            await self._awake()
        if is_it and self._lost:
            raise OutcomeUnknownError
        return result

    async def _awake(self) -> None:
        if self.reached.is_set():
            await self._woken.wait()

    def wake(self) -> None:
        """Let the worker go on."""
        self._woken.set()


class BucketBlobStore(MemoryBlobStore):
    """As a bucket is where memory is kinder.

    Chunks that are removed are missing in their blob, chunks that are not there are not noticed
    when they become one, and a replica that ``lags`` tells of blobs as they were then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._then: dict[Digest, BlobInfo] | None = None

    def lag(self) -> None:
        """From here on the replica learns of nothing more."""
        self._then = {digest: blob.info for digest, blob in self._blobs.items()}

    async def stat(self, digest: Digest, *, sure: bool = False, partial: bool = False) -> BlobInfo:
        """The replica's record, unless it is to be sure. That there is none the leader says."""
        info = None if sure else (self._then or {}).get(digest)
        return info if info is not None else await super().stat(digest, sure=sure, partial=partial)

    async def discard_staged(self, staging: str) -> None:
        """Whatever is made of them."""
        await super().discard_staged(staging)
        for blob in self._blobs.values():
            if blob.info.generation == staging:
                blob.data = b""

    def _joined(self, staging: str, digest: Digest, size: int) -> bytes:
        parts = self._staged.get(staging, {})
        return b"".join(parts[part] for part in sorted(parts))


class CommitsAs(ForwardingBlobStore):
    """Parts become a blob as ``committing`` has it: of their staging, a claim, and what does it."""

    def __init__(self, committing: Committing, inner: BlobStore) -> None:
        super().__init__(inner)
        self.committing = committing

    def stage(self, staging: str, part_size: int) -> StagedBlob:
        """See `BlobStore.stage`."""
        return _StagedAs(self, staging, self._inner.stage(staging, part_size))


class _StagedAs(ForwardingStagedBlob):
    def __init__(self, store: CommitsAs, staging: str, inner: StagedBlob) -> None:
        super().__init__(store, inner)
        self._committing = partial(store.committing, staging)

    async def commit(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        *,
        claim: Claiming | None = None,
        likely_new: bool = False,
    ) -> Stored:
        del likely_new
        assert claim is not None
        return await self._committing(claim, partial(self._inner.commit, digest, size, attributes))


class Holdup(Protocol):
    """Something that may stop a worker at a call to a store."""

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Do one call, if and when the worker may."""
        ...


class DoomedBlobStore(ForwardingBlobStore):
    """The blob store, as a doomed worker sees it."""

    def __init__(self, inner: BlobStore, doom: Holdup) -> None:
        super().__init__(inner)
        self._doom = doom

    async def _call(
        self, operation: str, repeat: Repeat, function: Callable[[], Awaitable[T]]
    ) -> T:
        return await self._doom.run(function)

    async def _iterate(
        self, operation: str, function: Callable[[], AsyncIterator[Buffer]]
    ) -> AsyncGenerator[Buffer]:
        async for piece in function():
            await self._doom.run(_nothing)
            yield piece


class DoomedRecordStore:
    """The record store, as a doomed worker sees it."""

    def __init__(self, inner: RecordStore, doom: Holdup) -> None:
        self._inner = inner
        self._doom = doom

    async def get(self, key: str, *, sure: bool = False) -> Record:
        """See `RecordStore.get`."""
        return await self._doom.run(lambda: self._inner.get(key, sure=sure))

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expected: int,
        ttl: timedelta | None = None,
        grave: bool = False,
    ) -> int:
        """See `RecordStore.put`."""
        return await self._write(
            lambda: self._inner.put(key, value, expected=expected, ttl=ttl, grave=grave)
        )

    async def delete(self, key: str, *, expected: int) -> None:
        """See `RecordStore.delete`."""
        await self._doom.run(lambda: self._inner.delete(key, expected=expected))

    async def batch(self, changes: Sequence[Change]) -> list[int]:
        """See `RecordStore.batch`."""
        return await self._write(lambda: self._inner.batch(changes))

    async def _write(self, function: Callable[[], Awaitable[T]]) -> T:
        return await self._doom.run(function)

    async def get_many(self, keys: Sequence[str]) -> list[Record]:
        """See `RecordStore.get_many`."""
        return await self._doom.run(lambda: self._inner.get_many(keys))

    async def list_keys(self, prefix: str) -> list[str]:
        """See `RecordStore.list_keys`."""
        return await self._doom.run(lambda: self._inner.list_keys(prefix))

    async def list_records(self, prefix: str) -> AsyncIterator[Record]:
        """See `RecordStore.list_records`."""
        async for record in self._inner.list_records(prefix):
            await self._doom.run(_nothing)
            yield record

    async def extent(self) -> Extent:
        """See `RecordStore.extent`."""
        return await self._doom.run(self._inner.extent)

    async def count(self, prefix: str) -> int:
        """See `RecordStore.count`."""
        return await self._doom.run(lambda: self._inner.count(prefix))

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> Changes:
        """See `RecordStore.changes`."""
        return await self._doom.run(lambda: self._inner.changes(after, limit=limit))

    async def check(self) -> None:
        """See `RecordStore.check`."""
        await self._doom.run(self._inner.check)

    async def aclose(self) -> None:
        """See `RecordStore.aclose`."""
        await self._inner.aclose()


def name_targets(
    worker: str, blobs: BlobStore, records: RecordStore, sources: Sources
) -> NameTargets:
    """The names that uploads of a worker may be for, which lie in ``records``."""
    rules = NameRules(records, monotonic=sources.monotonic)
    past = PastWrites(records, sources.clock)
    writes = NameWrites(records, rules, past, worker=worker, sources=sources)
    return NameTargets(writes, NamedBytes(blobs, sources), sources)


class Pool:
    """The stores that the workers share."""

    def __init__(self) -> None:
        self.time = Time()
        self.blobs = BucketBlobStore()
        self.records = MemoryRecordStore(self.time.monotonic)
        self._ids: list[str] = []
        self._workers = itertools.count(1)

    def worker(
        self,
        name: str,
        *,
        doom: Holdup | None = None,
        limits: UploadLimits | None = None,
        blobs: BlobStore | None = None,
        records: RecordStore | None = None,
        targets: Targets | None = None,
    ) -> UploadService:
        """A worker that has just started: it knows nothing but the stores.

        Every id that it makes up starts with its number, in four digits: 1 for the first worker.
        """
        number = next(self._workers)

        def new_id() -> str:
            self._ids.append(f"{number:04d}{len(self._ids) + 1:018d}")
            return self._ids[-1]

        blobs = blobs or self.blobs
        records = records or self.records
        if doom is not None:
            blobs, records = DoomedBlobStore(blobs, doom), DoomedRecordStore(records, doom)
        sources = replace(self.time.sources, new_id=new_id)
        return UploadService(
            blobs,
            records,
            owner=name,
            part_size=PART_BYTES,
            sources=sources,
            limits=limits or UploadLimits(),
            targets=targets or name_targets(name, blobs, records, sources),
        )

    async def leftovers(self) -> dict[str, int]:
        """Parts that lie around and are no blob's: how many under which id."""
        found = {}
        for staging in self._ids:
            parts = [part async for part in self.blobs.staged_parts(staging)]
            if parts:
                found[staging] = len(parts)
        return found

    async def stored(self) -> dict[Digest, bytes]:
        """Every blob, read back."""
        listing = await self.blobs.list_blobs(prefix="", cursor=None, limit=1000)
        assert listing.cursor is None
        infos = [entry for entry in listing.entries if isinstance(entry, BlobInfo)]
        return {info.digest: await self.blobs.get(info) for info in infos}


async def lives(work: Coroutine[Any, Any, T], doom: Doom) -> T | None:
    """The result of ``work``, or None when its worker died over it."""
    working = asyncio.create_task(work)
    death = asyncio.create_task(doom.dead.wait())
    await asyncio.wait({working, death}, return_when=asyncio.FIRST_COMPLETED)
    death.cancel()
    if doom.dead.is_set():
        doom.bury()
        await asyncio.wait({working})
        return None
    return await working


async def open_upload(
    worker: UploadService,
    *,
    size: int | None = None,
    digest: Digest | None = None,
    op_id: str | None = None,
) -> Opened:
    """An upload that takes parts."""
    opened = await worker.open(size=size, digest=digest, type=TYPE, op_id=op_id)
    assert isinstance(opened, Opened)
    return opened


def parts_of(data: bytes) -> list[bytes]:
    """``data`` as the parts that an upload takes."""
    return [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]


async def send(worker: UploadService, upload: str, data: bytes, *, start: int = 0) -> None:
    """Send every part from ``start`` on, one after the other."""
    for number, part in enumerate(parts_of(data)):
        if number >= start:
            assert await worker.part(upload, number, part) == number


async def finish(worker: UploadService, upload: str, data: bytes) -> Result:
    """End the upload of ``data``."""
    return await worker.final(upload, len(parts_of(data)), digest_of(data))


async def resume(pool: Pool, worker: UploadService, upload: str) -> Opened | Result:
    """Have ``worker`` take over, asking again for as long as it says that another is at it."""
    for _ in range(60):
        try:
            return await worker.resume(upload)
        except UnavailableError:
            pool.time.advance(1)
    raise AssertionError("the upload is never taken over")


async def carry_on(pool: Pool, worker: UploadService, upload: str, data: bytes) -> Result:
    """Do as a client that lost its worker: resume, send the rest, end."""
    state = await resume(pool, worker, upload)
    if isinstance(state, Result):
        return state
    await send(worker, upload, data, start=state.next_part)
    return await finish(worker, upload, data)


async def put_anew(pool: Pool, worker: UploadService, data: bytes, op_id: str) -> Result:
    """Do as a client that was not told its upload: open it again, by its ``Op-Id``."""
    for _ in range(60):
        try:
            state = await worker.open(size=None, digest=None, type=TYPE, op_id=op_id)
            break
        except UnavailableError:
            pool.time.advance(1)
    else:
        raise AssertionError("the upload is never opened")
    if isinstance(state, Result):
        return state
    await send(worker, state.upload, data, start=state.next_part)
    return await finish(worker, state.upload, data)


async def is_stored(pool: Pool, digest: Digest) -> bool:
    """Whether the blob is there."""
    try:
        await pool.blobs.stat(digest)
    except NotFoundError:
        return False
    return True


async def _nothing() -> None:
    """A call of which only the moment counts."""
