"""The client for scripts: the same calls, without ``await``.

A thread of its own runs the event loop, so it also works where a loop is already running.
"""

from __future__ import annotations

import asyncio
from typing import IO, TYPE_CHECKING, Final, Self, cast

from holdfast.client.client import DEFAULT_TIMEOUT_SECONDS, Client, connect
from holdfast.client.loop_thread import LoopThread
from holdfast.client.snapshot_sync import SyncSnapshots
from holdfast.protocol.blobs import DEFAULT_TYPE

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from holdfast.client.client import Progress
    from holdfast.client.discovery import WorkerInfo
    from holdfast.client.sources import Source
    from holdfast.protocol.blobs import BlobEntry, BlobStat, BlobStored, VerifyReport
    from holdfast.protocol.status import StoreStatus
    from holdfast.transport.options import NatsOptions


_END: Final = object()


class SyncClient:
    """See ``Client``: every method has the same arguments, result and errors."""

    def __init__(self, client: Client, thread: LoopThread) -> None:
        """Made by ``connect_sync``."""
        self._client = client
        self._thread = thread
        self.snapshots = SyncSnapshots(client.snapshots, thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and end the thread. May be repeated.

        What other threads wait for ends with an error. Does nothing in a process that was forked.
        """
        if self._thread.is_usable:
            self._thread.run(self._client.aclose())
        self._thread.close()

    def put(
        self,
        source: Source,
        *,
        type: str = DEFAULT_TYPE,  # noqa: A002  (the wire's word)
        digest: str | None = None,
        progress: Progress | None = None,
    ) -> BlobStored:
        """See ``Client.put``."""
        return self._thread.run(
            self._client.put(source, type=type, digest=digest, progress=progress)
        )

    def put_many(
        self,
        sources: Iterable[Source],
        *,
        type: str = DEFAULT_TYPE,  # noqa: A002  (the wire's word)
    ) -> Iterator[BlobStored]:
        """See ``Client.put_many``. ``sources`` are taken in other threads, one after the other."""
        return self._thread.iterate(self._client.put_many(_in_threads(sources), type=type))

    def get(
        self,
        digest: str,
        *,
        offset: int = 0,
        length: int | None = None,
        progress: Progress | None = None,
    ) -> bytes:
        """See ``Client.get``."""
        return self._thread.run(
            self._client.get(digest, offset=offset, length=length, progress=progress)
        )

    def get_to(
        self,
        digest: str,
        target: str | os.PathLike[str] | IO[bytes],
        *,
        offset: int = 0,
        length: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """See ``Client.get_to``."""
        return self._thread.run(
            self._client.get_to(digest, target, offset=offset, length=length, progress=progress)
        )

    def stream(
        self,
        digest: str,
        *,
        offset: int = 0,
        length: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[memoryview]:
        """See ``Client.stream``."""
        stream = self._client.stream(digest, offset=offset, length=length, progress=progress)
        return self._thread.iterate(stream)

    def has(self, digests: Iterable[str]) -> Sequence[str]:
        """See ``Client.has``."""
        return self._thread.run(self._client.has(digests))

    def stat(self, digest: str) -> BlobStat:
        """See ``Client.stat``."""
        return self._thread.run(self._client.stat(digest))

    def list(self, prefix: str = "") -> Iterator[BlobEntry]:
        """See ``Client.list``."""
        return self._thread.iterate(self._client.list(prefix))

    def delete(self, digest: str) -> bool:
        """See ``Client.delete``."""
        return self._thread.run(self._client.delete(digest))

    def verify(self, digest: str | None = None) -> Iterator[VerifyReport]:
        """See ``Client.verify``."""
        return self._thread.iterate(self._client.verify(digest))

    def store_status(self, *, timeout_seconds: float | None = None) -> StoreStatus:
        """See ``Client.store_status``."""
        return self._thread.run(self._client.store_status(timeout_seconds=timeout_seconds))

    def workers(self) -> Sequence[WorkerInfo]:
        """See ``Client.workers``."""
        return self._thread.run(self._client.workers())


async def _in_threads[T](items: Iterable[T]) -> AsyncIterator[T]:
    """``items``, which may block, and may even use the client that they are for."""
    iterator = iter(items)
    while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield cast("T", item)


def connect_sync(
    options: NatsOptions | None = None,
    *,
    servers: str | Sequence[str] | None = None,
    prefix: str | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    renew: Callable[[], NatsOptions] | None = None,
) -> SyncClient:
    """A synchronous client; see ``connect``."""
    thread = LoopThread()
    try:
        client = thread.run(
            connect(
                options,
                servers=servers,
                prefix=prefix,
                timeout_seconds=timeout_seconds,
                renew=renew,
            )
        )
    except BaseException:
        thread.close()
        raise
    return SyncClient(client, thread)
