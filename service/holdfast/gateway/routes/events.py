"""Server-sent events: the progress of a snapshot or a restore, until its end."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, override

import msgspec
from starlette.responses import Response, StreamingResponse

from holdfast.client.snapshots.wait import RecordT, wait_ended
from holdfast.errors import HoldfastError
from holdfast.gateway.access import STILL_MAY
from holdfast.gateway.content.answers import Readers, SlowReaderError
from holdfast.gateway.problems import HttpError, problem_body

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from starlette.requests import Request
    from starlette.types import Message, Send

    from holdfast.client import Client
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


def events_answer(
    request: Request, events: AsyncGenerator[Sequence[bytes]], readers: Readers
) -> Response:
    """``events``, as many at a time as come; to HEAD only that there are some.

    They end with a ``problem`` where they fail, and once the request would be refused, such as for
    a token that has expired; if nothing comes, within ``QUIET_SECONDS``.
    """
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        return Response(media_type=EVENT_STREAM, headers=headers)
    answer = _Events(_told(request, events), media_type=EVENT_STREAM, headers=headers)
    answer.patience_seconds = readers.patience_seconds
    return answer


async def _told(request: Request, events: AsyncGenerator[Sequence[bytes]]) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(_with_comments(events)) as batches:
            async for batch in batches:
                for one in batch:
                    await request.scope[STILL_MAY]()
                    yield one
    except (HoldfastError, HttpError) as error:
        yield event("problem", problem_body(error))


async def _with_comments(
    events: AsyncGenerator[Sequence[bytes]],
) -> AsyncGenerator[Sequence[bytes]]:
    """``events``, and a comment whenever there was none for a while."""
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait([coming], timeout=QUIET_SECONDS)
            if not done:
                yield [STILL_THERE]
                continue
            batch = coming.result()
            if batch is None:
                return
            yield batch
            coming = asyncio.ensure_future(anext(events, None))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()


def progress_answer(
    request: Request, client: Client, record: RecordT, readers: Readers
) -> Response:
    """Events ``progress``, and then one ``end`` with the record; or a ``problem``."""
    return events_answer(request, _progress(client, record), readers)


async def _progress(client: Client, record: RecordT) -> AsyncGenerator[Sequence[bytes]]:
    waiting: deque[SnapshotProgress] = deque(maxlen=_MAX_WAITING)
    moved = asyncio.Event()

    def tell(news: SnapshotProgress) -> None:
        waiting.append(news)
        moved.set()

    ending = asyncio.create_task(wait_ended(client.requester, record, tell))
    ending.add_done_callback(lambda _: moved.set())
    try:
        while waiting or not ending.done():
            while waiting:
                yield [event("progress", waiting.popleft())]
            if not ending.done():
                moved.clear()
                await moved.wait()
        yield [event("end", ending.result())]
    finally:
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)


def event(name: str, message: Any, event_id: str | None = None) -> bytes:
    """One event, whose data is ``message`` as JSON."""
    head = f"event: {name}\n" if event_id is None else f"id: {event_id}\nevent: {name}\n"
    return head.encode() + b"data: " + msgspec.json.encode(message) + b"\n\n"
