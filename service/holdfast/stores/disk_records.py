"""Records in files, changed by compare-and-set without any lock.

A record is the directory ``records/<key>/``; the file in it is named by the revision. To change
revision 5, a writer

1. writes the successor beside it as ``+<id>`` and syncs it and the directory,
2. *claims* the revision by renaming ``5`` to ``5+<id>``: of any number of writers exactly one
   succeeds, for a revision's name is never used again,
3. renames ``+<id>`` to ``6``, removes ``5+<id>``, and syncs the directory.

A writer that dies after step 2 has decided: whoever comes next completes step 3 in its stead, and
does so before it claims anything. The first revision is published together with its directory, by
renaming that into place. A deleted record is a revision that says so; the sweep removes it for
good once nobody can have an older one in mind: it claims it as ``7!<id>``, which nobody completes,
removes that and then the empty directory. New records start at the time of day in microseconds,
so a key that is used again does not repeat revisions.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from holdfast.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.stores.disk_files import (
    FailStop,
    Files,
    check_disk_store,
    confirm_disk_store,
    ensure_directory,
    entries_before,
    read_file,
    remove_directory,
    sync_change,
    translated,
    write_file,
)
from holdfast.stores.disk_format import RecordHeader, decode_record, encode_record
from holdfast.stores.ports import Record
from holdfast.stores.record_keys import check_record_key, has_prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from datetime import datetime
    from pathlib import Path

_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY})
_ATTEMPTS: Final = 64
_NAME_CHARS: Final = 200
"""A file name holds 255 bytes and a key 256, so longer keys take two directories."""

_NAME: Final = re.compile(r"(\d{1,20})(?:([+!])([A-Za-z0-9]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Revision:
    """A file in a record's directory; ``claim`` is its successor's identifier, or empty."""

    number: int
    mark: str
    claim: str
    name: str


@dataclass(frozen=True, slots=True)
class _State:
    """What a key is now: the file that says so, if any, and whether that is a live record."""

    file: _Revision | None = None
    header: RecordHeader | None = None
    value: bytes = b""
    live: bool = False

    @property
    def revision(self) -> int:
        return self.file.number if self.file is not None and self.live else 0


class DiskRecordStore:
    """A `RecordStore` under ``root``, which ``create_disk_store`` has made.

    Several processes may use one root. ``clock`` is the time of day: records with a time to live
    go away by it. ``new_id`` gives fresh identifiers (A-Z a-z 0-9).
    """

    def __init__(
        self,
        root: Path,
        *,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
        files: Files | None = None,
    ) -> None:
        self._root = root
        self._records = root / "records"
        self._new_id = new_id
        self._clock = clock
        self._files = FailStop(files or Files())

    async def get(self, key: str) -> Record:
        """See `RecordStore.get`. Raises CorruptError when the file does not match its checksum."""
        return await asyncio.to_thread(self._get, key)

    async def put(
        self, key: str, value: bytes, *, expected: int, ttl: timedelta | None = None
    ) -> int:
        """See `RecordStore.put`."""
        expires_at = None if ttl is None else self._clock() + ttl
        header = RecordHeader(key=key, expires_at=expires_at)
        return await asyncio.to_thread(self._change, key, header, value, expected)

    async def delete(self, key: str, *, expected: int) -> None:
        """See `RecordStore.delete`."""
        header = RecordHeader(key=key, deleted=True)
        await asyncio.to_thread(self._change, key, header, b"", expected)

    async def list_records(self, prefix: str) -> AsyncIterator[Record]:
        """See `RecordStore.list_records`. In ascending order of the key."""
        for key in await asyncio.to_thread(self._keys, prefix):
            with suppress(NotFoundError):
                yield await asyncio.to_thread(self._get, key)

    async def sweep(self, now: datetime, grace: timedelta) -> int:
        """Remove what was deleted, expired or left by a crash ``grace`` or longer ago; how many.

        ``grace`` must be longer than any writer may pause between reading and writing.
        """
        return await asyncio.to_thread(self._sweep, now - grace)

    async def check(self) -> None:
        """See `RecordStore.check`."""
        await asyncio.to_thread(check_disk_store, self._root, self._files)

    async def aclose(self) -> None:
        """Nothing is held open between two calls."""

    def _get(self, key: str) -> Record:
        check_record_key(key)
        with translated():
            state = self._state(key)
        if not state.live:
            confirm_disk_store(self._root)
            msg = f"no record {key}"
            raise NotFoundError(msg)
        return Record(key=key, value=state.value, revision=state.revision)

    def _change(self, key: str, header: RecordHeader, value: bytes, expected: int) -> int:
        check_record_key(key)
        content = encode_record(header, value)
        directory = self._directory(key)
        with translated():
            self._complete_claims(directory)
            state = self._state(key)
            if state.revision != expected:
                confirm_disk_store(self._root)
                raise _conflict(key)
            if state.file is not None:
                return self._succeed(key, state.file, content)
            if header.deleted:
                confirm_disk_store(self._root)
                return 0
            return self._found(key, content)

    def _found(self, key: str, content: bytes) -> int:
        """Publish the first revision, together with its directory."""
        directory = self._directory(key)
        if directory.parent != self._records:
            ensure_directory(self._files, directory.parent)
        revision = int(self._clock().timestamp() * 1_000_000)
        prepared = self._root / "tmp" / self._new_id()
        self._files.mkdir(prepared)
        try:
            write_file(self._files, prepared / str(revision), [content])
            self._files.sync_directory(prepared)
            self._files.rename(prepared, directory)
        except OSError as error:
            with suppress(OSError):
                remove_directory(self._files, prepared)
            if error.errno in _TAKEN:
                raise _conflict(key) from error
            raise
        sync_change(self._files, directory.parent)
        return revision

    def _succeed(self, key: str, present: _Revision, content: bytes) -> int:
        """Claim the present revision, and put another in its place."""
        directory = self._directory(key)
        claim = self._new_id()
        write_file(self._files, directory / f"+{claim}", [content])
        self._files.sync_directory(directory)
        claimed = _Revision(present.number, "+", claim, f"{present.number}+{claim}")
        try:
            self._files.rename(directory / present.name, directory / claimed.name)
        except FileNotFoundError as error:
            with suppress(OSError):
                self._files.unlink(directory / f"+{claim}")
            raise _conflict(key) from error
        except OSError as error:
            raise _unknown() from error
        try:
            self._complete(directory, claimed)
            self._files.sync_directory(directory)
        except OSError as error:  # the claim stands, so whoever comes next will complete it
            raise _unknown() from error
        return present.number + 1

    def _complete_claims(self, directory: Path) -> None:
        """Do what a writer that died has left to do. Nothing here can be done twice."""
        with suppress(FileNotFoundError):
            revisions = _revisions(directory)
            for revision in revisions:
                if revision.mark == "+":
                    self._complete(directory, revision)
                elif revision.mark == "!":
                    self._bury(directory, revision)
                elif revision.number < max(other.number for other in revisions):
                    with suppress(FileNotFoundError):
                        self._files.unlink(directory / revision.name)

    def _complete(self, directory: Path, claimed: _Revision) -> None:
        successor = directory / str(claimed.number + 1)
        with suppress(FileNotFoundError):  # somebody else did it
            self._files.rename(directory / f"+{claimed.claim}", successor)
        with suppress(FileNotFoundError):
            self._files.unlink(directory / claimed.name)

    def _bury(self, directory: Path, grave: _Revision) -> None:
        with suppress(FileNotFoundError):
            self._files.unlink(directory / grave.name)
        with suppress(OSError):  # not empty: a new record is there already
            self._files.rmdir(directory)

    def _state(self, key: str) -> _State:
        directory = self._directory(key)
        for _ in range(_ATTEMPTS):
            try:
                revisions = _revisions(directory)
                if not revisions:
                    return _State()
                present = revisions[-1]
                if present.mark == "+":
                    # Decided, though its writer died: an answer without it could be taken back.
                    self._complete(directory, present)
                    continue
                header, value = decode_record(read_file(directory / present.name))
            except FileNotFoundError:
                if not directory.exists():
                    return _State()
                continue  # changed since the directory was read
            if present.mark == "!":
                return _State()
            expired = header.expires_at is not None and header.expires_at <= self._clock()
            return _State(present, header, value, live=not (header.deleted or expired))
        msg = "the record changes too often to be read"
        raise UnavailableError(msg)

    def _keys(self, prefix: str) -> list[str]:
        confirm_disk_store(self._root)
        with translated():
            return sorted(key for key in self._all_keys() if has_prefix(key, prefix))

    def _all_keys(self) -> Iterator[str]:
        for name in os.listdir(self._records):
            if not name.endswith("~"):
                yield name
            else:
                for rest in os.listdir(self._records / name):
                    yield name[:-1] + rest

    def _directory(self, key: str) -> Path:
        if len(key) <= _NAME_CHARS:
            return self._records / key
        return self._records / (key[:_NAME_CHARS] + "~") / key[_NAME_CHARS:]

    def _sweep(self, before: datetime) -> int:
        removed = 0
        with translated():
            for path in entries_before(self._root / "tmp", before.timestamp()):
                with suppress(FileNotFoundError, NotADirectoryError):
                    remove_directory(self._files, path)
                    removed += 1
            for key in sorted(self._all_keys()):
                removed += self._sweep_key(key, before)
        return removed

    def _sweep_key(self, key: str, before: datetime) -> int:
        directory = self._directory(key)
        self._complete_claims(directory)
        removed = self._sweep_prepared(key, before.timestamp())
        state = self._state(key)
        if state.file is None or state.header is None or state.live:
            return removed
        path = directory / state.file.name
        with suppress(FileNotFoundError):
            gone_since = state.header.expires_at or _changed_at(path, before)
            if gone_since < before:
                grave = f"{state.file.number}!{self._new_id()}"
                self._files.rename(path, directory / grave)
                self._complete_claims(directory)
                removed += 1
        return removed

    def _sweep_prepared(self, key: str, before: float) -> int:
        """Remove successors that no writer came to claim for."""
        directory = self._directory(key)
        with suppress(FileNotFoundError):
            prepared = [path for path in entries_before(directory, before) if path.name[0] == "+"]
            if not prepared:
                return 0
            state = self._state(key)
            if state.file is not None and state.header is not None:
                # Their writers may only be slow. Once the revision has moved on they cannot claim.
                try:
                    self._succeed(key, state.file, encode_record(state.header, state.value))
                except ConflictError:
                    return 0  # one of them may have claimed it just now
            for path in prepared:
                self._files.unlink(path)
            if state.file is None:
                with suppress(OSError):  # not empty: somebody is at work in it
                    self._files.rmdir(directory)
            return len(prepared)
        return 0


def _conflict(key: str) -> ConflictError:
    return ConflictError(f"record {key} is not at the expected revision")


def _unknown() -> OutcomeUnknownError:
    return OutcomeUnknownError("the disk did not confirm the change")


def _changed_at(path: Path, like: datetime) -> datetime:
    return type(like).fromtimestamp(path.lstat().st_mtime, tz=like.tzinfo)


def _revisions(directory: Path) -> list[_Revision]:
    """The revisions in a record's directory, the present one last."""
    found = []
    for name in os.listdir(directory):
        match = _NAME.fullmatch(name)
        if match is not None:
            found.append(_Revision(int(match[1]), match[2] or "", match[3] or "", name))
    return sorted(found, key=lambda revision: revision.number)
