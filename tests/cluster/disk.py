"""A disk that can lose its power: an ext4 file system of its own, on a loop device.

Cut off by the kernel's own call for that (``FS_IOC_SHUTDOWN`` without flushing its log), it takes
no write any more, and has, when it is mounted again, only what had been synced and what the kernel
happened to have written by itself. That needs root and loop devices: see ``missing``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self

IMAGE_BYTES: Final = 24 * 1024**3
"""Sparse: it takes what is written."""

_FS_IOC_SHUTDOWN: Final = 0x8004587D
_NO_LOG_FLUSH: Final = 2
_TOOLS: Final = ("mkfs.ext4", "mount", "umount")


class Disk:
    """The file system mounted at ``directory``, which is made for it."""

    def __init__(self, directory: Path, size_bytes: int = IMAGE_BYTES) -> None:
        self.directory = directory
        self._image = directory.with_suffix(".img")
        directory.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(size_bytes)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1", str(self._image))
        self._mount()

    def sync(self) -> None:
        """Make all that was written so far last."""
        at = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(at)
            os.sync()
        finally:
            os.close(at)

    def cut(self) -> None:
        """From here on nothing reaches it, all at once."""
        at = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.ioctl(at, _FS_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(at)

    def restore(self) -> None:
        """As when the power is back. Nobody may have a file open on it."""
        _run("umount", str(self.directory))
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.directory))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _run("umount", str(self.directory))
        self._image.unlink()


def missing() -> str | None:
    """Why there can be no such disk here; None if there can."""
    if os.geteuid() != 0:
        return "root is needed"
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    with tempfile.TemporaryDirectory() as directory:
        try:
            with Disk(Path(directory) / "probe", 16 * 1024**2) as disk:
                synced, unsynced = disk.directory / "synced", disk.directory / "unsynced"
                synced.write_bytes(b"x")
                disk.sync()
                unsynced.write_bytes(b"x")
                disk.cut()
                disk.restore()
                if not synced.exists() or unsynced.exists():
                    return "a cut does not take what was not synced, and that alone"
        except subprocess.CalledProcessError as error:
            return f"{error.cmd[0]}: {error.stderr.strip()}"
        except OSError as error:
            return f"the file system cannot be cut off: {error.strerror}"
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
