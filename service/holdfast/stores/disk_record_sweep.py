"""Removing for good what was deleted, expired or left by a crash, from the disk store's records."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from holdfast.errors import ConflictError
from holdfast.stores.disk_batches import Verdict
from holdfast.stores.disk_files import entries_before, remove_directory, translated
from holdfast.stores.disk_format import encode_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from holdfast.stores.disk_files import Files
    from holdfast.stores.disk_record_batches import RecordBatches
    from holdfast.stores.disk_record_files import RecordFiles


class RecordSweep:
    """The sweep of one root. It blocks, and may run beside any writer or another sweep."""

    def __init__(
        self,
        root: Path,
        records: RecordFiles,
        batches: RecordBatches,
        files: Files,
        new_id: Callable[[], str],
    ) -> None:
        self._root = root
        self._batches = batches
        self._records = records
        self._files = files
        self._new_id = new_id

    def sweep(self, before: datetime) -> int:
        """Remove what has been of no use since ``before``; how many."""
        removed = 0
        with translated():
            for path in entries_before(self._root / "tmp", before.timestamp()):
                with suppress(FileNotFoundError, NotADirectoryError):
                    remove_directory(self._files, path)
                    removed += 1
            removed += self._sweep_batches(before.timestamp())
            for key in sorted(self._records.all_keys()):
                removed += self._sweep_key(key, before)
        return removed

    def _sweep_batches(self, before: float) -> int:
        """Bring to an end what its writer, which began it long ago, has not."""
        journal = self._records.journal
        removed = 0
        for batch, keys in journal.left_before(before):
            if journal.abort(batch):
                self._batches.release(batch, keys)
            else:
                journal.confirm()
                self._batches.complete(batch, keys)
            removed += 1
        return removed

    def _sweep_key(self, key: str, before: datetime) -> int:
        directory = self._records.directory(key)
        self._records.complete_claims(directory)
        removed = self._sweep_prepared(key, before.timestamp())
        state = self._records.state(key)
        if state.file is None or state.header is None or state.live or state.file.mark:
            return removed
        path = directory / state.file.name
        with suppress(FileNotFoundError):
            gone_since = state.header.expires_at or _changed_at(path, before)
            if gone_since < before:
                grave = f"{state.file.number}!{self._new_id()}"
                self._files.rename(path, directory / grave)
                self._records.complete_claims(directory)
                removed += 1
        return removed

    def _sweep_prepared(self, key: str, before: float) -> int:
        """Remove successors that no writer came to claim for."""
        directory = self._records.directory(key)
        with suppress(FileNotFoundError):
            left = entries_before(directory, before)
            prepared = [path for path in left if path.name[0] == "+"]
            of_batches = [path for path in left if self._was_for_no_batch(path)]
            if not prepared:
                return self._unlink(of_batches)
            state = self._records.state(key)
            if state.file is not None and state.file.mark:
                return 0  # a batch is at work; it will be gone, or older, the next time
            if state.damage is not None:
                return 0  # it cannot move on; whoever overwrites it does that
            if state.file is not None and state.header is not None:
                # Their writers may only be slow. Once the revision has moved on they cannot claim.
                try:
                    self._records.succeed(key, state.file, encode_record(state.header, state.value))
                except ConflictError:
                    return 0  # one of them may have claimed it just now
            removed = self._unlink(prepared + of_batches)
            if state.file is None:
                with suppress(OSError):  # not empty: somebody is at work in it
                    self._files.rmdir(directory)
            return removed
        return 0

    def _was_for_no_batch(self, path: Path) -> bool:
        """Whether it is the successor that an aborted batch had in mind."""
        if path.name[0] != "@":
            return False
        return self._records.journal.verdict(path.name[1:]) is Verdict.ABORTED

    def _unlink(self, paths: Sequence[Path]) -> int:
        for path in paths:
            self._files.unlink(path)
        return len(paths)


def _changed_at(path: Path, like: datetime) -> datetime:
    return type(like).fromtimestamp(path.lstat().st_mtime, tz=like.tzinfo)
