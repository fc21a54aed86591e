"""The chunks of blobs in a JetStream Object Store bucket: found by number, read, and removed.

Why: docs/decisions.md, "Removing chunks by purge".
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from bisect import bisect_right, insort
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from itertools import batched
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from holdfast.domain.collection import ClaimState, Standing, standing
from holdfast.domain.digest import digest_of
from holdfast.domain.limits import WINDOW_BYTES
from holdfast.errors import (
    CorruptError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.protocol.headers import BLOB_PART
from holdfast.stores.jetstream.blobs.meta import chunk_subject, claim_subject, copy_subjects
from holdfast.transport.jetstream_messages import MSG_ID, RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Buffer, Iterable, Mapping

    from holdfast.stores.jetstream.blobs.claims import ObjectClaims
    from holdfast.stores.jetstream.blobs.object_records import ObjectRecords
    from holdfast.stores.ports import BlobInfo
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import Ack, StoredMessage

_MOVED: Final = 64
"""Blobs whose places are remembered, as their chunks are not where their index says."""

_PLACES: Final = 256
_LOOKS: Final = 8
_COUNTED_AT_ONCE: Final = 64
_SUBJECTS_FOR_EACH: Final = 64
"""A bucket has so many for each copy that is asked for, or its chunks are not all listed: half of
them are chunks, of 40 bytes each in the answer."""

_MAX_PART_DIGITS: Final = 12


class _Near(NamedTuple):
    """``part`` lies at ``sequence`` or behind; those that follow it before ``before``, if known."""

    part: int
    sequence: int
    before: int | None


_START: Final = _Near(0, 1, None)


class ObjectChunks:
    """The chunks in one bucket."""

    def __init__(
        self, jetstream: JetStream, bucket: str, records: ObjectRecords, claims: ObjectClaims
    ) -> None:
        """``records`` tell why chunks of a blob are not there, ``claims`` who removes some."""
        self._js = jetstream
        self._records = records
        self._claims = claims
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._moved: OrderedDict[str, list[tuple[int, int]]] = OrderedDict()

    async def get(self, info: BlobInfo) -> bytes:
        """See BlobStore."""
        if info.chunks == 1:
            data = bytes(await self._only_chunk(info))
            if not is_content(info, data):
                raise _damaged(info)
            return data
        return b"".join([bytes(piece) async for piece in self.read(info, 0, info.size)])

    async def _only_chunk(self, info: BlobInfo) -> Buffer:
        subject = chunk_subject(self._bucket, info.generation)
        message = await self._js.direct_last(self._stream, subject)
        if message is None:
            message = await self._js.surely(
                self._stream, lambda: self._js.last_message(self._stream, subject)
            )
        if message is None:
            raise await self.why_missing(info)
        return message.data

    async def why_missing(self, info: BlobInfo) -> HoldfastError:
        """Chunks are gone: because the blob is, or they were lost?"""
        live = (await self._records.read(info.digest)).live
        if live is None or live.nuid != info.generation:
            return NotFoundError("no such blob")
        return _damaged(info)

    async def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """See BlobStore."""
        if start >= stop:
            if info.size == 0 and info.digest != digest_of(b""):
                raise _damaged(info)
            return
        whole = hashlib.sha256() if (start, stop) == (0, info.size) else None
        part = start // info.part_size
        last = (stop - 1) // info.part_size
        async for data in self._chunks(info, part, last):
            offset = part * info.part_size
            view = memoryview(data)
            if len(view) != min(info.part_size, info.size - offset):
                raise _damaged(info)
            if whole is not None:
                whole.update(view)
                if part == last and whole.hexdigest() != info.stored_digest:
                    raise _damaged(info)
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
            expected = range(found, found + len(messages))
            for number, message in zip(expected, messages, strict=True):
                if part_of(message) != number:
                    break
                if number == wanted:
                    yield message.data
                    wanted += 1
                found, position = number + 1, message.sequence + 1
            else:
                if messages:
                    continue
            # The replica lacks it, or it lies elsewhere: somebody copied the stream, or doubled it.
            message = await self._look_up(info, wanted)
            yield message.data
            wanted += 1
            found, position = wanted, message.sequence + 1

    async def locate(self, info: BlobInfo, part: int) -> tuple[int, int]:
        """See DirectDelivery. The index is believed: a read there finds out."""
        near = self._near(info, part)
        if part - near.part < max(WINDOW_BYTES // info.part_size, 1):
            return near.part, near.sequence
        return part, (await self._look_up(info, part)).sequence

    def _near(self, info: BlobInfo, part: int) -> _Near:
        """The place to look for ``part`` from, as far as is known."""
        places = self._moved.get(info.generation)
        if places is not None:
            place = bisect_right(places, (part, math.inf)) - 1
            return _Near(*places[place], None) if place >= 0 else _START
        if info.index is None:
            return _START
        try:
            entry, sequence = info.index.locate(part)
            if entry == part:
                return _Near(entry, sequence, None)
            return _Near(entry, *info.index.bounds(part))
        except CorruptError:
            return _START

    async def _look_up(self, info: BlobInfo, part: int) -> StoredMessage:
        """Chunk ``part`` from the leader, wherever it lies. Raises NotFoundError, CorruptError."""
        message = await self._find(info, part, self._near(info, part))
        moved = message is None or info.generation in self._moved
        if message is None:
            message = await self._js.surely(self._stream, lambda: self._find(info, part, _START))
        if message is None:
            raise await self.why_missing(info)
        if moved:
            self._remember(info, part, message.sequence)
        return message

    async def _find(self, info: BlobInfo, part: int, near: _Near) -> StoredMessage | None:
        """Chunk ``part`` between two sequences. An upload that was alone hits at once."""
        low, high = near.sequence, near.before
        guess = low + (part - near.part)
        subject = chunk_subject(self._bucket, info.generation)
        while high is None or low < high:
            if high is not None and not low <= guess < high:
                guess = (low + high) // 2
            message = await self._js.next_message(self._stream, subject, guess)
            if message is None or (high is not None and message.sequence >= high):
                high = guess
            elif (found := part_of(message)) == part:
                return message
            elif found < part:
                low = message.sequence + 1
                guess = low + (part - found - 1)
            else:
                high = guess
        return None

    def _remember(self, info: BlobInfo, part: int, sequence: int) -> None:
        """The blob's index is of another stream: this is where a part lies in this one."""
        places = self._moved.setdefault(info.generation, [])
        insort(places, (part, sequence))
        if len(places) > _PLACES:
            places.pop(0)
        self._moved.move_to_end(info.generation)
        if len(self._moved) > _MOVED:
            self._moved.popitem(last=False)

    async def are_all_there(self, info: BlobInfo) -> bool:
        """Whether there are as many chunks as there should be, and nobody is removing them.

        A believed leader has counted. A claim by somebody who saw no record of them is taken.
        """
        again = False
        for _ in range(_LOOKS):
            found = await self._look(info, again=again)
            if found is Standing.WHOLE:
                return True
            if found is Standing.CLAIMED:
                await self._claims.revoke(info.generation)
            elif again:
                return False
            else:
                again = True
        raise UnavailableError("others kept claiming the bytes of a blob")

    async def lacking(self, expected: Mapping[str, int]) -> set[str]:
        """The nuids that have not as many chunks as ``expected``, as a believed leader counts them.

        It tells of all of the bucket in one answer, where these are not many times those expected.
        """
        counts: Mapping[str, int]
        state = await self._js.state(self._stream)
        if state.num_subjects <= _SUBJECTS_FOR_EACH * len(expected):
            told = await self._js.counts(self._stream, f"$O.{self._bucket}.C.*")
            counts = {nuid: told.get(chunk_subject(self._bucket, nuid), 0) for nuid in expected}
        else:
            counts = await self._count_each(expected)
        return {nuid for nuid in expected if counts[nuid] != expected[nuid]}

    async def _count_each(self, nuids: Iterable[str]) -> Mapping[str, int]:
        counts: dict[str, int] = {}
        for some in batched(nuids, _COUNTED_AT_ONCE):
            counts |= zip(some, await asyncio.gather(*map(self.count, some)), strict=True)
        return counts

    async def count(self, nuid: str) -> int:
        """The number of chunks under ``nuid``, by a believed leader. Raises UnavailableError."""
        subject = chunk_subject(self._bucket, nuid)
        return (await self._js.counts(self._stream, subject)).get(subject, 0)

    async def _look(self, info: BlobInfo, *, again: bool) -> Standing:
        """The standing of the chunks; without a claim it is of one moment."""
        nuid = info.generation
        around = copy_subjects(self._bucket, nuid)
        counts = await self._js.counts(self._stream, around, again=again)
        claim = None
        if claim_subject(self._bucket, nuid) in counts:
            found = await self._claims.find(nuid)
            claim = found.state if found is not None else ClaimState.REVOKED
        chunks = counts.get(chunk_subject(self._bucket, nuid), 0)
        return standing(chunks=chunks, expected=info.chunks, claim=claim)

    def deliver(self, info: BlobInfo, position: int, chunks: int, subject: str) -> None:
        """See DirectDelivery."""
        chunk = chunk_subject(self._bucket, info.generation)
        query: dict[str, Any] = {"seq": position, "next_by_subj": chunk}
        if chunks > 1:
            query["batch"] = chunks
        elif info.chunks == 1 and info.index is None:  # to be found without searching
            query = {"last_by_subj": chunk}
        self._js.request_batch(self._stream, query, subject)

    async def write(self, nuid: str, part: int, data: memoryview) -> Ack:
        """Store chunk ``part`` under ``nuid``."""
        headers = {MSG_ID: f"{nuid}.{part}", BLOB_PART: str(part)}
        try:
            return await self._js.publish(chunk_subject(self._bucket, nuid), data, headers)
        except RefusedError as refused:
            raise refused.translate() from refused

    async def staged_part(self, nuid: str, part: int, sequence: int) -> Buffer | None:
        """Chunk ``part``, which was written at ``sequence``; None where it is not."""
        subject = chunk_subject(self._bucket, nuid)
        message = await self._js.surely(
            self._stream, lambda: self._js.next_message(self._stream, subject, sequence)
        )
        return message.data if message is not None and part_of(message) == part else None

    async def staged(self, staging: str) -> AsyncIterator[Buffer]:
        """See `BlobStore.staged_parts`.

        Parts acknowledged a moment ago may be missing on a replica: at every end a leader that can
        be believed is asked whether it was one.
        """
        subject = chunk_subject(self._bucket, staging)
        early: dict[int, Buffer] = {}
        part, position = 0, 1
        while True:
            query = {"batch": 16, "seq": position, "next_by_subj": subject}
            messages, _ = await self._js.direct_batch(self._stream, query)
            if not messages:
                look = partial(self._js.next_message, self._stream, subject, position)
                message = await self._js.surely(self._stream, look)
                if message is None:
                    return
                messages = [message]
            for message in messages:
                early[part_of(message)] = message.data
                position = message.sequence + 1
            while part in early:
                yield early.pop(part)
                part += 1

    async def remove(self, nuid: str, *, up_to: int | None = None) -> None:
        """Remove the chunks under ``nuid``, which will never be a blob's, or those up to ``up_to``.

        Raises UnavailableError, OutcomeUnknownError.
        """
        await self._js.purge(self._stream, chunk_subject(self._bucket, nuid), up_to=up_to)

    async def remove_forgotten(self, nuid: str, unknown: str) -> None:
        """Remove the chunks of a blob whose record is gone. Raises OutcomeUnknownError, saying so.

        Then they may be read for some seconds yet.
        """
        try:
            await self.remove(nuid)
        except (UnavailableError, OutcomeUnknownError) as error:
            raise OutcomeUnknownError(unknown) from error

    async def remove_unneeded(self, nuid: str) -> None:
        """Remove chunks that no record names. Those that cannot be now are the collector's."""
        with suppress(UnavailableError, OutcomeUnknownError):
            await self.remove(nuid)


def part_of(message: StoredMessage) -> int:
    """The part a stored chunk is. Raises CorruptError."""
    text = message.headers.get(BLOB_PART, "")
    if not text.isdecimal() or len(text) > _MAX_PART_DIGITS:
        raise CorruptError("a stored chunk does not say which part it is")
    return int(text)


def is_content(info: BlobInfo, data: Buffer) -> bool:
    """Whether ``data`` is all that is stored of the blob."""
    return memoryview(data).nbytes == info.size and digest_of(data) == info.stored_digest


def _damaged(info: BlobInfo) -> CorruptError:
    """The failure to raise when stored bytes are not right."""
    return CorruptError(f"the stored bytes of blob {info.digest} are not what was put")
