"""The chunks of blobs in a JetStream Object Store bucket: found by number, read, and sent on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from holdfast.domain.digest import digest_of
from holdfast.domain.limits import WINDOW_BYTES
from holdfast.errors import CorruptError, HoldfastError
from holdfast.stores.object_meta import chunk_subject
from holdfast.stores.object_staging import part_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Buffer, Callable

    from holdfast.domain.chunk_index import ChunkIndex
    from holdfast.stores.ports import BlobInfo
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage


class ObjectChunks:
    """The chunks in one bucket."""

    def __init__(
        self,
        jetstream: JetStream,
        bucket: str,
        why_missing: Callable[[BlobInfo], Awaitable[HoldfastError]],
    ) -> None:
        """``why_missing`` gives the failure to raise when chunks of a blob are not there."""
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._why_missing = why_missing

    async def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """See BlobStore."""
        if start >= stop:
            if info.size == 0 and info.digest != digest_of(b""):
                raise damaged(info)
            return
        whole = hashlib.sha256() if (start, stop) == (0, info.size) else None
        part = start // info.part_size
        last = (stop - 1) // info.part_size
        async for data in self._chunks(info, part, last):
            offset = part * info.part_size
            view = memoryview(data)
            if len(view) != min(info.part_size, info.size - offset):
                raise damaged(info)
            if whole is not None:
                whole.update(view)
                if part == last and whole.hexdigest() != info.digest:
                    raise damaged(info)
            yield view[max(start - offset, 0) : stop - offset]
            part += 1

    async def _chunks(self, info: BlobInfo, first: int, last: int) -> AsyncGenerator[Buffer]:
        """Chunks ``first`` to ``last``, window by window, each checked to be the one expected."""
        per_window = max(WINDOW_BYTES // info.part_size, 1)
        wanted = first
        found, position = await self.locate(info, first)
        while wanted <= last:
            query = {
                "batch": min(per_window, last - found + 1),
                "seq": position,
                "next_by_subj": chunk_subject(self._bucket, info.generation),
            }
            messages, _ = await self._js.direct_batch(self._stream, query)
            if not messages:
                messages = [await self._leader_chunk(info, position)]
            for message in messages:
                if part_of(message) != found:
                    raise damaged(info)
                if found == wanted:
                    yield message.data
                    wanted += 1
                found += 1
                position = message.sequence + 1

    async def _leader_chunk(self, info: BlobInfo, position: int) -> StoredMessage:
        subject = chunk_subject(self._bucket, info.generation)
        message = await self._js.surely(
            self._stream, lambda: self._js.next_message(self._stream, subject, position)
        )
        if message is None:
            raise await self._why_missing(info)
        return message

    async def locate(self, info: BlobInfo, part: int) -> tuple[int, int]:
        """See DirectDelivery."""
        if info.index is None:
            return 0, 1
        first, position = info.index.locate(part)
        if part - first >= max(WINDOW_BYTES // info.part_size, 1):
            return await self._bisect(info, info.index, part)
        return first, position

    async def _bisect(self, info: BlobInfo, index: ChunkIndex, part: int) -> tuple[int, int]:
        """Find ``part`` between two index entries. An upload that was alone hits at once."""
        first, low = index.locate(part)
        _, high = index.bounds(part)
        guess = low + (part - first)
        subject = chunk_subject(self._bucket, info.generation)
        while True:
            message = await self._js.next_message(self._stream, subject, guess)
            if message is None and high is None:
                high = guess
            elif message is None:
                raise await self._why_missing(info)
            elif (found := part_of(message)) == part:
                return part, message.sequence
            elif found < part:
                low = message.sequence + 1
                guess = low + (part - found - 1)
            else:
                high = guess
            if high is not None and not low <= guess < high:
                guess = (low + high) // 2
            if high is not None and low >= high:
                raise damaged(info)

    def deliver(self, info: BlobInfo, position: int, chunks: int, subject: str) -> None:
        """See DirectDelivery."""
        query = {
            "batch": chunks,
            "seq": position,
            "next_by_subj": chunk_subject(self._bucket, info.generation),
        }
        self._js.request_batch(self._stream, query, subject)


def damaged(info: BlobInfo) -> CorruptError:
    """The failure to raise when stored bytes are not what they should be."""
    return CorruptError(f"the stored bytes of blob {info.digest} are not what was put")
