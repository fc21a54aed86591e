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
            began = await self._packs.now()
            fresh: dict[Digest, int] = {}
            found: set[Digest] = set()
            try:
                archived = await self._read_tree(
                    job, directory, options, parent, fresh, found, doubt=read_all
                )
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
            root, needed = await self._packs.root(archived.root)

            async def beat() -> None:
                job.show_life()

            placed = Placed(began=began, created=frozenset(fresh), found=frozenset(found))
            gone = await self._snapshots.securing.of_attempt(job.record, needed, placed, beat)
            if job.should_stop():
                raise Cancelled
            if not gone:
                totals = totals_of(root, added=sum(fresh.values()))
                return self._snapshots.finished(job.record, archived.root, totals)
            parent = None  # what the parent's pages name may be gone: read everything
        raise ConflictError("packs that the snapshot shares with others keep being removed")

    async def _read_tree(
        self,
        job: Job[StoredSnapshot],
        directory: Path,
        options: WalkOptions,
        parent: str | None,
        fresh: dict[Digest, int],
        found: set[Digest],
        *,
        doubt: bool,
    ) -> Archived:
        """Archive the tree once.

        ``fresh`` gets what was not stored before, and its sizes, ``found`` what was; with
        ``doubt`` that is read back.
        """

        async def put(digest: Digest, data: bytes) -> bool:
            created = await self._packs.put(digest, data, doubt=doubt)
            job.show_life()
            if created:
                fresh[digest] = len(data)
            else:
                found.add(digest)
            return created

        store = BridgedPackStore(
            asyncio.get_running_loop(),
            self._packs.get,
            put,
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
