"""An upload that is sent in stretches, each perhaps by another program: for gateways.

Nothing is remembered between two stretches but the upload's id. Its owner says how many bytes it
holds; what does not fill a part is kept as its tail (`PutPart`). So each stretch begins at the
exact byte at which the one before it ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import msgspec

from holdfast.client.requests import ATTEMPT_SECONDS, NotOfferedError
from holdfast.client.trace import trace_headers
from holdfast.client.upload import (
    COPY_BYTES_PER_SECOND,
    RESUME_TIMEOUTS,
    STALL_SECONDS,
    raise_failure,
    uploaded_of,
)
from holdfast.deadline import look_at
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)
from holdfast.protocol import codec
from holdfast.protocol.blobs import (
    LOOK_UPLOAD,
    PUT_PART,
    RESUME_UPLOAD,
    LookUpload,
    PartStored,
    PutPart,
    ResumeUpload,
    UploadState,
)
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from holdfast.client.requests import Requester
    from holdfast.client.upload import Uploaded

_IN_FLIGHT: Final = 8
_FIRST_WAIT_SECONDS: Final = 0.05
_MAX_WAIT_SECONDS: Final = 2.0
_RESUMABLE: Final = (UnavailableError, OutcomeUnknownError, ConflictError, RateLimitedError)
UPGRADE: Final = "workers of the pool cannot go on with uploads: upgrade all workers of the pool"


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of one part, from the offset ``start`` of the upload on."""

    start: int
    data: bytes

    @property
    def stop(self) -> int:
        return self.start + len(self.data)


class OpenedUpload:
    """An upload that goes on. One stretch of it is sent at a time, by one program."""

    def __init__(self, requester: Requester, state: UploadState) -> None:
        """``state`` is that of an upload that was just opened; else use ``find``."""
        if state.upload is None or state.part_size is None or state.offset is None:
            raise UnavailableError(UPGRADE)
        self._requester = requester
        self._state = state
        self._part_size = state.part_size
        self.id = state.upload
        self.offset = state.offset
        """Bytes that it holds, or has been sent."""

    @classmethod
    async def find(cls, requester: Requester, state: UploadState) -> Self | Uploaded:
        """The upload that ``look`` told of, once its owner, or a new one, says where it goes on.

        Raises NotFoundError, ConflictError, UnavailableError.
        """
        offset = await _kept(requester, state.part_subject or "")
        if offset is None:
            resumed = await _resumed(requester, state.upload or "", state.length or 0)
            if (uploaded := uploaded_of(resumed)) is not None:
                return uploaded
            return cls(requester, resumed)
        return cls(requester, _at(state, offset))

    async def send(self, blocks: AsyncIterator[bytes]) -> None:
        """Send all that ``blocks`` give; it is stored when this returns.

        Raises what the workers answered: then ``find`` tells how much is stored.
        """
        flying: deque[tuple[_Piece, asyncio.Task[None]]] = deque()
        seam = bytearray()
        async for block in blocks:
            seam += block
            while len(seam) >= (room := self._part_size - self.offset % self._part_size):
                await self._fly(flying, bytes(seam[:room]))
                del seam[:room]
        if seam:
            await self._fly(flying, bytes(seam))
        while flying:
            await self._land(flying)

    async def end(self) -> Uploaded:
        """Make it a blob. Raises what the workers answered."""
        parts = -(-self.offset // self._part_size)
        request = PutPart(final=parts)
        backoff = self._backoff()
        while True:
            try:
                reply = await self._ask(request, b"")
            except _RESUMABLE as error:
                if isinstance(error, ConflictError) and error.version is not None:
                    raise  # it is the name that is in the way
                await self._recover(error, backoff)
                uploaded = uploaded_of(self._state)
            else:
                uploaded = uploaded_of(reply)
            if uploaded is not None:
                return uploaded

    async def _fly(self, flying: deque[tuple[_Piece, asyncio.Task[None]]], data: bytes) -> None:
        """Send ``data`` once there is room for it."""
        while len(flying) >= _IN_FLIGHT:
            await self._land(flying)
        piece = _Piece(self.offset, data)
        self.offset = piece.stop
        task = asyncio.create_task(self._put(piece))
        task.add_done_callback(look_at)
        flying.append((piece, task))

    async def _land(self, flying: deque[tuple[_Piece, asyncio.Task[None]]]) -> None:
        """Wait until the first is stored; where it is not, send all again, one by one."""
        try:
            await flying[0][1]
        except _RESUMABLE as error:
            await asyncio.wait([task for _, task in flying])
            pieces = [piece for piece, task in flying if _failed(task)]
            flying.clear()
            await self._send_again(pieces, error)
        else:
            flying.popleft()

    async def _send_again(self, pieces: list[_Piece], failure: HoldfastError) -> None:
        backoff = self._backoff()
        while True:
            await self._recover(failure, backoff)
            held = self._state.offset or 0
            if uploaded_of(self._state) is not None or (pieces and held < pieces[0].start):
                msg = "the upload went on, or back, without us"
                raise CorruptError(msg) from failure
            try:
                for piece in pieces:
                    if piece.stop > held:
                        await self._put(piece)
            except _RESUMABLE as error:
                failure = error
            else:
                return

    async def _put(self, piece: _Piece) -> None:
        part, at = divmod(piece.start, self._part_size)
        is_whole = len(piece.data) == self._part_size
        await self._ask(PutPart(part=part, tail=None if is_whole else at), piece.data)

    async def _ask(self, request: PutPart, data: bytes) -> PartStored:
        subject = self._state.part_subject or ""
        return await _ask_owner(self._requester, subject, request, data)

    async def _recover(self, failure: HoldfastError, backoff: Backoff) -> None:
        """Have any worker own it; in the end raise ``failure``."""
        if not await backoff.wait():
            raise failure
        self._state = await _resumed(self._requester, self.id, self.offset)

    def _backoff(self) -> Backoff:
        seconds = RESUME_TIMEOUTS * self._requester.timeout_seconds
        return Backoff(_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS, within_seconds=seconds)


async def look(requester: Requester, upload: str) -> UploadState:
    """Any worker's view of an upload. Raises NotFoundError, ConflictError, UnavailableError."""
    try:
        return await requester.ask(LOOK_UPLOAD, LookUpload(upload=upload), is_new=True)
    except NotOfferedError as error:
        raise UnavailableError(UPGRADE) from error


async def _kept(requester: Requester, subject: str) -> int | None:
    """The owner's view, its lease renewed; None where it has to be another's."""
    try:
        return (await _ask_owner(requester, subject, PutPart(keep=True), b"")).offset
    except _RESUMABLE:
        return None


async def _resumed(requester: Requester, upload: str, size: int) -> UploadState:
    """``size`` is that of what has to be copied, at the most."""
    copy_seconds = size / COPY_BYTES_PER_SECOND
    return await requester.ask(
        RESUME_UPLOAD,
        ResumeUpload(upload=upload),
        timeout_seconds=RESUME_TIMEOUTS * requester.timeout_seconds + copy_seconds,
        attempt_seconds=ATTEMPT_SECONDS + copy_seconds,
    )


async def _ask_owner(
    requester: Requester, subject: str, request: PutPart, data: bytes
) -> PartStored:
    """The owner's answer. Raises that, UnavailableError, OutcomeUnknownError (it is silent)."""
    try:
        with requester.tracer.asking(PUT_PART.subject):
            headers = codec.encode_headers(request) | trace_headers()
            message = await requester.inbox.request(
                subject, data, headers=headers, timeout_seconds=STALL_SECONDS
            )
    except TimeoutError as error:
        msg = "the worker that took the parts fell silent"
        raise OutcomeUnknownError(msg) from error
    raise_failure(message)
    return codec.decode_reply(message.data, PUT_PART.reply)


def _at(state: UploadState, offset: int) -> UploadState:
    return msgspec.structs.replace(state, offset=offset)


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None
