"""Blobs in files: the blocking half of the disk store, to be called from threads.

A blob is the one file ``blobs/<first two hex>/<digest>``: a header line, then the bytes. It is
written under another name, synced, linked to its address (which exactly one of many racing
processes can do), and then the directory is synced; only then is it acknowledged. A file that is
not what it should be is moved to ``quarantine/``, so the same blob can be put again.

A blob that is there is deleted, touched, or replaced by a copy (with a pin or without, partial, or
whole again), while its shard (the directory that it is in) is locked, so that it is done to the
file that was seen before.

Why: docs/decisions.md, "One file per blob, published by link", and "A pin is changed by a copy in
the file's place".
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec import UNSET
from msgspec.structs import replace

from holdfast.domain.digest import Digest, is_digest, parse_digest
from holdfast.domain.kept import has_bytes, reduced
from holdfast.errors import CorruptError, InvalidError, NotFoundError, UnavailableError
from holdfast.stores.deletions import Deletions
from holdfast.stores.disk import blob_listing
from holdfast.stores.disk.blob_file import (
    FileIdentity,
    OpenBlob,
    Seen,
    checked_content,
    is_at,
    pieces_of,
    seen_at,
    surveyed,
)
from holdfast.stores.disk.blob_reading import BlobReading
from holdfast.stores.disk.files import (
    confirm_disk_store,
    ensure_directory,
    locked,
    sync_change,
    translated,
    write_file,
)
from holdfast.stores.disk.format import BlobHeader, header_of
from holdfast.stores.ports import (
    BlobInfo,
    BlobListing,
    ForeignObject,
    Stored,
    Survey,
    SurveyedBlob,
    UnreadableObject,
    reduced_info,
)

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from holdfast.domain.kept import Ranges
    from holdfast.sources import Sources
    from holdfast.stores.disk.files import Files

PATIENCE_SECONDS: Final = 10.0
"""A change waits so long for another of its shard, which takes milliseconds unless stopped."""

LOCKED: Final = "the blob is being changed by a process that does not finish; it may be stopped"
_TOO_OFTEN: Final = "the blob is put and deleted too often at the same time"
_PUT_ATTEMPTS: Final = 16
_ALWAYS: Final = datetime.max.replace(tzinfo=UTC)


class BlobFiles:
    """The blobs under one root. Every method blocks, and may be called from any thread."""

    def __init__(self, root: Path, files: Files, sources: Sources) -> None:
        self._root = root
        self._files = files
        self._new_id = sources.new_id
        self._reader = BlobReading(root, files, sources)
        self._deletions = Deletions()
        self._shards: set[str] = set()  # those whose own name this process has made durable

    def put(
        self,
        header: BlobHeader,
        pieces: Callable[[], Iterable[Buffer]],
        is_own: Callable[[BlobHeader], bool],
        *,
        touches: bool = False,
    ) -> Stored:
        """Store the bytes of ``pieces()`` unless the blob is there already, and intact.

        ``is_own`` tells whether a blob that was found is this same put's, answered once before.
        With ``touches`` such a one is touched.
        Raises CorruptError when the bytes do not match ``header``.
        """
        path = self._path(header.digest)
        for _ in range(_PUT_ATTEMPTS):
            with translated():
                self._ensure_shard(path.parent)
                existing = self._reader.intact(path)
                if existing is None:
                    is_done = self._create(path, header, pieces())
                elif existing.is_partial:
                    is_done = self._put_over(path, header, pieces())
                    existing = None
                elif existing.is_hidden or (header.pinned and not existing.pinned):
                    is_pinned = header.pinned or existing.pinned
                    existing = self._replace(path, seen_at(path), pinned=is_pinned)
                    is_done = existing is not None
                else:
                    is_done = not touches or self.touch(
                        Digest(existing.digest), unless_seen_since=_ALWAYS
                    )
            if not is_done:
                continue  # somebody else was first, and may have deleted it since
            # Also for a blob that was found: its writer may not have come to this line yet.
            sync_change(self._files, path.parent)
            if existing is not None:
                return Stored(info=existing.info, created=is_own(existing))
            return Stored(info=header.info, created=True)
        raise UnavailableError(_TOO_OFTEN)

    def stat(self, digest: Digest, *, sure: bool = False, partial: bool = False) -> BlobInfo:
        """See `BlobStore.stat`. A file of the wrong form or length is never answered with."""
        del sure
        with translated(), self._reader.open(self._path(digest)) as blob:
            if blob.header.is_partial and not partial:
                raise NotFoundError(f"no blob {digest}")
            return blob.header.info

    def missing(
        self,
        digests: Sequence[Digest],
        *,
        partial: bool = False,
        counted: bool = False,
    ) -> list[Digest]:
        """See `BlobStore.missing`. A file of the wrong length always counts as missing."""
        return [one for one in dict.fromkeys(digests) if not self.has(one, partial=partial)]

    def has(self, digest: Digest, *, partial: bool = False) -> bool:
        """Whether a file of the right form and length is there, for all."""
        try:
            return not self.stat(digest, partial=partial).deleted
        except (NotFoundError, CorruptError):
            return False

    def read(self, info: BlobInfo, start: int, stop: int) -> bytes:
        """Bytes of a blob, which were not checked. Raises NotFoundError, CorruptError."""
        with translated(), self._open_copy(info) as blob:
            return self._reader.read(blob, start, stop)

    def read_verified(
        self, info: BlobInfo, start: int, stop: int, trusted: FileIdentity | None
    ) -> tuple[bytes, FileIdentity]:
        """Bytes of a blob that has been checked whole, and the file's identity.

        Pass that identity to the next call, which then does not check again. Raises as `read`.
        """
        with translated(), self._open_copy(info) as blob:
            if blob.identity != trusted:
                self._reader.check(blob)
            return self._reader.read(blob, start, stop), blob.identity

    def verify(self, info: BlobInfo) -> None:
        """Read the whole blob. Raises CorruptError, and has then moved it aside."""
        with translated(), self._open_copy(info) as blob:
            self._reader.verify(blob)

    def look(self, digest: Digest) -> Seen:
        """The blob's file as it is now."""
        with translated():
            seen = seen_at(self._path(digest))
        if not seen.is_there:
            confirm_disk_store(self._root)
        return seen

    def delete(self, digest: Digest, op_id: str | None, seen: Seen | None = None) -> bool | None:
        """Remove the file; whether it was there, or this operation removed it before.

        None, and nothing was done: it is not as it was ``seen``.
        """
        path = self._path(digest)
        removed = self._deletions.recall(digest, op_id)
        was_hidden = False
        try:
            if not removed:
                with self._locked(path.parent), translated():
                    found = seen_at(path)
                    if seen is not None and found != seen:
                        return None
                    found.refuse_id_of_put(op_id)
                    was_hidden = found.header is not None and found.header.is_hidden
                    removed = self._unlink(path)
        except NotFoundError:
            return False
        self._confirm_deletion(path, op_id if removed and not was_hidden else None)
        if not removed:
            confirm_disk_store(self._root)
        return removed and not was_hidden

    def hide(self, digest: Digest, op_id: str | None, seen: Seen) -> bool | None:
        """Have the blob be there for its keepers alone, without a pin.

        Whether it was there for all, or this operation hid it before. None, and nothing was done:
        the file is not as it was ``seen``.
        """
        path = self._path(digest)
        if not self._deletions.recall(digest, op_id):
            seen.refuse_id_of_put(op_id)
            if seen.header is None or seen.header.is_hidden:
                return False
            with translated():
                if self._replace(path, seen, pinned=False, hidden=True) is None:
                    return None
        self._confirm_deletion(path, op_id)
        return True

    def touch(
        self, digest: Digest, *, unless_seen_since: datetime, needed: Ranges | None = None
    ) -> bool:
        """See `BlobStore.touch`. A blob was last seen when its file was modified."""
        path = self._path(digest)
        for _ in range(_PUT_ATTEMPTS):
            seen = self.look(digest)
            if seen.header is None or not seen.header.is_hidden:
                return self._touch(path, unless_seen_since, needed)
            with translated():
                if self._replace(path, seen, pinned=seen.header.pinned) is not None:
                    return True
        raise UnavailableError(_TOO_OFTEN)

    def _touch(self, path: Path, unless_seen_since: datetime, needed: Ranges | None) -> bool:
        try:
            with self._locked(path.parent), translated(), self._reader.open(path) as blob:
                if not has_bytes(blob.header.info.kept, needed):
                    return False
                if blob.identity.mtime_ns < unless_seen_since.timestamp() * 1e9:
                    self._files.touch(blob.descriptor)
                return is_at(path, blob.identity)
        except (NotFoundError, CorruptError):
            return False

    def now(self) -> datetime:
        """See `BlobStore.now`. It is the file system's clock, which may be another machine's."""
        confirm_disk_store(self._root)
        with translated(), tempfile.TemporaryFile(dir=self._root) as file:
            return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)

    def list_blobs(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """See `BlobStore.list_blobs`. In ascending order of the digest; other files are foreign."""
        after = blob_listing.decode_behind(cursor)
        entries: list[BlobInfo | ForeignObject] = []
        confirm_disk_store(self._root)
        cursors: list[str] = []
        with translated():
            last = after
            for name in blob_listing.names_after(self._root / "blobs", prefix, after):
                if len(entries) == limit:
                    last_cursor = blob_listing.encode_behind(last)
                    return BlobListing(entries=entries, after=cursors, cursor=last_cursor)
                last = name
                entry = self._entry(name)
                if isinstance(entry, UnreadableObject) and prefix:
                    continue
                if entry is not None:
                    entries.append(entry)
                    cursors.append(blob_listing.encode_behind(name))
        return BlobListing(entries=entries, after=cursors, cursor=None)

    def survey(self, cursor: str | None, *, limit: int) -> Survey:
        """See `BlobStore.survey`. In ascending order of the digest."""
        after = last = blob_listing.decode_behind(cursor)
        blobs, others = list[SurveyedBlob](), 0
        confirm_disk_store(self._root)
        with translated():
            for name in blob_listing.names_after(self._root / "blobs", "", after):
                if len(blobs) == limit:
                    return Survey(
                        blobs=blobs, cursor=blob_listing.encode_behind(last), others=others
                    )
                last = name
                with suppress(NotFoundError):  # deleted since the directory was read
                    try:
                        with self._reader.open(self._path(name[1])) as blob:
                            blobs.append(surveyed(blob))
                    except (InvalidError, CorruptError):
                        others += 1
        return Survey(blobs=blobs, cursor=None, others=others)

    def collect(self, blob: SurveyedBlob) -> bool:
        """See `BlobStore.collect`."""
        path = self._path(blob.digest)
        try:
            with self._locked(path.parent), translated():
                identity = seen_at(path).identity
                if identity is None or identity.mark != blob.mark or not self._unlink(path):
                    return False
        except NotFoundError:
            return False
        sync_change(self._files, path.parent)
        return True

    def repack(self, blob: SurveyedBlob, needed: Ranges) -> int | None:
        """See `BlobStore.repack`. The file is exchanged for another."""
        path = self._path(blob.digest)
        seen = self.look(blob.digest)
        if seen.identity is None or seen.identity.mark != blob.mark or seen.header is None:
            return None
        with translated():
            try:
                with self._open_copy(seen.header.info) as found:
                    self._reader.verify(found)
                    data = self._reader.read(found, 0, found.header.size)
            except NotFoundError:  # it was replaced since
                return None
            left, kept = reduced(data, seen.header.info.kept, needed)
            info = reduced_info(seen.header.info, kept, self._new_id())
            header = header_of(info, seen.header.op_id)
            if not self._swap(path, seen, checked_content(header, [left])):
                return None
        sync_change(self._files, path.parent)
        return kept.size

    def shards(self) -> list[tuple[str, int]]:
        """The shards, each with the time at which a name in it was last changed, in nanoseconds."""
        blobs = self._root / "blobs"
        with translated():
            return [
                (name, (blobs / name).lstat().st_mtime_ns)
                for name in blob_listing.shard_names(blobs)
            ]

    def keys_in(self, shard: str) -> set[str]:
        """The digests of the blobs in ``shard``, each as ``<shard>.<digest>``."""
        with translated():
            names = os.listdir(self._root / "blobs" / shard)
        return {f"{shard}.{name}" for name in names if is_digest(name) and name[:2] == shard}

    def _path(self, digest: str) -> Path:
        parse_digest(digest)  # an unchecked digest has been a path before
        return self._root / "blobs" / digest[:2] / digest

    def _open_copy(self, info: BlobInfo) -> AbstractContextManager[OpenBlob]:
        return self._reader.open_copy(self._path(info.digest), info.generation)

    # Writing

    def _create(self, path: Path, header: BlobHeader, pieces: Iterable[Buffer]) -> bool:
        temporary = self._root / "tmp" / self._new_id()
        write_file(self._files, temporary, checked_content(header, pieces))
        try:
            self._files.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            with suppress(OSError):  # the blob's fate is decided; a leftover is swept later
                self._files.unlink(temporary)
        return True

    def _put_over(self, path: Path, header: BlobHeader, pieces: Iterable[Buffer]) -> bool:
        """Put a whole blob in the place of a partial one; False: it is no such one any more."""
        seen = seen_at(path)
        if seen.header is None or not seen.header.is_partial:
            return False
        return self._swap(path, seen, checked_content(header, pieces))

    def _replace(
        self, path: Path, seen: Seen, *, pinned: bool, hidden: bool = False
    ) -> BlobHeader | None:
        """Put a copy in the place of the blob that was ``seen``, with a pin or without.

        None, and nothing was done: it is another by now, or damaged, and was moved aside.
        """
        if seen.header is None:
            return None
        header = replace(seen.header, pinned=pinned, deleted=hidden or UNSET)
        try:
            with self._reader.open(path) as blob:
                is_done = self._swap(path, seen, checked_content(header, pieces_of(blob)))
        except NotFoundError:
            return None
        except CorruptError:
            self._reader.quarantine(path, seen.identity)
            return None
        return header if is_done else None

    def _swap(self, path: Path, seen: Seen, content: Iterable[Buffer]) -> bool:
        """Put a file with ``content`` in the place of the one that was ``seen``; False: it is gone.

        Raises what ``content`` raises.
        """
        temporary = self._root / "tmp" / self._new_id()
        write_file(self._files, temporary, content)
        try:
            with self._locked(path.parent):
                if seen_at(path) != seen:
                    return False
                self._files.rename(temporary, path)
        finally:
            with suppress(OSError):  # it is gone if it was renamed
                self._files.unlink(temporary)
        return True

    @contextmanager
    def _locked(self, shard: Path) -> Iterator[None]:
        """Keep others from changing blobs of ``shard``. Raises NotFoundError if it never had any.

        New ones may be linked all the same.
        """
        if not shard.exists():
            confirm_disk_store(self._root)
            raise NotFoundError(f"no blob in {shard.name}")
        with locked(shard, time.monotonic() + PATIENCE_SECONDS, LOCKED):
            yield

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
            self._reader.quarantine(path, None)
        return True

    def _confirm_deletion(self, path: Path, op_id: str | None) -> None:
        """Remember who did it, and make it durable. Raises OutcomeUnknownError."""
        self._deletions.remember(Digest(path.name), op_id)
        sync_change(self._files, path.parent)

    # Listing

    def _entry(self, name: tuple[str, str]) -> BlobInfo | ForeignObject | None:
        path = self._root / "blobs" / name[0] / name[1]
        if blob_listing.is_blob(name):
            try:
                with self._reader.open(path) as blob:
                    return blob.header.info
            except NotFoundError:
                return None  # deleted, or moved aside, since the directory was read
            except CorruptError as error:  # moved aside just now: the lister is told once
                return UnreadableObject(name=name[1], size=0, detail=error.detail)
        try:
            size = path.lstat().st_size
        except FileNotFoundError:
            return None
        return ForeignObject(name=os.fsencode(name[1]).decode("utf-8", "replace"), size=size)
