"""Reading blobs in files, compared with their headers: files that differ are moved aside.

The blocking half, to be called from threads. ``blobs`` says what the files are.

Why: docs/decisions.md, "Checked once per file, then by identity".
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING, Final

from holdfast.errors import CorruptError, NotFoundError
from holdfast.stores.disk.blob_file import (
    FileIdentity,
    OpenBlob,
    identity_of,
    is_the_bad_one,
    pieces_of,
    read_header,
)
from holdfast.stores.disk.files import confirm_disk_store, open_regular, read_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.sources import Sources
    from holdfast.stores.disk.files import Files
    from holdfast.stores.disk.format import BlobHeader

MAX_VERIFIED: Final = 4096
_RACY_SECONDS: Final = 2.0
"""A file may change twice within one tick of its timestamps, so a fresh one is not remembered."""


class BlobReading:
    """Reads the blobs under one root. Every method blocks, and may be called from any thread."""

    def __init__(self, root: Path, files: Files, sources: Sources) -> None:
        self._root = root
        self._files = files
        self._new_id = sources.new_id
        self._clock = sources.clock
        self._guard = Lock()  # for the memory below; never held while a file is touched
        self._verified: OrderedDict[FileIdentity, None] = OrderedDict()

    @contextmanager
    def open(self, path: Path) -> Iterator[OpenBlob]:
        """The blob at ``path``, whole or partial. Raises NotFoundError, CorruptError."""
        try:
            descriptor = open_regular(path)
        except FileNotFoundError as error:
            confirm_disk_store(self._root)
            raise NotFoundError(f"no blob {path.name}") from error
        except CorruptError:
            self.quarantine(path, None)
            raise
        try:
            identity = identity_of(os.fstat(descriptor))
            try:
                header, offset = read_header(descriptor, path.name, identity.size)
            except CorruptError:
                self.quarantine(path, identity)
                raise
            yield OpenBlob(path, descriptor, header, offset, identity)
        finally:
            os.close(descriptor)

    @contextmanager
    def open_copy(self, path: Path, generation: str) -> Iterator[OpenBlob]:
        """The same if it is this copy. Raises NotFoundError, CorruptError."""
        with self.open(path) as blob:
            if blob.header.generation != generation:
                raise NotFoundError(f"this copy of blob {path.name} is gone")
            yield blob

    def intact(self, path: Path) -> BlobHeader | None:
        """The header of a file that is there and can be read back; None: there is none."""
        try:
            with self.open(path) as blob:
                self.check(blob)
                return blob.header
        except (NotFoundError, CorruptError):
            return None

    def read(self, blob: OpenBlob, start: int, stop: int) -> bytes:
        """Bytes as they are stored, which are not checked. Raises CorruptError."""
        data = read_exactly(blob.descriptor, blob.offset + start, stop - start)
        if len(data) != stop - start:
            raise CorruptError(f"the stored file of blob {blob.header.digest} became shorter")
        return data

    def check(self, blob: OpenBlob) -> None:
        """Read all of it, unless this file was read before. Raises CorruptError."""
        if not self._was_verified(blob.identity):
            self.verify(blob)

    def verify(self, blob: OpenBlob) -> None:
        """Read all of it. Raises CorruptError, and has then moved it aside."""
        hasher = hashlib.sha256()
        for piece in pieces_of(blob):
            hasher.update(piece)
        if hasher.hexdigest() != blob.header.stored_digest:
            self.quarantine(blob.path, blob.identity)
            msg = f"the stored bytes of blob {blob.header.digest} do not match their digest"
            raise CorruptError(msg)
        if self._clock().timestamp() - blob.identity.ctime_ns / 1e9 > _RACY_SECONDS:
            with self._guard:
                self._verified[blob.identity] = None
                if len(self._verified) > MAX_VERIFIED:
                    self._verified.popitem(last=False)

    def _was_verified(self, identity: FileIdentity) -> bool:
        with self._guard:
            if identity not in self._verified:
                return False
            self._verified.move_to_end(identity)
            return True

    def quarantine(self, path: Path, seen: FileIdentity | None) -> None:
        """Move aside the bad file that was ``seen``; None: anything there but a regular file.

        Another process may have done so and stored the blob anew meanwhile: an intact file that
        was moved by mistake is put back. A failure here only leaves the bad file where it is.
        """
        aside = self._root / "quarantine" / f"{path.name}.{self._new_id()}"
        with suppress(OSError):
            if path.parent.is_symlink() or not is_the_bad_one(path, seen):
                return
            self._files.rename(path, aside)
            if not is_the_bad_one(aside, seen):
                self._files.link(aside, path)
                self._files.unlink(aside)
