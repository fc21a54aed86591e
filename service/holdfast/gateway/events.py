"""Server-sent events: the progress of a snapshot or a restore, until its end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import StreamingResponse

from holdfast.client.snapshots.wait import RecordT, wait_ended
from holdfast.errors import HoldfastError
from holdfast.protocol.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.responses import Response

    from holdfast.client import Client
    from holdfast.protocol.snapshots import SnapshotProgress

EVENT_STREAM: Final = "text/event-stream"
_QUIET_SECONDS: Final = 15.0
"""After so long a comment says that the connection lives."""

_MAX_WAITING: Final = 64
"""Events that a slow reader may have before it; older ones are dropped, for they are past."""


def progress_answer(client: Client, record: RecordT) -> Response:
    """Events ``progress``, and then one ``end`` with the record; or a ``problem``."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(client, record), media_type=EVENT_STREAM, headers=headers)


async def _events(client: Client, record: RecordT) -> AsyncGenerator[bytes]:
    progress: asyncio.Queue[SnapshotProgress] = asyncio.Queue(_MAX_WAITING)

    def tell(news: SnapshotProgress) -> None:
        if progress.full():
            progress.get_nowait()
        progress.put_nowait(news)

    ending = asyncio.create_task(wait_ended(client.requester, record, tell))
    try:
        async with aclosing(_until(ending, progress)) as told:
            async for news in told:
                yield b": still there\n\n" if news is None else event("progress", news)
        try:
            yield event("end", ending.result())
        except HoldfastError as error:
            yield event("problem", problem_of(error))
    finally:
        ending.cancel()
        with suppress(asyncio.CancelledError, HoldfastError):
            await ending


async def _until(
    ending: asyncio.Task[Any], progress: asyncio.Queue[SnapshotProgress]
) -> AsyncGenerator[SnapshotProgress | None]:
    """What comes in ``progress`` until ``ending`` is done; None when nothing came for a while."""
    while not ending.done() or not progress.empty():
        taking = asyncio.create_task(progress.get())
        try:
            done, _ = await asyncio.wait(
                [taking, ending], timeout=_QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if taking in done:
                yield taking.result()
            elif not done:
                yield None
            elif progress.empty():
                return
        finally:
            taking.cancel()


def event(name: str, message: Any) -> bytes:
    """One event, whose data is ``message`` as JSON."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(message) + b"\n\n"
