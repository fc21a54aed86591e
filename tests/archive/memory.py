"""Packs in memory: the plainest reading of the port's contract."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import CorruptError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.archive.ports import Pack


class MemoryPackStore:
    """Implements ``ports.PackStore``. What was put is there at once.

    ``packs`` may be looked at and changed by whoever owns the store.
    """

    def __init__(self) -> None:
        """Holds nothing."""
        self.packs: dict[Digest, bytes] = {}
        self._lock = threading.Lock()

    def get(self, digest: Digest) -> Pack:
        """See ``ports.PackStore``."""
        with self._lock:
            data = self.packs.get(digest)
        if data is None:
            msg = f"pack {digest} is not stored"
            raise NotFoundError(msg)
        if digest_of(data) != digest:
            msg = f"pack {digest} does not match its digest"
            raise CorruptError(msg)
        return data

    def get_latest(self, digest: Digest) -> Pack:
        """See ``ports.PackStore``."""
        return self.get(digest)

    def prefetch(self, digests: Sequence[Digest]) -> None:
        """Nothing is faster than it is."""

    def put(self, digest: Digest, data: bytes) -> None:
        """See ``ports.PackStore``."""
        with self._lock:
            self.packs.setdefault(digest, bytes(data))

    def flush(self) -> None:
        """Everything is there already."""
