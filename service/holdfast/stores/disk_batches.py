"""The journal of batches on disk: one rename decides about many records.

A batch is the file ``batches/<id>`` with the keys it changes. Its writer claims each record by
renaming revision ``5`` to ``5@<id>``, with the successor beside it as ``@<id>``; then it renames
the journal to ``<id>+``, and that is the decision. Until then a claimed record is what it was.
Whoever wants to change one of them meanwhile waits half a second at most: then it renames the
journal to ``<id>-``, which the writer finds when it comes to decide, and begins anew. Of the two
renames one succeeds.

The journal goes once all its records show what it decided. A claim without one was given up.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.errors import CorruptError
from holdfast.stores.disk_files import ensure_directory, entries_before, read_file, write_file
from holdfast.stores.disk_format import RecordHeader, decode_record, encode_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from holdfast.stores.disk_files import Files

DIRECTORY: Final = "batches"
_COMMITTED: Final = "+"
_ABORTED: Final = "-"


class Verdict(Enum):
    """What is decided about a batch."""

    PENDING = "pending"
    COMMITTED = "committed"
    ABORTED = "aborted, or never heard of"


class BatchJournal:
    """The journals under one root. Every method blocks, and raises OSError."""

    def __init__(self, root: Path, files: Files, new_id: Callable[[], str]) -> None:
        self._directory = root / DIRECTORY
        self._files = files
        self._new_id = new_id
        self._made = False

    def begin(self, keys: Sequence[str]) -> str:
        """A new batch that is about to change ``keys``. It is durable when this returns."""
        if not self._made:
            ensure_directory(self._files, self._directory)
            self._made = True
        batch = self._new_id()
        content = encode_record(RecordHeader(key=batch), msgspec.json.encode(keys))
        write_file(self._files, self._directory / batch, [content])
        self._files.sync_directory(self._directory)
        return batch

    def verdict(self, batch: str) -> Verdict:
        """What is decided now. Only what is pending can change."""
        if (self._directory / batch).exists():
            return Verdict.PENDING
        if (self._directory / (batch + _COMMITTED)).exists():
            return Verdict.COMMITTED
        return Verdict.ABORTED

    def commit(self, batch: str) -> bool:
        """Decide for the batch; whether that succeeded. `confirm` makes it durable."""
        return self._decide(batch, _COMMITTED)

    def abort(self, batch: str) -> bool:
        """Decide against the batch; whether it is aborted now."""
        return self._decide(batch, _ABORTED) or self.verdict(batch) is Verdict.ABORTED

    def confirm(self) -> None:
        """Make decisions durable. To be called before anything is done that follows from one."""
        self._files.sync_directory(self._directory)

    def forget(self, batch: str) -> None:
        """Remove the journal: its records, durably, show what it decided, or it was aborted."""
        for mark in (_COMMITTED, _ABORTED):
            path = self._directory / (batch + mark)
            if path.exists():
                with suppress(FileNotFoundError):  # somebody else did it
                    self._files.unlink(path)

    def left_before(self, before: float) -> Iterator[tuple[str, list[str]]]:
        """Batches begun before that time (seconds since 1970), and the keys they change.

        A pending one that cannot be read was not finished, so that no claim followed it.
        """
        if not self._directory.exists():
            return
        for path in sorted(entries_before(self._directory, before)):
            try:
                keys = msgspec.json.decode(decode_record(read_file(path))[1], type=list[str])
            except FileNotFoundError:
                continue
            except (CorruptError, msgspec.MsgspecError):
                if path.name.endswith(_COMMITTED):
                    continue  # damaged since: what it decided must not be forgotten
                keys = []
            yield path.name.rstrip(_COMMITTED + _ABORTED), keys

    def _decide(self, batch: str, mark: str) -> bool:
        try:
            self._files.rename(self._directory / batch, self._directory / (batch + mark))
        except FileNotFoundError:
            return False
        return True
