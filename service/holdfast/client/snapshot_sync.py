"""``client.snapshots`` for scripts: the same calls, without ``await``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from holdfast.client.loop_thread import LoopThread
    from holdfast.client.partial_file import SupportsWrite
    from holdfast.client.snapshot_paths import AnyPath
    from holdfast.client.snapshot_wait import OnProgress
    from holdfast.client.snapshots import Snapshots
    from holdfast.client.sources import SupportsRead
    from holdfast.protocol.snapshots import (
        FileEntry,
        Mode,
        RestoreRecord,
        SnapshotChange,
        SnapshotRecord,
        SnapshotVerified,
        State,
    )

    OnBytes = Callable[[int, int | None], None]


class SyncSnapshots:
    """See ``Snapshots``: every method has the same arguments, result and errors.

    Callbacks run in the client's thread.
    """

    def __init__(self, snapshots: Snapshots, thread: LoopThread) -> None:
        """Made by the client."""
        self._snapshots = snapshots
        self._thread = thread

    def create(
        self,
        app: str,
        *,
        labels: Mapping[str, str] | None = None,
        node: str | None = None,
        exclude: Iterable[str] = (),
        exclude_caches: bool = False,
        one_file_system: bool = False,
        skip_unreadable: bool = False,
        read_all: bool = False,
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> SnapshotRecord:
        """See ``Snapshots.create``."""
        return self._thread.run(
            self._snapshots.create(
                app,
                labels=labels,
                node=node,
                exclude=exclude,
                exclude_caches=exclude_caches,
                one_file_system=one_file_system,
                skip_unreadable=skip_unreadable,
                read_all=read_all,
                wait=wait,
                on_progress=on_progress,
            )
        )

    def restore(
        self,
        key: str,
        *,
        app: str | None = None,
        node: str | None = None,
        paths: Iterable[str] = (),
        mode: Mode = "new",
        delete: bool = False,
        dry_run: bool = False,
        owner: str = "keep",
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> RestoreRecord:
        """See ``Snapshots.restore``."""
        return self._thread.run(
            self._snapshots.restore(
                key,
                app=app,
                node=node,
                paths=paths,
                mode=mode,
                delete=delete,
                dry_run=dry_run,
                owner=owner,
                wait=wait,
                on_progress=on_progress,
            )
        )

    def create_from(
        self,
        source: str | os.PathLike[str] | SupportsRead,
        *,
        app: str,
        labels: Mapping[str, str] | None = None,
        exclude: Iterable[str] = (),
        exclude_caches: bool = False,
        one_file_system: bool = False,
        skip_unreadable: bool = False,
        read_all: bool = False,
        on_progress: OnProgress | None = None,
    ) -> SnapshotRecord:
        """See ``Snapshots.create_from``."""
        return self._thread.run(
            self._snapshots.create_from(
                source,
                app=app,
                labels=labels,
                exclude=exclude,
                exclude_caches=exclude_caches,
                one_file_system=one_file_system,
                skip_unreadable=skip_unreadable,
                read_all=read_all,
                on_progress=on_progress,
            )
        )

    def restore_to(
        self,
        key: str,
        target: str | os.PathLike[str],
        *,
        paths: Iterable[AnyPath] = (),
        mode: Mode = "new",
        delete: bool = False,
        dry_run: bool = False,
        owner: str = "keep",
        on_progress: OnProgress | None = None,
    ) -> RestoreRecord:
        """See ``Snapshots.restore_to``."""
        return self._thread.run(
            self._snapshots.restore_to(
                key,
                target,
                paths=paths,
                mode=mode,
                delete=delete,
                dry_run=dry_run,
                owner=owner,
                on_progress=on_progress,
            )
        )

    def list(
        self,
        *,
        app: str | None = None,
        apps: Iterable[str] | None = None,
        labels: Mapping[str, str] | None = None,
        state: State | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        on_damaged: Callable[[str], object] | None = None,
    ) -> Iterator[SnapshotRecord]:
        """See ``Snapshots.list``."""
        return self._thread.iterate(
            self._snapshots.list(
                app=app,
                apps=apps,
                labels=labels,
                state=state,
                since=since,
                until=until,
                on_damaged=on_damaged,
            )
        )

    def newest(
        self,
        app: str,
    ) -> SnapshotRecord:
        """See ``Snapshots.newest``."""
        return self._thread.run(self._snapshots.newest(app))

    def get(
        self,
        key: str,
    ) -> SnapshotRecord:
        """See ``Snapshots.get``."""
        return self._thread.run(self._snapshots.get(key))

    def get_restore(
        self,
        restore: str,
    ) -> RestoreRecord:
        """See ``Snapshots.get_restore``."""
        return self._thread.run(self._snapshots.get_restore(restore))

    def files(
        self,
        key: str,
        path: AnyPath = "",
    ) -> Iterator[FileEntry]:
        """See ``Snapshots.files``."""
        return self._thread.iterate(self._snapshots.files(key, path))

    def diff(
        self,
        a: str,
        b: str,
    ) -> Iterator[SnapshotChange]:
        """See ``Snapshots.diff``."""
        return self._thread.iterate(self._snapshots.diff(a, b))

    def read(
        self,
        key: str,
        path: AnyPath,
        *,
        offset: int = 0,
        length: int | None = None,
    ) -> bytes:
        """See ``Snapshots.read``."""
        return self._thread.run(self._snapshots.read(key, path, offset=offset, length=length))

    def stream(
        self,
        key: str,
        path: AnyPath,
        *,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> Iterator[memoryview]:
        """See ``Snapshots.stream``."""
        return self._thread.iterate(
            self._snapshots.stream(key, path, offset=offset, length=length, progress=progress)
        )

    def read_to(
        self,
        key: str,
        path: AnyPath,
        target: str | os.PathLike[str] | SupportsWrite,
        *,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> int:
        """See ``Snapshots.read_to``."""
        return self._thread.run(
            self._snapshots.read_to(
                key, path, target, offset=offset, length=length, progress=progress
            )
        )

    def export(
        self,
        key: str,
        *,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> Iterator[memoryview]:
        """See ``Snapshots.export``."""
        return self._thread.iterate(
            self._snapshots.export(key, offset=offset, length=length, progress=progress)
        )

    def export_to(
        self,
        key: str,
        target: str | os.PathLike[str] | SupportsWrite,
        *,
        progress: OnBytes | None = None,
    ) -> int:
        """See ``Snapshots.export_to``."""
        return self._thread.run(self._snapshots.export_to(key, target, progress=progress))

    def verify(
        self,
        key: str,
    ) -> Iterator[SnapshotVerified]:
        """See ``Snapshots.verify``."""
        return self._thread.iterate(self._snapshots.verify(key))

    def delete(
        self,
        key: str,
    ) -> bool:
        """See ``Snapshots.delete``."""
        return self._thread.run(self._snapshots.delete(key))

    def purge(
        self,
        app: str,
    ) -> int:
        """See ``Snapshots.purge``."""
        return self._thread.run(self._snapshots.purge(app))
