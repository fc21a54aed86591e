"""Restoring on this machine: a snapshot of the pool becomes a directory here.

The same code as a worker's writes and checks; packs are read as blobs, several ahead. Imported by
those who need it: it loads zstd.
"""

from __future__ import annotations

import secrets
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from holdfast.archive.read.snapshot import (
    SCATTERED_PACKS_BYTES,
    ReaderLimits,
    SnapshotReader,
)
from holdfast.archive.restore.restore import restore_tree
from holdfast.client.snapshots.packs import PackTransport
from holdfast.client.snapshots.thread import ProgressRelay, in_thread
from holdfast.client.snapshots.wait import readable_root
from holdfast.domain.limits import MIB
from holdfast.domain.names import created_at_of
from holdfast.errors import InvalidError
from holdfast.protocol.entries import change_message, warning_message
from holdfast.protocol.snapshots import RestoreRecord, SnapshotRecord

if TYPE_CHECKING:
    import os

    from holdfast.archive.ports import Stop
    from holdfast.archive.restore.options import Restored, RestoreOptions
    from holdfast.client.requests import Requester
    from holdfast.client.snapshots.wait import OnProgress

CACHE_BYTES: Final = 24 * MIB
"""Packs that were read ahead."""

LIMITS: Final = ReaderLimits(
    pack_cache_bytes=SCATTERED_PACKS_BYTES,
    frame_cache_bytes=2 * MIB,
    page_cache_bytes=8 * MIB,
)


async def restore_here(
    requester: Requester,
    record: SnapshotRecord,
    target: str | os.PathLike[str],
    options: RestoreOptions,
    on_progress: OnProgress | None,
) -> RestoreRecord:
    """See ``Snapshots.restore_to``. ``options`` have a fresh staging id."""
    root = readable_root(record)
    path = target_path(target)
    store = PackTransport(requester).bridged(window_bytes=MIB, cache_bytes=CACHE_BYTES)
    relay = ProgressRelay(record.key, on_progress)

    def work(stop: Stop) -> Restored:
        reader = SnapshotReader(store, root, limits=LIMITS)
        return restore_tree(reader, path, options=options, progress=relay, stop=stop)

    with closing(store):
        restored = await in_thread(work, on_stop=store.close)
    return _record(record, restored, options)


def target_path(target: str | os.PathLike[str]) -> Path:
    """``target`` with a name of its own, which ``.`` and ``..`` have not. Raises InvalidError.

    A symlink as its last name is left as it is: it is not followed. An empty name, which is what a
    variable that nobody has set gives, does not stand for this directory.
    """
    if target == "":
        raise InvalidError("the name of the directory to restore to is empty")
    path = Path(target)
    if path.name in ("", ".."):
        path = path.resolve()
    if not path.name:
        raise InvalidError("a snapshot cannot be restored to /: name a directory in it")
    return path


def new_staging_id() -> str:
    """A UUID of version 7: workers clear away what old ones left beside their apps."""
    stamp = time.time_ns() // 1_000_000
    return str(UUID(int=stamp << 80 | 7 << 76 | 2 << 62 | secrets.randbits(62)))


def _record(record: SnapshotRecord, restored: Restored, options: RestoreOptions) -> RestoreRecord:
    """The answer that a worker would give."""
    return RestoreRecord(
        restore=options.staging_id,
        key=record.key,
        app=record.app,
        mode=options.mode,
        state="ok",
        created_at=created_at_of(options.staging_id).isoformat().replace("+00:00", "Z"),
        entries=restored.entries,
        files=restored.files,
        size=restored.bytes,
        removed=restored.removed,
        digest=record.digest,
        dry_run=options.dry_run,
        plan=[change_message(planned) for planned in restored.plan],
        plan_count=restored.plan_count,
        warnings=[warning_message(warning) for warning in restored.warnings],
        warning_count=restored.warning_count,
    )
