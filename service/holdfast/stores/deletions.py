"""Requests that deleted blobs, while this process lives: a repeat is answered as the first was."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Final

from holdfast.domain.op_id import is_repeat, split_op_id

if TYPE_CHECKING:
    from holdfast.domain.digest import Digest

MAX_DELETIONS: Final = 65_536


class Deletions:
    """The last ones of this process, by their ``Op-Id``. It may be used from any thread."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._deletions: OrderedDict[tuple[str, Digest], str] = OrderedDict()

    def recall(self, digest: Digest, op_id: str | None) -> bool:
        """Whether a repeat of ``op_id`` deleted it. Raises ConflictError of another request."""
        if op_id is None:
            return False
        with self._guard:
            found = self._deletions.get((split_op_id(op_id)[0], digest))
        return is_repeat(found, op_id)

    def remember(self, digest: Digest, op_id: str | None) -> None:
        """The blob was deleted by ``op_id``, if it said who it was."""
        if op_id is None:
            return
        with self._guard:
            self._deletions[split_op_id(op_id)[0], digest] = op_id
            if len(self._deletions) > MAX_DELETIONS:
                self._deletions.popitem(last=False)
