"""``client.snapshots``: archive, restore, list and read snapshots by asking the pool.

async with await holdfast.connect() as hf:
    record = await hf.snapshots.create("blog", labels={"reason": "upgrade"})
    await hf.snapshots.restore(record.key, app="blog-copy")

``create`` and ``restore`` have workers do it, on the node that has the app's directory;
``create_from`` and ``restore_to`` do it here, with a directory of this machine.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from holdfast.archive.restore.options import RestoreOptions, check_options, limits_of
from holdfast.archive.restore.owners import chosen_privileges, parse_owners
from holdfast.client.links import make_link
from holdfast.client.pages import pages, rows
from holdfast.client.reads.partial_file import (
    SupportsWrite,
    opened_target,
    stop_seconds_of,
    write_parts,
    write_to,
)
from holdfast.client.requests import ATTEMPT_SECONDS, Requester
from holdfast.client.snapshots.content import stream_file
from holdfast.client.snapshots.paths import (
    AnyPath,
    asked_path,
    pattern_bytes,
    wire_excludes,
    wire_patterns,
)
from holdfast.client.snapshots.wait import (
    RecordT,
    may_be_repeated,
    raise_failure,
    readable_root,
    wait_ended,
)
from holdfast.errors import ConflictError, NotFoundError
from holdfast.protocol.files import (
    DIFF_SNAPSHOTS,
    LIST_FILES,
    VERIFY_SNAPSHOT,
    DiffSnapshots,
    FileEntry,
    ListFiles,
    ReadFile,
    SnapshotChange,
    SnapshotVerified,
    VerifySnapshot,
)
from holdfast.protocol.links import LINK_SNAPSHOT, LinkMade, LinkSnapshot
from holdfast.protocol.snapshots import (
    CREATE_SNAPSHOT,
    DELETE_SNAPSHOT,
    GET_RESTORE,
    GET_SNAPSHOT,
    LIST_SNAPSHOTS,
    PURGE_SNAPSHOTS,
    RESTORE_SNAPSHOT,
    CreateSnapshot,
    DeleteSnapshot,
    GetRestore,
    GetSnapshot,
    ListSnapshots,
    PurgeSnapshots,
    RestoreRecord,
    RestoreSnapshot,
    SnapshotPage,
    SnapshotRecord,
)
from holdfast.protocol.times import asked_time

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
    from datetime import datetime

    from holdfast.client.snapshots.wait import OnProgress
    from holdfast.client.sources import OnBytes, SupportsRead
    from holdfast.form.terms import RestoreMode, SnapshotState
    from holdfast.protocol.operation import Operation

_LIST_PAGE: Final = 100
_FILES_PAGE: Final = 1000
_WAIT_SECONDS: Final = 5.0
_WAIT_WITH_PROGRESS_SECONDS: Final = 0.5
_VERIFY_SECONDS: Final = 120.0
_PURGE_SECONDS: Final = 300.0
_REPEATS: Final = 3


class Snapshots:
    """The verbs of snapshots. A ``key`` is a record's: ``<app>:<id>``.

    Besides what a method names, all raise InvalidError, ForbiddenError, RateLimitedError and
    UnavailableError; those that change something also OutcomeUnknownError.
    """

    def __init__(self, requester: Requester) -> None:
        """Made by the client."""
        self._requester = requester

    async def create(
        self,
        app: str,
        *,
        labels: Mapping[str, str] | None = None,
        node: str | None = None,
        exclude: Iterable[str | bytes] = (),
        exclude_caches: bool = False,
        one_file_system: bool = False,
        skip_unreadable: bool = False,
        read_all: bool = False,
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> SnapshotRecord:
        """Have the worker that has the directory of ``app`` archive it; the record.

        ``exclude`` holds patterns in gitignore syntax. With ``read_all`` every file is read, and
        what is stored already is read back, and replaced where it is damaged. Without ``wait`` the
        record is that of a snapshot which may still be ``pending``. The end of waiting does not
        stop the worker.

        Raises NotFoundError (no such app, or not on ``node``), QuotaExceededError, and whatever
        else the snapshot failed of.
        """
        excludes = wire_excludes(exclude)
        request = CreateSnapshot(
            app=app,
            labels=dict(labels or {}),
            node=node,
            exclude=excludes.texts,
            exclude_bytes=excludes.raw,
            exclude_caches=exclude_caches,
            one_file_system=one_file_system,
            skip_unreadable=skip_unreadable,
            read_all=read_all,
            wait_seconds=_first_wait(on_progress, wait=wait),
        )
        return await self._do(CREATE_SNAPSHOT, request, on_progress, wait=wait)

    async def restore(
        self,
        key: str,
        *,
        app: str | None = None,
        node: str | None = None,
        paths: Iterable[str] = (),
        mode: RestoreMode = "new",
        delete: bool = False,
        dry_run: bool = False,
        owner: str = "keep",
        privileged: bool = False,
        max_expansion: int | None = None,
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> RestoreRecord:
        """Have a worker put a snapshot's files back, into its own app or ``app``; its record.

        ``new`` refuses a directory that is there, ``replace`` exchanges it as a whole, ``merge``
        writes into it, and with ``delete`` removes what the snapshot lacks. ``paths`` are paths
        and globs, not with ``replace``. ``dry_run`` only fills the record's ``plan``. ``owner`` is
        ``keep``, ``current`` or ``UID:GID``. A whole restore leaves out, and removes, a
        ``.chowned`` at the top. A client's snapshot (``create_from``) loses set-ID bits,
        capabilities, ``security.*`` and ``trusted.*``, with a warning each, unless it is to be
        ``privileged`` (or restored by ``restore_to``). ``max_expansion`` raises the limit on what
        is written for what is stored.

        Raises InvalidError, NotFoundError, ConflictError (a directory that is there, a snapshot
        that is not ``ok``), CorruptError, and whatever else the restore failed of.
        """
        patterns = wire_patterns(paths)
        check_options(mode, patterns, delete=delete)
        request = RestoreSnapshot(
            key=key,
            app=app,
            node=node,
            paths=patterns,
            mode=mode,
            delete=delete,
            dry_run=dry_run,
            owner=owner,
            privileged=privileged,
            max_expansion=max_expansion,
            wait_seconds=_first_wait(on_progress, wait=wait),
        )
        return await self._do(RESTORE_SNAPSHOT, request, on_progress, wait=wait)

    async def create_from(
        self,
        source: str | os.PathLike[str] | SupportsRead,
        *,
        app: str,
        labels: Mapping[str, str] | None = None,
        exclude: Iterable[str | bytes] = (),
        exclude_caches: bool = False,
        one_file_system: bool = False,
        skip_unreadable: bool = False,
        read_all: bool = False,
        on_progress: OnProgress | None = None,
    ) -> SnapshotRecord:
        """Archive a directory of this machine, or a tar file or stream, as a snapshot of ``app``.

        A tar may be compressed with gzip or zstd. Only what the pool does not have yet is sent;
        memory is bounded. Nothing is visible until all of it is there.

        Raises NotFoundError (no such directory), ForbiddenError (a file that may not be read,
        unless ``skip_unreadable``), CorruptError and TooLargeError (of a tar), OSError,
        QuotaExceededError.
        """
        # zstd and FastCDC are loaded by those who need them: every command starts faster.
        from holdfast.archive.create.walk import WalkOptions  # noqa: PLC0415
        from holdfast.client.snapshots.archive import archive_here  # noqa: PLC0415

        options = WalkOptions(
            exclude=tuple(pattern_bytes(exclude)),
            exclude_caches=exclude_caches,
            one_file_system=one_file_system,
            unreadable="skip" if skip_unreadable else "fail",
        )
        return await archive_here(
            self._requester,
            source,
            app,
            dict(labels or {}),
            options,
            on_progress,
            read_all=read_all,
        )

    async def restore_to(
        self,
        key: str,
        target: str | os.PathLike[str],
        *,
        paths: Iterable[AnyPath] = (),
        mode: RestoreMode = "new",
        delete: bool = False,
        dry_run: bool = False,
        owner: str = "keep",
        privileged: bool = False,
        max_expansion: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> RestoreRecord:
        """Put a snapshot's files into a directory of this machine. See ``restore``.

        A ``.chowned`` is a file like any other here. ``target`` may be ``.``, but not ``/``.
        The record is made up here: no worker has one. Every byte is checked before it is written.
        Raises as ``restore``, and OSError.
        """
        from holdfast.client.snapshots.unpack import new_staging_id, restore_here  # noqa: PLC0415

        options = RestoreOptions(
            staging_id=new_staging_id(),
            mode=mode,
            paths=tuple(raw or text for text, raw in map(asked_path, paths)),
            delete=delete,
            dry_run=dry_run,
            owners=parse_owners(owner),
            # The user of a local restore chooses files and rights, as with tar.
            privileges=chosen_privileges(by_client=False, asked=privileged),
            limits=limits_of(max_expansion),
        )
        check_options(mode, options.paths, delete=delete)
        record = await self.get(key)
        return await restore_here(self._requester, record, target, options, on_progress)

    def list(
        self,
        *,
        app: str | None = None,
        apps: Iterable[str] | None = None,
        labels: Mapping[str, str] | None = None,
        state: SnapshotState | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        on_damaged: Callable[[str], object] | None = None,
    ) -> AsyncGenerator[SnapshotRecord]:
        """Snapshots that meet all conditions, newest first. Times are RFC 3339 as text.

        ``on_damaged`` is told the keys of those whose records cannot be shown.
        """
        request = ListSnapshots(
            app=app,
            apps=None if apps is None else [*apps],
            labels=dict(labels or {}),
            state=state,
            since=asked_time(since),
            until=asked_time(until),
            limit=_LIST_PAGE,
        )

        def records(page: SnapshotPage) -> Iterable[SnapshotRecord]:
            if on_damaged is not None:
                for key in page.damaged:
                    on_damaged(key)
            return page.snapshots

        return rows(self._requester, LIST_SNAPSHOTS, request, records)

    async def newest(self, app: str) -> SnapshotRecord:
        """The newest snapshot of ``app`` that is ``ok``. Raises NotFoundError."""
        request = ListSnapshots(app=app, state="ok", limit=1)
        newest = rows(self._requester, LIST_SNAPSHOTS, request, lambda page: page.snapshots)
        async with aclosing(newest) as records:
            async for record in records:
                return record
        raise NotFoundError(f"app {app} has no snapshot that is ok")

    async def get(self, key: str) -> SnapshotRecord:
        """The record of a snapshot. Raises NotFoundError."""
        return await self._requester.ask(GET_SNAPSHOT, GetSnapshot(key=key))

    async def get_restore(self, restore: str) -> RestoreRecord:
        """The record of a restore, whose id its record's ``restore`` was. Raises NotFoundError."""
        return await self._requester.ask(GET_RESTORE, GetRestore(restore=restore))

    def files(self, key: str, path: AnyPath = "") -> AsyncGenerator[FileEntry]:
        """The entries of a snapshot at and below ``path``, in path order. Raises NotFoundError."""
        text, raw = asked_path(path)
        request = ListFiles(key=key, path=text, path_bytes=raw, limit=_FILES_PAGE)
        return rows(self._requester, LIST_FILES, request, lambda page: page.entries)

    def diff(self, a: str, b: str) -> AsyncGenerator[SnapshotChange]:
        """The changes from snapshot ``a`` to ``b``, in path order. Raises NotFoundError."""
        request = DiffSnapshots(a=a, b=b, limit=_FILES_PAGE)
        return rows(self._requester, DIFF_SNAPSHOTS, request, lambda page: page.changes)

    async def read(
        self, key: str, path: AnyPath, *, offset: int = 0, length: int | None = None
    ) -> bytes:
        """The bytes of a file in a snapshot, or a range of them; past its end there are none.

        Raises NotFoundError, CorruptError.
        """
        stream = self.stream(key, path, offset=offset, length=length)
        async with aclosing(stream) as incoming:
            return b"".join([piece async for piece in incoming])

    def stream(
        self,
        key: str,
        path: AnyPath,
        *,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> AsyncGenerator[memoryview]:
        """As ``read``, piece by piece, in bounded memory."""
        text, raw = asked_path(path)
        request = ReadFile(key=key, path=text, path_bytes=raw, offset=offset, length=length)
        return stream_file(self._requester, request, progress)

    async def read_to(
        self,
        key: str,
        path: AnyPath,
        target: str | os.PathLike[str] | SupportsWrite,
        *,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> int:
        """Write a file of a snapshot, or a range, to a path or file object; how many bytes.

        A path appears only when all bytes are there. Raises as ``read``, and OSError.
        """
        stream = self.stream(key, path, offset=offset, length=length, progress=progress)
        return await write_to(target, stream)

    async def export(
        self,
        key: str,
        *,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> AsyncGenerator[memoryview]:
        """A snapshot as a plain ``.tar.zst``, or a range of its bytes, which never change.

        It is put together here, of packs that the store sends straight to this connection.
        Raises NotFoundError, ConflictError (not ``ok``), CorruptError.
        """
        from holdfast.client.snapshots.export import export_here  # noqa: PLC0415  (loads zstd)

        record = await self.get(key)
        stream = export_here(
            self._requester,
            readable_root(record),
            is_ours=bool(record.node),
            offset=offset,
            length=length,
            progress=progress,
        )
        async with aclosing(stream) as incoming:
            async for piece in incoming:
                yield piece

    async def export_to(
        self,
        key: str,
        target: str | os.PathLike[str] | SupportsWrite,
        *,
        progress: OnBytes | None = None,
    ) -> int:
        """Write a snapshot as a ``.tar.zst`` to a path or file object; how many bytes.

        A path appears only when all bytes are there. Raises as ``export``, and OSError.
        """
        from holdfast.client.snapshots.export import export_into  # noqa: PLC0415  (loads zstd)

        record = await self.get(key)
        root = readable_root(record)
        with opened_target(target) as file:
            return await export_into(
                self._requester,
                root,
                lambda parts: write_parts(file, parts),
                progress,
                is_ours=bool(record.node),
                stop_seconds=stop_seconds_of(file),
            )

    def verify(self, key: str) -> AsyncGenerator[SnapshotVerified]:
        """Have workers read back all that a snapshot needs, a part at a time.

        Damage is in what comes, it is not raised. Raises NotFoundError.
        """
        request = VerifySnapshot(key=key)
        return pages(self._requester, VERIFY_SNAPSHOT, request, seconds=_VERIFY_SECONDS)

    async def link(
        self, key: str, ttl_seconds: int, *, path: AnyPath | None = None, single_use: bool = False
    ) -> LinkMade:
        """A URL under which a gateway gives the snapshot as ``.tar.zst`` to anybody, for so long.

        With ``path`` it gives that file of it. At most seven days. Raises NotFoundError,
        ConflictError (it is not ``ok``), and UnavailableError also where no worker has keys.
        """
        text, raw = (None, None) if path is None else asked_path(path)
        request = LinkSnapshot(
            key=key,
            ttl_seconds=ttl_seconds,
            path=text,
            path_bytes=raw,
            single_use=single_use,
        )
        return await make_link(self._requester, LINK_SNAPSHOT, request)

    async def delete(self, key: str) -> bool:
        """Forget a snapshot; False when it was not there. Content that others share stays."""
        return (await self._requester.ask(DELETE_SNAPSHOT, DeleteSnapshot(key=key))).deleted

    async def purge(self, app: str) -> int:
        """Forget all snapshots of ``app``; how many there were."""
        reply = await self._requester.ask(
            PURGE_SNAPSHOTS, PurgeSnapshots(app=app), timeout_seconds=_PURGE_SECONDS
        )
        return reply.deleted

    async def _do(
        self,
        operation: Operation[Any, RecordT],
        request: CreateSnapshot | RestoreSnapshot,
        on_progress: OnProgress | None,
        *,
        wait: bool,
    ) -> RecordT:
        """The record, at its end if ``wait``. A worker that stops meanwhile is replaced."""
        seconds = request.wait_seconds + ATTEMPT_SECONDS
        failed: RecordT | None = None
        repeats = _REPEATS if wait else 0
        while True:
            try:
                record = await self._requester.ask(operation, request, attempt_seconds=seconds)
                if wait:
                    record = await wait_ended(self._requester, record, on_progress)
            except ConflictError:
                if failed is not None:
                    raise_failure(failed)  # the first may have been done after all
                raise
            if not repeats or not may_be_repeated(record):
                raise_failure(record)
                return record
            failed, repeats = record, repeats - 1


def _first_wait(on_progress: OnProgress | None, *, wait: bool) -> float:
    """Seconds that a worker is to hold its answer back."""
    if not wait:
        return 0.0
    return _WAIT_SECONDS if on_progress is None else _WAIT_WITH_PROGRESS_SECONDS
