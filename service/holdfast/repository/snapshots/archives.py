"""Snapshots that this worker makes of its own apps."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.archive.bridge import BridgedPackStore
from holdfast.archive.create.create import Archived, create_archive
from holdfast.archive.create.source import DirectorySource
from holdfast.archive.file_systems import racy_ns
from holdfast.archive.ports import Cancelled
from holdfast.domain.digest import Digest
from holdfast.domain.limits import MIB
from holdfast.errors import ConflictError, CorruptError
from holdfast.repository.snapshots.apps import DIRECTORY_SECONDS
from holdfast.repository.snapshots.needs import Needed
from holdfast.repository.snapshots.record import StoredSnapshot, first_warnings, totals_of
from holdfast.repository.snapshots.securing import Placed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from holdfast.archive.create.walk import WalkOptions
    from holdfast.repository.snapshots.apps import Apps
    from holdfast.repository.snapshots.job import Job
    from holdfast.repository.snapshots.making import Maker, SnapshotLedger
    from holdfast.repository.snapshots.packs import Packs
    from holdfast.repository.snapshots.running import Jobs

ARCHIVE_WINDOW_BYTES: Final = 8 * MIB
"""Packs of one archive on their way into the store."""

ARCHIVE_CACHE_BYTES: Final = 4 * MIB
"""Pages of its parent that one archive keeps."""

_ATTEMPTS: Final = 3
log = structlog.get_logger(__name__)


class Archives:
    """Archives apps of this machine."""

    def __init__(
        self,
        snapshots: SnapshotLedger,
        jobs: Jobs,
        packs: Packs,
        apps: Apps,
        *,
        owner: Maker,
        clock: Callable[[], datetime],
    ) -> None:
        """``owner`` is this worker."""
        self._snapshots = snapshots
        self._jobs = jobs
        self._packs = packs
        self._apps = apps
        self._owner = owner
        self._clock = clock

    async def create(
        self,
        app: str,
        labels: Mapping[str, str],
        options: WalkOptions,
        *,
        read_all: bool,
        op_id: str | None,
        wait_seconds: float,
    ) -> StoredSnapshot:
        """Archive ``app``; the record once that has ended, or pending after ``wait_seconds``.

        With ``read_all`` upon no parent, and what is stored already is read back.

        Raises InvalidError, NotFoundError (no such app here), UnavailableError,
        RateLimitedError, ConflictError (removed meanwhile).
        """
        self._jobs.check_room()
        directory = await self._apps.look(
            lambda: self._apps.directory(app), seconds=DIRECTORY_SECONDS
        )
        return await self._jobs.do(
            partial(self._snapshots.announce, app, labels, self._owner, op_id, alone=read_all),
            partial(self._archive, directory=directory, options=options, read_all=read_all),
            owner=self._owner.id,
            wait_seconds=wait_seconds,
        )

    async def _archive(
        self,
        job: Job[StoredSnapshot],
        *,
        directory: Path,
        options: WalkOptions,
        read_all: bool,
    ) -> StoredSnapshot:
        parent = job.record.parent_digest
        for _ in range(_ATTEMPTS):
            placing = _Placing(self._packs, job, doubt=read_all)
            try:
                archived = await self._read_tree(job, directory, options, parent, placing)
            except CorruptError:
                if parent is None:
                    raise
                log.warning("parent_damaged", snapshot=str(job.record.key), parent=parent)
                parent = None
                continue
            await self._jobs.rewrite(
                job,
                digest=archived.root,
                warnings=first_warnings(archived.warnings),
                warning_count=archived.warning_count,
            )
            root = archived.written.root
            needed = Needed(archived.written.blobs, root.pieces.packs)

            async def beat() -> None:
                job.show_life()

            gone = await self._snapshots.securing.of_attempt(
                job.record, needed, placing.placed, beat
            )
            if job.should_stop():
                raise Cancelled
            if not gone:
                totals = totals_of(root, added=placing.added)
                return self._snapshots.finished(job.record, archived.root, totals)
            parent = None  # what the parent's pages name may be gone: read everything
        raise ConflictError("packs that the snapshot shares with others keep being removed")

    async def _read_tree(
        self,
        job: Job[StoredSnapshot],
        directory: Path,
        options: WalkOptions,
        parent: str | None,
        placing: _Placing,
    ) -> Archived:
        """Archive the tree once."""
        store = BridgedPackStore(
            asyncio.get_running_loop(),
            self._packs.get,
            placing.put,
            get_latest=self._packs.get_latest,
            window_bytes=ARCHIVE_WINDOW_BYTES,
            cache_bytes=ARCHIVE_CACHE_BYTES,
        )
        started_at_ns = int(self._clock().timestamp() * 1_000_000) * 1000

        def archive() -> Archived:
            source = DirectorySource(directory, options)
            try:
                return create_archive(
                    source,
                    store,
                    parent=Digest(parent) if parent is not None else None,
                    started_at_ns=started_at_ns,
                    racy_ns=racy_ns(),
                    progress=job.report,
                    stop=job.should_stop_working,
                )
            finally:
                source.close()

        try:
            return await self._jobs.in_thread(archive)
        finally:
            store.close()


class _Placing:
    """Puts the packs of one attempt; with ``doubt`` what is there already is read back."""

    def __init__(self, packs: Packs, job: Job[StoredSnapshot], *, doubt: bool) -> None:
        self._packs = packs
        self._job = job
        self._doubt = doubt
        self._began: datetime | None = None
        self._created: dict[Digest, int] = {}
        self._found: set[Digest] = set()

    async def put(self, digest: Digest, data: bytes) -> bool:
        """Store a pack; whether it was not there."""
        if self._began is None:
            await self._begin()
        created = await self._packs.put(digest, data, doubt=self._doubt)
        self._job.show_life()
        if created:
            self._created[digest] = len(data)
        else:
            self._found.add(digest)
        return created

    async def _begin(self) -> None:
        now = await self._packs.now()
        if self._began is None:  # else another pack of this attempt may be there by now
            self._began = now

    @property
    def added(self) -> int:
        """The bytes that were not stored before."""
        return sum(self._created.values())

    @property
    def placed(self) -> Placed:
        """The packs that were put."""
        return Placed(
            began=self._began, created=frozenset(self._created), found=frozenset(self._found)
        )
