"""Tars made in memory, and snapshots made of them, for the tests of whatever reads snapshots."""

from __future__ import annotations

import io
import random
import tarfile
import tempfile
from typing import TYPE_CHECKING, Any

from tests.archive.memory import MemoryPackStore

from holdfast.archive.create.create import create_archive
from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.archive.restore.options import RestoreOptions
from holdfast.archive.restore.restore import restore_tree
from holdfast.archive.tar.source import TarSource
from holdfast.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from holdfast.archive.create.source import DirectorySource
    from holdfast.archive.ports import Pack
    from holdfast.archive.restore.options import Restored
    from holdfast.domain.digest import Digest
    from holdfast.domain.kept import PartialBytes

type Member = tuple[tarfile.TarInfo, bytes]

LONG_AGO = 1_600_000_000


def file(name: str, data: bytes = b"", **fields: object) -> Member:
    return _member(name, tarfile.REGTYPE, data, fields)


def directory(name: str, **fields: object) -> Member:
    return _member(name, tarfile.DIRTYPE, b"", {"mode": 0o755, **fields})


def symlink(name: str, target: str, **fields: object) -> Member:
    return _member(name, tarfile.SYMTYPE, b"", {"linkname": target, **fields})


def hardlink(name: str, target: str, **fields: object) -> Member:
    return _member(name, tarfile.LNKTYPE, b"", {"linkname": target, **fields})


def special(name: str, type_: bytes) -> Member:
    return _member(name, type_, b"", {})


def _member(name: str, type_: bytes, data: bytes, fields: dict[str, object]) -> Member:
    info = tarfile.TarInfo(name)
    info.type = type_
    info.size = len(data)
    info.mtime = LONG_AGO
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(members: Iterable[Member], *, format_: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class CountingStore(MemoryPackStore):
    """Counts what is fetched, and can lose, falsify or reduce packs."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[Digest] = []
        self.false: dict[Digest, bytes] = {}
        self.partial: dict[Digest, PartialBytes] = {}

    def get(self, digest: Digest) -> Pack:
        self.fetched.append(digest)
        if digest in self.partial:
            return self.partial[digest]
        return self.false[digest] if digest in self.false else super().get(digest)

    def lose(self, digest: Digest) -> None:
        if digest not in self.packs:
            raise NotFoundError
        del self.packs[digest]


def archive_tar(tar: bytes, store: MemoryPackStore | None = None) -> SnapshotReader:
    """A reader of the snapshot of ``tar``, in ``store`` or one of its own."""
    source = TarSource(io.BytesIO(tar), tempfile.gettempdir())
    return archive_source(source, CountingStore() if store is None else store)


def archive_source(source: TarSource | DirectorySource, store: MemoryPackStore) -> SnapshotReader:
    """A reader of the snapshot of ``source``, which is closed."""
    try:
        archived = create_archive(source, store, parent=None, started_at_ns=0, threads=1)
    finally:
        source.close()
    return SnapshotReader(store, archived.root)


def snapshot_of(members: Iterable[Member], store: MemoryPackStore | None = None) -> SnapshotReader:
    return archive_tar(tar_of(members), store)


def restore(snapshot: SnapshotReader, target: Path, **options: Any) -> Restored:
    """Restore into ``target`` with such ``RestoreOptions``."""
    return restore_tree(snapshot, target, options=RestoreOptions(staging_id="test", **options))


def large_tree() -> dict[str, bytes]:
    """Files by path, in several pages: small ones in runs, some of their own, one in chunks."""
    random_ = random.Random(7)  # noqa: S311 - the same tree every time
    files = {}
    for number in range(3000):
        name = f"d{number % 37:02}/s{number % 5}/f{number:04}"
        files[name] = random_.randbytes(random_.choice((0, 1, 40, 511, 512, 513, 3000)))
    for number in range(8):
        files[f"d{number:02}/own{number}"] = random_.randbytes(16 * 1024 + number * 10_000)
    files["m/chunked"] = random_.randbytes(3_000_001)
    files["m/text"] = b"the same line again\n" * 100_000
    return files


def members_of(files: dict[str, bytes]) -> list[Member]:
    return [file(name, data) for name, data in files.items()]
