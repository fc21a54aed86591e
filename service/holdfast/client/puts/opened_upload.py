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

from holdfast.client.puts.upload import (
    FIRST_WAIT_SECONDS,
    MAX_WAIT_SECONDS,
    RESUMABLE,
    RESUME_TIMEOUTS,
    Uploaded,
    ask_owner,
    is_of_name,
    resume,
    uploaded_of,
)
from holdfast.client.requests import NotOfferedError, Requester
from holdfast.deadline import look_at
from holdfast.errors import (
    CorruptError,
    HoldfastError,
    UnavailableError,
)
from holdfast.protocol.blobs import (
    LOOK_UPLOAD,
    LookUpload,
    PutPart,
    UploadState,
)
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


_IN_FLIGHT: Final = 8
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
        try:
            offset = (await ask_owner(requester, state, PutPart(keep=True))).offset
        except RESUMABLE:
            offset = None
        if offset is not None:
            return cls(requester, msgspec.structs.replace(state, offset=offset))
        resumed = await resume(requester, state.upload or "", state.length or 0)
        return uploaded_of(resumed) or cls(requester, resumed)

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
                reply = await ask_owner(self._requester, self._state, request)
            except RESUMABLE as error:
                if is_of_name(error):
                    raise
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
        except RESUMABLE as error:
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
                raise CorruptError("the upload went on, or back, without us") from failure
            try:
                for piece in pieces:
                    if piece.stop > held:
                        await self._put(piece)
            except RESUMABLE as error:
                failure = error
            else:
                return

    async def _put(self, piece: _Piece) -> None:
        part, at = divmod(piece.start, self._part_size)
        is_whole = len(piece.data) == self._part_size
        request = PutPart(part=part, tail=None if is_whole else at)
        await ask_owner(self._requester, self._state, request, piece.data)

    async def _recover(self, failure: HoldfastError, backoff: Backoff) -> None:
        """Have any worker own it; in the end raise ``failure``."""
        if not await backoff.wait():
            raise failure
        self._state = await resume(self._requester, self.id, self.offset)

    def _backoff(self) -> Backoff:
        seconds = RESUME_TIMEOUTS * self._requester.timeout_seconds
        return Backoff(FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS, within_seconds=seconds)


async def look(requester: Requester, upload: str) -> UploadState:
    """Any worker's view of an upload. Raises NotFoundError, ConflictError, UnavailableError."""
    try:
        return await requester.ask(LOOK_UPLOAD, LookUpload(upload=upload), is_new=True)
    except NotOfferedError as error:
        raise UnavailableError(UPGRADE) from error


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None
