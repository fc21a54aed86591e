"""Where entries are put: into a staging directory that nobody else uses, or into a live tree.

In a staging directory what is missing is made, and what is there already is a contradiction in the
manifest. In a live tree each entry is made under a temporary name beside its own, and renamed over
whatever is there; only real directories are gone into.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.archive.chain import DirectoryChain
from holdfast.archive.directories import names_in, open_directory, remove_entry
from holdfast.archive.paths import path_text
from holdfast.errors import CorruptError
from holdfast.form.entries import Kind, order_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.archive.restore.metadata import Metadata
    from holdfast.archive.select import Selection
    from holdfast.archive.warnings import Warnings

MAX_TRIES: Final = 8
"""Times that a directory is made again in a live tree that somebody else changes."""

LEFTOVER_MS: Final = 86_400_000
"""Temporary entries that began so much earlier than this restore are nobody's any more."""

_TEMPORARY: Final = re.compile(
    rb"\.holdfast-([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)
_PATH_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEFAULT_ACL: Final = "system.posix_acl_default"
_ACCESS_ACL: Final = "system.posix_acl_access"


class StagingPlace:
    """A directory of our own. May be used by several threads."""

    temporary: bytes | None = None
    """The name under which entries are made; None: at once under their own."""

    removed = 0

    def __init__(self, snapshot: SnapshotReader) -> None:
        """Directories that are missing on the way are looked up in ``snapshot``."""
        self._snapshot = snapshot

    def enter(self, parent: int, name: bytes, path: bytes) -> int:
        """Open a directory on the way to an entry. Raises CorruptError where it is none."""
        try:
            return open_directory(name, parent)
        except FileNotFoundError:
            # Its entry is in a page that another thread is at, or is not selected itself.
            check_is_directory(self._snapshot, path)
            self.make_directory(parent, name)
            return open_directory(name, parent)
        except NotADirectoryError as error:
            raise _no_directory(path) from error

    def make_directory(self, parent: int, name: bytes) -> None:
        """Make a directory that only we can enter, unless it is there."""
        with suppress(FileExistsError):
            os.mkdir(name, stat.S_IRWXU, dir_fd=parent)

    def prepare(self, parent: int, path: bytes) -> None:
        """Nothing: what is in the directory is ours."""

    def shed(self, fd: int) -> None:
        """Nothing: a staging directory hands no ACL down."""

    def settle(self, parent: int, name: bytes) -> None:
        """Nothing: entries are made under their own names."""

    def clear(self, fd: int, path: bytes) -> None:
        """Nothing: nobody was here before."""

    def close_up(self, fd: int, path: bytes) -> None:
        """Nothing: what is ours has its mode when all is in it."""

    def has_made(self, path: bytes) -> bool:
        """Whether the directory ``path`` is of this restore's making."""
        del path
        return True


class LivePlace:
    """A tree that is in use. Used by one thread.

    Directories whose mode keeps their own owner from writing there are opened up for as long as
    something is done in them, as a restore to a new place fills them before it closes them.
    """

    def __init__(self, snapshot: SnapshotReader, temporary: bytes) -> None:
        """``temporary`` is a name that nobody else uses, in any directory of the tree."""
        self._snapshot = snapshot
        self._made = bytearray(0)
        self._prepared: bytes | None = None
        self._hands_down = False
        self._opened: dict[bytes, int] = {}
        self.temporary: bytes | None = temporary
        self._own_name = temporary
        self._leftovers_until = (_began_ms(temporary) or 0) - LEFTOVER_MS
        self.removed = 0

    def enter(self, parent: int, name: bytes, path: bytes) -> int:
        """Open a directory on the way to an entry; what else is there is replaced by one."""
        try:
            return open_directory(name, parent)
        except PermissionError:
            self.open_up_name(parent, name, path)
            return open_directory(name, parent)
        except OSError:
            number = check_is_directory(self._snapshot, path)
            self.open_up(parent, path.rpartition(b"/")[0])
            if self._make(parent, name):
                self._remember(number)
            return open_directory(name, parent)

    def make_directory(self, parent: int, name: bytes) -> None:
        """Make a directory, in place of what is there, unless that is one."""
        self._make(parent, name)

    def prepare(self, parent: int, path: bytes) -> None:
        """To be called before something is made in the directory ``path``, which ``parent`` is.

        An earlier attempt of this very restore may have left something under our name.
        """
        if path != self._prepared:
            self.open_up(parent, path)
            with suppress(FileNotFoundError):
                os.unlink(self._own_name, dir_fd=parent)
            self._hands_down = _hands_down(parent)
            self._prepared = path

    def open_up(self, fd: int, path: bytes) -> None:
        """Let the owner of the directory ``path``, which ``fd`` is, make and remove entries in it.

        Where he is another, nothing is done: what is wanted there then fails.
        """
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            with suppress(OSError):
                os.fchmod(fd, mode | stat.S_IRWXU)
                self._opened.setdefault(path, mode)

    def open_up_name(self, parent: int, name: bytes, path: bytes) -> None:
        """The same of the directory ``name``, which cannot even be opened."""
        with suppress(OSError):
            fd = os.open(name, _PATH_FLAGS, dir_fd=parent)
            try:
                mode = stat.S_IMODE(os.fstat(fd).st_mode)
                os.chmod(f"/proc/self/fd/{fd}", mode | stat.S_IRWXU)
            finally:
                os.close(fd)
            self._opened.setdefault(path, mode)

    def close_up(self, fd: int, path: bytes) -> None:
        """Give the directory ``path`` its mode back, if that was changed."""
        mode = self._opened.pop(path, None)
        if mode is not None:
            os.fchmod(fd, mode)

    def close_all(self, root_fd: int) -> None:
        """The same for all that are still open, those inside of others first."""
        chain = DirectoryChain(root_fd)
        try:
            for path in sorted(self._opened, key=order_key, reverse=True):
                with suppress(OSError):  # it has been removed, or is somebody else's now
                    self.close_up(chain.at(path), path)
        finally:
            chain.close()

    def shed(self, fd: int) -> None:
        """Take from the new file ``fd`` the ACL that the directory prepared for has given it."""
        if self._hands_down:
            _shed(fd, _ACCESS_ACL)

    def settle(self, parent: int, name: bytes) -> None:
        """Rename what was made over ``name``. A directory there is removed with all it holds."""
        temporary = self.temporary or b""
        try:
            try:
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except IsADirectoryError:
                self.removed += remove_entry(parent, name)
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            # It is still there after a failure, and where both names are links to one file.
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)

    def clear(self, fd: int, path: bytes) -> None:
        """Remove temporary entries of merges that were killed long ago from the directory ``fd``.

        Directories of such names stay: those are other restores' staging directories.
        """
        for batch in names_in(fd):
            for name, is_directory in batch:
                began = None if is_directory else _began_ms(name)
                if began is None or began >= self._leftovers_until:
                    continue
                if self._snapshot.find(b"%b/%b" % (path, name) if path else name) is None:
                    self.open_up(fd, path)
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=fd)

    def has_made(self, path: bytes) -> bool:
        """Whether the directory ``path`` was missing."""
        found = self._snapshot.find(path) if self._made else None
        if found is None:
            return False
        number = _number_of(self._snapshot, *found)
        return bool(self._made[number >> 3] >> (number & 7) & 1)

    def _make(self, parent: int, name: bytes) -> bool:
        for _ in range(MAX_TRIES):
            try:
                os.mkdir(name, stat.S_IRWXU, dir_fd=parent)
            except FileExistsError:
                if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    return False
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=parent)
                    self.removed += 1
            else:
                if _hands_down(parent):
                    _shed_directory(parent, name)
                return True
        raise FileExistsError(17, "somebody else keeps making it")

    def _remember(self, number: int) -> None:
        """One bit for each entry: paths would be too much to keep of a million directories."""
        if not self._made:
            self._made = bytearray(self._snapshot.root.entries // 8 + 1)
        self._made[number >> 3] |= 1 << (number & 7)


Place = StagingPlace | LivePlace


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The content to restore, and its place: the directory ``fd``, of the kind ``place``.

    ``metadata`` makes what gives entries their metadata, one for each of so many ``threads``.
    """

    snapshot: SnapshotReader
    selection: Selection
    fd: int
    place: Place
    metadata: Callable[[], Metadata]
    warnings: Warnings
    threads: int


def check_is_directory(snapshot: SnapshotReader, path: bytes) -> int:
    """The number of the entry ``path`` among all. Raises CorruptError unless a directory."""
    found = snapshot.find(path)
    if found is None or snapshot.page(found[0]).kinds[found[1]] != Kind.DIRECTORY:
        raise _no_directory(path)
    return _number_of(snapshot, *found)


def _number_of(snapshot: SnapshotReader, page_no: int, index: int) -> int:
    return sum(snapshot.root.columns.entries[:page_no]) + index


def _began_ms(name: bytes) -> int | None:
    """When the restore of a temporary name began, in milliseconds since 1970."""
    found = _TEMPORARY.fullmatch(name)
    return None if found is None else int(found[1] + found[2], 16)


def _hands_down(fd: int) -> bool:
    """Whether the directory gives new entries an ACL."""
    try:
        os.getxattr(fd, _DEFAULT_ACL)
    except OSError:
        return False
    return True


def _shed_directory(parent: int, name: bytes) -> None:
    fd = open_directory(name, parent)
    try:
        _shed(fd, _DEFAULT_ACL)
        _shed(fd, _ACCESS_ACL)
    finally:
        os.close(fd)


def _shed(fd: int, attribute: str) -> None:
    with suppress(OSError):
        os.removexattr(fd, attribute)


def _no_directory(path: bytes) -> CorruptError:
    return CorruptError(
        f"entries lie in {path_text(path)!r}, which is not a directory of the snapshot"
    )
