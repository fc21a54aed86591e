"""File systems' signs of changes, and for how long they may give none.

A process that writes through a shared mapping is noticed once: when a page that was clean becomes
dirty, the file's times are set. Until the kernel has written the page back it may be written again
and again without any sign of it. File systems in memory never write back.

Why: docs/decisions.md, "What changed within 45 seconds is read again".
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

RACY_NS: Final = 45_000_000_000
"""A file changed so shortly before the walk may change again without its times showing it.

Linux looks every 5 seconds for pages that have been dirty for 30, and then has to write them.
"""

MAX_RACY_NS: Final = 3_600_000_000_000
"""The most that is made of a machine's own settings: with these pages may stay dirty for ever."""

_WRITING_NS: Final = 10_000_000_000
_CENTISECOND_NS: Final = 10_000_000
_SETTINGS: Final = Path("/proc/sys/vm")

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES: Final = 512  # more than struct statfs has anywhere
_SILENT: Final = frozenset(
    {
        0x01021994,  # tmpfs
        0x858458F6,  # ramfs
        0x958458F6,  # hugetlbfs
        0x00009FA0,  # proc
        0x62656572,  # sysfs
        0x0027E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x62656570,  # configfs
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xDE5E81E4,  # efivarfs
        0x6165676C,  # pstore
        0xCAFE4A11,  # bpf
    }
)
"""File systems whose times do not tell of every change: those in memory, and the kernel's own."""


def racy_ns() -> int:
    """``RACY_NS``, or more where this machine is set to write back later. At most MAX_RACY_NS."""
    expire, interval = _setting("dirty_expire_centisecs"), _setting("dirty_writeback_centisecs")
    if interval == 0:
        return MAX_RACY_NS
    period = ((expire or 0) + (interval or 0)) * _CENTISECOND_NS + _WRITING_NS
    return min(max(period, RACY_NS), MAX_RACY_NS)


def tells_of_changes(fd: int) -> bool:
    """Whether the times of files on the file system of ``fd`` change with their bytes."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _LIBC.fstatfs(fd, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF not in _SILENT


def _setting(name: str) -> int | None:
    try:
        return int((_SETTINGS / name).read_bytes())
    except (OSError, ValueError):
        return None
