"""Small puts that go together in one atomic batch, where the store syncs each write.

A pair of publishes waits for two syncs; a batch (ADR-50) of many pairs for hardly more. Puts that
come while batches are under way are collected, so groups grow with the load and need no timer. With
few puts, or where writes are not synced, the pair is faster: then puts are sent back to go alone.

A batch is stored as a whole or not at all. If it is refused nothing was stored, so nothing is left
to remove; if no answer comes, the records tell whether it was stored, or it stays unknown.

Why: docs/decisions.md, "Many small puts go as one batch, where writes are synced".
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.deadline import Gathering, deadline, seconds_left
from holdfast.domain.limits import KIB, MIB
from holdfast.errors import HoldfastError, OutcomeUnknownError, UnavailableError
from holdfast.protocol.headers import BLOB_PART
from holdfast.stores.jetstream.blobs.meta import chunk_subject, meta_subject, to_meta
from holdfast.stores.jetstream.blobs.object_records import entry_of
from holdfast.stores.jetstream.conflicts import UNKNOWN
from holdfast.stores.ports import Attributes, BlobInfo, Stored, info_of
from holdfast.transport.jetstream_messages import (
    BATCHES_DISABLED,
    EXPECTED_SUBJECT_SEQUENCE,
    ROLLUP,
    SUBJECT,
    BatchMessage,
    RefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from holdfast.domain.digest import Digest
    from holdfast.stores.jetstream.blobs.places import Places
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import Ack

LEAST_PUTS: Final = 8
"""Fewer are faster as pairs: a server stages each batch in files of its own."""

MANY_PUTS: Final = 2 * LEAST_PUTS
"""With so many under way a first batch may be small, for puts meanwhile make the next."""

MOST_PUTS: Final = 128
MOST_BYTES: Final = 2 * MIB
MOST_BYTES_EACH: Final = 64 * KIB
BATCHES_AT_ONCE: Final = 1
"""In one worker: a second would make both smaller, and each waits for as many syncs."""

_ROUNDS: Final = 4


class Alone(Enum):
    """A put is to go by itself: nothing of it was stored, and it is not under way."""

    NEW = "the blob is probably not there"
    LOOK = "the blob may be there"


@dataclass(slots=True, eq=False)
class _Member:
    """One put that waits for its group. ``sent``: a batch with it may have been stored."""

    info: BlobInfo
    data: memoryview
    attributes: Attributes
    until: float
    expected: int = 0
    sent: bool = False
    done: asyncio.Future[Stored | Alone] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, result: Stored | Alone) -> None:
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class PutGroups:
    """The groups of one worker for one bucket."""

    def __init__(
        self, jetstream: JetStream, bucket: str, places: Places, *, new_id: Callable[[], str]
    ) -> None:
        """Nothing is grouped until it is said that it pays: see ``is_on``."""
        self.is_on = False
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._places = places
        self._new_id = new_id
        self._under_way = 0
        self._waiting: list[_Member] = []
        self._members: dict[Digest, _Member] = {}
        self._gathering = Gathering(self._take, BATCHES_AT_ONCE)

    def begin(self, size: int) -> int:
        """A put of ``size`` bytes is under way, alone or not, until ``end`` is told its result.

        Only small ones are waited for.
        """
        counts = size <= MOST_BYTES_EACH
        self._under_way += counts
        return counts

    def end(self, counts: int) -> None:
        """It is not any more."""
        self._under_way -= counts

    async def put(self, digest: Digest, data: memoryview, attributes: Attributes) -> Stored | Alone:
        """The blob, stored together with others, unless it is to go alone.

        Raises what ``BlobStore.put`` raises.
        """
        other = self._members.get(digest)
        if other is not None:
            # Twice in a batch would be refused, and two batches would refuse each other.
            await asyncio.wait({other.done}, timeout=_finite(seconds_left(math.inf)))
            return Alone.LOOK
        few = self._under_way < LEAST_PUTS and not self._waiting
        if not self.is_on or few or not 0 < len(data) <= MOST_BYTES_EACH:
            return Alone.NEW
        return await self._wait(self._join(digest, data, attributes))

    def _join(self, digest: Digest, data: memoryview, attributes: Attributes) -> _Member:
        size = len(data)
        info = info_of(digest, size, attributes, part_size=size, generation=self._new_id())
        until = asyncio.get_running_loop().time() + seconds_left(math.inf)
        member = _Member(info, data, attributes, until)
        self._members[digest] = member
        self._waiting.append(member)
        self._gathering.schedule()
        return member

    async def _wait(self, member: _Member) -> Stored | Alone:
        try:
            async with asyncio.timeout(_finite(seconds_left(math.inf))):
                return await member.done
        except TimeoutError as error:
            if member.sent:
                raise OutcomeUnknownError(UNKNOWN) from error
            raise UnavailableError("the store had too much to do") from error
        finally:
            if not member.sent:
                self._leave(member)

    def _leave(self, member: _Member) -> None:
        """It is in no batch: its putter has an answer, or waits for none."""
        if member in self._waiting:
            self._waiting.remove(member)
        if self._members.get(member.info.digest) is member:
            del self._members[member.info.digest]

    def _take(self) -> Coroutine[Any, Any, None] | None:
        """A batch of the first that fit into one; where few wait, they go alone."""
        if len(self._waiting) < LEAST_PUTS and self._under_way < MANY_PUTS:
            for member in self._waiting:
                member.settle(Alone.NEW)
            self._waiting.clear()
        if not self._waiting:
            return None
        count = size = 0
        for member in self._waiting[:MOST_PUTS]:
            size += member.info.size
            if size > MOST_BYTES:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return self._run(group)

    # --- one group ---

    async def _run(self, group: list[_Member]) -> None:
        """Settle every member. No caller that waits is left without an answer."""
        seconds = max(member.until for member in group) - asyncio.get_running_loop().time()
        try:
            with deadline(seconds):
                await self._store(group)
        except Exception as error:  # noqa: BLE001  (each member's caller handles it)
            for member in group:
                member.fail(error)
        finally:
            for member in group:
                member.settle(Alone.LOOK)
                self._leave(member)

    async def _store(self, group: list[_Member]) -> None:
        members = await self._new_ones(group)
        for _ in range(_ROUNDS):
            members = [member for member in members if not member.done.done()]
            if not members:
                return
            known_at = self._places.now()
            try:
                ack = await self._publish(members)
            except RefusedError as refused:
                if not refused.certain:
                    await self._find_out(members)
                    return
                if refused.error.err_code == BATCHES_DISABLED:
                    self.is_on = False
                offender = await self._offender(refused, members)
                if offender is None:
                    break
                offender.settle(Alone.LOOK)
            except OutcomeUnknownError:
                await self._find_out(members)
                return
            else:
                self._stored(members, ack.seq, known_at)
                return
        for member in members:
            member.settle(Alone.NEW)

    async def _publish(self, members: Sequence[_Member]) -> Ack:
        """All of them or none. Raises as `JetStream.publish_batch`."""
        for member in members:
            member.sent = True
        try:
            return await self._js.publish_batch(self._messages(members), new_id=self._new_id)
        except (RefusedError, UnavailableError) as error:
            for member in members:
                member.sent = isinstance(error, RefusedError) and not error.certain
            raise

    async def _new_ones(self, group: Sequence[_Member]) -> list[_Member]:
        """Those whose blob is not there, as some replica has it; the others go alone."""
        members = {meta_subject(self._bucket, one.info.digest): one for one in group}
        for message in await self._js.direct_lasts(self._stream, list(members)):
            member = members.get(message.headers.get(SUBJECT, ""))
            if member is None:
                continue
            entry = entry_of(message, member.info.digest)
            # A deletion with an Op-Id, which the next record keeps, is looked at alone.
            if entry.is_vacant and not entry.deletions:
                member.expected = message.sequence
            else:
                del members[message.headers[SUBJECT]]
                member.settle(Alone.LOOK)
        return [member for member in members.values() if not member.done.done()]

    def _messages(self, members: Sequence[_Member]) -> list[BatchMessage]:
        messages: list[BatchMessage] = []
        for member in members:
            info = member.info
            record = msgspec.json.encode(to_meta(self._bucket, info, member.attributes))
            messages += (
                BatchMessage(
                    chunk_subject(self._bucket, info.generation), member.data, {BLOB_PART: "0"}
                ),
                BatchMessage(
                    meta_subject(self._bucket, info.digest),
                    record,
                    {ROLLUP: "sub", EXPECTED_SUBJECT_SEQUENCE: str(member.expected)},
                ),
            )
        return messages

    def _stored(self, members: Sequence[_Member], last: int, known_at: float) -> None:
        """All were stored, one message after the other, the last of them at ``last``."""
        for number, member in enumerate(reversed(members)):
            self._places.remember(member.info, last - 2 * number - 1, known_at=known_at)
            member.settle(Stored(info=member.info, created=True))

    async def _offender(self, refused: RefusedError, members: Sequence[_Member]) -> _Member | None:
        """The first member that was in the way, if the refusal names it."""
        sequence = refused.last_sequence
        if sequence is None:
            return None
        message = await self._js.message_at(self._stream, sequence)
        if message is None:
            return None
        subjects = {meta_subject(self._bucket, one.info.digest): one for one in members}
        return subjects.get(message.subject)

    async def _find_out(self, members: Sequence[_Member]) -> None:
        """Ask the leader for the records: the last one that is ours tells that all were stored.

        Any other tells of itself alone: a server that was killed may have stored the first few.
        """
        last = members[-1]
        try:
            if await self._is_stored(last):
                for member in members:
                    member.settle(Stored(info=member.info, created=True))
                return
            for member in members[:-1]:
                if await self._is_stored(member):
                    member.settle(Stored(info=member.info, created=True))
        except HoldfastError as error:
            raise OutcomeUnknownError(UNKNOWN) from error
        raise OutcomeUnknownError(UNKNOWN)

    async def _is_stored(self, member: _Member) -> bool:
        """Whether the member's record was stored, also where its blob has been deleted since."""
        digest = member.info.digest
        message = await self._js.last_message(self._stream, meta_subject(self._bucket, digest))
        meta = entry_of(message, digest).meta
        return meta is not None and meta.nuid == member.info.generation


def _finite(seconds: float) -> float | None:
    return None if seconds == math.inf else max(seconds, 0)
