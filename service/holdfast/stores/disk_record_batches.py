"""Several records on disk changed at once: claimed one by one, decided about by one rename.

How a batch is decided, and by whom, is told in ``disk_batches``; here is what is done about it.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Final

from holdfast.errors import ConflictError, HoldfastError, UnavailableError
from holdfast.stores.disk_files import translated, write_file
from holdfast.stores.disk_format import RecordHeader, encode_record
from holdfast.stores.disk_record_files import unknown_outcome
from holdfast.stores.disk_revisions import revisions_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.stores.disk_files import Files
    from holdfast.stores.disk_record_files import RecordFiles
    from holdfast.stores.disk_revisions import FileChange

_ATTEMPTS: Final = 64


class _AbortedError(Exception):
    """Somebody decided against a batch that was under way."""


class RecordBatches:
    """Batches under the root of ``records``. They block, and may be begun from any thread."""

    def __init__(self, records: RecordFiles, files: Files) -> None:
        self._records = records
        self._journal = records.journal
        self._files = files
        self._batching = Lock()  # in one process, batches need not meet each other

    def batch(self, changes: Sequence[FileChange]) -> list[int]:
        """Make all or none, and return the new revisions, 0 of a removal. Raises ConflictError."""
        with self._batching:
            for _ in range(_ATTEMPTS):
                try:
                    return self._batch(changes)
                except _AbortedError:
                    continue
        msg = "the records change too often to be changed together"
        raise UnavailableError(msg)

    def _batch(self, changes: Sequence[FileChange]) -> list[int]:
        with translated():
            for change in changes:  # so that the usual refusal leaves nothing to clean up
                self._records.check(change, self._records.state(change.key))
            batch = self._journal.begin([change.key for change in changes])
        try:
            with translated():
                # In one order, so that of two batches that share records one waits for the other.
                ordered = sorted(changes, key=lambda change: change.key)
                revisions = {change.key: self._claim(batch, change) for change in ordered}
        except HoldfastError:
            self._give_up(batch, changes)
            raise
        try:
            committed = self._journal.commit(batch)
            if committed:
                self._journal.confirm()
        except OSError as error:
            raise unknown_outcome() from error
        if not committed:
            self._give_up(batch, changes)
            raise _AbortedError
        with suppress(OSError):  # decided: whoever comes next will complete it
            self.complete(batch, [change.key for change in changes])
        return [revisions[change.key] for change in changes]

    def _claim(self, batch: str, change: FileChange) -> int:
        """Claim the record for the batch, durably; its revision if the batch is committed."""
        directory = self._records.directory(change.key)
        for _ in range(_ATTEMPTS):
            self._records.complete_claims(directory)
            state = self._records.state(change.key)
            self._records.check(change, state)
            if change.header.deleted and not state.live:
                return 0
            present = state.file
            if present is None:
                with suppress(ConflictError):
                    return self._create_claimed(batch, change)
                continue
            if present.mark == "@":
                with suppress(ConflictError):
                    self._records.take_from_batch(change.key, present)
                continue
            write_file(self._files, directory / f"@{batch}", [change.content])
            try:
                name = f"{present.number}@{batch}"
                self._files.rename(directory / present.name, directory / name)
            except FileNotFoundError:
                self._files.unlink(directory / f"@{batch}")
                continue
            self._files.sync_directory(directory)
            return 0 if change.header.deleted else present.number + 1
        msg = "the record changes too often to be changed"
        raise UnavailableError(msg)

    def _create_claimed(self, batch: str, change: FileChange) -> int:
        nothing = encode_record(RecordHeader(key=change.key, deleted=True), b"")
        revision = self._records.first_revision()
        contents = {f"{revision}@{batch}": nothing, f"@{batch}": change.content}
        self._records.publish(change.key, contents)
        self._files.sync_directory(self._records.directory(change.key).parent)
        return revision + 1

    def _give_up(self, batch: str, changes: Sequence[FileChange]) -> None:
        with suppress(OSError):  # the claims stay, and mean nothing
            if self._journal.abort(batch):
                self.release(batch, [change.key for change in changes])

    def complete(self, batch: str, keys: Sequence[str]) -> None:
        """Do what is left of a batch whose commitment is durable, and forget its journal."""
        for key in keys:
            directory = self._records.directory(key)
            with suppress(FileNotFoundError):
                for revision in revisions_in(directory):
                    if revision.claim == batch:
                        self._records.complete(directory, revision)
                self._files.sync_directory(directory)
        self._journal.forget(batch)

    def release(self, batch: str, keys: Sequence[str]) -> None:
        """Undo the claims of an aborted batch, and forget its journal."""
        for key in keys:
            directory = self._records.directory(key)
            with suppress(FileNotFoundError):
                for revision in revisions_in(directory):
                    if revision.claim == batch:
                        self._records.release(directory, revision)
        self._journal.forget(batch)
