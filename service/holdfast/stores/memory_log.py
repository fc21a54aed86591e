"""The parts of stores in memory: blobs, and the last change of each in the order of changes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Final, Literal

from holdfast.domain.digest import digest_of
from holdfast.domain.kept import reduced
from holdfast.errors import CorruptError, UnavailableError
from holdfast.stores.ports import BlobChanged, BlobChanges, SurveyedBlob, reduced_info
from holdfast.stores.record_ports import Extent

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.domain.digest import Digest
    from holdfast.domain.kept import Ranges
    from holdfast.stores.ports import BlobInfo

NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The time of changes in memory where no clock is given."""

_logs: Final = count(1)


class Reachable:
    """Can be cut off. Each operation yields once, so that racing callers do interleave."""

    def __init__(self) -> None:
        self.reachable = True

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if not self.reachable:
            raise UnavailableError("the memory store is cut off")

    async def check(self) -> None:
        """Raises UnavailableError when the store is cut off."""
        await self._reach()

    async def aclose(self) -> None:
        """Nothing is held open; the bytes stay as long as the object does."""


@dataclass(slots=True)
class MemoryBlob:
    """A blob, with the id of the request that made it."""

    info: BlobInfo
    data: bytes
    op_id: str | None

    @property
    def is_intact(self) -> bool:
        """Whether the bytes can be read back, as far as anybody knows."""
        return not self.info.damaged and digest_of(self.data) == self.info.stored_digest

    @property
    def is_whole(self) -> bool:
        """Whether that is all of it."""
        return self.info.kept is None

    @property
    def checked(self) -> bytes:
        """The stored bytes. Raises CorruptError."""
        if digest_of(self.data) != self.info.stored_digest:
            msg = f"the stored bytes of blob {self.info.digest} do not match their digest"
            raise CorruptError(msg)
        return self.data

    def reduced(self, needed: Ranges, generation: str) -> MemoryBlob:
        """The same with only ``needed`` of its bytes. Raises CorruptError."""
        data, kept = reduced(self.checked, self.info.kept, needed)
        return MemoryBlob(reduced_info(self.info, kept, generation), data, self.op_id)


class MemoryLog:
    """The log of one store. A deletion is remembered for ever."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._created = f"memory log {next(_logs)}"
        self._last = 0
        self._notes: dict[Digest, BlobChanged] = {}  # in ascending order of the revisions

    @property
    def extent(self) -> Extent:
        """See `BlobStore.extent`."""
        return Extent(created=self._created, last=self._last, keys=len(self._notes))

    def note(
        self, digest: Digest, info: BlobInfo | None, kind: Literal["put", "deleted", "changed"]
    ) -> None:
        """The blob has changed: it is as ``info`` now."""
        self._last += 1
        former = self._notes.pop(digest, None)
        put_at = former.put_at if former is not None and kind == "changed" else self._last
        self._notes[digest] = BlobChanged(
            digest=digest,
            revision=self._last,
            put_at=put_at,
            at=self._clock(),
            info=info,
            kind=kind,
        )

    def revision(self, digest: Digest) -> int:
        """The blob's last revision; 0 of one that never was."""
        note = self._notes.get(digest)
        return note.revision if note is not None else 0

    def surveyed(self, info: BlobInfo) -> SurveyedBlob:
        """The blob of ``info``, which is there, as a survey meets it."""
        last = self._notes[info.digest]
        return SurveyedBlob.of(info, seen_at=last.at, mark=str(last.revision))

    def page(self, after: int, limit: int) -> BlobChanges:
        """See `BlobStore.changes`."""
        behind = [note for note in self._notes.values() if note.revision > after]
        page = [_told(note, after) for note in behind[:limit]]
        is_end = len(page) == len(behind)
        position = max(after, self._last) if is_end else page[-1].revision
        return BlobChanges(changes=page, position=position, is_end=is_end)


def _told(note: BlobChanged, after: int) -> BlobChanged:
    """The change for a reader up to ``after``, which may not know of the put before it."""
    is_new = note.kind == "changed" and note.put_at > after
    return replace(note, kind="put") if is_new else note
