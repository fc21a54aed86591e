"""Files in a tree and not in the snapshot: found without keeping either in memory."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from holdfast.archive.chain import DirectoryChain
from holdfast.archive.directories import names_in, remove_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.archive.restore.mounts import Mounts
    from holdfast.archive.restore.place import LivePlace
    from holdfast.archive.select import Selection


def extra_entries(
    snapshot: SnapshotReader,
    root_fd: int,
    selection: Selection,
    mounts: Mounts,
    place: LivePlace | None = None,
) -> Iterator[tuple[int, bytes, bytes]]:
    """Entries below ``root_fd`` that are selected and not in the snapshot.

    Each as (descriptor of its directory, name, path); of a directory that is extra, just that.
    It may be removed before the next is asked for. Mount points are left out, with the
    directories that hold them. Raises OSError. ``place`` opens directories that are closed.
    """

    def enter(parent: int, name: bytes, path: bytes) -> int:
        try:
            return mounts.enter(parent, name, path)
        except PermissionError:
            if place is None:
                raise
            place.open_up_name(parent, name, path)
            return mounts.enter(parent, name, path)

    chain = DirectoryChain(root_fd, enter)
    pending = [b""]
    try:
        while pending:
            directory = pending.pop()
            try:
                fd = chain.at(directory)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for batch in names_in(fd):
                for name, is_directory in batch:
                    path = b"%b/%b" % (directory, name) if directory else name
                    is_extra = selection.selects(path) and snapshot.find(path) is None
                    if is_extra and not mounts.holds(path):
                        yield fd, name, path
                    elif is_directory and selection.may_select_below(path):
                        pending.append(path)
    finally:
        chain.close()


def remove_extra(
    snapshot: SnapshotReader, root_fd: int, selection: Selection, mounts: Mounts, place: LivePlace
) -> int:
    """Remove them; the count of entries. Raises OSError, InvalidError."""
    removed = 0
    for dir_fd, name, path in extra_entries(snapshot, root_fd, selection, mounts, place):
        place.open_up(dir_fd, path.rpartition(b"/")[0])
        removed += remove_entry(dir_fd, name)
    return removed


def count_entries(dir_fd: int, name: bytes, mounts: Mounts) -> int:
    """Entries that ``remove_entry`` would remove."""
    count = 1
    try:
        root_fd = mounts.enter(dir_fd, name, name)
    except OSError:
        return count
    chain = DirectoryChain(root_fd, mounts.enter)
    try:
        pending = [b""]
        while pending:
            directory = pending.pop()
            with suppress(FileNotFoundError, NotADirectoryError):
                for batch in names_in(chain.at(directory)):
                    count += len(batch)
                    pending += [
                        b"%b/%b" % (directory, inner) if directory else inner
                        for inner, is_directory in batch
                        if is_directory
                    ]
    finally:
        chain.close()
        os.close(root_fd)
    return count
