"""What lies in a record's directory on disk, and what it says. Nothing here changes it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.stores.disk_format import RecordHeader, encode_record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.errors import CorruptError

_NAME_CHARS: Final = 200
"""A file name holds 255 bytes and a key 1,024, so longer keys take several directories."""

_NAME: Final = re.compile(r"(\d{1,20})(?:([+!@])([A-Za-z0-9]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Revision:
    """A file in a record's directory; ``claim`` is its successor's identifier, or empty."""

    number: int
    mark: str
    claim: str
    name: str


@dataclass(frozen=True, slots=True)
class State:
    """What a key is now: the file that says so, if any, and whether that is a live record.

    A file that cannot be read (``damage`` says why) is taken for one, without header or value.
    """

    file: Revision | None = None
    header: RecordHeader | None = None
    value: bytes = b""
    live: bool = False
    damage: CorruptError | None = None

    @property
    def revision(self) -> int:
        """0 if there is no record."""
        return self.file.number if self.file is not None and self.live else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A change of one record; ``expected`` None: whatever is there, or not."""

    header: RecordHeader
    value: bytes
    expected: int | None

    @property
    def key(self) -> str:
        """The record's."""
        return self.header.key

    @property
    def content(self) -> bytes:
        """The file of the new revision."""
        return encode_record(self.header, self.value)


def record_directory(records: Path, key: str) -> Path:
    """Where the key's revisions are."""
    directory = records
    while len(key) > _NAME_CHARS:
        directory /= key[:_NAME_CHARS] + "~"
        key = key[_NAME_CHARS:]
    return directory / key


def keys_in(directory: Path, head: str = "") -> Iterator[str]:
    """The keys below ``directory``, each after ``head``, in no order. Raises OSError."""
    for name in os.listdir(directory):
        if name.endswith("~"):
            yield from keys_in(directory / name, head + name[:-1])
        else:
            yield head + name


def revisions_in(directory: Path) -> list[Revision]:
    """The revisions in a record's directory, the present one last."""
    found = []
    for name in os.listdir(directory):
        match = _NAME.fullmatch(name)
        if match is not None:
            found.append(Revision(int(match[1]), match[2] or "", match[3] or "", name))
    return sorted(found, key=lambda revision: revision.number)
