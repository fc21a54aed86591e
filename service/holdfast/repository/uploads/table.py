"""The uploads that one worker owns, each with its share of the memory for windows.

Why: docs/decisions.md, "Windows in bytes, from a memory budget".
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from holdfast.domain.limits import UPLOAD_WINDOW_BYTES
from holdfast.errors import RateLimitedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.repository.uploads.owned import OwnedUpload, UploadLimits


class UploadTable(dict[str, "OwnedUpload"]):
    """Owned uploads by their ids, and windows of those about to be."""

    def __init__(self, limits: UploadLimits, *, part_size: int) -> None:
        """``part_size`` is the least that a window has."""
        super().__init__()
        self._limits = limits
        self._part_size = part_size
        self._coming: list[int] = []

    def drop(self, owned: OwnedUpload) -> None:
        """Own it no more. May be repeated."""
        if self.get(owned.id) is owned:
            del self[owned.id]

    @contextmanager
    def place(self, former: OwnedUpload | None = None) -> Iterator[int]:
        """The window of one more upload, which has its place from before anything is awaited.

        It comes instead of ``former``. A part of the memory is kept for each upload that may yet
        come. Raises RateLimitedError.
        """
        owned = [owned.window for owned in self.values() if owned is not former]
        taken = [*owned, *self._coming]
        free_places = self._limits.max_uploads - len(taken)
        free = self._limits.memory_bytes - sum(taken)
        if free_places < 1 or free < self._part_size:
            raise RateLimitedError("this worker has no room for another upload")
        spare = free - self._part_size * max(free_places - 1, 0)
        window = max(min(UPLOAD_WINDOW_BYTES, spare // 2), self._part_size)
        self._coming.append(window)
        try:
            yield window
        finally:
            self._coming.remove(window)
