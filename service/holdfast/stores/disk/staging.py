"""Parts on disk that are not a blob yet, and those that no commit came for.

A part is the file ``staging/<staging>/<number>``, complete and synced before it has that name, so
what is found there can be trusted after a crash and the upload resumed from it. A commit copies
the parts into the blob's file while it checks them; they are removed only after that is durable.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Final

from holdfast.errors import InvalidError
from holdfast.stores.disk.files import (
    ensure_directory,
    entries_before,
    read_regular,
    remove_directory,
    sync_change,
    translated,
    write_file,
)
from holdfast.stores.leftover_ports import Naming, StoredCopy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Buffer, Callable, Iterator, Sequence
    from pathlib import Path

    from holdfast.stores.disk.files import Files

_STAGING: Final = re.compile(r"[A-Za-z0-9]{22}", re.ASCII)


class StagingFiles:
    """The staged parts under one root. Every method blocks, and may be called from any thread."""

    def __init__(self, root: Path, files: Files, new_id: Callable[[], str]) -> None:
        self._root = root
        self._files = files
        self._new_id = new_id

    def prepare(self, staging: str) -> None:
        """Make the place durably; before the first `write`."""
        with translated():
            ensure_directory(self._files, self._directory(staging))

    def write(self, staging: str, part: int, data: Buffer) -> None:
        """Store a part, durably. A part that is there is replaced: it has one writer only."""
        directory = self._directory(staging)
        temporary = self._root / "tmp" / self._new_id()
        with translated():
            write_file(self._files, temporary, [data])
            try:
                self._files.rename(temporary, directory / _name(part))
            except OSError:
                with suppress(OSError):
                    self._files.unlink(temporary)
                raise
        sync_change(self._files, directory)

    def read(self, staging: str, part: int) -> bytes | None:
        """A part, or None where there is none."""
        with translated():
            try:
                return read_regular(self._directory(staging) / _name(part))
            except FileNotFoundError:
                return None

    def parts(self, staging: str) -> Iterator[bytes]:
        """The parts from 0 up to the first gap."""
        for part in count():
            data = self.read(staging, part)
            if data is None:
                return
            yield data

    def discard(self, staging: str) -> None:
        """Remove the parts. May be repeated."""
        directory = self._directory(staging)
        with translated(), suppress(FileNotFoundError):
            remove_directory(self._files, directory)

    def names(self) -> list[str]:
        """The stagings that are there, in order."""
        with translated():
            return sorted(filter(_STAGING.fullmatch, os.listdir(self._root / "staging")))

    def look(self, staging: str) -> StoredCopy | None:
        """The parts there; the time is when something was last added or removed."""
        directory = self._directory(staging)
        with translated(), suppress(FileNotFoundError):
            parts = [entry.stat().st_size for entry in os.scandir(directory)]
            begun_at = datetime.fromtimestamp(directory.stat().st_mtime, UTC)
            return StoredCopy(begun_at=begun_at, chunks=len(parts), size=sum(parts))
        return None

    def sweep(self, before: float) -> int:
        """Remove files and stagings unwritten since ``before`` (seconds since 1970); how many."""
        removed = 0
        with translated():
            for path in entries_before(self._root / "tmp", before):
                _remove_leftover(self._files, path)
                removed += 1
            for path in entries_before(self._root / "staging", before):
                if _STAGING.fullmatch(path.name):
                    self.discard(path.name)
                    removed += 1
        return removed

    def _directory(self, staging: str) -> Path:
        if _STAGING.fullmatch(staging) is None:
            raise InvalidError("a staging identifier is 22 characters of A-Z a-z 0-9")
        return self._root / "staging" / staging


class DiskLeftovers:
    """The `Leftovers` under one root.

    The bytes of parts are copied when they become a blob, so no record ever names them, and a
    removal of parts of a commit that is under way has it fail: nobody has to claim them.
    """

    def __init__(self, staging: StagingFiles) -> None:
        self._staging = staging

    async def copies(self, offset: int) -> Sequence[str]:
        """See Leftovers."""
        return (await asyncio.to_thread(self._staging.names))[offset:]

    async def look(self, copy: str) -> StoredCopy | None:
        """See Leftovers."""
        return await asyncio.to_thread(self._staging.look, copy)

    async def counted(self) -> int:
        """See Leftovers. A directory that cannot be read is an error."""
        return 0

    async def named(self, after: int) -> AsyncIterator[Naming]:
        """See Leftovers. None."""
        del after
        yield Naming()

    async def claim(self, copy: str, *, abandoned: Callable[[datetime], bool]) -> str | None:
        """See Leftovers."""
        del abandoned
        return copy

    async def release(self, copy: str, mark: str) -> None:
        """See Leftovers."""

    async def remove(self, copy: str, mark: str) -> bool:
        """See Leftovers."""
        await asyncio.to_thread(self._staging.discard, copy)
        return True


def _name(part: int) -> str:
    return f"{part:012d}"


def _remove_leftover(files: Files, path: Path) -> None:
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            remove_directory(files, path)
        else:
            files.unlink(path)
