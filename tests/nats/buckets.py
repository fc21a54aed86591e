"""Buckets of one test each, and what lies in them behind a store's back."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from nats.nuid import NUID
from tests.nats.tools import FlakyJetStream

from holdfast.bootstrap.sources import SOURCES
from holdfast.protocol.headers import BLOB_PART
from holdfast.stores.jetstream.blobs.meta import chunk_subject, decode_meta, meta_subject
from holdfast.stores.jetstream.blobs.objects import ObjectBlobStore
from holdfast.stores.jetstream.buckets.provisioning import (
    ensure_stream,
    object_stream,
    record_stream,
)
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.stores.location import BucketLocation
from holdfast.transport.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.domain.digest import Digest
    from holdfast.stores.jetstream.blobs.meta import ObjectMeta
    from holdfast.transport.connection import Connection
    from holdfast.transport.jetstream_messages import BatchMessage, StoredMessage

NOW = datetime(2026, 3, 2, tzinfo=UTC)
_nuid = NUID()


def new_nuid() -> str:
    """A fresh one."""
    return _nuid.next().decode()


class Bucket:
    """An object store bucket and a store on it, over a network that can be made to lose things."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.js = FlakyJetStream(connection, Inbox(connection))
        self.name = name
        self.stream = f"OBJ_{name}"
        self.store = self.open()

    @classmethod
    async def create(cls, connection: Connection, *, max_bytes: int = -1) -> Bucket:
        """A fresh bucket."""
        bucket = cls(connection, f"b{secrets.token_hex(6)}")
        location = BucketLocation(bucket=bucket.name, max_bytes=max_bytes)
        await ensure_stream(bucket.js, object_stream(bucket.name, location))
        return bucket

    def open(self) -> ObjectBlobStore:
        """A store of its own, as another worker has."""
        return ObjectBlobStore(self.js, self.name, sources=replace(SOURCES, clock=lambda: NOW))

    async def remove(self) -> None:
        """Delete the bucket."""
        await self.js.api(f"STREAM.DELETE.{self.stream}")

    async def messages(self) -> int:
        """How many messages the stream has: one per chunk and one per record."""
        state = (await self.js.api(f"STREAM.INFO.{self.stream}"))["state"]
        count: int = state["messages"]
        return count

    async def chunk_counts(self) -> dict[str, int]:
        """How many chunks there are under each nuid."""
        body = {"subjects_filter": f"$O.{self.name}.C.>"}
        state = (await self.js.api(f"STREAM.INFO.{self.stream}", body))["state"]
        subjects: dict[str, int] = state.get("subjects") or {}
        return {subject.rpartition(".")[2]: count for subject, count in subjects.items()}

    async def meta(self, name: str) -> ObjectMeta | None:
        """The record of an object."""
        message = await self.js.last_message(self.stream, meta_subject(self.name, name))
        return decode_meta(message.data) if message is not None and message.data else None

    async def orphans(self) -> int:
        """How many chunks no live record names."""
        live = set()
        query = {"batch": 1000, "seq": 1, "next_by_subj": f"$O.{self.name}.M.>"}
        records, _ = await self.js.direct_batch(self.stream, query)
        for record in records:
            meta = decode_meta(record.data)
            if not meta.deleted:
                live.add(meta.nuid)
        counts = await self.chunk_counts()
        return sum(count for nuid, count in counts.items() if nuid not in live)

    async def chunks(self, nuid: str) -> list[StoredMessage]:
        """The chunks of one stored copy, as the stream has them."""
        query = {"batch": 1000, "seq": 1, "next_by_subj": chunk_subject(self.name, nuid)}
        messages, _ = await self.js.direct_batch(self.stream, query)
        return messages

    async def replace_chunks(self, nuid: str, chunks: Sequence[bytes]) -> None:
        """Put other bytes where a stored copy has its chunks."""
        subject = chunk_subject(self.name, nuid)
        await self.js.purge(self.stream, subject)
        for part, chunk in enumerate(chunks):
            await self.js.publish(subject, chunk, {BLOB_PART: str(part)})

    async def lose_chunks(self, name: str | Digest) -> None:
        """Remove every chunk of an object and leave its record."""
        meta = await self.meta(name)
        assert meta is not None
        await self.js.purge(self.stream, chunk_subject(self.name, meta.nuid))

    async def write_record(self, name: str | Digest, record: Any) -> None:
        """Write a record as another program would: bytes as they are, anything else as JSON."""
        data = record if isinstance(record, bytes) else msgspec.json.encode(record)
        await self.js.publish(meta_subject(self.name, name), data, {"Nats-Rollup": "sub"})

    async def record(self, name: str | Digest) -> dict[str, Any]:
        """A record as JSON."""
        message = await self.js.last_message(self.stream, meta_subject(self.name, name))
        assert message is not None
        decoded: dict[str, Any] = msgspec.json.decode(message.data)
        return decoded


class Paused:
    """Another writer, over whose requests a test has a say: it stops before the n-th of a kind."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = Bucket(bucket.js.connection, bucket.name)
        self.reached, self.gate = asyncio.Event(), asyncio.Event()
        self.left = 0

    def stop_before(self, number: int, about: str = ".M.") -> None:
        """Stop before the ``number``-th request about a record from now on, counted from 0.

        A batch is one request, about all that its messages are about. ``about`` is what tells such
        a request, or one of another kind.
        """
        self.left = number
        request, send_batch = self.bucket.js._request, self.bucket.js._send_batch

        async def gated(subject: str, data: Any, headers: Mapping[str, str] | None) -> Any:
            await self._wait(about, (subject, data))
            return await request(subject, data, headers)

        async def gated_batch(messages: Sequence[BatchMessage], batch: str) -> Any:
            await self._wait(about, *((one.subject, one.data) for one in messages))
            return await send_batch(messages, batch)

        self.bucket.js._request = gated  # type: ignore[method-assign]  # the gate before it
        self.bucket.js._send_batch = gated_batch  # type: ignore[method-assign]  # the gate before it

    async def _wait(self, about: str, *messages: tuple[str, Any]) -> None:
        is_meant = any(
            about in subject or about.encode() in bytes(data)[:200] for subject, data in messages
        )
        if is_meant and not self.gate.is_set():
            if self.left == 0:
                self.reached.set()
                await self.gate.wait()
            self.left -= 1


async def create_records(
    connection: Connection, name: str, **settings: Any
) -> tuple[FlakyJetStream, KeyValueRecordStore]:
    """A fresh KV bucket."""
    js = FlakyJetStream(connection, Inbox(connection))
    await ensure_stream(js, {**record_stream(name, BucketLocation(bucket=name)), **settings})
    store = KeyValueRecordStore(js, name, new_id=new_nuid, marker_ttl=timedelta(seconds=1))
    return js, store
