"""Logs in a stream of JetStream, one subject each: an append is a compare-and-set on its subject.

The stream takes no roll-ups, so no publish can remove an entry; a trim is a purge up to a sequence,
which does no harm however late it arrives. An entry carries a checksum of its own, and the sequence
of the one before it in the header that the server compares.

Where the server refuses an append, the entry behind the expected one tells: it is this append's
own, whose answer was lost, or another's, and then this one is in the log nowhere. An appender
tells those who follow, by a message that is not stored: they see what is durable.

Why: docs/decisions.md, "Logs of states".
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import UnavailableError
from holdfast.stores.jetstream.buckets.check import check_bucket
from holdfast.stores.jetstream.buckets.replication import read_bucket
from holdfast.stores.jetstream.conflicts import Certainty
from holdfast.stores.journal_parts import (
    CheckedJournal,
    Waiter,
    checksum_of,
    not_the_last,
    page_up_to_damage,
)
from holdfast.stores.journal_ports import DamagedEntryError, JournalEntry, JournalPage
from holdfast.stores.keys import check_record_key
from holdfast.transport.backoff import Backoff
from holdfast.transport.jetstream import CATCH_UP_SECONDS
from holdfast.transport.jetstream_messages import EXPECTED_SUBJECT_SEQUENCE, MSG_ID, RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from holdfast.stores.journal_parts import Append
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage
    from holdfast.transport.message import Message

CHECKSUM: Final = "Holdfast-Checksum"
_ATTEMPTS: Final = 6
_RETRY_SECONDS: Final = 0.05
_LONGEST_RETRY_SECONDS: Final = 1.6
_FLUSH_SECONDS: Final = 5
_MOST_FULL: Final = 0.75
_UNKNOWN: Final = "the store did not say whether it has the entry"
_IN_FLIGHT: Final = "another append to the log is under way and does not end"


class StreamJournalStore(CheckedJournal):
    """A JournalStore over one stream."""

    catch_up_seconds = CATCH_UP_SECONDS

    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        self.bucket = bucket
        self.stream = f"HF_{bucket}"
        self._js = jetstream

    @property
    def session(self) -> object:
        """See JournalStore: a server may come back with less."""
        return self._js.connection.wire

    async def _append(self, one: Append) -> int:
        log, headers = one.log, _headers(one)
        outcome = Certainty(_UNKNOWN)
        backoff = Backoff(_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        for _ in range(_ATTEMPTS):
            with outcome:
                sequence: int | None
                try:
                    sequence = (await self._js.publish(self._subject(log), one.value, headers)).seq
                except RefusedError as refused:
                    outcome.certain &= refused.certain
                    if not refused.conflict:
                        raise outcome.or_unknown(refused.translate()) from refused
                    try:
                        sequence = await self._after_refusal(one, outcome)
                    except DamagedEntryError as damage:
                        if damage.sequence != one.expected or not one.behind_damage:
                            raise
                        headers = _headers(replace(one, expected=0))  # as the server sees it
                        continue
                if sequence is not None:
                    return self._appended(log, sequence)
            if not await backoff.wait():
                break
        raise outcome.or_unknown(UnavailableError(_IN_FLIGHT))

    async def _after_refusal(self, one: Append, outcome: Certainty) -> int | None:
        """The sequence of this append's entry; None where the log ends as it was expected to.

        Then another append is in flight.
        """
        behind = await self._behind(one.log, one.expected + 1)
        last = behind or await self._last(one.log)
        if behind is not None and behind.headers.get(MSG_ID) == one.message_id:
            return behind.sequence
        if behind is None and one.expected == (last.sequence if last is not None else 0):
            return None
        # Otherwise ours may have been stored, and then trimmed or lost.
        follows = behind is not None and behind.headers.get(EXPECTED_SUBJECT_SEQUENCE)
        error = not_the_last(one.log)
        raise error if follows == str(one.expected) else outcome.or_unknown(error)

    def _appended(self, log: str, sequence: int) -> int:
        """Tell those who follow, in the turn of the loop in which appenders are answered."""
        asyncio.get_running_loop().call_soon(self._tell, log, sequence)
        return sequence

    def _tell(self, log: str, sequence: int) -> None:
        with suppress(UnavailableError):
            self._js.connection.send(self._grown(log), b"%d" % sequence)

    async def last(self, log: str) -> JournalEntry | None:
        """See JournalStore."""
        check_record_key(log)
        message = await self._last(log)
        return None if message is None else self._entry(log, message)

    async def first_from(self, log: str, sequence: int) -> JournalEntry | None:
        """See JournalStore."""
        check_record_key(log)
        message = await self._behind(log, max(sequence, 1))
        return None if message is None else self._entry(log, message)

    async def first_since(self, log: str, moment: datetime) -> JournalEntry | None:
        """See JournalStore. A replica may tell of an entry, but not that there is none."""
        check_record_key(log)
        query = {"start_time": moment.isoformat(), "next_by_subj": self._subject(log)}
        message = await self._js.direct_at(self.stream, query)
        if message is not None:
            return self._entry(log, message)
        last = await self.last(log)
        if last is None or last.at < moment:
            return None
        return await self._search(log, last, moment)

    async def _search(self, log: str, found: JournalEntry, moment: datetime) -> JournalEntry:
        """The first entry since ``moment``, of which ``found`` is one, by bisection."""
        first, behind = 1, found.sequence
        while first < behind:
            middle = (first + behind) // 2
            entry = await self.first_from(log, middle) or found
            if entry.at >= moment:
                found, behind = entry, middle
            else:
                first = entry.sequence + 1
        return found

    async def _page(
        self, log: str, after: int, limit: int, max_bytes: int, *, sure: bool
    ) -> JournalPage:
        """Entries come in order and without gaps from any replica."""
        last = await self._last(log) if sure else None
        if sure and (last is None or last.sequence <= after):
            return JournalPage(entries=(), is_end=True)
        query: dict[str, Any] = {
            "seq": after + 1,
            "next_by_subj": self._subject(log),
            "batch": limit,
            "max_bytes": max_bytes,
        }
        messages, pending = await self._js.direct_batch(self.stream, query)
        is_end = not pending
        if last is not None:
            if not messages:  # a replica that lags
                found = await self._behind(log, after + 1)
                messages = [found] if found is not None else []
            is_end = not messages or messages[-1].sequence >= last.sequence
        return page_up_to_damage(
            messages, lambda message: self._entry(log, message), max_bytes=max_bytes, is_end=is_end
        )

    async def _end(self, log: str) -> int:
        last = await self._last(log)
        return 0 if last is None else last.sequence

    async def remove(self, log: str, through: int) -> None:
        """See JournalStore."""
        check_record_key(log)
        if through > 0:  # a purge up to nothing would be one of all
            await self._js.purge(self.stream, self._subject(log), up_to=through)

    @asynccontextmanager
    async def follow(self, log: str) -> AsyncIterator[Waiter]:
        """See JournalStore."""
        check_record_key(log)
        waiter = Waiter()

        def told(message: Message) -> None:
            with suppress(ValueError):
                waiter.tell(int(bytes(message.data)))

        route = self._js.connection.route(self._grown(log), told)
        try:
            await self._js.connection.wait_flushed(_FLUSH_SECONDS)
            yield waiter
        finally:
            self._js.connection.unroute(route)

    async def now(self) -> datetime:
        """See JournalStore."""
        return await self._js.leaders_time(self.stream)

    async def has_little_room(self) -> bool:
        """See JournalStore. Only a limit of the stream's own is looked at."""
        found = await read_bucket(self._js, self.stream)
        return 0 < found.max_bytes * _MOST_FULL < found.bytes

    async def check(self) -> None:
        """See JournalStore."""
        await check_bucket(self._js, self.bucket, self.stream)

    async def aclose(self) -> None:
        """See JournalStore. The connection is the caller's."""

    async def _last(self, log: str) -> StoredMessage | None:
        """The last message, by a leader that is believed.

        The server says of one that it cannot read that there is none, and takes that for the end of
        the log which an append expects. Raises DamagedEntryError.
        """
        subject = self._subject(log)

        async def look() -> tuple[StoredMessage | None, bool]:
            for _ in range(2):
                found = await self._js.last_message(self.stream, subject)
                if found is not None or not await self._js.counts(self.stream, subject):
                    return found, True
            return None, False

        found, is_readable = await self._js.believed(self.stream, look)
        if not is_readable:
            raise DamagedEntryError(log, await self._end_of_readable(subject))
        return found

    async def _end_of_readable(self, subject: str) -> int:
        """The sequence behind the last message that the server can read."""
        first, behind = 1, 1 + (await self._js.state(self.stream)).last_sequence
        while first < behind:
            middle = (first + behind) // 2
            found = await self._js.next_message(self.stream, subject, middle)
            if found is None:
                behind = middle
            else:
                first = found.sequence + 1
        return first

    async def _behind(self, log: str, sequence: int) -> StoredMessage | None:
        """The first message at or behind ``sequence``."""
        subject = self._subject(log)
        return await self._js.surely(
            self.stream, lambda: self._js.next_message(self.stream, subject, sequence)
        )

    def _subject(self, log: str) -> str:
        return f"$HF.{self.bucket}.{log}"

    def _grown(self, log: str) -> str:
        """The subject of the log's growth: none of the stream."""
        return f"$HF.grown.{self.bucket}.{log}"

    def _entry(self, log: str, message: StoredMessage) -> JournalEntry:
        headers = message.headers
        value = bytes(message.data)
        try:
            previous = int(headers[EXPECTED_SUBJECT_SEQUENCE])
            checksum = int(headers[CHECKSUM], 16)
            message_id = headers[MSG_ID]
        except (KeyError, ValueError) as error:
            raise DamagedEntryError(log, message.sequence) from error
        if checksum != checksum_of(log, previous, message_id, value):
            raise DamagedEntryError(log, message.sequence)
        return JournalEntry(
            sequence=message.sequence,
            previous=previous,
            at=message.time,
            message_id=message_id,
            value=value,
        )


def _headers(one: Append) -> dict[str, str]:
    return {
        MSG_ID: one.message_id,
        EXPECTED_SUBJECT_SEQUENCE: str(one.expected),
        CHECKSUM: f"{one.checksum:08x}",
    }
