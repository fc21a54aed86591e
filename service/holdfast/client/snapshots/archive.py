"""Archiving on this machine: a directory or a tar becomes a snapshot in the pool.

The same code as a worker's reads, cuts and compresses; packs that the pool lacks are put as blobs;
then the snapshot is committed. Imported by those who need it: it loads zstd and FastCDC.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast.archive.bridge import BridgedPackStore
from holdfast.archive.create.create import Archived, create_archive
from holdfast.archive.create.source import DirectorySource
from holdfast.archive.create.walk import WalkOptions
from holdfast.archive.file_systems import racy_ns
from holdfast.archive.tar.source import TarSource
from holdfast.client.from_thread import PIPE_STOP_SECONDS
from holdfast.client.snapshots.lease import PendingSnapshot
from holdfast.client.snapshots.packs import PackTransport
from holdfast.client.snapshots.thread import ProgressRelay, in_thread
from holdfast.client.snapshots.wait import raise_failure
from holdfast.client.sources import SupportsRead, read_block
from holdfast.domain.digest import Digest
from holdfast.domain.limits import MIB
from holdfast.domain.names import check_app, check_labels
from holdfast.errors import (
    CorruptError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.protocol.entries import warning_message
from holdfast.protocol.snapshots import CommitSnapshot, SnapshotRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.archive.ports import EntrySource, Stop
    from holdfast.client.requests import Requester
    from holdfast.client.snapshots.wait import OnProgress

WINDOW_BYTES: Final = 4 * MIB
"""Packs that are being put at once."""

CACHE_BYTES: Final = 32 * MIB
"""Of packs with the parent's pages."""

ROUNDS: Final = 3
"""Times that all is read anew because its base had gone."""


async def archive_here(
    requester: Requester,
    source: str | os.PathLike[str] | SupportsRead,
    app: str,
    labels: Mapping[str, str],
    options: WalkOptions,
    on_progress: OnProgress | None,
    *,
    read_all: bool = False,
) -> SnapshotRecord:
    """See ``Snapshots.create_from``. ``options`` are for directories only."""
    check_app(app)
    check_labels(labels)
    started_at_ns = time.time_ns()
    opened = await _open(source, options, ProgressRelay("", on_progress))
    with closing(opened):
        pending = await PendingSnapshot.begin(requester, app, labels)
        try:
            record = await _upload(
                requester, pending, opened, started_at_ns, on_progress, read_all=read_all
            )
        except (OutcomeUnknownError, UnavailableError):
            raise  # it may be committed: its lease tells in the end
        except BaseException:
            await asyncio.shield(pending.forget())
            raise
    raise_failure(record)
    return record


async def _open(
    source: str | os.PathLike[str] | SupportsRead, options: WalkOptions, relay: ProgressRelay
) -> EntrySource:
    if not isinstance(source, str | os.PathLike):
        _refuse_options(options)
        stream = source
        # Nobody can end a read of somebody else's pipe: it is left alone.
        return await in_thread(
            lambda stop: _unpacked(stream, relay, stop), stop_seconds=PIPE_STOP_SECONDS
        )
    path = Path(source)
    return await in_thread(lambda stop: _open_path(path, options, relay, stop))


def _open_path(path: Path, options: WalkOptions, relay: ProgressRelay, stop: Stop) -> EntrySource:
    if path.is_dir():
        return DirectorySource(path.resolve(), options)
    _refuse_options(options)
    try:
        with path.open("rb", buffering=0) as file:
            return _unpacked(file, relay, stop)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {path}") from error


def _unpacked(stream: SupportsRead, relay: ProgressRelay, stop: Stop) -> EntrySource:
    return TarSource(_WholeReads(stream), tempfile.gettempdir(), progress=relay, stop=stop)


def _refuse_options(options: WalkOptions) -> None:
    if options != WalkOptions():
        raise InvalidError("a tar is taken as it is: nothing can be excluded or skipped")


class _WholeReads:
    """A file object that never answers None."""

    def __init__(self, file: SupportsRead) -> None:
        self._file = file

    def read(self, size: int, /) -> bytes:
        return read_block(self._file, size)


async def _upload(
    requester: Requester,
    pending: PendingSnapshot,
    source: EntrySource,
    started_at_ns: int,
    on_progress: OnProgress | None,
    *,
    read_all: bool,
) -> SnapshotRecord:
    key = pending.record.key
    digest = None if read_all else pending.record.parent_digest
    parent = Digest(digest) if digest is not None else None
    added = 0
    missing: set[str] = set()
    for _ in range(ROUNDS):
        transport = PackTransport(requester, missing, doubts_all=read_all)
        store = transport.bridged(window_bytes=WINDOW_BYTES, cache_bytes=CACHE_BYTES)
        try:
            archived = await pending.keep_alive(
                _archive(source, store, parent, started_at_ns, ProgressRelay(key, on_progress))
            )
        except CorruptError:
            if parent is None:
                raise
            parent = None  # what it was to be built upon is damaged
            continue
        added += store.created_bytes
        record = await pending.commit(_commit(key, archived, added))
        if record.state != "pending":
            return record
        missing.update(record.missing)
        parent = None  # what it was built upon has gone: now nothing is taken for granted
    raise UnavailableError("packs that were put keep being removed")


async def _archive(
    source: EntrySource,
    store: BridgedPackStore,
    parent: Digest | None,
    started_at_ns: int,
    relay: ProgressRelay,
) -> Archived:
    def work(stop: Stop) -> Archived:
        return create_archive(
            source,
            store,
            parent=parent,
            started_at_ns=started_at_ns,
            racy_ns=racy_ns(),
            progress=relay,
            stop=stop,
        )

    with closing(store):
        return await in_thread(work, on_stop=store.close)


def _commit(key: str, archived: Archived, added: int) -> CommitSnapshot:
    return CommitSnapshot(
        key=key,
        digest=archived.root,
        added=added,
        warnings=[warning_message(warning) for warning in archived.warnings],
        warning_count=archived.warning_count,
    )
