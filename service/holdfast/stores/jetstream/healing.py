"""Copies that cannot be read back: found on one replica, and put anew from another that has them.

Direct reads are answered by any replica, and nothing tells by which; only who is connected to the
leader is answered by that alone (measured with nats-server 2.15.1). A read for a caller then goes
to the leader for what the replica lacks; one that looks for damage does not, and is repeated as
often as there are copies.

The good bytes take the place of exactly the record that was read before them, under a fresh nuid:
in one batch with it where they are one chunk. Several chunks are stored first, under a claim of the
healer's own, which one batch ends as it writes the record: so who takes them for nobody's meanwhile
has taken the claim, and the former record stays. It never comes back once it was replaced.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from msgspec.structs import replace

from holdfast.domain.chunk_index import build_index
from holdfast.domain.collection import ClaimState
from holdfast.domain.limits import WINDOW_BYTES
from holdfast.errors import CorruptError, OutcomeUnknownError, UnavailableError
from holdfast.stores.jetstream.chunks import part_of
from holdfast.stores.jetstream.meta import chunk_subject, mark_damaged, mark_moved
from holdfast.stores.jetstream.object_records import RecordChange
from holdfast.stores.jetstream.replication import bucket_state
from holdfast.stores.ports import freely
from holdfast.transport.jetstream_messages import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Buffer, Callable

    from holdfast.domain.store_state import BucketState
    from holdfast.stores.jetstream.chunks import ObjectChunks
    from holdfast.stores.jetstream.claims import ObjectClaims
    from holdfast.stores.jetstream.conflicts import Conflicts
    from holdfast.stores.jetstream.meta import ObjectMeta
    from holdfast.stores.jetstream.object_records import ObjectEntry, ObjectRecords
    from holdfast.stores.jetstream.swaps import ObjectSwaps
    from holdfast.stores.ports import BlobInfo, Spending
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

_INDEX_ENTRIES: Final = 256
_SEEN_SECONDS: Final = 60.0
_LOOKS: Final = 9
"""How often a chunk is asked for that the leader lacks: each time another replica may answer."""

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
        swaps: ObjectSwaps,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        """``monotonic`` gives seconds that only rise."""
        self._monotonic = monotonic
        self._seen = 1
        self._until = -math.inf
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._records = records
        self._chunks = chunks
        self._claims = claims
        self._swaps = swaps

    async def read_back(self, info: BlobInfo, spend: Spending) -> None:
        """See `BlobStore.read_back`. While replicas lag, what one lacks is the leader's to have."""
        for _ in range(await self._copies()):
            if not await self._read_once(info, spend):
                break
        else:
            return
        if await self._are_current():
            raise await self._chunks.why_missing(info)
        async with aclosing(self._chunks.read(info, 0, info.size)) as pieces:
            async for piece in pieces:
                await spend(memoryview(piece).nbytes)

    async def _copies(self) -> int:
        """How many there are that may answer, as of late."""
        now = self._monotonic()
        if now >= self._until:
            state = await self._state()
            greeting = self._js.connection.server_info
            is_leaders = state.leader in {"", greeting.get("server_name")}
            self._seen, self._until = 1 if is_leaders else len(state.peers), now + _SEEN_SECONDS
        return self._seen

    async def _read_once(self, info: BlobInfo, spend: Spending) -> bool:
        """Whether some copy has the bytes; where its index is of another stream, from the start."""
        position = (await self._chunks.locate(info, 0))[1] if info.chunks > 1 else 1
        for start in sorted({position, 1}, reverse=True):
            if await _is_right(info, self._direct(info, start), spend):
                return True
        return False

    async def _direct(self, info: BlobInfo, position: int) -> AsyncGenerator[Buffer]:
        """The chunks from ``position`` on, as far as a replica has them."""
        subject = chunk_subject(self._bucket, info.generation)
        if info.chunks == 1:
            message = await self._js.direct_last(self._stream, subject)
            if message is not None:
                yield message.data
            return
        at_once, left = max(WINDOW_BYTES // info.part_size, 1), info.chunks
        while left:
            query = {"batch": min(at_once, left), "seq": position, "next_by_subj": subject}
            messages, _ = await self._js.direct_batch(self._stream, query)
            if not messages:
                return
            for message in messages:
                yield message.data
            position = messages[-1].sequence + 1
            left -= len(messages)

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
            if not await _is_right(info, _given(data)):
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
                try:
                    ack = await self._chunks.write(nuid, part, memoryview(data))
                except RefusedError as refused:
                    raise refused.translate() from refused
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
        await self._swaps.swap(
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
        """Of a copy that a record names. What stays of it is ended by who looks at the copy."""
        if copy is not None and copy.claimed_at is not None:
            with suppress(UnavailableError, OutcomeUnknownError):
                await self._claims.revoke(copy.nuid)


async def _given(data: bytes) -> AsyncGenerator[Buffer]:
    yield data


async def _is_right(
    info: BlobInfo, chunks: AsyncGenerator[Buffer], spend: Spending = freely
) -> bool:
    """Whether ``chunks`` are the blob's bytes."""
    whole, size = hashlib.sha256(), 0
    async with aclosing(chunks) as incoming:
        async for chunk in incoming:
            whole.update(chunk)
            size += memoryview(chunk).nbytes
            await spend(memoryview(chunk).nbytes)
    return size == info.size and whole.hexdigest() == info.stored_digest


def _is_part(message: StoredMessage | None, part: int, size: int) -> bool:
    try:
        return message is not None and len(message.data) == size and part_of(message) == part
    except CorruptError:
        return False
