"""A snapshot as a ``.tar.zst``, put together here from the packs.

The store sends the packs straight to this connection, so no worker touches what may be gigabytes;
``snapshot.export`` gives clients in other languages the same bytes, made up by a worker. Imported
by those who need it: it loads zstd.

Why: docs/decisions.md, "The client puts exports together itself".
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Final

from holdfast.archive.read.export import ExportPlan
from holdfast.archive.read.snapshot import (
    SCATTERED_PACKS_BYTES,
    ReaderLimits,
    SnapshotReader,
)
from holdfast.client.snapshots.packs import PackTransport
from holdfast.client.snapshots.thread import in_thread
from holdfast.domain.limits import MIB

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from holdfast.archive.ports import Stop
    from holdfast.client.requests import Requester
    from holdfast.client.sources import OnBytes
    from holdfast.domain.digest import Digest

CACHE_BYTES: Final = 24 * MIB
"""Packs that are on their way."""

PIECES_AHEAD: Final = 4
"""Of at most a pack each, put together and not taken yet."""

LIMITS: Final = ReaderLimits(
    pack_cache_bytes=SCATTERED_PACKS_BYTES, frame_cache_bytes=1, page_cache_bytes=4 * MIB
)
_END: Final = memoryview(b"")


async def export_here(
    requester: Requester,
    root: Digest,
    *,
    is_ours: bool,
    offset: int,
    length: int | None,
    progress: OnBytes | None,
) -> AsyncGenerator[memoryview]:
    """Bytes ``offset`` to ``offset + length`` of the ``.tar.zst``, clipped, in order.

    ``is_ours``: a worker has made the snapshot (see ``ExportPlan``). Every pack has been checked
    against its digest. ``progress`` is told (bytes done, bytes in all). Raises CorruptError,
    UnavailableError.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[memoryview] = asyncio.Queue(PIECES_AHEAD)
    span = [0, 0]

    def hand_over(piece: memoryview) -> None:
        asyncio.run_coroutine_threadsafe(pieces.put(piece), loop).result()

    with closing(PackTransport(requester).bridged(cache_bytes=CACHE_BYTES)) as store:

        def assemble(stop: Stop) -> None:
            plan = ExportPlan(SnapshotReader(store, root, limits=LIMITS), is_ours=is_ours)
            span[0] = min(offset, plan.size)
            span[1] = plan.size if length is None else min(span[0] + length, plan.size)
            for piece in plan.read(span[0], span[1]):
                if stop():
                    return
                if piece:
                    hand_over(piece)
            hand_over(_END)

        def let_go() -> None:
            """Let the thread go, be it waiting for a pack or for room."""
            store.close()
            while not pieces.empty():
                pieces.get_nowait()

        assembling = asyncio.create_task(in_thread(assemble, on_stop=let_go))
        try:
            done = 0
            while (piece := await _next_piece(pieces, assembling)) is not _END:
                done += len(piece)
                if progress is not None:
                    progress(done, span[1] - span[0])
                yield piece
        finally:
            assembling.cancel()
            await asyncio.wait([assembling])


async def export_into(
    requester: Requester,
    root: Digest,
    write: Callable[[Sequence[memoryview]], None],
    relay: OnBytes | None,
    *,
    is_ours: bool,
    stop_seconds: float,
) -> int:
    """Have ``write`` called with all bytes in order, some parts at a time, in a thread.

    The answer is how many bytes there were.

    ``relay`` is told (bytes done, bytes in all) in the event loop. When the caller is cancelled, a
    write under way is waited for, for ``stop_seconds`` at most. Raises as ``export_here``, and what
    ``write`` raises.
    """
    loop = asyncio.get_running_loop()

    with closing(PackTransport(requester).bridged(cache_bytes=CACHE_BYTES)) as store:

        def work(stop: Stop) -> int:
            plan = ExportPlan(SnapshotReader(store, root, limits=LIMITS), is_ours=is_ours)
            done = 0
            for parts in plan.parts():
                if stop():
                    break
                write(parts)
                done += sum(map(len, parts))
                if relay is not None:
                    loop.call_soon_threadsafe(relay, done, plan.size)
            return done

        return await in_thread(work, on_stop=store.close, stop_seconds=stop_seconds)


async def _next_piece(
    pieces: asyncio.Queue[memoryview], assembling: asyncio.Task[None]
) -> memoryview:
    """The next piece, or the failure that ended the assembling."""
    if not pieces.empty():
        return pieces.get_nowait()
    taking = asyncio.create_task(pieces.get())
    try:
        await asyncio.wait([taking, assembling], return_when=asyncio.FIRST_COMPLETED)
        if taking.done():
            return taking.result()
        assembling.result()
        return await taking  # it ended well: the last ones are in the queue
    finally:
        taking.cancel()
