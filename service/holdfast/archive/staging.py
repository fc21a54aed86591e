"""The directory beside the target in which a tree is restored before it takes the target's place.

Its name tells that it is ours and which restore it belongs to. The remains of a crash are in
there: half of the new tree, or all of the old one. Before they are cleared away they get another
name: a restore that is alive after all then finds that out, instead of putting the rest of its tree
in the target's place.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.archive.directories import open_directory, remove_entry, rename_new, reported
from holdfast.errors import ConflictError, InvalidError

if TYPE_CHECKING:
    from pathlib import Path

STAGING_PREFIX: Final = b".holdfast-"
DYING_SUFFIX: Final = b".dying"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_INHERITED: Final = ("system.posix_acl_default", "system.posix_acl_access")


def staging_name(staging_id: str) -> bytes:
    """The directory's name. Raises InvalidError for what is no identifier."""
    if not _ID.fullmatch(staging_id):
        msg = f"{staging_id[:64]!r} is not an identifier of a restore: 1 to 64 of A-Z a-z 0-9 _ -"
        raise InvalidError(msg)
    return STAGING_PREFIX + staging_id.encode()


def make_staging(parent_fd: int, staging_id: str) -> int:
    """Make the directory and open it. It is empty, mode 0700, and hands nothing on to its entries.

    Raises ConflictError when it is there already, OSError.
    """
    name = staging_name(staging_id)
    try:
        os.mkdir(name, stat.S_IRWXU, dir_fd=parent_fd)
    except FileExistsError as error:
        msg = f"the restore {staging_id} is under way, or was and has not been cleared away"
        raise ConflictError(msg) from error
    fd = open_directory(name, parent_fd)
    # A parent's set-group-ID bit or default ACL would otherwise give every entry a group and a
    # mode that are not the snapshot's.
    os.fchmod(fd, stat.S_IRWXU)
    for attribute in _INHERITED:
        with suppress(OSError):
            os.removexattr(fd, attribute)
    return fd


def list_stagings(parent: Path) -> list[str]:
    """The identifiers of all restores that have a staging directory in ``parent``, sorted.

    A restore that is under way has one, too; one that is being removed counts. Raises what
    ``reported`` does.
    """
    prefix = os.fsdecode(STAGING_PREFIX)
    with reported("looking for what restores left behind"), os.scandir(parent) as listing:
        names = [item.name for item in listing if item.is_dir(follow_symlinks=False)]
    dying = os.fsdecode(DYING_SUFFIX)
    found = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    ids = {staging_id.removesuffix(dying) for staging_id in found}
    return sorted(staging_id for staging_id in ids if _ID.fullmatch(staging_id))


def remove_staging(parent: Path, staging_id: str) -> bool:
    """Remove what a restore left behind in ``parent``; whether there was anything.

    The caller knows that the restore is over, or given up: from the first step on it cannot take
    the target's place any more. Raises InvalidError, ForbiddenError, UnavailableError.
    """
    name = staging_name(staging_id)
    with reported("removing what a restore left behind"):
        parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            dying = name + DYING_SUFFIX
            removed = remove_entry(parent_fd, dying)
            with suppress(FileNotFoundError):
                rename_new(parent_fd, name, dying)
                removed += remove_entry(parent_fd, dying)
            return removed > 0
        finally:
            os.close(parent_fd)
