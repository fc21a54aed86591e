"""Records in a JetStream KV bucket (ADR-8): every change is a compare-and-set on the key's subject.

Reads ask the leader: a record decides who owns an upload, and a stale one would lie.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.errors import ConflictError, NotFoundError, OutcomeUnknownError, UnavailableError
from holdfast.stores.ports import Record
from holdfast.stores.record_keys import check_record_key
from holdfast.transport.jetstream import (
    EXPECTED_SUBJECT_SEQUENCE,
    MSG_ID,
    ROLLUP,
    TTL,
    RefusedError,
    StoredMessage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta

    from holdfast.transport.jetstream import JetStream

OPERATION: Final = "KV-Operation"
MARKER_REASON: Final = "Nats-Marker-Reason"
_DELETED: Final = frozenset({"DEL", "PURGE"})
_PAGE: Final = 500
_TOMBSTONE_TTL: Final = "86400s"


class KeyValueRecordStore:
    """A RecordStore over one bucket."""

    def __init__(self, jetstream: JetStream, bucket: str, *, new_id: Callable[[], str]) -> None:
        """``new_id`` gives fresh message ids."""
        self.bucket = bucket
        self.stream = f"KV_{bucket}"
        self._js = jetstream
        self._new_id = new_id

    async def get(self, key: str) -> Record:
        """See RecordStore."""
        message = await self._last(key)
        if message is None or _is_deleted(message):
            msg = "no such record"
            raise NotFoundError(msg)
        return self._record(message)

    async def put(
        self, key: str, value: bytes, *, expected: int, ttl: timedelta | None = None
    ) -> int:
        """See RecordStore."""
        headers = {TTL: f"{max(math.ceil(ttl.total_seconds()), 1)}s"} if ttl is not None else {}
        return await self._change(key, value, expected, headers)

    async def delete(self, key: str, *, expected: int) -> None:
        """See RecordStore."""
        headers = {OPERATION: "PURGE", ROLLUP: "sub", TTL: _TOMBSTONE_TTL}
        await self._change(key, b"", expected, headers)

    async def _change(self, key: str, value: bytes, expected: int, extra: dict[str, str]) -> int:
        message_id = self._new_id()
        sequence = expected
        if expected == 0:
            present = await self._last(key)
            if present is not None:
                if not _is_deleted(present):
                    raise ConflictError(_TAKEN)
                sequence = present.sequence  # over a tombstone
        headers = {EXPECTED_SUBJECT_SEQUENCE: str(sequence), MSG_ID: message_id, **extra}
        try:
            ack = await self._js.publish(self._subject(key), value, headers)
        except RefusedError as refused:
            if not refused.conflict:
                raise refused.translate() from refused
            # A repeat of our own write meets it; the message id tells.
            try:
                present = await self._last(key)
            except UnavailableError as error:
                if refused.certain:
                    raise ConflictError(_CHANGED) from refused
                msg = "the store did not say whether it has the record"
                raise OutcomeUnknownError(msg) from error
            if present is None or present.headers.get(MSG_ID) != message_id:
                raise ConflictError(_CHANGED) from refused
            return present.sequence
        return ack.seq

    async def list_records(self, prefix: str) -> AsyncIterator[Record]:
        """See RecordStore."""
        filtered = f"$KV.{self.bucket}.>"
        if prefix:
            filtered = f"{self._subject(prefix)}.>"
            with suppress(NotFoundError):
                yield await self.get(prefix)
        position = 1
        pending = 1
        while pending:
            query = {"batch": _PAGE, "seq": position, "next_by_subj": filtered}
            messages, pending = await self._js.direct_batch(self.stream, query)
            for message in messages:
                position = message.sequence + 1
                if not _is_deleted(message):
                    yield self._record(message)

    async def check(self) -> None:
        """Raises UnavailableError with a sentence when the bucket is not there."""
        try:
            answer = await self._js.api(f"STREAM.INFO.{self.stream}")
        except NotFoundError as error:
            msg = f"the bucket {self.bucket!r} is not there; `holdfast admin init` makes it"
            raise UnavailableError(msg) from error
        config = answer["config"]
        for field, wanted in (("max_age", 0), ("max_msgs", -1), ("allow_msg_ttl", True)):
            if config.get(field, wanted) != wanted:
                msg = f"the bucket {self.bucket!r} has {field}={config[field]!r}, not {wanted!r}"
                raise UnavailableError(msg)

    async def aclose(self) -> None:
        """See RecordStore. The connection is the caller's."""

    async def _last(self, key: str) -> StoredMessage | None:
        return await self._js.last_message(self.stream, self._subject(key))

    def _subject(self, key: str) -> str:
        check_record_key(key)
        return f"$KV.{self.bucket}.{key}"

    def _record(self, message: StoredMessage) -> Record:
        key = message.subject.removeprefix(f"$KV.{self.bucket}.")
        return Record(key=key, value=bytes(message.data), revision=message.sequence)


_TAKEN: Final = "the record exists already"
_CHANGED: Final = "the record has changed"


def _is_deleted(message: StoredMessage) -> bool:
    return message.headers.get(OPERATION) in _DELETED or MARKER_REASON in message.headers
