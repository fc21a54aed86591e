"""Copies that cannot be read back: found on one replica, and put anew from another that has them.

Direct reads are answered by any replica (measured with nats-server 2.15.1). A read for a caller
goes to the leader for what the replica lacks; one that looks for damage does not: it is repeated
until each replica has answered, which is told by the trace of the request.

The good bytes take the place of exactly the record that was read before them, under a fresh nuid:
in one batch with it where they are one chunk. Several chunks are stored first, under a claim of the
healer's own, which one batch ends as it writes the record: so who takes them for nobody's meanwhile
has taken the claim, and the former record stays. It never comes back once it was replaced.

Why: docs/decisions.md, "What is damaged is put anew in the place of its record".
"""

from __future__ import annotations

import hashlib
import math
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from msgspec.structs import replace

from holdfast.domain.chunk_index import build_index
from holdfast.domain.collection import ClaimState
from holdfast.domain.limits import WINDOW_BYTES
from holdfast.errors import CorruptError, OutcomeUnknownError, UnavailableError
from holdfast.stores.jetstream.blobs.chunks import is_content, part_of
from holdfast.stores.jetstream.blobs.meta import chunk_subject, mark_damaged, mark_moved
from holdfast.stores.jetstream.blobs.object_records import RecordChange
from holdfast.stores.jetstream.buckets.replication import bucket_state

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Buffer, Callable, Mapping, Sequence

    from holdfast.domain.store_state import BucketState
    from holdfast.stores.jetstream.blobs.chunks import ObjectChunks
    from holdfast.stores.jetstream.blobs.claims import ObjectClaims
    from holdfast.stores.jetstream.blobs.meta import ObjectMeta
    from holdfast.stores.jetstream.blobs.object_records import ObjectEntry, ObjectRecords
    from holdfast.stores.jetstream.conflicts import Conflicts
    from holdfast.stores.ports import BlobInfo, Spending
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

_INDEX_ENTRIES: Final = 256
_SEEN_SECONDS: Final = 60.0
_LOOKS: Final = 9
"""Reads of a chunk that the leader lacks, and of each replica in reading back: each time another
one may answer."""

_LOOKS_ALONE: Final = 3
"""The same, where no two are known to answer."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Copy:
    """Good bytes, and the record of a blob that is made of them.

    A single chunk is stored with the record. Several are stored already, and the claim of them was
    at the sequence ``claimed_at`` before the first was.
    """

    nuid: str
    record: bytes
    chunk: bytes | None = None
    claimed_at: int | None = None


class ObjectHealing:
    """Looks for damage in one bucket, and mends it where a replica has the bytes."""

    def __init__(
        self,
        jetstream: JetStream,
        bucket: str,
        records: ObjectRecords,
        chunks: ObjectChunks,
        claims: ObjectClaims,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        """``monotonic`` gives seconds that only rise."""
        self._monotonic = monotonic
        self._seen: Sequence[str] = ()
        self._until = -math.inf
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._records = records
        self._chunks = chunks
        self._claims = claims

    async def read_back(self, info: BlobInfo, spend: Spending) -> None:
        """See `BlobStore.read_back`. While replicas lag, what one lacks is the leader's to have.

        One may have lagged until it had answered: those that do not lag are asked once more.
        """
        if await self._is_right_everywhere(info, spend):
            return
        if await self._are_current():
            if await self._is_right_everywhere(info, spend):
                return
            raise await self._chunks.why_missing(info)
        async with aclosing(self._chunks.read(info, 0, info.size)) as pieces:
            async for piece in pieces:
                await spend(memoryview(piece).nbytes)

    async def _is_right_everywhere(self, info: BlobInfo, spend: Spending) -> bool:
        """Whether each copy has the bytes; where the index is of another stream, from the start."""
        position = (await self._chunks.locate(info, 0))[1] if info.chunks > 1 else 1
        for start in sorted({position, 1}, reverse=True):
            if await _is_right(info, self._alike(info, start, spend)):
                return True
        return False

    async def _alike(
        self, info: BlobInfo, position: int, spend: Spending
    ) -> AsyncGenerator[Buffer]:
        """The chunks from ``position`` on, as far as all replicas have the same."""
        subject = chunk_subject(self._bucket, info.generation)
        at_once, left = max(WINDOW_BYTES // info.part_size, 1), info.chunks
        while left:
            query: dict[str, Any] = {"last_by_subj": subject}
            if info.chunks > 1:
                batch = min(at_once, left)
                query = {"batch": batch, "seq": position, "next_by_subj": subject}
            messages = await self._of_each(query, spend)
            if not messages:
                return
            for message in messages:
                yield message.data
            position = messages[-1].sequence + 1
            left -= len(messages)

    async def _of_each(self, query: Mapping[str, Any], spend: Spending) -> list[StoredMessage]:
        """The messages that each replica answers; none where they differ.

        One that does not answer is passed over after a while, and so are the others where one alone
        answers, or nothing tells which.
        """
        copies = set(await self._copies())
        answered: set[str] = set()
        first: list[StoredMessage] = []
        for number in range(max(len(copies) * _LOOKS, 1)):
            messages, server = await self._js.direct_told(self._stream, query)
            for message in messages:
                await spend(len(message.data))
            if number and _content(messages) != _content(first):
                return []
            first = messages
            answered.add(server)
            is_alone = len(answered) == 1 and number + 1 >= len(copies) * _LOOKS_ALONE
            if not messages or copies <= answered or is_alone:
                break
        return first

    async def _copies(self) -> Sequence[str]:
        """The servers that may answer, as of late: none is told where there is one alone."""
        now = self._monotonic()
        if now >= self._until:
            state = await self._state()
            self._seen = [one.name for one in state.peers if one.current and not one.offline]
            self._until = now + _SEEN_SECONDS
        return self._seen

    async def _are_current(self) -> bool:
        """Whether no replica lags: then what one lacks it has lost."""
        state = await self._state()
        return all(peer.current and not peer.lag for peer in state.peers)

    async def _state(self) -> BucketState:
        return bucket_state(await self._js.api(f"STREAM.INFO.{self._stream}"))

    async def heal(self, info: BlobInfo) -> bool:
        """See `BlobStore.report_damage`."""
        copy: _Copy | None = None

        async def attempt(entry: ObjectEntry, conflicts: Conflicts) -> bool:
            """Put the bytes anew, which were read after the record; or mark it."""
            nonlocal copy
            meta = entry.meta
            if meta is not None and copy is not None and entry.is_of(copy.nuid):
                return True
            if meta is None or not entry.is_of(info.generation):
                if copy is not None and conflicts.certain:  # it surely never became the blob's
                    await self._discard(copy.nuid, copy.claimed_at)
                return False
            copy = copy or await self._copied(info, meta)
            if copy is not None:
                await self._replace(info, entry, copy)
                return True
            if not meta.is_damaged:
                await self._records.write(
                    info.digest, entry, mark_damaged(meta), change=RecordChange.DAMAGED
                )
            return False

        is_healed = await self._records.change(info.digest, attempt, look=self._records.believed)
        if is_healed:
            log.warning("blob_healed", digest=info.digest)
            await self._chunks.remove_unneeded(info.generation)
            await self._end_claim(copy)
        return is_healed

    async def _copied(self, info: BlobInfo, meta: ObjectMeta) -> _Copy | None:
        """The bytes as they should be, wherever they are; None where nobody has them."""
        nuid = self._records.new_id()
        if info.chunks <= 1:
            data = b"".join([bytes(chunk) async for chunk in self._anywhere(info)])
            if not is_content(info, data):
                return None
            return _Copy(nuid, mark_moved(meta, nuid, None), data)
        if not await _is_right(info, self._anywhere(info)):
            return None
        claimed_at = await self._claims.write(nuid, ClaimState.CLAIMED, 0)
        sequences: list[int] = []
        if not await _is_right(info, self._written(info, nuid, sequences)):
            await self._discard(nuid, claimed_at)
            return None
        index = build_index(sequences, _INDEX_ENTRIES)
        return _Copy(nuid, mark_moved(meta, nuid, index), claimed_at=claimed_at)

    async def _written(
        self, info: BlobInfo, nuid: str, sequences: list[int]
    ) -> AsyncGenerator[Buffer]:
        """The chunks, each once it is stored under ``nuid``; ``sequences`` gets where."""
        part = 0
        async with aclosing(self._anywhere(info)) as chunks:
            async for data in chunks:
                ack = await self._chunks.write(nuid, part, memoryview(data))
                sequences.append(ack.seq)
                part += 1
                yield data

    async def _anywhere(self, info: BlobInfo) -> AsyncGenerator[Buffer]:
        """The chunks as the leader has them, or another; up to one that is not found."""
        position = 1
        for part in range(info.chunks):
            message = await self._find(info, part, position)
            if message is None:
                return
            yield message.data
            position = message.sequence + 1

    async def _find(self, info: BlobInfo, part: int, position: int) -> StoredMessage | None:
        """Chunk ``part``, which lies at ``position`` or behind."""
        subject = chunk_subject(self._bucket, info.generation)
        size = min(info.part_size, info.size - part * info.part_size)
        message = await self._js.next_message(self._stream, subject, position)
        for _ in range(_LOOKS):
            if _is_part(message, part, size):
                return message
            query = {"seq": position, "next_by_subj": subject}
            message = await self._js.direct_at(self._stream, query)
        return None

    async def _replace(self, info: BlobInfo, entry: ObjectEntry, copy: _Copy) -> None:
        """Raises RefusedError, UnavailableError, OutcomeUnknownError."""
        made = replace(info, generation=copy.nuid)
        parts = [copy.chunk] if copy.chunk is not None and info.chunks else []
        if copy.chunk is None:
            await self._require(made, copy)
        await self._records.swap(
            entry, made, parts, copy.record, RecordChange.HEALED, claimed_at=copy.claimed_at
        )

    async def _require(self, made: BlobInfo, copy: _Copy) -> None:
        """Raises UnavailableError where the chunks are not all there, each once, and still ours.

        While the claim is as it was written nobody has removed any.
        """
        claim = await self._claims.find(copy.nuid)
        is_ours = claim is not None and claim.sequence == copy.claimed_at
        if not is_ours or await self._chunks.count(copy.nuid) != made.chunks:
            msg = "a blob's bytes were removed, or stored twice, before they were put anew"
            raise UnavailableError(msg)

    async def _discard(self, nuid: str, claimed_at: int | None) -> None:
        """Remove chunks that surely no record names or will name, and the claim of them."""
        await self._chunks.remove_unneeded(nuid)
        if claimed_at is not None:
            with suppress(UnavailableError, OutcomeUnknownError):
                await self._claims.end(nuid, claimed_at)

    async def _end_claim(self, copy: _Copy | None) -> None:
        """End the claim of a copy that a record names. A later look at the copy ends the rest."""
        if copy is not None and copy.claimed_at is not None:
            with suppress(UnavailableError, OutcomeUnknownError):
                await self._claims.revoke(copy.nuid)


def _content(messages: Sequence[StoredMessage]) -> list[tuple[int, bytes]]:
    """Their compared content."""
    return [(one.sequence, hashlib.sha256(one.data).digest()) for one in messages]


async def _is_right(info: BlobInfo, chunks: AsyncGenerator[Buffer]) -> bool:
    """Whether ``chunks`` are the blob's bytes."""
    whole, size = hashlib.sha256(), 0
    async with aclosing(chunks) as incoming:
        async for chunk in incoming:
            whole.update(chunk)
            size += memoryview(chunk).nbytes
    return size == info.size and whole.hexdigest() == info.stored_digest


def _is_part(message: StoredMessage | None, part: int, size: int) -> bool:
    try:
        return message is not None and len(message.data) == size and part_of(message) == part
    except CorruptError:
        return False
