"""Blobs in files: the blocking half of the disk store, to be called from threads.

A blob is the one file ``blobs/<first two hex>/<digest>``: a header line, then the bytes. It is
written under another name, synced, linked to its address (which exactly one of many racing
processes can do), and then the directory is synced; only then is it acknowledged. A file that is
not what it should be is moved to ``quarantine/``, so the same blob can be put again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import tempfile
from collections import OrderedDict
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest, is_digest, parse_digest
from holdfast.domain.limits import MIB
from holdfast.domain.op_id import is_repeat, split_op_id
from holdfast.errors import (
    CorruptError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from holdfast.stores.disk.files import (
    confirm_disk_store,
    ensure_directory,
    open_regular,
    read_exactly,
    sync_change,
    translated,
    write_file,
)
from holdfast.stores.disk.format import (
    MAX_HEADER_BYTES,
    BlobHeader,
    decode_blob_header,
    encode_blob_header,
)
from holdfast.stores.ports import BlobInfo, BlobListing, ForeignObject, Stored, UnreadableObject

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Iterable, Iterator
    from pathlib import Path

    from holdfast.sources import Sources
    from holdfast.stores.disk.files import Files

READ_BYTES: Final = MIB
MAX_VERIFIED: Final = 4096
MAX_DELETIONS: Final = 65_536
_PUT_ATTEMPTS: Final = 16
_RACY_SECONDS: Final = 2.0
"""A file may change twice within one tick of its timestamps, so a fresh one is not remembered."""

_SHARD: Final = re.compile(r"[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What changes whenever a file does, or is another file."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def same_file(self, other: FileIdentity) -> bool:
        """Whether both are one unwritten file; a rename alone changes only the ctime."""
        mine = (self.device, self.inode, self.size, self.mtime_ns)
        return mine == (other.device, other.inode, other.size, other.mtime_ns)


def _identity(status: os.stat_result) -> FileIdentity:
    return FileIdentity(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


@dataclass(frozen=True, slots=True)
class _OpenBlob:
    descriptor: int
    header: BlobHeader
    offset: int
    identity: FileIdentity


class BlobFiles:
    """The blobs under one root. Every method blocks, and may be called from any thread."""

    def __init__(self, root: Path, files: Files, sources: Sources) -> None:
        self._root = root
        self._files = files
        self._new_id = sources.new_id
        self._clock = sources.clock
        self._guard = Lock()  # for the two memories below; never held while a file is touched
        self._verified: OrderedDict[FileIdentity, None] = OrderedDict()
        self._deletions: OrderedDict[tuple[str, Digest], str] = OrderedDict()
        self._shards: set[str] = set()  # those whose own name this process has made durable

    def put(
        self,
        header: BlobHeader,
        pieces: Callable[[], Iterable[Buffer]],
        is_own: Callable[[BlobHeader], bool],
    ) -> Stored:
        """Store the bytes of ``pieces()`` unless the blob is there already, and intact.

        ``is_own`` tells whether a blob that was found is this same put's, answered once before.
        Raises CorruptError when the bytes do not match ``header``.
        """
        path = self._path(header.digest)
        for _ in range(_PUT_ATTEMPTS):
            with translated():
                self._ensure_shard(path.parent)
                existing = self._intact(path)
                created = existing is None and self._create(path, header, pieces())
            if existing is None and not created:
                continue  # somebody else was first, and may have deleted it since
            # Also for a blob that was found: whoever linked it may not have come to this line yet.
            sync_change(self._files, path.parent)
            if existing is not None:
                return Stored(info=existing.info, created=is_own(existing))
            return Stored(info=header.info, created=True)
        msg = "the blob is put and deleted too often at the same time"
        raise UnavailableError(msg)

    def stat(self, digest: Digest) -> BlobInfo:
        """What is recorded. Raises NotFoundError, CorruptError."""
        with translated(), self._open(self._path(digest)) as blob:
            return blob.header.info

    def has(self, digest: Digest) -> bool:
        """Whether a file of the right form and length is there."""
        try:
            self.stat(digest)
        except (NotFoundError, CorruptError):
            return False
        return True

    def read(self, info: BlobInfo, start: int, stop: int) -> bytes:
        """Bytes of a blob, which were not checked. Raises NotFoundError, CorruptError."""
        with translated(), self._open_copy(info) as blob:
            return self._read(blob, start, stop)

    def read_verified(
        self, info: BlobInfo, start: int, stop: int, trusted: FileIdentity | None
    ) -> tuple[bytes, FileIdentity]:
        """Bytes of a blob that has been checked whole, and the file's identity.

        Pass that identity to the next call, which then does not check again. Raises as `read`.
        """
        with translated(), self._open_copy(info) as blob:
            if blob.identity != trusted and not self._was_verified(blob.identity):
                self._verify(blob)
            return self._read(blob, start, stop), blob.identity

    def verify(self, info: BlobInfo) -> None:
        """Read the whole blob. Raises CorruptError, and has then moved it aside."""
        with translated(), self._open_copy(info) as blob:
            self._verify(blob)

    def delete(self, digest: Digest, op_id: str | None) -> bool:
        """Remove the file; whether it was there, or this operation removed it before."""
        path = self._path(digest)
        with translated():
            removed = self._recalls(digest, op_id)
            if not removed:
                is_repeat(_op_id_of_put(path), op_id)  # not under the id of the put
                removed = self._unlink(path)
            present = path.parent.exists()
        if removed and op_id is not None:
            self._remember_deletion(digest, op_id)
        if present:
            sync_change(self._files, path.parent)
        if not removed:
            confirm_disk_store(self._root)
        return removed

    def touch(self, digest: Digest, unless_seen_since: datetime) -> bool:
        """Give the file the present time, unless it has a late enough one; whether it is there."""
        path = self._path(digest)
        try:
            with translated(), self._open(path) as blob:
                if blob.identity.mtime_ns < unless_seen_since.timestamp() * 1e9:
                    self._files.touch(blob.descriptor)
                return _is_at(path, blob.identity)
        except (NotFoundError, CorruptError):
            return False

    def now(self) -> datetime:
        """The time that a file gets which is written now."""
        confirm_disk_store(self._root)
        with translated(), tempfile.TemporaryFile(dir=self._root) as file:
            return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)

    def list_page(self, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """A page in ascending order. Files not named by a digest are foreign."""
        after = _decode_cursor(cursor)
        entries: list[BlobInfo | ForeignObject] = []
        confirm_disk_store(self._root)
        cursors: list[str] = []
        with translated():
            last = after
            for name in self._names(prefix, after):
                if len(entries) == limit:
                    last_cursor = _encode_cursor(last)
                    return BlobListing(entries=entries, after=cursors, cursor=last_cursor)
                last = name
                entry = self._entry(name)
                if isinstance(entry, UnreadableObject) and prefix:
                    continue
                if entry is not None:
                    entries.append(entry)
                    cursors.append(_encode_cursor(name))
        return BlobListing(entries=entries, after=cursors, cursor=None)

    def _path(self, digest: str) -> Path:
        parse_digest(digest)  # an unchecked digest has been a path before
        return self._root / "blobs" / digest[:2] / digest

    # Writing

    def _create(self, path: Path, header: BlobHeader, pieces: Iterable[Buffer]) -> bool:
        temporary = self._root / "tmp" / self._new_id()
        write_file(self._files, temporary, _checked_content(header, pieces))
        try:
            self._files.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            with suppress(OSError):  # the blob's fate is decided; a leftover is swept later
                self._files.unlink(temporary)
        return True

    def _ensure_shard(self, shard: Path) -> None:
        if shard.name not in self._shards:
            ensure_directory(self._files, shard)
            self._shards.add(shard.name)

    def _unlink(self, path: Path) -> bool:
        try:
            self._files.unlink(path)
        except FileNotFoundError:
            return False
        except IsADirectoryError:
            self._quarantine(path, None)
        return True

    def _recalls(self, digest: Digest, op_id: str | None) -> bool:
        """Whether a repeat of ``op_id`` deleted it. Raises ConflictError of another request."""
        if op_id is None:
            return False
        with self._guard:
            kept = self._deletions.get((split_op_id(op_id)[0], digest))
        return is_repeat(kept, op_id)

    def _remember_deletion(self, digest: Digest, op_id: str) -> None:
        with self._guard:
            self._deletions[split_op_id(op_id)[0], digest] = op_id
            if len(self._deletions) > MAX_DELETIONS:
                self._deletions.popitem(last=False)

    # Reading

    @contextmanager
    def _open(self, path: Path) -> Iterator[_OpenBlob]:
        try:
            descriptor = open_regular(path)
        except FileNotFoundError as error:
            confirm_disk_store(self._root)
            msg = f"no blob {path.name}"
            raise NotFoundError(msg) from error
        except CorruptError:
            self._quarantine(path, None)
            raise
        try:
            identity = _identity(os.fstat(descriptor))
            try:
                header, offset = _read_header(descriptor, path.name, identity.size)
            except CorruptError:
                self._quarantine(path, identity)
                raise
            yield _OpenBlob(descriptor, header, offset, identity)
        finally:
            os.close(descriptor)

    @contextmanager
    def _open_copy(self, info: BlobInfo) -> Iterator[_OpenBlob]:
        with self._open(self._path(info.digest)) as blob:
            if blob.header.generation != info.generation:
                msg = f"this copy of blob {info.digest} is gone"
                raise NotFoundError(msg)
            yield blob

    def _intact(self, path: Path) -> BlobHeader | None:
        try:
            with self._open(path) as blob:
                if not self._was_verified(blob.identity):
                    self._verify(blob)
                return blob.header
        except (NotFoundError, CorruptError):
            return None

    def _read(self, blob: _OpenBlob, start: int, stop: int) -> bytes:
        data = read_exactly(blob.descriptor, blob.offset + start, stop - start)
        if len(data) != stop - start:
            msg = f"the stored file of blob {blob.header.digest} became shorter"
            raise CorruptError(msg)
        return data

    def _verify(self, blob: _OpenBlob) -> None:
        hasher = hashlib.sha256()
        offset = blob.offset
        while piece := os.pread(blob.descriptor, READ_BYTES, offset):
            hasher.update(piece)
            offset += len(piece)
        if hasher.hexdigest() != blob.header.digest:
            self._quarantine(self._path(blob.header.digest), blob.identity)
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

    def _quarantine(self, path: Path, seen: FileIdentity | None) -> None:
        """Move aside the bad file that was ``seen``; None: whatever is no regular file there.

        Another process may have done so and stored the blob anew meanwhile: an intact file that
        was moved by mistake is put back. A failure here only leaves the bad file where it is.
        """
        aside = self._root / "quarantine" / f"{path.name}.{self._new_id()}"
        with suppress(OSError):
            if path.parent.is_symlink() or not _is_the_bad_one(path, seen):
                return
            self._files.rename(path, aside)
            if not _is_the_bad_one(aside, seen):
                self._files.link(aside, path)
                self._files.unlink(aside)

    # Listing

    def _names(self, prefix: str, after: tuple[str, str]) -> Iterator[tuple[str, str]]:
        blobs = self._root / "blobs"
        for shard in sorted(filter(_SHARD.fullmatch, os.listdir(blobs))):
            if shard < after[0] or not (prefix.startswith(shard) or shard.startswith(prefix)):
                continue
            if (blobs / shard).is_symlink():
                continue
            for name in sorted(os.listdir(blobs / shard), key=os.fsencode):
                later = (shard, os.fsencode(name)) > (after[0], os.fsencode(after[1]))
                if later and name.startswith(prefix):
                    yield shard, name

    def _entry(self, name: tuple[str, str]) -> BlobInfo | ForeignObject | None:
        path = self._root / "blobs" / name[0] / name[1]
        if is_digest(name[1]) and name[1].startswith(name[0]):
            try:
                with self._open(path) as blob:
                    return blob.header.info
            except NotFoundError:
                return None  # deleted, or moved aside, since the directory was read
            except CorruptError as error:  # moved aside just now: whoever lists is told once
                return UnreadableObject(name=name[1], size=0, detail=error.detail)
        try:
            size = path.lstat().st_size
        except FileNotFoundError:
            return None
        return ForeignObject(name=os.fsencode(name[1]).decode("utf-8", "replace"), size=size)


def _op_id_of_put(path: Path) -> str | None:
    """The ``Op-Id`` of the put that made the file; None where that cannot be read."""
    try:
        descriptor = open_regular(path)
    except (FileNotFoundError, CorruptError):
        return None
    try:
        header, _ = decode_blob_header(read_exactly(descriptor, 0, MAX_HEADER_BYTES))
    except CorruptError:
        return None
    finally:
        os.close(descriptor)
    return header.op_id


def _read_header(descriptor: int, digest: str, file_size: int) -> tuple[BlobHeader, int]:
    header, offset = decode_blob_header(read_exactly(descriptor, 0, MAX_HEADER_BYTES))
    if header.digest != digest or file_size != offset + header.size:
        msg = f"the stored file of blob {digest} has the wrong length or name"
        raise CorruptError(msg)
    return header, offset


def _checked_content(header: BlobHeader, pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    """The file of a blob; ends with CorruptError if the bytes are not those of the header."""
    yield encode_blob_header(header)
    hasher = hashlib.sha256()
    size = 0
    for piece in pieces:
        with memoryview(piece) as view:
            hasher.update(view)
            size += view.nbytes
        yield piece
    if size != header.size or hasher.hexdigest() != header.digest:
        msg = "the stored parts are not the bytes that were announced"
        raise CorruptError(msg)


def _is_at(path: Path, seen: FileIdentity) -> bool:
    """Whether the file that was opened is still the one at ``path``."""
    try:
        return path.lstat().st_ino == seen.inode
    except FileNotFoundError:
        return False


def _is_the_bad_one(path: Path, seen: FileIdentity | None) -> bool:
    if seen is not None:
        return seen.same_file(_identity(path.lstat()))
    try:
        os.close(open_regular(path))
    except CorruptError:
        return True
    return False


def _encode_cursor(name: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(os.fsencode("/".join(name))).decode()


def _decode_cursor(cursor: str | None) -> tuple[str, str]:
    if cursor is None:
        return "", ""
    try:
        text = os.fsdecode(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        text = ""
    shard, _, name = text.partition("/")
    if _SHARD.fullmatch(shard) is None or not name:
        msg = "the cursor is not one that this store made"
        raise InvalidError(msg)
    return shard, name
