"""Records in a JetStream KV bucket (ADR-8): every change is a compare-and-set on the key's subject.

Reads ask the leader: a record decides who owns an upload, and a stale one would lie. Several
changes are one atomic batch (ADR-50). A removal is a purge marker that goes away by itself, unless
it is for good: a nats-server that is killed may bring deleted messages back, and a marker that
stays covers them. A grave is a stock client's deletion that has a value.

A condition is tried before it is looked at: a key that is new takes no read. Where the server
refuses, the records as they are tell whether that was a marker in the way, this store's own write
whose answer was lost (its message id is there), or a conflict.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from holdfast.errors import (
    ConflictError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.stores.jetstream.buckets.check import check_bucket
from holdfast.stores.jetstream.conflicts import Certainty
from holdfast.stores.jetstream.follow import StreamReader
from holdfast.stores.keys import (
    CheckedChanges,
    check_limit,
    check_many,
    check_prefix,
    check_record_key,
    is_key_below,
)
from holdfast.stores.record_ports import CHANGES_LIMIT, Changed, Changes, Delete, Extent, Record
from holdfast.transport.backoff import Backoff
from holdfast.transport.jetstream_messages import (
    EXPECTED_SUBJECT_SEQUENCE,
    MSG_ID,
    ROLLUP,
    TTL,
    BatchMessage,
    RefusedError,
    StoredMessage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from holdfast.stores.record_ports import Change
    from holdfast.transport.jetstream import JetStream

OPERATION: Final = "KV-Operation"
MARKER_REASON: Final = "Nats-Marker-Reason"
MARKER_TTL: Final = timedelta(minutes=1)
"""A removal shows in the bucket for so long; until then its key is listed."""

_DELETED: Final = frozenset({"DEL", "PURGE"})
_PAGE: Final = 500
_ATTEMPTS: Final = 6
_RETRY_SECONDS: Final = 0.05
_LONGEST_RETRY_SECONDS: Final = 1.6
_LEADER_READS: Final = 32
"""Asked of the leader at the same time."""

_LIST_ATTEMPTS: Final = 8


class KeyValueRecordStore(CheckedChanges):
    """A RecordStore over one bucket."""

    def __init__(
        self,
        jetstream: JetStream,
        bucket: str,
        *,
        new_id: Callable[[], str],
        marker_ttl: timedelta = MARKER_TTL,
    ) -> None:
        """``new_id`` gives fresh message ids. ``marker_ttl`` is whole seconds."""
        self.bucket = bucket
        self.stream = f"KV_{bucket}"
        self._js = jetstream
        self._new_id = new_id
        self._marker_ttl = marker_ttl
        self._reader = StreamReader(jetstream, self.stream)

    async def get(self, key: str, *, sure: bool = False) -> Record:
        """See RecordStore."""
        ask = self._js.believed if sure else self._js.surely
        message = await ask(self.stream, lambda: self._live(key))
        if message is None:
            raise NotFoundError("no such record")
        return self._record(message)

    async def _change(self, changes: Sequence[Change]) -> list[int]:
        """Make the changes, and return the sequences that they got."""
        ids = [self._new_id() for _ in changes]
        sequences = [change.expected for change in changes]
        outcome, changed = Certainty(_UNKNOWN), True
        backoff = Backoff(_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        for _ in range(_ATTEMPTS):
            messages = [
                self._message(change, sequence, message_id)
                for change, sequence, message_id in zip(changes, sequences, ids, strict=True)
            ]
            with outcome:
                try:
                    return await self._publish(messages)
                except RefusedError as refused:
                    outcome.certain &= refused.certain
                    if not (refused.conflict or refused.repeated):
                        raise outcome.or_unknown(refused.translate()) from refused
                    present = await self._last_of([change.key for change in changes])
                    if (own := _own_sequences(present, ids)) is not None:
                        return own
                    if refused.repeated:  # ours were stored, and then others over them
                        raise OutcomeUnknownError(_UNKNOWN) from refused
                    found = _next_sequences(changes, present)
                    if found is None:
                        raise await self._overtaken(changes, present, outcome) from refused
                    changed = found != sequences
                    # Unchanged: met a write in flight, or something that is gone since.
                    if not changed and not await backoff.wait():
                        break
                    sequences = found
        raise outcome.or_unknown(
            ConflictError(_CHANGED) if changed else UnavailableError(_IN_FLIGHT)
        )

    async def _publish(self, messages: list[BatchMessage]) -> list[int]:
        """Their sequences."""
        if len(messages) == 1:
            (one,) = messages
            return [(await self._js.publish(one.subject, one.data, one.headers)).seq]
        last = (await self._js.publish_batch(messages, new_id=self._new_id)).seq
        return list(range(last - len(messages) + 1, last + 1))

    def _message(self, change: Change, sequence: int | None, message_id: str) -> BatchMessage:
        headers = {MSG_ID: message_id}
        if sequence is not None:
            headers[EXPECTED_SUBJECT_SEQUENCE] = str(sequence)
        if isinstance(change, Delete):
            headers |= {OPERATION: "PURGE", ROLLUP: "sub"}
            if not change.for_good:
                headers[TTL] = _seconds(self._marker_ttl)
            return BatchMessage(self._subject(change.key), b"", headers)
        if change.grave:
            headers[OPERATION] = "DEL"
        if change.ttl is not None:
            headers[TTL] = _seconds(change.ttl)
        return BatchMessage(self._subject(change.key), change.value, headers)

    async def _overtaken(
        self, changes: Sequence[Change], present: Sequence[StoredMessage | None], outcome: Certainty
    ) -> HoldfastError:
        """The error where others were first.

        Where a record is untouched our changes were surely never made: all or none would have been.
        """
        if not outcome.certain and _some_untouched(changes, present):
            with suppress(UnavailableError):
                await self._js.check_leader(self.stream)
                outcome.certain = True
        return outcome.or_unknown(ConflictError(_CHANGED))

    async def get_many(self, keys: Sequence[str]) -> list[Record]:
        """See RecordStore. A replica's word suffices that a record is there, not that it is not."""
        wanted = check_many(keys)
        subjects = [self._subject(key) for key in wanted]
        messages = await self._js.direct_lasts(self.stream, subjects)
        found = {message.subject: message for message in messages}
        records = {}
        doubtful = []
        for key in wanted:
            message = found.get(self._subject(key))
            if message is not None and _is_removed_for_good(message):
                continue
            if message is None or _is_deleted(message):
                doubtful.append(key)
            else:
                records[key] = self._record(message)
        if doubtful:
            await self._js.check_leader(self.stream)
        for key, present in zip(doubtful, await self._last_of(doubtful), strict=True):
            if present is not None and not _is_deleted(present):
                records[key] = self._record(present)
        return [records[key] for key in wanted if key in records]

    async def list_keys(self, prefix: str) -> list[str]:
        """See RecordStore. Cleaned up after ``marker_ttl``, but for keys deleted for good.

        The leader is asked for its subjects, which cost it no look at a message. More than fit
        into one answer come page by page. Raises UnavailableError when they never fit together.
        """
        check_prefix(prefix)
        for _ in range(_LIST_ATTEMPTS):
            keys = await self._all_keys(prefix)
            if keys is not None:
                await self._js.check_leader(self.stream)
                return keys
        raise UnavailableError("the records change too often to be listed")

    async def _all_keys(self, prefix: str) -> list[str] | None:
        """Every page of the keys; None if one does not begin with the end of the one before.

        Then keys before it went away, those behind it moved up, and some may have been passed
        over. This may leave nothing at all where the next page was to begin.
        """
        keys, total = await self._keys_page(prefix, 0)
        read = len(keys)
        while keys and read < total:
            last = keys[-1]
            page, total = await self._keys_page(prefix, read - 1)
            if not page or page[0] > last or (len(page) == 1 and read < total):
                return None
            read += len(page) - 1
            keys = [*(key for key in keys if key < page[0]), *page]
        return keys

    async def _keys_page(self, prefix: str, offset: int) -> tuple[list[str], int]:
        """Keys below ``prefix`` from ``offset`` on, and how many there are in all."""
        found, total = await self._js.subjects(self.stream, self._all_below(prefix), offset)
        keys = [subject.removeprefix(self._subject("")) for subject in found]
        return sorted(key for key in keys if is_key_below(key, prefix)), total

    async def list_records(self, prefix: str) -> AsyncIterator[Record]:
        """See RecordStore."""
        check_prefix(prefix)
        if prefix:
            with suppress(NotFoundError):
                yield await self.get(prefix)
        position = 1
        pending = 1
        while pending:
            query = {"batch": _PAGE, "seq": position, "next_by_subj": self._all_below(prefix)}
            messages, pending = await self._js.direct_batch(self.stream, query)
            for message in messages:
                position = message.sequence + 1
                if not _is_deleted(message):
                    yield self._record(message)

    async def extent(self) -> Extent:
        """See RecordStore. A leader that is believed says so."""
        state = await self._js.state(self.stream)
        return Extent(created=state.created, last=state.last_sequence, keys=state.num_subjects)

    async def count(self, prefix: str) -> int:
        """See RecordStore. A leader that is believed says so."""
        check_prefix(prefix)
        return await self._js.count_subjects(self.stream, self._all_below(prefix))

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> Changes:
        """See RecordStore."""
        check_limit(limit)
        messages, position, is_end = await self._reader.read(after + 1, limit)
        changes = [self._changed(message) for message in messages]
        return Changes(changes=changes, position=position, is_end=is_end)

    async def check(self) -> None:
        """See RecordStore."""
        await check_bucket(self._js, self.bucket, self.stream)

    async def aclose(self) -> None:
        """See RecordStore. The connection is the caller's."""

    async def _live(self, key: str) -> StoredMessage | None:
        """The record as the leader has it; None if there is none, or it was removed."""
        message = await self._last(key)
        return None if message is None or _is_deleted(message) else message

    async def _last(self, key: str) -> StoredMessage | None:
        check_record_key(key)
        return await self._js.last_message(self.stream, self._subject(key))

    async def _last_of(self, keys: Sequence[str]) -> list[StoredMessage | None]:
        slots = asyncio.Semaphore(_LEADER_READS)

        async def last(key: str) -> StoredMessage | None:
            async with slots:
                return await self._last(key)

        return list(await asyncio.gather(*map(last, keys)))

    def _changed(self, message: StoredMessage) -> Changed:
        return Changed(
            key=message.subject.removeprefix(self._subject("")),
            revision=message.sequence,
            value=None if _is_deleted(message) else bytes(message.data),
            at=message.time,
        )

    def _subject(self, key: str) -> str:
        return f"$KV.{self.bucket}.{key}"

    def _all_below(self, prefix: str) -> str:
        return self._subject(f"{prefix}.>" if prefix else ">")

    def _record(self, message: StoredMessage) -> Record:
        key = message.subject.removeprefix(f"$KV.{self.bucket}.")
        return Record(key=key, value=bytes(message.data), revision=message.sequence)


_CHANGED: Final = "the record has changed"
_UNKNOWN: Final = "the store did not say whether it has the record"
_IN_FLIGHT: Final = "another write of the record is under way and does not end"


def _own_sequences(present: Sequence[StoredMessage | None], ids: Sequence[str]) -> list[int] | None:
    """The sequences of our messages, if one of them is there: they follow each other."""
    for number, (message, own) in enumerate(zip(present, ids, strict=True)):
        if message is not None and message.headers.get(MSG_ID) == own:
            first = message.sequence - number
            return list(range(first, first + len(ids)))
    return None


def _some_untouched(changes: Sequence[Change], present: Sequence[StoredMessage | None]) -> bool:
    """Whether one of the records is no newer than it was expected to be before the change."""
    return any(
        change.expected is not None
        and (message.sequence if message is not None else 0) <= change.expected
        for change, message in zip(changes, present, strict=True)
    )


def _next_sequences(
    changes: Sequence[Change], present: Sequence[StoredMessage | None]
) -> list[int | None] | None:
    """Sequences to expect of the subjects in another attempt; None if a record is another by now.

    No record is a subject without a message, or one whose last is a marker.
    """
    sequences: list[int | None] = []
    for change, message in zip(changes, present, strict=True):
        if change.expected is None:
            sequences.append(None)
            continue
        live = message is not None and not _is_deleted(message)
        revision = message.sequence if message is not None and live else 0
        if revision != change.expected:
            return None
        sequences.append(message.sequence if message is not None else 0)
    return sequences


def _seconds(duration: timedelta) -> str:
    return f"{max(math.ceil(duration.total_seconds()), 1)}s"


def _is_deleted(message: StoredMessage) -> bool:
    operation = message.headers.get(OPERATION)
    is_grave = operation == "DEL" and len(message.data) > 0
    return (operation in _DELETED and not is_grave) or MARKER_REASON in message.headers


def _is_removed_for_good(message: StoredMessage) -> bool:
    """Whether nothing comes after ``message``: then any replica may tell."""
    return _is_deleted(message) and OPERATION in message.headers and TTL not in message.headers
