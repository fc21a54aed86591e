"""Records in files: the blocking half of the disk store's records, to be called from threads.

They change by compare-and-set without any lock. A record is the directory ``records/<key>/``; the
file in it is named by the revision. To change revision 5, a writer

1. writes the successor beside it as ``+<id>`` and syncs it and the directory,
2. *claims* the revision by renaming ``5`` to ``5+<id>``: of any number of writers exactly one
   succeeds, for a revision's name is never used again,
3. renames ``+<id>`` to ``6``, removes ``5+<id>``, and syncs the directory.

A writer that dies after step 2 has decided: whoever comes next completes step 3 in its stead, and
does so before it claims anything. The first revision is published together with its directory, by
renaming that into place. A batch claims all its records as ``5@<id>`` and decides in its journal
(``disk_batches``); a record that it creates begins as a deleted one.

A deleted record is a revision that says so; the sweep removes it for good once nobody can have an
older one in mind: it claims it as ``7!<id>``, which nobody completes, removes that and then the
empty directory. New records start at the time of day in microseconds, so a key that is used again
does not repeat revisions.
"""

from __future__ import annotations

import errno
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.errors import (
    ConflictError,
    CorruptError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.stores.disk_batches import BatchJournal, Verdict
from holdfast.stores.disk_files import (
    Files,
    confirm_disk_store,
    ensure_directory,
    read_file,
    remove_directory,
    sync_change,
    translated,
    write_file,
)
from holdfast.stores.disk_format import decode_record
from holdfast.stores.disk_revisions import (
    FileChange,
    Revision,
    State,
    keys_in,
    record_directory,
    revisions_in,
)
from holdfast.stores.ports import Record
from holdfast.stores.record_keys import check_record_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY})
_ATTEMPTS: Final = 64
PATIENCE_STEPS: Final = 100
PATIENCE_STEP_SECONDS: Final = 0.005
"""A batch decides within milliseconds, unless its writer is paused or dead."""


class RecordFiles:
    """The records under one root. Every method blocks, and may be called from any thread."""

    def __init__(
        self,
        root: Path,
        files: Files,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
    ) -> None:
        self._root = root
        self._records = root / "records"
        self._files = files
        self._new_id = new_id
        self._clock = clock
        self.journal = BatchJournal(root, files, new_id)

    # Reading

    def get(self, key: str) -> Record:
        """The record. Raises NotFoundError, CorruptError."""
        check_record_key(key)
        with translated():
            state = self.state(key)
        if not state.live:
            confirm_disk_store(self._root)
            msg = f"no record {key}"
            raise NotFoundError(msg)
        if state.damage is not None:
            raise state.damage
        return Record(key=key, value=state.value, revision=state.revision)

    def get_many(self, keys: Sequence[str]) -> tuple[list[Record], list[str]]:
        """Those that are there, in order; and the keys of those that cannot be read."""
        confirm_disk_store(self._root)
        found, damaged = [], []
        for key in keys:
            try:
                found.append(self.get(key))
            except NotFoundError:
                continue
            except CorruptError:
                damaged.append(key)
        return found, damaged

    def keys(self, fits: Callable[[str], bool]) -> list[str]:
        """The keys that fit, ascending; also of records that are deleted and not yet swept."""
        confirm_disk_store(self._root)
        with translated():
            return sorted(filter(fits, self.all_keys()))

    def all_keys(self) -> Iterator[str]:
        """Every key with a directory, in no order."""
        return keys_in(self._records)

    def directory(self, key: str) -> Path:
        """Where the key's revisions are."""
        return record_directory(self._records, key)

    def state(self, key: str) -> State:
        """What the key is now. Raises OSError, UnavailableError."""
        directory = self.directory(key)
        for _ in range(_ATTEMPTS):
            try:
                revisions = revisions_in(directory)
                if not revisions:
                    return State()
                present = revisions[-1]
                if self._is_decided(present):
                    # Though its writer may have died: an answer without it could be taken back.
                    self.complete(directory, present)
                    continue
                return self._said_by(directory, present)
            except FileNotFoundError:
                if not directory.exists():
                    return State()
                continue  # changed since the directory was read
        msg = "the record changes too often to be read"
        raise UnavailableError(msg)

    def _said_by(self, directory: Path, present: Revision) -> State:
        try:
            header, value = decode_record(read_file(directory / present.name))
        except CorruptError as damage:
            return State() if present.mark == "!" else State(present, live=True, damage=damage)
        if present.mark == "!":
            return State()
        expired = header.expires_at is not None and header.expires_at <= self._clock()
        return State(present, header, value, live=not (header.deleted or expired))

    # One change

    def change(self, change: FileChange) -> int:
        """Make it, and return the new revision. Raises ConflictError, and as `check` does."""
        key, directory = change.key, self.directory(change.key)
        with translated():
            self.complete_claims(directory)
            state = self.state(key)
            self.check(change, state)
            if state.file is not None:
                return self.succeed(key, state.file, change.content)
            if change.header.deleted:
                confirm_disk_store(self._root)
                return 0
            revision = self.first_revision()
            self.publish(key, {str(revision): change.content})
            sync_change(self._files, directory.parent)
            return revision

    def check(self, change: FileChange, state: State) -> None:
        """Raises ConflictError unless ``state`` is what the change expects.

        Raises CorruptError where nobody can tell. What expects nothing mends what is damaged.
        """
        if change.expected is None:
            return
        if state.damage is not None:
            raise state.damage
        if state.revision != change.expected:
            confirm_disk_store(self._root)
            raise _conflict(change.key)

    def first_revision(self) -> int:
        """What a new record begins with: higher than any that the key had before."""
        return int(self._clock().timestamp() * 1_000_000)

    def publish(self, key: str, contents: Mapping[str, bytes]) -> None:
        """Make the record's directory with these files. Raises ConflictError if there is one."""
        directory = self.directory(key)
        for parent in reversed(directory.relative_to(self._records).parents[:-1]):
            ensure_directory(self._files, self._records / parent)
        prepared = self._root / "tmp" / self._new_id()
        self._files.mkdir(prepared)
        try:
            for name, content in contents.items():
                write_file(self._files, prepared / name, [content])
            self._files.sync_directory(prepared)
            self._files.rename(prepared, directory)
        except OSError as error:
            with suppress(OSError):
                remove_directory(self._files, prepared)
            if error.errno in _TAKEN:
                raise _conflict(key) from error
            raise

    def succeed(self, key: str, present: Revision, content: bytes) -> int:
        """Claim the present revision, and put another in its place. Raises ConflictError."""
        directory = self.directory(key)
        if present.mark == "@":
            present = self.take_from_batch(key, present)
        claim = self._new_id()
        write_file(self._files, directory / f"+{claim}", [content])
        self._files.sync_directory(directory)
        claimed = Revision(present.number, "+", claim, f"{present.number}+{claim}")
        try:
            self._files.rename(directory / present.name, directory / claimed.name)
        except FileNotFoundError as error:
            with suppress(OSError):
                self._files.unlink(directory / f"+{claim}")
            raise _conflict(key) from error
        except OSError as error:
            raise unknown_outcome() from error
        try:
            self.complete(directory, claimed)
            self._files.sync_directory(directory)
        except OSError as error:  # the claim stands, so whoever comes next will complete it
            raise unknown_outcome() from error
        return present.number + 1

    def take_from_batch(self, key: str, claimed: Revision) -> Revision:
        """Wait for the batch that has claimed the revision, then decide against it.

        Raises ConflictError if it is committed.
        """
        for _ in range(PATIENCE_STEPS):
            if self.journal.verdict(claimed.claim) is not Verdict.PENDING:
                break
            time.sleep(PATIENCE_STEP_SECONDS)
        if not self.journal.abort(claimed.claim):
            raise _conflict(key)
        return self.release(self.directory(key), claimed)

    # What others have left to do. Nothing here can be done twice.

    def _is_decided(self, revision: Revision) -> bool:
        """Whether it is claimed for good, and durably."""
        if revision.mark != "@":
            return revision.mark == "+"
        if self.journal.verdict(revision.claim) is not Verdict.COMMITTED:
            return False
        self.journal.confirm()
        return True

    def complete_claims(self, directory: Path) -> None:
        """Do what a writer that died has left to do."""
        with suppress(FileNotFoundError):
            revisions = revisions_in(directory)
            for revision in revisions:
                if self._is_decided(revision):
                    self.complete(directory, revision)
                elif revision.mark == "@":
                    if self.journal.verdict(revision.claim) is Verdict.ABORTED:
                        self.release(directory, revision)
                elif revision.mark == "!":
                    self._bury(directory, revision)
                elif revision.number < max(other.number for other in revisions):
                    with suppress(FileNotFoundError):
                        self._files.unlink(directory / revision.name)

    def complete(self, directory: Path, claimed: Revision) -> None:
        """Put the successor in the place of a revision that is claimed for good."""
        prepared = directory / f"{claimed.mark}{claimed.claim}"
        with suppress(FileNotFoundError):  # somebody else did it
            self._files.rename(prepared, directory / str(claimed.number + 1))
        with suppress(FileNotFoundError):
            self._files.unlink(directory / claimed.name)

    def release(self, directory: Path, claimed: Revision) -> Revision:
        """Undo the claim of an aborted batch; the revision as it is then."""
        released = Revision(claimed.number, "", "", str(claimed.number))
        with suppress(FileNotFoundError):
            self._files.rename(directory / claimed.name, directory / released.name)
        with suppress(FileNotFoundError):
            self._files.unlink(directory / f"@{claimed.claim}")
        return released

    def _bury(self, directory: Path, grave: Revision) -> None:
        with suppress(FileNotFoundError):
            self._files.unlink(directory / grave.name)
        with suppress(OSError):  # not empty: a new record is there already
            self._files.rmdir(directory)


def _conflict(key: str) -> ConflictError:
    return ConflictError(f"record {key} is not at the expected revision")


def unknown_outcome() -> OutcomeUnknownError:
    """A step failed after which the change may have been decided."""
    return OutcomeUnknownError("the disk did not confirm the change")
