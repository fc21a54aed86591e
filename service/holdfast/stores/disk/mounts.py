"""The file system a path lies on, and whether that may be shared with other machines.

SQLite's log is coordinated by memory that processes of one machine share. On a file system that
several machines have mounted, two of them would each find themselves alone, and spoil the database.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Final

from holdfast.errors import UnavailableError

MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})", re.ASCII)

NETWORK: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "ncpfs", "coda", "davfs"),
        *("ceph", "glusterfs", "lustre", "beegfs", "gpfs", "gfs2", "ocfs2", "orangefs", "pvfs2"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.juicefs", "fuse.moosefs"),
        *("fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.mount.davfs", "fuse.davfs2"),
    }
)
"""Types of file systems that several machines may have mounted at once."""


def filesystem_of(path: PurePosixPath, mounts: str) -> str | None:
    """The type of the file system that has the absolute ``path``; None where that is not told.

    ``mounts`` is in the form of ``/proc/self/mountinfo``. The later of two mounts in one place
    hides the other.
    """
    found, depth = None, -1
    for line in mounts.splitlines():
        place, _, kind = line.partition(" - ")
        fields = place.split(" ")
        if len(fields) > 4 and kind:
            point = PurePosixPath(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4]))
            if path.is_relative_to(point) and len(point.parts) >= depth:
                found, depth = kind.split(" ")[0], len(point.parts)
    return found


def refuse_network(path: Path) -> None:
    """Raises UnavailableError where other machines may have ``path`` too.

    Nothing is refused where nothing tells, which is elsewhere than on Linux.
    """
    try:
        told = MOUNTS.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return
    kind = filesystem_of(PurePosixPath(path.resolve()), told)
    if kind in NETWORK:
        msg = f"records need a disk of this machine: {kind} is a file system of a network"
        raise UnavailableError(msg)
