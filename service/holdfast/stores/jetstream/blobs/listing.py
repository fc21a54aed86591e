"""Listing the blobs of a JetStream Object Store bucket, page by page.

All are listed in the order in which their records were written. Those whose digests begin with
some digits are not found by any request, for subjects have the whole name in one token: in a bucket
that is too large to be looked through for each page, a worker keeps the digests that it has met
(`DigestIndex`), and reads on from where it was before each page, to the leader's end. So a listing
is never older than its request; what the index cannot know (a stream that was restored) makes it
begin anew, and beyond ``MAX_INDEXED`` there is none.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from holdfast.deadline import seconds_left, shared_task
from holdfast.domain.digest import Digest, is_digest
from holdfast.errors import InvalidError
from holdfast.form.digest_index import DigestIndex
from holdfast.stores.jetstream.blobs.meta import meta_subject, name_at, to_entry
from holdfast.stores.jetstream.blobs.walk import RecordWalk
from holdfast.stores.ports import BlobInfo, BlobListing, ForeignObject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

MAX_INDEXED: Final = 4_000_000
"""Digests that a worker keeps, at 40 bytes each; some are of blobs that were deleted."""

_SMALL: Final = 512
"""A bucket with no more messages needs no index."""

_ROWS_AT_ONCE: Final = 64
"""So many records are decoded before others have their turn."""

_CATCH_UP_SECONDS: Final = 2.0
"""Seconds a page waits for the index. Then it comes empty, to be asked for again."""

_ROUNDS: Final = 4
_NEVER_STALE: Final = 2**64 - 1
_CURSOR: Final = re.compile(r"([1-9]\d{0,17})|d((?:[0-9a-f]{64})?)", re.ASCII)


class ObjectListing:
    """The blobs in one bucket."""

    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._index = DigestIndex()
        self._indexed_to = 1
        self._lineage: tuple[object, ...] = ()
        self._last_sequence = 0
        self._catching_up: asyncio.Task[bool] | None = None

    async def page(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """See ``BlobStore.list_blobs``."""
        match = _CURSOR.fullmatch("1" if cursor is None else cursor)
        if match is None or (match[1] is None and not prefix):
            raise InvalidError("not a cursor of this listing")
        if is_digest(prefix):
            return await self._found([(Digest(prefix), _NEVER_STALE)])
        if match[1] is None:
            return await self._indexed_page(prefix, match[2], limit)
        if prefix and cursor is None:
            state = await self._js.state(self._stream)
            if state.messages > _SMALL and state.num_subjects <= MAX_INDEXED:
                return await self._indexed_page(prefix, "", limit)
        return await self._scanned_page(prefix, int(match[1]), limit)

    # --- in the order in which records were written ---

    async def _scanned_page(self, prefix: str, position: int, limit: int) -> BlobListing:
        walk = RecordWalk(self._js, self._bucket, position)
        rows: list[tuple[StoredMessage, BlobInfo | ForeignObject]] = []
        met: dict[str, int] = {}
        cursor: str | None = None
        while cursor is None and walk.goes_on:
            records = await walk.step(limit - len(rows)) if not prefix else await walk.step()
            met |= {record.subject: record.sequence for record in records}
            for number, record in enumerate(records, 1):
                if number % _ROWS_AT_ONCE == 0:
                    await asyncio.sleep(0)
                entry = _row(record, prefix)
                if entry is not None:
                    rows.append((record, entry))
                    if len(rows) == limit:
                        cursor = str(record.sequence + 1)
                        break
        if cursor is None and not walk.is_at_end:
            cursor = str(walk.position)
        gone = await self._ghosts([record for record, _ in rows], met, walk.position)
        left = [(record, entry) for record, entry in rows if record.sequence not in gone]
        return BlobListing(
            entries=[entry for _, entry in left],
            after=[str(record.sequence + 1) for record, _ in left],
            cursor=cursor,
            reached=None if cursor is None else int(cursor) - 1,
        )

    async def _ghosts(
        self, records: Sequence[StoredMessage], met: Mapping[str, int], position: int
    ) -> set[int]:
        """The sequences of ``records`` beneath later ones, which came back: a server was killed.

        A record is written with a roll-up, which removes those before it; but the stream keeps any
        number of messages on a subject, and a removed one may come back (docs/decisions.md,
        "Deleting removes at once"). A read of the last message never sees it. ``met`` has the last
        record on each subject before ``position``: only for what lies behind the server is asked.
        Any replica's word will do, for one that lags can only know of fewer.
        """
        subjects = [record.subject for record in records]
        later = await self._js.direct_lasts(self._stream, subjects, since=position)
        last = {**met, **{message.subject: message.sequence for message in later}}
        return {one.sequence for one in records if last[one.subject] > one.sequence}

    # --- by the first digits ---

    async def _indexed_page(self, prefix: str, position: str, limit: int) -> BlobListing:
        knows = await self._is_caught_up()
        if knows is None:
            return BlobListing(entries=[], after=[], cursor=f"d{position}")
        if not knows:
            return await self._scanned_page(prefix, 1, limit)
        entries: list[BlobInfo | ForeignObject] = []
        for _ in range(_ROUNDS):
            wanted = limit - len(entries)
            found = self._index.find(prefix, position, wanted)
            entries += (await self._found(found)).entries
            if len(found) < wanted:
                return BlobListing(entries=entries, after=_after(entries), cursor=None)
            position = found[-1][0]
            if len(entries) == limit:
                break
        return BlobListing(entries=entries, after=_after(entries), cursor=f"d{position}")

    async def _is_caught_up(self) -> bool | None:
        """Whether the index has all that was there when this was asked; None: not in time."""
        now = asyncio.get_running_loop().time
        until = now() + seconds_left(2 * _CATCH_UP_SECONDS) / 2
        running = self._catching_up
        if running is not None and not running.done():
            # It may have met the end before that was written which the asker expects to see.
            await asyncio.wait([running], timeout=max(until - now(), 0))
            if not running.done():
                return None
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = shared_task(self._catch_up())
        catching_up = self._catching_up
        await asyncio.wait([catching_up], timeout=max(until - now(), 0))
        return catching_up.result() if catching_up.done() else None

    async def _catch_up(self) -> bool:
        """Read on to the end; False when there is too much for an index."""
        state = await self._js.state(self._stream)
        lineage = (self._js.connection.wire, state.created)
        if lineage != self._lineage or state.last_sequence < self._last_sequence:
            # Another stream, or one that may have lost its end in a crash and counts on from there.
            self._index, self._indexed_to, self._lineage = DigestIndex(), 1, lineage
        self._last_sequence = state.last_sequence
        walk = RecordWalk(self._js, self._bucket, self._indexed_to)
        while not walk.is_at_end:
            for record in await walk.step():
                name = name_at(record.subject)
                if is_digest(name):
                    self._index.note(Digest(name), record.sequence)
            self._indexed_to = walk.position  # not before: a step may fail when it has gone on
            if len(self._index) > MAX_INDEXED:
                self._index, self._lineage = DigestIndex(), ()
                return False
        return True

    async def _found(self, digests: Sequence[tuple[Digest, int]]) -> BlobListing:
        """The rows of those that are there still. A record older than was met is a stale one."""
        subjects = {meta_subject(self._bucket, digest): least for digest, least in digests}
        messages = await self._js.direct_lasts(self._stream, list(subjects))
        records: dict[str, StoredMessage | None] = {
            message.subject: message for message in messages
        }
        entries: list[BlobInfo | ForeignObject] = []
        for number, (subject, least) in enumerate(subjects.items(), 1):
            if number % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
            record = records.get(subject)
            if record is None or record.sequence < least:
                record = await self._js.last_message(self._stream, subject)
            entry = _row(record, name_at(subject)) if record is not None else None
            if entry is not None:
                entries.append(entry)
        return BlobListing(entries=entries, after=_after(entries), cursor=None)

    async def aclose(self) -> None:
        """Stop reading on."""
        if self._catching_up is not None:
            self._catching_up.cancel()
            await asyncio.wait([self._catching_up])


def _after(entries: Sequence[BlobInfo | ForeignObject]) -> list[str]:
    return [f"d{entry.digest}" for entry in entries if isinstance(entry, BlobInfo)]


def _row(record: StoredMessage, prefix: str) -> BlobInfo | ForeignObject | None:
    """The row for one record; None for one that a listing leaves out."""
    subject = record.subject
    if not record.data or (prefix and not name_at(subject).startswith(prefix)):
        return None
    entry = to_entry(record.data, subject)
    return None if prefix and not isinstance(entry, BlobInfo) else entry
