"""Owners, modes, extended attributes and times of what is restored, in the order they can be set.

Giving a file away clears its set-user-ID bits and capabilities, attributes can be set only where
the mode lets their owner write, changing the mode rewrites an ACL, and everything touches times:
owner, attributes, mode, ACLs, times. Values that a new file has are not set again; with tens of
thousands of files every system call counts.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.archive.paths import path_text
from holdfast.archive.restore.options import SPECIAL_BITS
from holdfast.archive.restore.owners import Owner, Owners, Privileges, owner_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.archive.warnings import Warnings
    from holdfast.form.manifest import Page

MAX_KNOWN_LOOKS: Final = 4096
"""Combinations of mode and owner whose handling is remembered."""

_PRIVILEGED: Final = (b"security.", b"trusted.")
_ACLS: Final = b"system."
_WHY: Final = {
    "never": "a client made the snapshot, and privileges were not asked for",
    "owned": "the owner is another",
    "always": "the owner is another",
}
_UNGIVEABLE: Final = frozenset({errno.EPERM, errno.EINVAL})
_UNSETTABLE: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EACCES, errno.ENOSPC, errno.E2BIG, errno.ERANGE}
    | {errno.EINVAL}
)


type _Xattrs = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Look:
    """The way to make a file of some mode and owner.

    ``create_mode`` goes to open(2). ``ids`` and ``mode`` are set afterwards unless they are None.
    ``keeps`` tells whether it keeps its privileges.
    """

    create_mode: int
    ids: tuple[int, int] | None
    mode: int | None
    keeps: bool


class Metadata:
    """Gives entries what the snapshot recorded of them. Used by one thread."""

    def __init__(
        self,
        owners: Owners,
        privileges: Privileges,
        *,
        umask: int,
        user: tuple[int, int],
        created: tuple[int, int] | None,
        warnings: Warnings,
    ) -> None:
        """``created`` is whose a file is that has just been made; None: that may vary."""
        self._owners = owners
        self._privileges = privileges
        self._umask = umask
        self._user = user
        self._created = created
        self._warnings = warnings
        self._looks: dict[tuple[int, int, int], Look] = {}
        self._may_give = True

    def look(self, mode: int, uid: int, gid: int, path: bytes) -> Look:
        """The way to make a file recorded so; ``path`` is for a warning."""
        look = self._looks.get((mode, uid, gid))
        if look is None:
            if len(self._looks) >= MAX_KNOWN_LOOKS:
                self._looks.clear()
            look = self._looks[mode, uid, gid] = self._new_look(mode, uid, gid, path)
        return look

    def finish_file(self, fd: int, look: Look, page: Page, index: int) -> None:
        """Everything but the times of a file that was opened with ``look``."""
        path, mode = page.paths[index], look.mode
        xattrs = page.xattrs.get(index, ())
        if look.ids is not None:
            self._give(fd, look.ids, path)
        keeps = look.keeps and (self._may_give or look.ids is None)
        if xattrs:
            self._set_attributes(fd, xattrs, path, keeps=keeps)
            mode = page.modes[index]  # until now it was one that lets attributes be set
        if mode is not None:
            if mode & SPECIAL_BITS and not keeps:
                self._warnings.add("mode", path, f"set-ID bits are left out: {self._why}")
                mode &= ~SPECIAL_BITS
            os.fchmod(fd, mode)
        self._set_acls(fd, xattrs, path)

    def finish_directory(self, fd: int, page: Page, index: int) -> None:
        """Everything of a directory, once nothing will be made in it any more."""
        path = page.paths[index]
        owner = self._owner(page.uids[index], page.gids[index], path)
        xattrs = page.xattrs.get(index, ())
        if owner.ids is not None:
            self._give(fd, owner.ids, path)
        if xattrs:
            before = stat.S_IMODE(os.fstat(fd).st_mode)
            if not before & stat.S_IWUSR:
                os.fchmod(fd, before | stat.S_IRWXU)
            keeps = owner.keeps(self._privileges) and (self._may_give or owner.ids is None)
            self._set_attributes(fd, xattrs, path, keeps=keeps)
        # Its set-group-ID bit is no privilege: what is made in it gets its group.
        os.fchmod(fd, page.modes[index])
        self._set_acls(fd, xattrs, path)
        mtime_ns = page.mtimes_ns[index]
        os.utime(fd, ns=(mtime_ns, mtime_ns))

    def finish_symlink(self, dir_fd: int, name: bytes, page: Page, index: int) -> None:
        """Everything of the symlink ``name``; its mode is not ours to set."""
        path = page.paths[index]
        owner = self._owner(page.uids[index], page.gids[index], path)
        if owner.ids is not None and owner.ids != self._created:
            self._give_link(dir_fd, name, owner.ids, path)
        if xattrs := page.xattrs.get(index, ()):
            # There is no call relative to a directory: /proc leads to it, and no link is followed.
            link = b"/proc/self/fd/%d/%b" % (dir_fd, name)
            self._set_attributes(link, xattrs, path, keeps=owner.keeps(self._privileges))
        mtime_ns = page.mtimes_ns[index]
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=dir_fd, follow_symlinks=False)

    def _new_look(self, mode: int, uid: int, gid: int, path: bytes) -> Look:
        owner = self._owner(uid, gid, path)
        keeps = owner.keeps(self._privileges)
        ids = None if owner.ids == self._created else owner.ids
        if self._created is None:
            # In a live tree nobody may read it before it has its owner.
            return Look(mode & 0o700, ids, mode, keeps)
        return Look(mode & 0o777, ids, mode if mode & (self._umask | 0o7000) else None, keeps)

    def _owner(self, uid: int, gid: int, path: bytes) -> Owner:
        owner = owner_of(self._owners, (uid, gid), self._user)
        if owner.withheld:
            self._owners_not_restored(path, "only root can give files away")
        return owner

    @property
    def _why(self) -> str:
        """Why privileges are left out."""
        return _WHY[self._privileges]

    def _give(self, fd: int, ids: tuple[int, int], path: bytes) -> None:
        try:
            os.fchown(fd, *ids)
        except OSError as error:
            self._not_given(error, path)

    def _give_link(self, dir_fd: int, name: bytes, ids: tuple[int, int], path: bytes) -> None:
        try:
            os.chown(name, *ids, dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            self._not_given(error, path)

    def _not_given(self, error: OSError, path: bytes) -> None:
        if error.errno not in _UNGIVEABLE:
            raise error
        self._may_give = False
        self._owners_not_restored(path, error.strerror or "")

    def _owners_not_restored(self, path: bytes, why: str) -> None:
        self._warnings.add_once("owner", path, f"owners are not restored: {why}")

    def _set_attributes(
        self, where: int | bytes, xattrs: _Xattrs, path: bytes, *, keeps: bool
    ) -> None:
        """All but ACLs; those of privilege only where it ``keeps`` them."""
        for name, value in xattrs:
            if name.startswith(_PRIVILEGED) and not keeps:
                detail = f"{path_text(name)} is left out: {self._why}"
                self._warnings.add("attribute", path, detail)
            elif not name.startswith(_ACLS):
                self._set_attribute(where, name, value, path)

    def _set_acls(self, fd: int, xattrs: _Xattrs, path: bytes) -> None:
        for name, value in xattrs:
            if name.startswith(_ACLS):
                self._set_attribute(fd, name, value, path)

    def _set_attribute(self, where: int | bytes, name: bytes, value: bytes, path: bytes) -> None:
        try:
            if isinstance(where, int):
                os.setxattr(where, name, value)
            else:
                os.setxattr(where, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _UNSETTABLE:
                raise
            self._warnings.add("attribute", path, f"{path_text(name)}: {error.strerror}")


def current_umask() -> int:
    """This process's umask, read without changing it, which other threads would notice."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777
