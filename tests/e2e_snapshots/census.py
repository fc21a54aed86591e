"""The content of a deployment's streams, message by message, as their leaders have it."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.nats.tools import connected

from holdfast.bootstrap.sources import SOURCES
from holdfast.repository.uploads.stagings import living_stagings
from holdfast.stores.jetstream.blobs.meta import decode_meta
from holdfast.stores.jetstream.buckets.provisioning import bucket_names
from holdfast.stores.jetstream.records import OPERATION, KeyValueRecordStore
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.deployment import Deployment

    from holdfast.stores.jetstream.buckets.provisioning import Buckets
    from holdfast.transport.jetstream_messages import StoredMessage


@dataclass(slots=True)
class Tally:
    """A number of messages, and their bytes with subjects and headers."""

    messages: int = 0
    bytes: int = 0

    def add(self, message: StoredMessage) -> None:
        """One more."""
        headers = sum(len(name) + len(text) for name, text in message.headers.items())
        self.messages += 1
        self.bytes += len(message.data) + len(message.subject) + headers


@dataclass(slots=True)
class Census:
    """``chunk_bytes`` are those of each bucket, without headers. ``orphans`` no record names.

    ``lacking`` are copies of which some chunks are not there. Claims count as tombstones.
    """

    chunk_bytes: Counter[str] = field(default_factory=Counter)
    blobs: Counter[str] = field(default_factory=Counter)
    metas: Tally = field(default_factory=Tally)
    records: Tally = field(default_factory=Tally)
    logs: Tally = field(default_factory=Tally)
    tombstones: Tally = field(default_factory=Tally)
    orphans: int = 0
    lacking: list[str] = field(default_factory=list)


class Streams:
    """The streams of a deployment, read past its workers."""

    def __init__(self, jetstream: JetStream, buckets: Buckets) -> None:
        self._js = jetstream
        self._buckets = buckets
        self._records = KeyValueRecordStore(jetstream, buckets.records, new_id=SOURCES.new_id)

    async def living_uploads(self) -> int:
        """How many copies uploads name which may go on."""
        return len(await living_stagings(self._records))

    async def census(self) -> Census:
        """Everything, while nobody writes."""
        found = Census()
        for bucket in self._buckets.of_objects:
            await self._count_objects(bucket, found)
        for bucket in self._buckets.of_records:
            async for message in self._messages(f"KV_{bucket}", f"$KV.{bucket}.>"):
                is_marker = OPERATION in message.headers or "Nats-Marker-Reason" in message.headers
                (found.tombstones if is_marker else found.records).add(message)
        states = self._buckets.states
        async for message in self._messages(f"HF_{states}", f"$HF.{states}.>"):
            found.logs.add(message)
        return found

    async def _count_objects(self, bucket: str, found: Census) -> None:
        """The records of blobs, and then the chunks, each of which one of them names."""
        stream = f"OBJ_{bucket}"
        expected: dict[str, int] = {}
        async for message in self._messages(stream, f"$O.{bucket}.M.>"):
            meta = decode_meta(message.data)
            (found.tombstones if meta.deleted else found.metas).add(message)
            if not meta.deleted:
                found.blobs[bucket] += 1
                expected[meta.nuid] = meta.chunks
        chunks: Counter[str] = Counter()
        async for message in self._messages(stream, f"$O.{bucket}.C.>"):
            chunks[message.subject.rpartition(".")[2]] += 1
            found.chunk_bytes[bucket] += len(message.data)
        found.orphans += sum(count for nuid, count in chunks.items() if nuid not in expected)
        found.lacking += [nuid for nuid, count in expected.items() if chunks[nuid] != count]

    async def _messages(self, stream: str, subject: str) -> AsyncIterator[StoredMessage]:
        sequence = 0
        while message := await self._js.next_message(stream, subject, sequence + 1):
            yield message
            sequence = message.sequence


@asynccontextmanager
async def streams_of(deployment: Deployment) -> AsyncIterator[Streams]:
    """Those of ``deployment``, over a connection of their own."""
    async with connected(deployment.config.nats) as connection:
        jetstream = JetStream(connection, Inbox(connection))
        yield Streams(jetstream, bucket_names("blobs", deployment.prefix))
