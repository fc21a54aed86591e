"""Putting a snapshot's files back: whole and at once, or not at all.

A tree is filled in a staging directory beside its target, and then takes the target's place in one
step that a crash cannot halve. Only ``merge`` writes into a tree that is in use, file by file.

Why: docs/decisions.md, "When a restore syncs".
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from holdfast.archive.directories import (
    exchange,
    failure_of,
    has_mounts,
    open_directory,
    remove_entry,
    rename_new,
    reported,
    sync_filesystem,
)
from holdfast.archive.ports import (
    Cancelled,
    OnProgress,
    Progress,
    Stop,
    ignore_progress,
    never_stop,
)
from holdfast.archive.restore.extra import remove_extra
from holdfast.archive.restore.metadata import Metadata, current_umask
from holdfast.archive.restore.mounts import Mounts
from holdfast.archive.restore.options import Restored, RestoreOptions, check_options
from holdfast.archive.restore.place import LivePlace, Place, StagingPlace, Target
from holdfast.archive.restore.plan import Planner
from holdfast.archive.restore.tree import TreeRestore
from holdfast.archive.select import Selection
from holdfast.archive.staging import make_staging, staging_name
from holdfast.archive.warnings import Warnings
from holdfast.errors import ConflictError, HoldfastError, InvalidError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.archive.read.snapshot import SnapshotReader

BeforeExchange = Callable[[], None]
log = logging.getLogger(__name__)


def _do_nothing() -> None:
    """For callers who need not be asked."""


def restore_tree(
    snapshot: SnapshotReader,
    target: Path,
    *,
    options: RestoreOptions,
    progress: OnProgress = ignore_progress,
    stop: Stop = never_stop,
    before_exchange: BeforeExchange = _do_nothing,
) -> Restored:
    """Restore ``snapshot``, or what ``options`` select of it, to the directory ``target``.

    Blocks; to be run in a thread. ``target``'s parent must be there, and is trusted. After any
    error in modes ``new`` and ``replace`` the target is as it was, and the staging directory is
    gone if it could be removed. ``replace`` and ``merge`` return when the new tree
    is on disk. ``before_exchange`` is called when a staged tree is complete, right before it takes
    the target's place; what it raises prevents that.

    ``merge`` removes nothing that is mounted below the target, and nothing on it.

    Raises ConflictError (``new``, and the target exists; the staging directory was taken away),
    NotFoundError (a path matches nothing, or there is no parent; nothing was done), InvalidError
    (no directory, none that can be exchanged, a mount point where the snapshot has something else,
    ``paths`` with ``replace``), TooLargeError (``RestoreLimits``), CorruptError,
    QuotaExceededError (the disk is full), ForbiddenError, UnavailableError, Cancelled.
    """
    return _Restore(snapshot, target, options, progress, stop, before_exchange).run()


class _Restore:
    def __init__(
        self,
        snapshot: SnapshotReader,
        target: Path,
        options: RestoreOptions,
        progress: OnProgress,
        stop: Stop,
        before_exchange: BeforeExchange,
    ) -> None:
        self._before_exchange = before_exchange
        self._snapshot = snapshot
        self._directory = target.parent
        self._name = os.fsencode(target.name)
        self._options = options
        self._progress = progress
        self._stop = stop
        self._staging = staging_name(options.staging_id)
        self._selection = Selection(options.paths, leave_out=options.remove)
        self._warnings = Warnings()
        self._counts = (0, 0, 0)
        check_options(options.mode, options.paths, delete=options.delete)
        if self._name in (b"", b".", b".."):
            raise InvalidError("the target has no name: nothing can be prepared beside it")

    def run(self) -> Restored:
        pages = self._chosen_pages()
        with ExitStack() as stack:
            parent = self._open_parent()
            stack.callback(os.close, parent)
            old = self._open_target(parent)
            if old is not None:
                stack.callback(os.close, old)
                self._check_mounts(old)
            if self._options.dry_run:
                planner = Planner(self._snapshot, old, self._selection, self._options, self._stop)
                return planner.plan(pages)
            if old is not None and self._options.mode == "merge":
                return self._merge(old, pages)
            return self._stage(parent, old, pages)

    def _chosen_pages(self) -> Sequence[int]:
        """The pages with what is selected, once it is known that this is not too much."""
        snapshot, limits = self._snapshot, self._options.limits
        root = snapshot.root
        if self._selection.is_whole:
            # The tar has no holes, and the files no headers: what is written is in both.
            size_bytes = min(root.size_bytes, root.raw_bytes)
            limits.check_totals(root.entries, size_bytes)
            limits.check_expansion(size_bytes, root.stored_bytes)
            return range(snapshot.page_count)
        entries = size_bytes = stored_bytes = 0
        chosen = []
        for number in self._selection.pages(root.first_paths, root.page_of_path):
            page = snapshot.page(number)
            indices = self._selection.indices(page.paths)
            if indices:
                chosen.append(number)
                stored_bytes += root.columns.stored_bytes[number]
            entries += len(indices)
            size_bytes += sum([page.data_sizes[index] for index in indices])
            if self._stop():
                raise Cancelled
        self._selection.check_all_matched()
        limits.check_totals(entries, size_bytes)
        limits.check_expansion(size_bytes, stored_bytes)
        return chosen

    def _open_parent(self) -> int:
        try:
            return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            msg = "the directory that the target is to be in does not exist"
            raise NotFoundError(msg) from error
        except OSError as error:
            raise failure_of(error, "opening the directory of the target") from error

    def _check_mounts(self, old: int) -> None:
        """Raises InvalidError where something is mounted that would have to be removed."""
        options = self._options
        with reported("looking for what is mounted in the target"):
            if options.mode == "merge":
                remove = list(map(os.fsencode, options.remove))
                Mounts(old).check(self._snapshot, self._selection, remove)
            elif has_mounts(old):
                msg = "the target is a mount point or has one in it: restore with mode merge"
                raise InvalidError(msg)

    def _open_target(self, parent: int) -> int | None:
        """The directory that is there, if the mode allows one to be there."""
        try:
            status = os.stat(self._name, dir_fd=parent, follow_symlinks=False)
            if self._options.mode == "new":
                msg = "the target exists: restore with mode replace or merge, or to another app"
                raise ConflictError(msg)
            if not stat.S_ISDIR(status.st_mode):
                raise InvalidError("the target is not a directory; a symlink is not followed")
            return open_directory(self._name, parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failure_of(error, "opening the target") from error

    def _stage(self, parent: int, old: int | None, pages: Sequence[int]) -> Restored:
        with reported("making the staging directory"):
            staging = make_staging(parent, self._options.staging_id)
        removed = 0
        try:
            try:
                self._fill(staging, pages)
                if self._options.mode != "new":
                    with reported("syncing the new tree"):
                        sync_filesystem(staging)
                if self._stop():
                    raise Cancelled
                self._tell("exchange")
                self._before_exchange()
                with reported("putting the new tree in its place"):
                    self._put_in_place(parent, old)
            finally:
                os.close(staging)
        except BaseException:
            self._clear_away(parent)
            raise
        if old is not None:
            self._tell("remove")
            removed = self._clear_away(parent)
        return self._result(removed)

    def _fill(self, staging: int, pages: Sequence[int]) -> None:
        status = os.fstat(staging)
        place = StagingPlace(self._snapshot)
        os.fchmod(staging, stat.S_IRWXU)
        tree = self._tree(staging, place, (status.st_uid, status.st_gid))
        tree.run(pages, lambda: None)
        self._counts = tree.counts
        if self._snapshot.find(b"") is None:
            with reported("restoring the directory itself"):
                os.fchmod(staging, 0o777 & ~current_umask())

    def _put_in_place(self, parent: int, old: int | None) -> None:
        try:
            if old is not None:
                exchange(parent, self._staging, self._name)
            else:
                rename_new(parent, self._staging, self._name)
        except FileExistsError as error:
            raise ConflictError("somebody else has made the target meanwhile") from error
        except FileNotFoundError as error:
            msg = "the restore was given up and cleared away, or its target was, meanwhile"
            raise ConflictError(msg) from error

    def _merge(self, live: int, pages: Sequence[int]) -> Restored:
        place = LivePlace(self._snapshot, self._staging)
        extra = 0

        def finish_extra() -> None:
            nonlocal extra
            with reported("removing what the snapshot lacks"):
                if self._options.remove:
                    place.open_up(live, b"")
                for name in self._options.remove:
                    extra += remove_entry(live, os.fsencode(name))
                if self._options.delete:
                    mounts = Mounts(live)
                    extra += remove_extra(self._snapshot, live, self._selection, mounts, place)

        tree = self._tree(live, place, None)
        try:
            tree.run(pages, finish_extra)
        finally:
            place.close_all(live)
        self._counts = tree.counts
        with reported("syncing the tree"):
            sync_filesystem(live)
        return self._result(extra + place.removed)

    def _tree(self, fd: int, place: Place, created: tuple[int, int] | None) -> TreeRestore:
        user = (os.geteuid(), os.getegid())
        umask = current_umask()

        def metadata() -> Metadata:
            return Metadata(
                self._options.owners,
                self._options.privileges,
                umask=umask,
                user=user,
                created=created,
                warnings=self._warnings,
            )

        target = Target(
            snapshot=self._snapshot,
            selection=self._selection,
            fd=fd,
            place=place,
            metadata=metadata,
            warnings=self._warnings,
            # In a live tree directories may have to make room for files: one after the other.
            threads=1 if created is None else max(self._options.threads, 1),
        )
        return TreeRestore(target, self._options.limits, self._progress, self._stop)

    def _clear_away(self, parent: int) -> int:
        """Remove what is under the staging name: how many entries. A failure is a warning."""
        try:
            return remove_entry(parent, self._staging)
        except (OSError, HoldfastError) as error:
            about = {"staging": self._options.staging_id, "error": str(error)}
            log.warning("staging_not_removed", extra=about)
            self._warnings.add("leftover", b"", f"the staging directory remains: {error}")
            return 0

    def _tell(self, phase: str) -> None:
        entries, _, size_bytes = self._counts
        self._progress(Progress(phase=phase, entries=entries, bytes=size_bytes))

    def _result(self, removed: int) -> Restored:
        entries, files, size_bytes = self._counts
        return Restored(
            entries=entries,
            files=files,
            bytes=size_bytes,
            removed=removed,
            warnings=self._warnings.first,
            warning_count=self._warnings.count,
        )
