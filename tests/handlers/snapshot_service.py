"""Everything that answers ``snapshot.*`` but the connection, over stores in memory.

Archives and restores run in real threads, with real files; time is the test's.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, override

import msgspec
from tests.handlers.service import Reply
from tests.repository.pool import START, Time

from holdfast.bootstrap.setup import Setup
from holdfast.bootstrap.snapshots import SnapshotParts
from holdfast.bootstrap.stores import Stores, create_on_disk, open_on_disk
from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.kept import has_bytes
from holdfast.domain.limits import KIB, MIB
from holdfast.domain.names import id_floor
from holdfast.errors import CorruptError, QuotaExceededError, UnavailableError
from holdfast.repository.snapshots.apps import Apps
from holdfast.repository.snapshots.placement import Answers
from holdfast.runtime.config import Config
from holdfast.runtime.dispatch import Dispatcher
from holdfast.stores.memory import MemoryBlobStore, MemoryRecordStore
from holdfast.stores.memory_journal import MemoryJournalStore
from holdfast.stores.ports import Attributes, BlobInfo

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from holdfast.domain.kept import Ranges
    from holdfast.handlers.endpoint import AnyEndpoint
    from holdfast.stores.ports import Stored
    from holdfast.stores.record_ports import Change, Record

LEASE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 60.0
GRACE: Final = timedelta(hours=24)


class Gate:
    """Where one change of a record waits until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._open = asyncio.Event()

    async def wait(self) -> None:
        """Until the change was made and is about to be told."""
        async with asyncio.timeout(30):
            await self._reached.wait()

    def go_on(self) -> None:
        """Let it."""
        self._open.set()

    async def pass_through(self) -> None:
        """Say that the change is here, and wait until it may go on."""
        self._reached.set()
        await self._open.wait()


class Records(MemoryRecordStore):
    """Records; the change that announces a root, and one that begins, can be held up.

    What ``deposed`` has is told of its keys by a server that does not know that it was deposed.
    """

    def __init__(self, monotonic: Callable[[], float], *, clock: Callable[[], datetime]) -> None:
        super().__init__(monotonic, clock=clock)
        self.gate: Gate | None = None
        self.batch_gate: Gate | None = None
        self.deposed: dict[str, Record] = {}

    async def get(self, key: str, *, sure: bool = False) -> Record:
        """See `RecordStore.get`."""
        if not sure and key in self.deposed:
            return self.deposed[key]
        return await super().get(key, sure=sure)

    async def batch(self, changes: Sequence[Change]) -> list[int]:
        """See `RecordStore.batch`."""
        revisions = await super().batch(changes)
        if self.batch_gate is not None:
            gate, self.batch_gate = self.batch_gate, None
            await gate.pass_through()
        return revisions

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expected: int,
        ttl: timedelta | None = None,
        grave: bool = False,
    ) -> int:
        """See `RecordStore.put`."""
        revision = await super().put(key, value, expected=expected, ttl=ttl, grave=grave)
        if self.gate is not None and "digest" in msgspec.json.decode(value):
            gate, self.gate = self.gate, None
            await gate.pass_through()
        return revision


class PackSpace(MemoryBlobStore):
    """Packs; there may be no room for them, and one reading can be held up.

    It has a clock of its own, and knows when packs were seen. Packs can be ``lost``: they are not
    there for who reads or touches them, and a put brings them back. While it is ``away`` nobody is
    told whether a pack is there.
    """

    full = False
    away = False
    gate: Gate | None = None
    gets = 0
    puts = 0
    looks = 0

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__()
        self.clock = clock
        self.seen: dict[Digest, datetime] = {}
        self.touched: list[Digest] = []
        self.lost: set[Digest] = set()

    async def now(self) -> datetime:
        """See `BlobStore.now`."""
        return self.clock()

    async def touch(
        self, digest: Digest, *, unless_seen_since: datetime, needed: Ranges | None = None
    ) -> bool:
        """See `BlobStore.touch`."""
        blob = self._blobs.get(digest)
        if digest in self.lost or blob is None or not has_bytes(blob.info.kept, needed):
            return False
        if self.seen[digest] < unless_seen_since:
            self.touched.append(digest)
            self.seen[digest] = self.clock()
        return True

    async def missing(
        self, digests: Sequence[Digest], *, partial: bool = False, counted: bool = False
    ) -> list[Digest]:
        """See `BlobStore.missing`."""
        self.looks += 1
        missing = await super().missing(digests, partial=partial, counted=counted)
        lost = self.lost if counted else ()
        return [one for one in dict.fromkeys(digests) if one in missing or one in lost]

    async def stat(self, digest: Digest, *, sure: bool = False, partial: bool = False) -> BlobInfo:
        """See `BlobStore.stat`."""
        if self.away:
            raise UnavailableError("the packs are away")
        return await super().stat(digest, sure=sure, partial=partial)

    async def get(self, info: BlobInfo) -> bytes:
        """See `BlobStore.get`."""
        self.gets += 1
        if info.digest in self.lost:
            raise CorruptError("lost")
        if self.gate is not None:
            gate, self.gate = self.gate, None
            await gate.pass_through()
        return await super().get(info)

    async def report_damage(self, info: BlobInfo) -> bool:
        """See `BlobStore.report_damage`."""
        self.lost.add(info.digest)
        return False

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        """See `BlobStore.put`."""
        self.puts += 1
        if self.full:
            raise QuotaExceededError("the store is full")
        if digest in self.lost:
            self.lost.remove(digest)
            await self.delete(digest)
        stored = await super().put(digest, data, attributes)
        if stored.created:
            self.seen[digest] = self.clock()
        return stored


class Shared:
    """The stores that the workers of one deployment share."""

    def __init__(self) -> None:
        self.time = Time()
        self.packs = PackSpace(self.time.clock)
        self.records = Records(self.time.monotonic, clock=self.time.clock)
        self.ops = MemoryRecordStore(self.time.monotonic)
        self.stores = Stores(
            blobs=MemoryBlobStore(),
            packs=self.packs,
            records=self.ops,
            snapshots=self.records,
            names=MemoryRecordStore(self.time.monotonic),
            states=MemoryJournalStore(self.time.clock),
        )
        self.ids = itertools.count(1)
        self.sources = replace(self.time.sources, new_uuid=self.new_uuid)
        self.skew = timedelta(0)
        self.lease_seconds = LEASE_SECONDS
        self.grace = GRACE
        self.sites: list[Site] = []

    def when_announced(self) -> Gate:
        """Holds up the next snapshot when it has announced its root."""
        self.records.gate = gate = Gate()
        return gate

    def when_begun(self) -> Gate:
        """Holds up the answer to the next beginning, or end."""
        self.records.batch_gate = gate = Gate()
        return gate

    def when_read(self) -> Gate:
        """Holds up the next reading of a pack."""
        self.packs.gate = gate = Gate()
        return gate

    async def stored_packs(self) -> list[Digest]:
        """The digests in the space of packs."""
        listing = await self.packs.list_blobs(prefix="", cursor=None, limit=100_000)
        return [entry.digest for entry in listing.entries if isinstance(entry, BlobInfo)]

    async def forget_packs(self, digests: list[Digest]) -> None:
        """Remove packs, as a collector does."""
        for digest in digests:
            await self.packs.delete(digest)

    async def damage_a_large_pack(self, damage: str) -> Digest:
        """Remove or alter the second of the large packs, which holds nothing else; its digest."""
        blobs = sorted(self.packs._blobs.values(), key=lambda blob: int(blob.info.generation[1:]))
        blob = [blob for blob in blobs if blob.info.size >= 256 * KIB][1]
        if damage == "missing":
            await self.packs.delete(blob.info.digest)
        else:
            blob.data = b"\xff" + blob.data[1:]
        return blob.info.digest

    async def put_pack(self, data: bytes) -> Digest:
        """Put a blob as a client does."""
        digest = digest_of(data)
        attributes = Attributes(type="a/b", created_at=self.time.clock(), pinned=False)
        await self.packs.put(digest, data, attributes)
        return digest

    def new_uuid(self) -> str:
        """Ids that rise, by a clock that may be set."""
        now = START + self.skew + timedelta(milliseconds=next(self.ids))
        return id_floor(now)


class DiskShared(Shared):
    """The same on disk."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        create_on_disk(root)
        self.stores = open_on_disk(root, self.sources)


class PatientApps(Apps):
    """Apps that are looked for as long as it takes: a busy machine is no directory that hangs."""

    @override
    async def look_for(self, app: str) -> bool:
        return await self.look(lambda: self.has(app), seconds=_LOOK_SECONDS)


class Site:
    """One worker, with the apps in ``root``."""

    def __init__(
        self, shared: Shared, root: Path | None, *, node: str = "n1", max_payload: int = MIB
    ) -> None:
        self.shared = shared
        self.node = node
        self.root = root
        self.apps = PatientApps(root)
        self.silent = False  # to other workers, as one that restarts is
        self.missed = False  # when it is silent: they heard it lately
        self.published: list[tuple[str, dict[str, Any]]] = []
        setup = Setup(
            config=Config(node=node, snapshot_lease_seconds=shared.lease_seconds),
            sources=shared.sources,
            worker=f"w-{node}",
            max_payload=max_payload,
            grace=shared.grace,
        )
        self.service = SnapshotParts(
            setup,
            shared.stores,
            apps=self.apps,
            peers=Colleagues(shared),
            publish=lambda subject, data: self.published.append(
                (subject, msgspec.json.decode(data))
            ),
        )
        self.endpoints: dict[str, AnyEndpoint] = {
            endpoint.operation.subject: endpoint
            for endpoint in (
                *self.service.handlers.endpoints(),
                *self.service.retention.endpoints(),
            )
        }
        self.dispatcher = Dispatcher(shared.sources, timeout_seconds=30)
        shared.sites.append(self)

    async def ask(
        self,
        subject: str,
        body: dict[str, Any] | None = None,
        *,
        op_id: str | None = None,
        forwarded: bool = False,
    ) -> Reply:
        """Ask for ``subject``."""
        headers = {"Op-Id": op_id} if op_id is not None else {}
        answer = await self.dispatcher.answer(
            self.endpoints[subject],
            subject,
            headers,
            msgspec.json.encode(body or {}),
            forwarded=forwarded,
        )
        return Reply(answer, answer.headers, bytes(answer.body))

    async def ok(self, subject: str, **fields: Any) -> dict[str, Any]:
        """The answer to a request that succeeds."""
        reply = await self.ask(subject, fields)
        assert reply.code == "ok", reply.body
        return reply.json

    async def content(self, subject: str, **fields: Any) -> bytes:
        """All bytes of a file or an export, window by window."""
        data = b""
        while True:
            reply = await self.ask(subject, fields)
            assert reply.code == "ok", reply.body
            pieces = [reply.body]
            if reply.answer.pieces is not None:
                pieces = [bytes(piece) async for piece in reply.answer.pieces]
                assert len(pieces) == int(reply.headers["Blob-Parts"])
            found = b"".join(pieces)
            assert len(found) == int(reply.headers["Blob-Length"])
            data += found
            if "Blob-Cursor" not in reply.headers:
                return data
            fields["cursor"] = reply.headers["Blob-Cursor"]

    async def create(self, app: str = "shop", **fields: Any) -> dict[str, Any]:
        """A snapshot that is ``ok``."""
        record = await self.ok("snapshot.create", app=app, **fields)
        assert record["state"] == "ok", record
        return record

    def write(self, path: str, data: bytes) -> None:
        """Write a file of an app."""
        assert self.root is not None
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    async def aclose(self) -> None:
        """Stop it."""
        await self.service.aclose()
        await self.shared.stores.aclose()
        self.apps.close()


class Colleagues:
    """The pool, without a connection."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def ask(self, *, app: str | None = None, node: str | None = None) -> Answers:
        """See `placement.Peers`."""
        no, unsure = set(), set()
        missed = {site.node for site in self._shared.sites if site.silent and site.missed}
        for site in self._shared.sites:
            if site.silent or site.apps.root is None or node not in {None, site.node}:
                continue
            try:
                if app is None or await site.apps.look_for(app):
                    return Answers(yes=site.node)
                no.add(site.node)
            except UnavailableError:
                unsure.add(site.node)
        return Answers(no=frozenset(no), unsure=frozenset(unsure), missed=frozenset(missed))
