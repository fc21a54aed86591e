"""The members of a tar, by path and in an archive's order.

A tar is a list of instructions, and a snapshot a tree: here the one becomes the other. Members
that fit no tree (a file with something in it, a link to nothing) are refused, and so are those that
would act outside of it.

Why: docs/decisions.md, "Tars are read by our own parser", and "Tars without an end are refused".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.archive.paths import parent_of, parse_path, path_text
from holdfast.archive.ports import Cancelled, Stop
from holdfast.archive.tar.members import DIRECTORY, FILE, LINK, SYMLINK, Member
from holdfast.errors import InvalidError, TooLargeError
from holdfast.form.entries import (
    MAX_TARGET_BYTES,
    MAX_XATTR_NAME_BYTES,
    MAX_XATTRS,
    MAX_XATTRS_BYTES,
    order_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_DEFAULT_MODE: Final = 0o755
_ROOT: Final = Member(name=b"", type=DIRECTORY, mode=_DEFAULT_MODE, uid=0, gid=0, mtime_ns=0)


class TarIndex:
    """The tree that ``members`` make, in memory: about half a kilobyte for each."""

    def __init__(self, members: Iterable[Member], *, max_entries: int, stop: Stop) -> None:
        """Raises InvalidError when they make none; TooLargeError beyond ``max_entries``."""
        self._max_entries = max_entries
        self._members: dict[bytes, Member] = {}
        self._linked: dict[int, Member] = {}  # by id, which holding them keeps theirs
        for member in members:
            if stop():
                raise Cancelled
            self._add(member)
        self._add_parents()
        self._paths = sorted(self._members, key=order_key)

    def member(self, path: bytes) -> Member:
        """The member whose data and metadata ``path`` has; that of its target for a hard link."""
        return self._members[path]

    def entries(self) -> Iterator[tuple[bytes, Member, bytes]]:
        """``(path, member, first path)`` of each entry, in path order, the root first.

        ``first path`` is that of the same FILE or SYMLINK before it, or ``b""``.
        """
        firsts: dict[int, bytes] = {}
        for path in self._paths:
            member = self._members[path]
            link = b""
            if id(member) in self._linked and member.type in (FILE, SYMLINK):
                first = firsts.setdefault(id(member), path)
                link = first if first != path else b""
            yield path, member, link

    def _add(self, member: Member) -> None:
        path = parse_path(member.name)
        if member.type == LINK:
            linked = self._members.get(parse_path(member.target))
            if linked is None or linked.type == DIRECTORY:
                msg = (
                    f"the tar's {path_text(path)!r} is a hard link to "
                    f"{path_text(member.target)!r}, which is not a file before it"
                )
                raise InvalidError(msg)
            self._linked[id(linked)] = linked
            member = linked
        else:
            member = _checked(path, member)
        if not path and member.type != DIRECTORY:
            raise InvalidError("the tar's '.' is not a directory")
        self._put(path, member)

    def _put(self, path: bytes, member: Member) -> None:
        self._members[path] = member
        if len(self._members) > self._max_entries:
            msg = f"the tar has more than {self._max_entries} entries, directories included"
            raise TooLargeError(msg)

    def _add_parents(self) -> None:
        """Directories that the tar left out, after the first entry that needs them."""
        for path in sorted(self._members, key=order_key):
            above = path
            while above:
                above = parent_of(above)
                known = self._members.get(above)
                if known is None:
                    self._put(above, _default_directory(self._members[path]))
                elif known.type != DIRECTORY:
                    msg = (
                        f"the tar's {path_text(path)!r} lies in {path_text(above)!r}, "
                        "which is not a directory"
                    )
                    raise InvalidError(msg)
                else:
                    break
        self._members.setdefault(b"", _ROOT)


def _checked(path: bytes, member: Member) -> Member:
    """``member`` without the name that is now its key. Raises for what no entry can have."""
    xattrs = member.xattrs
    if xattrs and (
        len(xattrs) > MAX_XATTRS
        or sum([len(name) + len(value) for name, value in xattrs]) > MAX_XATTRS_BYTES
        or max(len(name) for name, _ in xattrs) > MAX_XATTR_NAME_BYTES
    ):
        msg = f"the tar's {path_text(path)!r} has too many or too large extended attributes"
        raise TooLargeError(msg)
    names = {name for name, _ in xattrs}
    if len(names) < len(xattrs) or any(not name or b"\0" in name for name in names):
        msg = f"the tar's {path_text(path)!r} has an extended attribute without a proper name"
        raise InvalidError(msg)
    target = member.target if member.type == SYMLINK else b""
    if member.type == SYMLINK and (not target or b"\0" in target or len(target) > MAX_TARGET_BYTES):
        msg = f"the tar's {path_text(path)!r} is a symlink without a target that could be one"
        raise InvalidError(msg)
    return msgspec.structs.replace(
        member, name=b"", target=target, xattrs=tuple(sorted(xattrs)) if xattrs else ()
    )


def _default_directory(child: Member) -> Member:
    return Member(
        name=b"",
        type=DIRECTORY,
        mode=_DEFAULT_MODE,
        uid=child.uid,
        gid=child.gid,
        mtime_ns=child.mtime_ns,
    )
