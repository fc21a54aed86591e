"""Server-sent events: the progress of a snapshot or a restore, until its end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, override

import msgspec
from starlette.responses import Response, StreamingResponse

from holdfast.client.snapshots.wait import RecordT, wait_ended
from holdfast.errors import HoldfastError
from holdfast.gateway.access import STILL_MAY
from holdfast.gateway.content import SlowReaderError
from holdfast.gateway.problems import HttpError, problem_body
from holdfast.protocol.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.types import Message, Send

    from holdfast.client import Client
    from holdfast.gateway.content import Readers
    from holdfast.protocol.snapshots import SnapshotProgress

EVENT_STREAM: Final = "text/event-stream"
QUIET_SECONDS: Final = 15.0
"""After so long a comment says that the connection lives."""

STILL_THERE: Final = b": still there\n\n"
"""The comment."""

_MAX_WAITING: Final = 64
"""Events that a slow reader may have before it; older ones are dropped, for they are past."""


class _Events(StreamingResponse):
    """Ends for a reader that takes nothing for ``patience_seconds``."""

    patience_seconds: float

    @override
    async def stream_response(self, send: Send) -> None:
        """Raises SlowReaderError."""

        async def sending(message: Message) -> None:
            try:
                async with asyncio.timeout(self.patience_seconds):
                    await send(message)
            except TimeoutError as error:
                raise SlowReaderError from error

        await super().stream_response(sending)


def events_answer(request: Request, events: AsyncGenerator[bytes], readers: Readers) -> Response:
    """``events`` as they come; to HEAD only that there are some.

    They end with a ``problem`` once the request would be refused, such as for a token that has
    expired; if nothing comes, within ``QUIET_SECONDS``.
    """
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        return Response(media_type=EVENT_STREAM, headers=headers)
    answer = _Events(_allowed(request, events), media_type=EVENT_STREAM, headers=headers)
    answer.patience_seconds = readers.patience_seconds
    return answer


async def _allowed(request: Request, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        async for one in events:
            try:
                await request.scope[STILL_MAY]()
            except (HoldfastError, HttpError) as error:
                yield event("problem", problem_body(error))
                return
            yield one


def progress_answer(
    request: Request, client: Client, record: RecordT, readers: Readers
) -> Response:
    """Events ``progress``, and then one ``end`` with the record; or a ``problem``."""
    return events_answer(request, _events(client, record), readers)


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
                yield STILL_THERE if news is None else event("progress", news)
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
    """Each ``progress`` until ``ending`` is done; None when there was none for a while."""
    while not ending.done() or not progress.empty():
        taking = asyncio.create_task(progress.get())
        try:
            done, _ = await asyncio.wait(
                [taking, ending], timeout=QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if taking in done:
                yield taking.result()
            elif not done:
                yield None
            elif progress.empty():
                return
        finally:
            taking.cancel()


def event(name: str, message: Any, event_id: str | None = None) -> bytes:
    """One event, whose data is ``message`` as JSON."""
    head = f"event: {name}\n" if event_id is None else f"id: {event_id}\nevent: {name}\n"
    return head.encode() + b"data: " + msgspec.json.encode(message) + b"\n\n"
