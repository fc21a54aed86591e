"""``snapshot.*``: requests to repository calls, results to replies.

Requests that only one node can serve (archive an app, write to its directory) are served here if
that is this node, and otherwise forwarded to it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.archive.create.walk import WalkOptions
from holdfast.archive.paths import parse_path
from holdfast.archive.restore.options import RestoreOptions, limits_of
from holdfast.archive.restore.owners import chosen_privileges, parse_owners
from holdfast.domain.digest import Digest
from holdfast.domain.names import SnapshotKey, id_floor
from holdfast.errors import InvalidError
from holdfast.handlers.endpoint import AnyEndpoint, BytesReply, Call, Endpoint, Forward
from holdfast.handlers.pages import page_of
from holdfast.handlers.snapshot_replies import (
    change_reply,
    entry_reply,
    restore_reply,
    snapshot_replies,
    snapshot_reply,
    stored_warning,
    verified_reply,
)
from holdfast.protocol.blobs import ContentHead
from holdfast.protocol.files import (
    DIFF_SNAPSHOTS,
    EXPORT_SNAPSHOT,
    LIST_FILES,
    READ_FILE,
    VERIFY_SNAPSHOT,
    DiffPage,
    DiffSnapshots,
    ExportSnapshot,
    FilePage,
    ListFiles,
    ReadFile,
    SnapshotVerified,
    VerifySnapshot,
)
from holdfast.protocol.snapshots import (
    BEGIN_SNAPSHOT,
    COMMIT_SNAPSHOT,
    CREATE_SNAPSHOT,
    DELETE_SNAPSHOT,
    GET_RESTORE,
    GET_SNAPSHOT,
    LIST_SNAPSHOTS,
    PURGE_SNAPSHOTS,
    RESTORE_SNAPSHOT,
    BeginSnapshot,
    CommitSnapshot,
    CreateSnapshot,
    DeleteSnapshot,
    GetRestore,
    GetSnapshot,
    ListSnapshots,
    PurgeSnapshots,
    RestoreRecord,
    RestoreSnapshot,
    SnapshotDeleted,
    SnapshotPage,
    SnapshotRecord,
    SnapshotsPurged,
)
from holdfast.protocol.times import parse_time
from holdfast.repository.snapshots.listing import SnapshotListing, Wanted, cursor_after
from holdfast.repository.snapshots.reading.content import MAX_WAIT_SECONDS
from holdfast.repository.snapshots.reading.cursors import cursor_after_entry
from holdfast.repository.snapshots.restores import RestoreRequest, Restores

if TYPE_CHECKING:
    from holdfast.repository.blobs import Content
    from holdfast.repository.snapshots.archives import Archives
    from holdfast.repository.snapshots.making import SnapshotLedger
    from holdfast.repository.snapshots.placement import Placement
    from holdfast.repository.snapshots.reading.reads import SnapshotReads

MAX_KEY_BYTES: Final = 168
"""Of a snapshot's key in a page, with its quotes and comma."""

WAIT_MARGIN_SECONDS: Final = 1.0
"""Of the caller's time, what is kept for the answer on its way."""


class SnapshotHandlers:
    """Answers ``snapshot.*``."""

    def __init__(
        self,
        *,
        snapshots: SnapshotLedger,
        listing: SnapshotListing,
        reads: SnapshotReads,
        archives: Archives,
        restores: Restores,
        placement: Placement,
        lease_seconds: float,
    ) -> None:
        """``lease_seconds`` is what a client that makes a snapshot may be silent for."""
        self._snapshots = snapshots
        self._listing = listing
        self._reads = reads
        self._archives = archives
        self._restores = restores
        self._placement = placement
        self._lease_seconds = lease_seconds

    # --- what belongs to a node ---

    async def create(self, request: CreateSnapshot, call: Call) -> SnapshotRecord | Forward:
        """``snapshot.create``."""
        if not call.forwarded:
            node = await self._placement.node_of_app(request.app, request.node)
            if node is not None:
                return Forward(node)
        options = WalkOptions(
            exclude=(*request.exclude, *request.exclude_bytes),
            exclude_caches=request.exclude_caches,
            one_file_system=request.one_file_system,
            unreadable="skip" if request.skip_unreadable else "fail",
        )
        record = await self._archives.create(
            request.app,
            request.labels,
            options,
            read_all=request.read_all,
            op_id=call.op_id,
            wait_seconds=_wait(request.wait_seconds, call),
        )
        return snapshot_reply(record)

    async def restore(self, request: RestoreSnapshot, call: Call) -> RestoreRecord | Forward:
        """``snapshot.restore``."""
        key = SnapshotKey.parse(request.key)
        record, root = await self._snapshots.get_readable(key)
        app = request.app or key.app
        if not call.forwarded:
            node = await self._placement.node_for_restore(app, request.node, record.node)
            if node is not None:
                return Forward(node)
        options = RestoreOptions(
            staging_id="",
            mode=request.mode,
            paths=tuple(request.paths),
            delete=request.delete,
            dry_run=request.dry_run,
            owners=parse_owners(request.owner),
            privileges=chosen_privileges(by_client=not record.node, asked=request.privileged),
            limits=limits_of(request.max_expansion),
        )
        restored = await self._restores.restore(
            RestoreRequest(snapshot=key, root=root, app=app, options=options),
            op_id=call.op_id,
            wait_seconds=_wait(request.wait_seconds, call),
        )
        return restore_reply(restored)

    # --- records ---

    async def list_snapshots(self, request: ListSnapshots, _: Call) -> SnapshotPage:
        """``snapshot.list``."""
        apps = request.apps
        if request.app is not None:
            apps = [request.app] if apps is None or request.app in apps else []
        wanted = Wanted(
            apps=apps,
            labels=request.labels,
            state=request.state,
            since=_floor(request.since, "since"),
            until=_floor(request.until, "until"),
        )
        page = await self._listing.page(wanted, cursor=request.cursor, limit=request.limit)
        replies, unshown = snapshot_replies(page.snapshots)
        damaged = sorted((*page.damaged, *unshown), key=cursor_after, reverse=True)
        shown, cursor = page_of(
            replies,
            lambda reply: reply,
            lambda reply: cursor_after(SnapshotKey.parse(reply.key)),
            page.cursor,
            self._reads.max_inline_bytes - len(damaged) * MAX_KEY_BYTES,
        )
        damaged = [key for key in damaged if cursor is None or cursor_after(key) >= cursor]
        return SnapshotPage(snapshots=shown, cursor=cursor, damaged=list(map(str, damaged)))

    async def get(self, request: GetSnapshot, _: Call) -> SnapshotRecord:
        """``snapshot.get``."""
        return snapshot_reply(await self._snapshots.get(SnapshotKey.parse(request.key)))

    async def restored(self, request: GetRestore, _: Call) -> RestoreRecord:
        """``snapshot.restored``."""
        return restore_reply(await self._restores.get(request.restore))

    async def delete(self, request: DeleteSnapshot, call: Call) -> SnapshotDeleted:
        """``snapshot.delete``."""
        key = SnapshotKey.parse(request.key)
        return SnapshotDeleted(deleted=await self._snapshots.delete(key, call.op_id))

    async def purge(self, request: PurgeSnapshots, call: Call) -> SnapshotsPurged:
        """``snapshot.purge``."""
        await self._snapshots.ops.claim(call.op_id, f"purged:{request.app}")
        return SnapshotsPurged(deleted=await self._snapshots.purge(request.app))

    async def begin(self, request: BeginSnapshot, call: Call) -> SnapshotRecord:
        """``snapshot.begin``."""
        if request.key is not None:
            key = SnapshotKey.parse(request.key)
            if request.app not in {None, key.app} or request.labels:
                msg = "a snapshot's app and labels are given when it is begun, and stay"
                raise InvalidError(msg)
            return snapshot_reply(await self._snapshots.renew(key))
        if request.app is None:
            msg = "give the app to begin a snapshot of, or the key of one to go on with"
            raise InvalidError(msg)
        begun = await self._snapshots.begin(
            request.app, request.labels, self._lease_seconds, call.op_id
        )
        return snapshot_reply(begun)

    async def commit(self, request: CommitSnapshot, call: Call) -> SnapshotRecord:
        """``snapshot.commit``."""
        key = SnapshotKey.parse(request.key)
        await self._snapshots.ops.claim(call.op_id, f"committed:{key}")
        committed = await self._snapshots.commit(
            key,
            Digest(request.digest),
            added=request.added,
            warnings=tuple(stored_warning(warning) for warning in request.warnings),
            warning_count=request.warning_count,
        )
        return snapshot_reply(committed.record, committed.missing)

    # --- what is in a snapshot ---

    async def files(self, request: ListFiles, call: Call) -> FilePage:
        """``snapshot.files``."""
        under = _path(request)
        _, root = await self._snapshots.get_readable(SnapshotKey.parse(request.key))
        found, more = await self._reads.files(
            root, under, request.cursor, request.limit, call.has_time
        )
        after = partial(cursor_after_entry, root)
        end = after(found[-1]) if more else None
        entries, cursor = page_of(
            found, lambda at: entry_reply(at.entry), after, end, self._reads.max_inline_bytes
        )
        return FilePage(entries=entries, cursor=cursor)

    async def diff(self, request: DiffSnapshots, call: Call) -> DiffPage:
        """``snapshot.diff``."""
        _, a = await self._snapshots.get_readable(SnapshotKey.parse(request.a))
        _, b = await self._snapshots.get_readable(SnapshotKey.parse(request.b))
        found, reached = await self._reads.changes(
            a, b, request.cursor, request.limit, call.has_time
        )
        changes, reached = page_of(
            found, change_reply, lambda last: last.path, reached, self._reads.max_inline_bytes
        )
        if reached is None:
            return DiffPage(changes=changes)
        cursor = await self._reads.cursor_after_change(a, b, reached)
        return DiffPage(changes=changes, cursor=cursor)

    async def read(self, request: ReadFile, call: Call) -> BytesReply[ContentHead]:
        """``snapshot.read``."""
        path = _path(request)
        _, root = await self._snapshots.get_readable(SnapshotKey.parse(request.key))
        return _content(
            await self._reads.read(
                root,
                path,
                offset=request.offset,
                length=request.length,
                cursor=request.cursor,
                wait_seconds=_wait(MAX_WAIT_SECONDS, call),
            )
        )

    async def export(self, request: ExportSnapshot, call: Call) -> BytesReply[ContentHead]:
        """``snapshot.export``."""
        record, root = await self._snapshots.get_readable(SnapshotKey.parse(request.key))
        return _content(
            await self._reads.export(
                root,
                is_ours=bool(record.node),
                offset=request.offset,
                length=request.length,
                cursor=request.cursor,
                wait_seconds=_wait(MAX_WAIT_SECONDS, call),
            )
        )

    async def verify(self, request: VerifySnapshot, call: Call) -> SnapshotVerified:
        """``snapshot.verify``."""
        _, root = await self._snapshots.get_readable(SnapshotKey.parse(request.key))
        found, cursor = await self._reads.verify(root, request.cursor, call.has_time)
        return verified_reply(found, cursor, self._reads.max_inline_bytes)

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (
            Endpoint(CREATE_SNAPSHOT, self.create, local=True),
            Endpoint(RESTORE_SNAPSHOT, self.restore, local=True),
            Endpoint(LIST_SNAPSHOTS, self.list_snapshots),
            Endpoint(GET_SNAPSHOT, self.get),
            Endpoint(GET_RESTORE, self.restored),
            Endpoint(LIST_FILES, self.files),
            Endpoint(DIFF_SNAPSHOTS, self.diff),
            Endpoint(READ_FILE, self.read),
            Endpoint(EXPORT_SNAPSHOT, self.export),
            Endpoint(VERIFY_SNAPSHOT, self.verify),
            Endpoint(DELETE_SNAPSHOT, self.delete),
            Endpoint(PURGE_SNAPSHOTS, self.purge),
            Endpoint(BEGIN_SNAPSHOT, self.begin),
            Endpoint(COMMIT_SNAPSHOT, self.commit),
        )


def _content(content: Content) -> BytesReply[ContentHead]:
    head = ContentHead(
        size=content.size,
        offset=content.span.start,
        length=content.span.length,
        type=content.type,
        parts=content.parts,
        skip=content.skip,
        cursor=content.cursor,
    )
    return BytesReply(head=head, data=content.data, pieces=content.pieces)


def _wait(seconds: float, call: Call) -> float:
    return max(min(seconds, call.seconds_left() - WAIT_MARGIN_SECONDS), 0.0)


def _path(request: ListFiles | ReadFile) -> bytes:
    return parse_path(request.path if request.path_bytes is None else request.path_bytes)


def _floor(text: str | None, name: str) -> str | None:
    if text is None:
        return None
    at = parse_time(text)
    if at is None:
        raise InvalidError(f"{name} is a time as in RFC 3339")
    return id_floor(at)
