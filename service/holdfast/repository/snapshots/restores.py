"""Snapshots put back into directories of apps of this machine."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from holdfast.archive.bridge import BridgedPackStore
from holdfast.archive.read.snapshot import (
    SCATTERED_PACKS_BYTES,
    ReaderLimits,
    SnapshotReader,
)
from holdfast.archive.restore.options import Restored, RestoreOptions, check_options
from holdfast.archive.restore.restore import restore_tree
from holdfast.archive.staging import list_stagings, remove_staging
from holdfast.domain.limits import MIB
from holdfast.domain.names import SnapshotKey, check_id, created_at_of
from holdfast.errors import ConflictError, CorruptError, InvalidError
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.snapshots.apps import DIRECTORY_SECONDS
from holdfast.repository.snapshots.record import (
    RESTORE,
    RESTORE_TTL,
    SNAPSHOT,
    StoredRestore,
    Totals,
    first_plans,
    first_warnings,
    snapshot_name,
)

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.archive.ports import Pack
    from holdfast.domain.digest import Digest
    from holdfast.repository.ledger.ledger import Held, Ledger
    from holdfast.repository.ledger.ops import Ops
    from holdfast.repository.snapshots.apps import Apps
    from holdfast.repository.snapshots.job import Job
    from holdfast.repository.snapshots.making import Maker
    from holdfast.repository.snapshots.packs import Packs
    from holdfast.repository.snapshots.running import Jobs
    from holdfast.sources import Sources


OWNER_MARKERS: Final = (".chowned",)
"""Files by which apps remember that they own their tree: not so of one that has been restored."""

RESTORE_CACHE_BYTES: Final = 24 * MIB
"""Packs of one restore that were read ahead."""

RESTORE_LIMITS: Final = ReaderLimits(
    pack_cache_bytes=SCATTERED_PACKS_BYTES,
    frame_cache_bytes=2 * MIB,
    page_cache_bytes=8 * MIB,
)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """A restore into ``app``, as asked for: ``options`` get the restore's id for a staging id."""

    snapshot: SnapshotKey
    root: Digest
    app: str
    options: RestoreOptions


class Restores:
    """Restores into apps of this machine."""

    def __init__(
        self,
        ledger: Ledger,
        ops: Ops,
        jobs: Jobs,
        packs: Packs,
        apps: Apps,
        *,
        owner: Maker,
        sources: Sources,
    ) -> None:
        """``owner`` is this worker."""
        self._ledger = ledger
        self._ops = ops
        self._jobs = jobs
        self._packs = packs
        self._apps = apps
        self._owner = owner
        self._sources = sources

    async def restore(
        self, request: RestoreRequest, *, op_id: str | None, wait_seconds: float
    ) -> StoredRestore:
        """Restore; the record once that has ended, or pending after ``wait_seconds``.

        Raises InvalidError, ConflictError (``new`` and there is a directory), UnavailableError.
        """
        self._jobs.check_room()
        asked = request.options
        check_options(asked.mode, asked.paths, delete=asked.delete)
        target = self._apps.target(request.app)
        return await self._jobs.do(
            partial(self._begin, request, op_id),
            partial(self._restore, request=request, target=target),
            owner=self._owner.id,
            wait_seconds=wait_seconds,
        )

    async def get(self, restore: str) -> StoredRestore:
        """The record of a restore. Raises NotFoundError."""
        return (await self._ledger.get(RESTORE, restore)).record

    async def _begin(
        self, request: RestoreRequest, op_id: str | None
    ) -> tuple[Held[StoredRestore], bool]:
        """A pending record, and whether it is there from an earlier request with ``op_id``."""
        restore, repeated = await self._ops.claim(op_id, self._sources.new_uuid())
        held = await self._ledger.find(RESTORE, restore) if repeated else None
        if held is not None:  # else its worker did not get so far
            return held, True
        await self._apps.look(lambda: self._check_target(request), seconds=DIRECTORY_SECONDS)
        record = StoredRestore(
            id=restore,
            snapshot=str(request.snapshot),
            app=request.app,
            mode=request.options.mode,
            state="pending",
            lease=Lease(owner=self._owner.id, seconds=self._owner.lease_seconds),
            created_at=self._sources.clock().isoformat(),
            node=self._owner.node,
            digest=request.root,
            dry_run=request.options.dry_run,
        )
        try:
            return await self._ledger.begin(RESTORE, restore, record), False
        except ConflictError:
            if op_id is None:
                raise
            return await self._ledger.get(RESTORE, restore), True

    def _check_target(self, request: RestoreRequest) -> None:
        """Say at once what would fail anyway."""
        if not self._apps.has(request.app):
            return
        self._apps.directory(request.app)
        if request.options.mode == "new":
            msg = f"there is an app {request.app!r} already: replace it, or merge into it"
            raise ConflictError(msg)

    async def _restore(
        self, job: Job[StoredRestore], request: RestoreRequest, target: Path
    ) -> StoredRestore:
        async def get(digest: Digest) -> Pack:
            data = await self._packs.get(digest)
            job.show_life()
            return data

        store = BridgedPackStore(
            asyncio.get_running_loop(),
            get,
            self._packs.put,
            get_latest=self._packs.get_latest,
            window_bytes=MIB,
            cache_bytes=RESTORE_CACHE_BYTES,
        )
        options = replace(
            request.options,
            staging_id=job.record.id,
            remove=() if request.options.paths else OWNER_MARKERS,
        )

        def run() -> Restored:
            reader = SnapshotReader(store, request.root, limits=RESTORE_LIMITS)
            return restore_tree(
                reader,
                target,
                options=options,
                progress=job.report,
                # Looking at a tree is counted nowhere, and nobody but the looker asks.
                stop=job.should_stop_working if options.dry_run else job.should_stop,
                # It has not been given up by others, who clear away.
                before_exchange=lambda: store.run(self._jobs.rewrite(job)),
            )

        try:
            restored = await self._jobs.in_thread(run)
        except CorruptError:
            await self._check_snapshot(request)
            raise
        finally:
            store.close()
        return self._finished(job.record, restored)

    async def _check_snapshot(self, request: RestoreRequest) -> None:
        """Raises ConflictError when packs are missing because the snapshot was removed."""
        if await self._ledger.find(SNAPSHOT, snapshot_name(request.snapshot)) is None:
            msg = f"the snapshot {request.snapshot} was removed while it was being restored"
            raise ConflictError(msg)

    def _finished(self, record: StoredRestore, restored: Restored) -> StoredRestore:
        return msgspec.structs.replace(
            record,
            state="ok",
            finished_at=self._sources.clock().isoformat(),
            totals=Totals(
                entries=restored.entries,
                files=restored.files,
                size=restored.bytes,
                removed=restored.removed,
            ),
            plan=first_plans(restored.plan),
            plan_count=restored.plan_count,
            warnings=first_warnings(restored.warnings),
            warning_count=restored.warning_count,
        )

    async def sweep(self) -> int:
        """Remove trees that restores no longer pending left beside the apps; how many."""
        root = self._apps.root
        if root is None:
            return 0
        removed = 0
        for restore in await asyncio.to_thread(list_stagings, root):
            if self._jobs.has(RESTORE.key(restore)) or not await self._is_over(restore):
                continue
            if await asyncio.to_thread(remove_staging, root, restore):
                log.info("staging_removed", restore=restore)
                removed += 1
        return removed

    async def _is_over(self, restore: str) -> bool:
        """Whether nobody works on ``restore``. One without a record may be a client's own."""
        held = await self._ledger.find(RESTORE, restore)
        if held is not None:
            return not held.is_live
        with suppress(InvalidError):
            return self._sources.clock() - created_at_of(check_id(restore)) > RESTORE_TTL
        return False
