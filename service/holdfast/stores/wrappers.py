"""Limits, retries and metrics for any blob store: wrappers with its interface, not its options.

They are stacked by the composition root. Measuring outside of retrying counts what a caller saw;
inside, what the store did. A limit on concurrency belongs inside of retrying, so that an operation
that waits for its next attempt holds no slot.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeVar

import stamina
from prometheus_client import Counter, Histogram

from holdfast.errors import (
    HoldfastError,
    InternalError,
    OutcomeUnknownError,
    QuotaExceededError,
    TooLargeError,
    UnavailableError,
)
from holdfast.stores.forwarding import (
    ForwardingBlobStore,
    ForwardingStagedBlob,
    Repeat,
    closing,
)
from holdfast.transport.deadline import seconds_left

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

T = TypeVar("T")

_LONGEST_WAIT_SECONDS: Final = 0.5


class LimitedBlobStore(ForwardingBlobStore):
    """Refuses blobs over ``max_blob_bytes``, and does ``max_concurrent`` operations at once.

    Further operations wait. A read holds a slot only while it fetches a piece: a caller that
    pauses between two pieces keeps nobody waiting, and may call the store meanwhile.
    """

    def __init__(self, inner: BlobStore, *, max_blob_bytes: int, max_concurrent: int) -> None:
        super().__init__(inner)
        self._max_blob_bytes = max_blob_bytes
        self._slots = asyncio.Semaphore(max_concurrent)

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        """See `BlobStore.put`. Raises TooLargeError."""
        with memoryview(data) as view:
            _check_size(view.nbytes, self._max_blob_bytes)
        return await super().put(digest, data, attributes)

    def stage(self, staging: str, part_size: int) -> StagedBlob:
        """See `BlobStore.stage`. A part that ends beyond the limit raises TooLargeError."""
        inner = self._inner.stage(staging, part_size)
        return _LimitedStagedBlob(self, inner, part_size, self._max_blob_bytes)

    async def _call(
        self, operation: str, repeat: Repeat, function: Callable[[], Awaitable[T]]
    ) -> T:
        async with self._slots:
            return await function()

    async def _iterate(
        self, operation: str, function: Callable[[], AsyncIterator[Buffer]]
    ) -> AsyncGenerator[Buffer]:
        async with closing(function()) as pieces:
            while True:
                async with self._slots:
                    try:
                        piece = await anext(pieces)
                    except StopAsyncIteration:
                        return
                yield piece


class _LimitedStagedBlob(ForwardingStagedBlob):
    def __init__(
        self, wrapper: LimitedBlobStore, inner: StagedBlob, part_size: int, max_blob_bytes: int
    ) -> None:
        super().__init__(wrapper, inner)
        self._part_size = part_size
        self._max_blob_bytes = max_blob_bytes

    async def write(self, part: int, data: Buffer) -> None:
        with memoryview(data) as view:
            _check_size(part * self._part_size + view.nbytes, self._max_blob_bytes)
        await super().write(part, data)

    async def commit(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        *,
        claim: Claiming | None = None,
    ) -> Stored:
        _check_size(size, self._max_blob_bytes)
        return await super().commit(digest, size, attributes, claim=claim)


def _check_size(size: int, max_blob_bytes: int) -> None:
    if size > max_blob_bytes:
        msg = f"a blob is at most {max_blob_bytes} bytes here"
        raise TooLargeError(msg)


class RetryingBlobStore(ForwardingBlobStore):
    """Repeats what failed because the store could not be reached, where nobody can tell.

    Up to ``attempts`` (2 or more) times in all, within ``timeout_seconds``, with growing, jittered
    waits that start near ``first_wait_seconds``, and never past the deadline of the request that
    is served. An operation whose outcome is unknown is repeated only if the repeat gives the answer
    of the first (`Repeat`); writing a part never is. A read is repeated until its first piece has
    been given.
    """

    def __init__(
        self,
        inner: BlobStore,
        *,
        attempts: int,
        timeout_seconds: float,
        first_wait_seconds: float,
    ) -> None:
        super().__init__(inner)
        self._first_wait_seconds = first_wait_seconds
        self._attempts = attempts
        self._timeout_seconds = timeout_seconds

    def _retrying(self, failure: HoldfastError) -> stamina.AsyncRetryingCaller:
        """What repeats after ``failure``, which it raises if there is no time for that."""
        left = seconds_left(self._timeout_seconds + _LONGEST_WAIT_SECONDS) - _LONGEST_WAIT_SECONDS
        if left <= 0:
            raise failure
        return stamina.AsyncRetryingCaller(
            attempts=self._attempts - 1,
            timeout=left,
            wait_initial=self._first_wait_seconds,
            wait_max=_LONGEST_WAIT_SECONDS,
            wait_jitter=self._first_wait_seconds,
        )

    async def _call(
        self, operation: str, repeat: Repeat, function: Callable[[], Awaitable[T]]
    ) -> T:
        if repeat is Repeat.NEVER:
            return await function()
        try:
            # The first attempt is made without the machinery, which takes as long as a small read.
            return await function()
        except _REPEATED[repeat] as error:
            first = error
        retrying = self._retrying(first)
        await asyncio.sleep(self._first_wait_seconds)
        return await self._repeat(retrying, _REPEATED[repeat], function, first)

    async def _repeat(
        self,
        retrying: stamina.AsyncRetryingCaller,
        repeated: tuple[type[HoldfastError], ...],
        function: Callable[[], Awaitable[T]],
        first: HoldfastError,
    ) -> T:
        """What was unknown once stays so, even if the last attempt surely changed nothing."""
        failures = [first]

        async def attempt() -> T:
            try:
                return await function()
            except repeated as error:
                failures.append(error)
                raise

        try:
            return await retrying(repeated, attempt)
        except (UnavailableError, QuotaExceededError) as error:
            unknown = [failure for failure in failures if isinstance(failure, OutcomeUnknownError)]
            if not unknown:
                raise
            raise OutcomeUnknownError(unknown[-1].detail) from error

    async def _iterate(
        self, operation: str, function: Callable[[], AsyncIterator[Buffer]]
    ) -> AsyncGenerator[Buffer]:
        try:
            first, pieces = await _begin(function)
        except UnavailableError as error:
            retrying = self._retrying(error)
            await asyncio.sleep(self._first_wait_seconds)
            first, pieces = await retrying(UnavailableError, _begin, function)
        async with closing(pieces):
            if first is not None:
                yield first
                async for piece in pieces:
                    yield piece


_REPEATED: Final = {
    Repeat.IF_NOT_APPLIED: (UnavailableError,),
    Repeat.ALWAYS: (UnavailableError, OutcomeUnknownError),
}


async def _begin(
    function: Callable[[], AsyncIterator[Buffer]],
) -> tuple[Buffer | None, AsyncIterator[Buffer]]:
    """The first piece, None if there is none, and the iterator of those that follow."""
    pieces = function()
    try:
        return await anext(pieces, None), pieces
    except BaseException:
        async with closing(pieces):
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMetrics:
    """What is counted. Durations are seconds; of a read, those spent waiting for the store."""

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
                "How long operations on the blob store take.",
                ["operation"],
                registry=registry,
            ),
        )


class MeasuredBlobStore(ForwardingBlobStore):
    """Counts operations, errors by code, bytes and seconds into ``metrics``.

    ``monotonic`` gives seconds that only rise.
    """

    def __init__(
        self, inner: BlobStore, metrics: StoreMetrics, monotonic: Callable[[], float]
    ) -> None:
        super().__init__(inner)
        self._metrics = metrics
        self._monotonic = monotonic
        self._read = metrics.transferred.labels("read")
        self._written = metrics.transferred.labels("written")

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        """See `BlobStore.put`. Bytes that were stored already are not counted."""
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
        """See `BlobStore.stage`. Bytes are counted part by part."""
        return _MeasuredStagedBlob(self, self._inner.stage(staging, part_size), self._written)

    async def _call(
        self, operation: str, repeat: Repeat, function: Callable[[], Awaitable[T]]
    ) -> T:
        started = self._monotonic()
        try:
            return await self._counting_errors(operation, function)
        finally:
            self._ended(operation, self._monotonic() - started)

    async def _iterate(
        self, operation: str, function: Callable[[], AsyncIterator[Buffer]]
    ) -> AsyncGenerator[Buffer]:
        seconds = 0.0
        try:
            async with closing(function()) as pieces:
                while True:
                    started = self._monotonic()
                    try:
                        piece = await self._counting_errors(operation, lambda: anext(pieces, None))
                    finally:
                        seconds += self._monotonic() - started
                    if piece is None:
                        return
                    with memoryview(piece) as view:
                        self._read.inc(view.nbytes)
                    yield piece
        finally:
            self._ended(operation, seconds)

    async def _counting_errors(self, operation: str, function: Callable[[], Awaitable[T]]) -> T:
        try:
            return await function()
        except HoldfastError as error:
            self._metrics.errors.labels(operation, error.code).inc()
            raise
        except Exception:
            self._metrics.errors.labels(operation, InternalError.code).inc()
            raise

    def _ended(self, operation: str, seconds: float) -> None:
        self._metrics.operations.labels(operation).inc()
        self._metrics.seconds.labels(operation).observe(seconds)


class _MeasuredStagedBlob(ForwardingStagedBlob):
    def __init__(self, wrapper: MeasuredBlobStore, inner: StagedBlob, written: Counter) -> None:
        super().__init__(wrapper, inner)
        self._written = written

    async def write(self, part: int, data: Buffer) -> None:
        await super().write(part, data)
        with memoryview(data) as view:
            self._written.inc(view.nbytes)
