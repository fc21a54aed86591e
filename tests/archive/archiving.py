"""Archiving in tests: into memory, from a source that can be interfered with, and back as a tar."""

from __future__ import annotations

import io
import subprocess
from typing import TYPE_CHECKING

from tests.archive.memory import MemoryPackStore

from holdfast.archive.create.create import Archived, create_archive
from holdfast.archive.create.source import DirectorySource
from holdfast.archive.file_systems import RACY_NS
from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.form.frames import END_OF_ARCHIVE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.archive.create.walk import WalkOptions
    from holdfast.archive.ports import Described, FileReader, Scanned, Warn
    from holdfast.domain.digest import Digest
    from holdfast.form.entries import Entry

LATER_NS = 2**62
"""A start so late that every file is settled."""


class Spy(DirectorySource):
    """A directory that counts what is looked at, and calls ``before`` first."""

    def __init__(self, root: Path, options: WalkOptions | None = None) -> None:
        super().__init__(root, options)
        self.described: list[bytes] = []
        self.opened: list[bytes] = []
        self.before: Callable[[bytes], None] = lambda _: None

    def describe(self, scanned: Scanned, content_limit: int, warn: Warn) -> Described | None:
        self.before(scanned.path)
        self.described.append(scanned.path)
        return super().describe(scanned, content_limit, warn)

    def open(self, scanned: Scanned, size: int, warn: Warn) -> FileReader | None:
        self.before(scanned.path)
        self.opened.append(scanned.path)
        return super().open(scanned, size, warn)


def archive(
    root: Path,
    store: MemoryPackStore,
    parent: Archived | None = None,
    *,
    source: DirectorySource | None = None,
    started_at_ns: int = LATER_NS,
    threads: int = 2,
) -> Archived:
    """Archive ``root``, or ``source``, and close it."""
    source = source or DirectorySource(root)
    try:
        return create_archive(
            source,
            store,
            parent=None if parent is None else parent.root,
            started_at_ns=started_at_ns,
            threads=threads,
        )
    finally:
        source.close()


def started_just_after(ctime_ns: int) -> int:
    """A start at which what changed at ``ctime_ns`` is only just settled."""
    return ctime_ns + RACY_NS + 1


def entries(store: MemoryPackStore, root: Digest) -> dict[bytes, Entry]:
    """The members of a snapshot, without their places in it."""
    reader = SnapshotReader(store, root)
    found = {}
    for number, page in reader.pages():
        reader.root.check_page(number, page)
        for entry in page.entries():
            found[entry.path] = entry
    return found


def content(store: MemoryPackStore, root: Digest, path: bytes) -> bytes:
    """The bytes of one file of a snapshot."""
    reader = SnapshotReader(store, root)
    located = reader.entry(path)
    return b"".join(reader.read_file(located.page_no, located.index))


def tar(store: MemoryPackStore, root: Digest) -> bytes:
    """A snapshot as a tar: its frames one after the other."""
    reader = SnapshotReader(store, root)
    frames = [
        reader.frame(page.frame(number))
        for _, page in reader.pages()
        for number in range(page.frame_count)
    ]
    return b"".join([*frames, END_OF_ARCHIVE])


def extract(store: MemoryPackStore, root: Digest, target: Path) -> None:
    """Have GNU tar unpack a snapshot into ``target``, with everything it knows of."""
    target.mkdir()
    subprocess.run(
        ["tar", "-xpf", "-", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", target],
        input=io.BytesIO(tar(store, root)).getvalue(),
        check=True,
        capture_output=True,
    )
