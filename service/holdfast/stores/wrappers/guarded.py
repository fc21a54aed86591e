"""Limits, retries and metrics for any blob store: a wrapper with its interface, not its options.

One wrapper for all three: a small read takes hardly longer than what several of them would add.
Metrics count what a caller saw. An operation that waits for its next attempt holds no slot.

Why: docs/decisions.md, "What wraps a store".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from prometheus_client import Counter, Histogram

from holdfast.errors import (
    HoldfastError,
    InternalError,
    OutcomeUnknownError,
    QuotaExceededError,
    TooLargeError,
    UnavailableError,
)
from holdfast.stores.wrappers.forwarding import (
    ForwardingBlobStore,
    ForwardingStagedBlob,
    Repeat,
    closing,
)
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Buffer, Callable

    from prometheus_client import CollectorRegistry

    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import (
        Attributes,
        BlobInfo,
        BlobStore,
        Claiming,
        Fetched,
        StagedBlob,
        Stored,
    )

_LONGEST_WAIT_SECONDS: Final = 0.5
_REPEATED: Final[dict[Repeat, tuple[type[HoldfastError], ...]]] = {
    Repeat.NEVER: (),
    Repeat.IF_NOT_APPLIED: (UnavailableError,),
    Repeat.ALWAYS: (UnavailableError, OutcomeUnknownError),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Blobs over ``max_blob_bytes`` are refused; ``max_concurrent`` operations are done at once.

    ``when_full`` is said to who meets a full store: when there is room again.
    """

    max_blob_bytes: int
    max_concurrent: int
    when_full: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Retries while a store cannot be reached.

    Up to ``attempts`` times in all, within ``timeout_seconds``, with growing, jittered waits that
    start near ``first_wait_seconds``, and never past the deadline of the request that is served.
    """

    attempts: int
    timeout_seconds: float
    first_wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMetrics:
    """The metrics. Durations are seconds; of a read, those spent waiting for the store."""

    operations: Counter
    errors: Counter
    transferred: Counter
    seconds: Histogram

    @classmethod
    def register(cls, registry: CollectorRegistry) -> Self:
        """The metrics under the names that the shipped dashboards use."""
        return cls(
            operations=Counter(
                "holdfast_store_operations",
                "Operations on the blob store that have ended.",
                ["operation"],
                registry=registry,
            ),
            errors=Counter(
                "holdfast_store_errors",
                "Operations on the blob store that failed, by error code.",
                ["operation", "code"],
                registry=registry,
            ),
            transferred=Counter(
                "holdfast_store_bytes",
                "Bytes of blobs written to and read from the store.",
                ["direction"],
                registry=registry,
            ),
            seconds=Histogram(
                "holdfast_store_seconds",
                "Seconds that operations on the blob store take.",
                ["operation"],
                registry=registry,
            ),
        )


class GuardedBlobStore(ForwardingBlobStore):
    """A store that is asked within limits, asked again where nobody can tell, and counted.

    Further operations than may be done at once wait. A read holds a slot only while it fetches a
    piece: a caller that pauses between two pieces keeps nobody waiting, and may call the store
    meanwhile.

    An operation whose outcome is unknown is repeated only if the repeat gives the answer of the
    first (`Repeat`); writing a part never is. A read is repeated until its first piece has been
    given.

    ``monotonic`` gives seconds that only rise.
    """

    def __init__(
        self,
        inner: BlobStore,
        *,
        limits: Limits,
        retries: Retries,
        metrics: StoreMetrics,
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__(inner)
        self._max_blob_bytes = limits.max_blob_bytes
        self._slots = asyncio.Semaphore(limits.max_concurrent)
        self._when_full = limits.when_full
        self._retries = retries
        self._metrics = metrics
        self._monotonic = monotonic
        self._ended: dict[str, tuple[Counter, Histogram]] = {}
        self._read = metrics.transferred.labels("read")
        self._written = metrics.transferred.labels("written")

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        """See `BlobStore.put`. Bytes that were stored already are not counted.

        Raises TooLargeError.
        """
        _check_size(memoryview(data).nbytes, self._max_blob_bytes)
        stored = await super().put(digest, data, attributes)
        if stored.created:
            self._written.inc(stored.info.size)
        return stored

    async def get(self, info: BlobInfo) -> bytes:
        """See `BlobStore.get`."""
        data = await super().get(info)
        self._read.inc(len(data))
        return data

    async def fetch(self, digest: Digest, at_most: int) -> Fetched:
        """See `BlobStore.fetch`."""
        fetched = await super().fetch(digest, at_most)
        if fetched.data is not None:
            self._read.inc(fetched.info.size)
        return fetched

    def stage(self, staging: str, part_size: int) -> StagedBlob:
        """See `BlobStore.stage`. A part that ends beyond the limit raises TooLargeError.

        Bytes are counted part by part.
        """
        inner = self._inner.stage(staging, part_size)
        return _GuardedStagedBlob(self, inner, part_size, self._max_blob_bytes, self._written)

    # --- operations that give one result ---

    async def _call[T](
        self, operation: str, repeat: Repeat, function: Callable[[], Awaitable[T]]
    ) -> T:
        started = self._monotonic()
        try:
            # The first attempt is made without the machinery, which takes as long as a small read.
            try:
                return await self._in_slot(function)
            except _REPEATED[repeat] as error:
                first = error
            return await self._call_again(_REPEATED[repeat], lambda: self._in_slot(function), first)
        except QuotaExceededError as error:
            self._count_error(operation, error)
            if not self._when_full:
                raise
            raise QuotaExceededError(f"{error.detail}: {self._when_full}") from error
        except Exception as error:
            self._count_error(operation, error)
            raise
        finally:
            self._count_end(operation, self._monotonic() - started)

    async def _call_again[T](
        self,
        repeated: tuple[type[HoldfastError], ...],
        function: Callable[[], Awaitable[T]],
        failure: HoldfastError,
    ) -> T:
        """An outcome unknown once stays so, even if the last attempt surely changed nothing."""
        retries = self._retries
        backoff = Backoff(
            retries.first_wait_seconds,
            _LONGEST_WAIT_SECONDS,
            within_seconds=retries.timeout_seconds,
        )
        unknown: HoldfastError | None = None
        for _ in range(retries.attempts - 1):
            if isinstance(failure, OutcomeUnknownError):
                unknown = failure
            if not await backoff.wait():
                break
            try:
                return await function()
            except repeated as error:
                failure = error
            except QuotaExceededError as error:
                failure = error
                break
        if unknown and isinstance(failure, UnavailableError | QuotaExceededError):
            raise unknown from failure
        raise failure

    async def _in_slot[T](self, function: Callable[[], Awaitable[T]]) -> T:
        async with self._slots:
            return await function()

    # --- operations that give one piece after another ---

    async def _iterate(
        self, operation: str, function: Callable[[], AsyncIterator[Buffer]]
    ) -> AsyncGenerator[Buffer]:
        seconds = 0.0
        pieces = _Pieces(function, self._slots)
        fetch: Callable[[], Awaitable[Buffer | None]] = partial(self._first, pieces)
        try:
            while True:
                started = self._monotonic()
                try:
                    piece = await fetch()
                except Exception as error:
                    self._count_error(operation, error)
                    raise
                finally:
                    seconds += self._monotonic() - started
                if piece is None:
                    return
                with memoryview(piece) as view:
                    self._read.inc(view.nbytes)
                yield piece
                fetch = pieces.next
        finally:
            self._count_end(operation, seconds)
            await pieces.aclose()

    async def _first(self, pieces: _Pieces) -> Buffer | None:
        try:
            return await pieces.next()
        except UnavailableError as error:
            return await self._call_again((UnavailableError,), pieces.begin_again, error)

    # --- counting ---

    def _count_error(self, operation: str, error: Exception) -> None:
        code = error.code if isinstance(error, HoldfastError) else InternalError.code
        self._metrics.errors.labels(operation, code).inc()

    def _count_end(self, operation: str, seconds: float) -> None:
        ended = self._ended.get(operation)
        if ended is None:  # to look them up by their labels takes longer than to count
            ended = (
                self._metrics.operations.labels(operation),
                self._metrics.seconds.labels(operation),
            )
            self._ended[operation] = ended
        ended[0].inc()
        ended[1].observe(seconds)


class _GuardedStagedBlob(ForwardingStagedBlob):
    def __init__(
        self,
        wrapper: GuardedBlobStore,
        inner: StagedBlob,
        part_size: int,
        max_blob_bytes: int,
        written: Counter,
    ) -> None:
        super().__init__(wrapper, inner)
        self._part_size = part_size
        self._max_blob_bytes = max_blob_bytes
        self._written = written

    async def write(self, part: int, data: Buffer) -> None:
        with memoryview(data) as view:
            size = view.nbytes
        _check_size(part * self._part_size + size, self._max_blob_bytes)
        await super().write(part, data)
        self._written.inc(size)

    async def commit(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        *,
        claim: Claiming | None = None,
        likely_new: bool = False,
    ) -> Stored:
        _check_size(size, self._max_blob_bytes)
        return await super().commit(digest, size, attributes, claim=claim, likely_new=likely_new)


def _check_size(size: int, max_blob_bytes: int) -> None:
    if size > max_blob_bytes:
        raise TooLargeError(f"a blob is at most {max_blob_bytes} bytes here")


class _Pieces:
    """The pieces that ``function`` gives; one of ``slots`` is held while one is fetched."""

    def __init__(
        self, function: Callable[[], AsyncIterator[Buffer]], slots: asyncio.Semaphore
    ) -> None:
        self._function = function
        self._slots = slots
        self._pieces = function()

    async def next(self) -> Buffer | None:
        """The next one; None if there is none."""
        async with self._slots:
            return await anext(self._pieces, None)

    async def begin_again(self) -> Buffer | None:
        """The first of all."""
        await self.aclose()
        self._pieces = self._function()
        return await self.next()

    async def aclose(self) -> None:
        """Release what the iterator holds."""
        async with closing(self._pieces):
            pass
