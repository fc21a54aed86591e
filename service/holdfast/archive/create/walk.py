"""Walking a directory tree in path order, without following links and without leaving the tree.

It streams: of the tree only the names in the open directories are held, and the paths of files
with several names until all of these were seen. Speed matters more here than anywhere else: when
nothing has changed, a snapshot is this walk and little more.
"""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.archive.create.ignore import CACHE_TAG, Excludes, is_cache
from holdfast.archive.directories import mount_points
from holdfast.archive.file_systems import tells_of_changes
from holdfast.archive.ports import Scanned, Warn
from holdfast.archive.staging import STAGING_PREFIX
from holdfast.archive.troubles import Troubles, Unreadable, separate_symlink
from holdfast.form.entries import MAX_PATH_BYTES, Kind, clamped
from holdfast.form.terms import EntryWarning

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from holdfast.archive.chain import DirectoryChain

_FORMAT: Final = 0o170000  # the bits of a mode that stat.S_IFMT() gives
_FILE: Final = Kind.FILE
_DIRECTORY: Final = Kind.DIRECTORY
_KINDS: Final = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
}
_STRANGE: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_LEFTOVER: Final = re.compile(
    re.escape(STAGING_PREFIX)
    + rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)
"""Names that restores under way, or cut off, have beside their target: no one's data."""

_PATH_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES: Final = 512  # of st_blocks, whatever the file system's own


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkOptions:
    """The files that a directory's archive leaves out.

    ``exclude`` are gitignore patterns relative to the root: what they exclude is not looked at,
    and one that matches nothing is warned of. ``exclude_caches`` leaves out what is in directories
    with a CACHEDIR.TAG, ``one_file_system`` what is mounted below the root.
    ``unreadable`` tells whether what cannot be read fails the archive or is skipped with a warning.
    """

    exclude: tuple[str | bytes, ...] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    unreadable: Unreadable = "fail"


class Walk:
    """One walk over the tree below ``chain``'s root. Iterate it once."""

    def __init__(
        self,
        chain: DirectoryChain,
        options: WalkOptions,
        excludes: Excludes | None,
        warn: Warn,
        unlisted: set[bytes] | None = None,
    ) -> None:
        """``unlisted`` gets the directories that were warned of because nobody may list them."""
        self._chain = chain
        self._unlisted = set() if unlisted is None else unlisted
        self._warn = warn
        self._troubles = Troubles(options.unreadable)
        self._options = options
        self._excludes = excludes
        self._device = 0
        self._silent: dict[int, bool] = {}
        self._mounts: frozenset[bytes] | None = None
        self._links: dict[tuple[int, int], tuple[bytes, int]] = {}

    def entries(self) -> Generator[Scanned]:
        """Every entry in path order, the root first."""
        root = os.fstat(self._chain.at(b""))
        self._device = root.st_dev
        yield _scanned(b"", Kind.DIRECTORY, root, b"")
        levels = [(b"", root.st_dev, iter(self._list(b"", self._chain.at(b""))))]
        while levels:
            directory, device, names = levels[-1]
            child = None
            try:
                fd = self._chain.at(directory)
            except OSError as error:
                self._troubles.failed(directory, error, self._warn)
            else:
                child = yield from self._until_directory(directory, device, fd, names)
            if child is None:
                levels.pop()
            elif below := self._enter(child):
                levels.append((child.path, child.device, iter(below)))
        if self._excludes is not None:
            for pattern in self._excludes.unmatched():
                detail = f"the pattern {pattern} matched nothing"
                self._warn(EntryWarning(kind="pattern", path=b"", detail=detail))

    def _until_directory(
        self, directory: bytes, device: int, fd: int, names: Iterator[bytes]
    ) -> Generator[Scanned, None, Scanned | None]:
        """Yield entries of ``directory`` up to and with the next directory, and return that."""
        prefix = directory + b"/" if directory else b""
        os_stat, kinds = os.stat, _KINDS  # locals: this loop is most of an unchanged snapshot
        silent = self._is_silent(device, fd)
        for name in names:
            path = prefix + name
            try:
                status = os_stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                self._failed(path, error)
                continue
            kind = kinds.get(status.st_mode & _FORMAT)
            if kind is None or len(path) > MAX_PATH_BYTES:
                self._refuse(path, status)
                continue
            if kind is _DIRECTORY:
                scanned = _scanned(path, kind, status, b"")
                yield scanned
                return scanned
            is_silent = silent
            if status.st_dev != device:  # files may be mounted, too
                if self._options.one_file_system:
                    self._warn(_skipped(path, "on another file system"))
                    continue
                is_silent = self._is_silent(status.st_dev, fd, name)
            if status.st_nlink > 1:
                scanned = self._one_of_several_names(path, kind, status)
            else:
                scanned = _scanned(path, kind, status, b"")
            yield _never_settled(scanned) if is_silent else scanned
        return None

    def _is_silent(self, device: int, fd: int, name: bytes | None = None) -> bool:
        """Whether times on ``device``, which ``fd`` is on or ``name`` in it, may not tell."""
        if device not in self._silent:
            try:
                file = os.dup(fd) if name is None else os.open(name, _PATH_FLAGS, dir_fd=fd)
                try:
                    self._silent[device] = not tells_of_changes(file)
                finally:
                    os.close(file)
            except OSError:
                return True  # it has just gone, and says nothing any more
        return self._silent[device]

    def _failed(self, path: bytes, error: OSError) -> None:
        """An entry cannot be looked at. It need not, if it is a mount point (a dead one, then)."""
        if self._options.one_file_system:
            if self._mounts is None:
                self._mounts = frozenset(mount_points(self._chain.root))
            if path in self._mounts:
                self._warn(_skipped(path, "on another file system"))
                return
        self._troubles.failed(path, error, self._warn)

    def _refuse(self, path: bytes, status: os.stat_result) -> None:
        strange = _STRANGE.get(status.st_mode & _FORMAT)
        if strange is not None:
            self._warn(_skipped(path, strange))
        else:
            self._troubles.refused(path, f"its path is over {MAX_PATH_BYTES} bytes", self._warn)

    def _one_of_several_names(self, path: bytes, kind: Kind, status: os.stat_result) -> Scanned:
        """The first name of a file is the FILE, later ones are HARDLINKs to it.

        Those of a symlink are symlinks, each of its own, which is warned of. A file is forgotten
        when all of its names were seen, so that memory is bounded by the files that also have
        names outside of the tree, or far away in it.
        """
        identity = (status.st_dev, status.st_ino)
        known = self._links.pop(identity, None)
        first, seen = known if known is not None else (path, 0)
        if seen + 1 < status.st_nlink:
            self._links[identity] = (first, seen + 1)
        if known is None:
            return _scanned(path, kind, status, b"")
        if kind is not _FILE:
            self._warn(separate_symlink(path, first))
            return _scanned(path, kind, status, b"")
        return _scanned(path, Kind.HARDLINK, status, first)

    def _enter(self, directory: Scanned) -> list[bytes]:
        """The names in a directory that the walk has just come to, in order."""
        path = directory.path
        if self._options.one_file_system and directory.device != self._device:
            self._warn(_skipped(path, "its content is on another file system"))
            return []
        try:
            fd = self._chain.at(path)
            names = self._list(path, fd)
        except OSError as error:
            self._troubles.failed(path, error, self._warn)
            self._unlisted.add(path)
            return []
        # A pattern may have left the tag out of the names.
        may_be_cache = self._excludes is not None or CACHE_TAG in names
        if self._options.exclude_caches and may_be_cache and is_cache(fd):
            return [name for name in names if name == CACHE_TAG]
        return names

    def _list(self, directory: bytes, fd: int) -> list[bytes]:
        """The names in ``directory``, in order, but for those that patterns exclude."""
        if self._excludes is None:
            names: list[Any] = os.listdir(fd)
            for at, name in enumerate(names):  # in place: a million names are there once, not twice
                names[at] = os.fsencode(name)
        else:
            names = _wanted(fd, directory, self._excludes)
        names.sort()
        at = bisect_left(names, STAGING_PREFIX)
        while at < len(names) and names[at].startswith(STAGING_PREFIX):
            if _LEFTOVER.fullmatch(names[at]):
                del names[at]
            else:
                at += 1
        return names


def _wanted(fd: int, directory: bytes, excludes: Excludes) -> list[bytes]:
    """The names in a directory that are not excluded, told from what the directory itself says."""
    prefix = directory + b"/" if directory else b""
    names = []
    with os.scandir(fd) as listing:
        for item in listing:
            name = os.fsencode(item.name)
            if not excludes.leaves_out(prefix + name, partial(_is_directory, item)):
                names.append(name)
    return names


def _is_directory(item: os.DirEntry[str]) -> bool:
    """Whether it is one; the file system is asked again only if the directory does not say."""
    try:
        return item.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _skipped(path: bytes, detail: str) -> EntryWarning:
    return EntryWarning(kind="skipped", path=path, detail=detail)


def _never_settled(scanned: Scanned) -> Scanned:
    """``scanned`` without its change time, if it is one of those whose bytes may change."""
    if scanned.kind is _FILE or scanned.link:
        return msgspec.structs.replace(scanned, ctime_ns=0)
    return scanned


def _scanned(path: bytes, kind: Kind, status: os.stat_result, link: bytes) -> Scanned:
    return Scanned(
        path,
        kind,
        status.st_mode & 0o7777,
        status.st_uid,
        status.st_gid,
        status.st_size if kind is _FILE or link else 0,
        clamped(status.st_mtime_ns),
        status.st_ctime_ns,
        status.st_ino,
        status.st_dev,
        status.st_blocks * _BLOCK_BYTES,
        link,
    )
