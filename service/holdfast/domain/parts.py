"""The order of an upload's parts: what to do with the next message, decided without waiting.

Parts come in order and are taken once. A repeat within the last window is answered again, if it
says the same; whatever else is out of order is a mistake of the sender.

Why: docs/decisions.md, "Repeated parts are compared by CRC-32".
"""

from __future__ import annotations

import hashlib
import zlib
from collections import deque
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest, check_expected
from holdfast.errors import ConflictError, InvalidError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Buffer

REMEMBERED_PARTS: Final = 128
"""Repeats further back than this are refused; a client's window is far smaller."""


class PartSequence:
    """Where an upload stands: how many parts and bytes, and the digest so far."""

    def __init__(self, part_size: int, max_bytes: int) -> None:
        """``part_size`` is the exact size of every part but the last."""
        self.part_size = part_size
        self.count = 0
        self.size = 0
        self._max_bytes = max_bytes
        self._sha256 = hashlib.sha256()
        self._recent: deque[tuple[int, int]] = deque(maxlen=REMEMBERED_PARTS)

    @property
    def digest(self) -> Digest:
        """The digest of what was accepted."""
        return Digest(self._sha256.hexdigest())

    def accept(self, part: int, data: Buffer) -> bool:
        """Take ``data`` as part ``part``; False when it is a repeat that needs no storing.

        Raises InvalidError (out of order, wrong size), ConflictError (a repeat that differs),
        TooLargeError. Nothing is changed then.
        """
        size = memoryview(data).nbytes
        if part < self.count:
            self._check_repeat(part, data)
            return False
        if part > self.count:
            raise InvalidError(f"part {part} is out of order: part {self.count} is next")
        if not 0 < size <= self.part_size:
            raise InvalidError(f"a part has 1 to {self.part_size} bytes, not {size}")
        if self.size != self.count * self.part_size:
            raise InvalidError("a part follows one that was shorter than the part size")
        if self.size + size > self._max_bytes:
            raise TooLargeError(f"a blob has at most {self._max_bytes} bytes")
        self._sha256.update(data)
        self._recent.append(_mark(data))
        self.count += 1
        self.size += size
        return True

    def joined(self, part: int, tail: bytes, at: int, data: Buffer) -> bytes | None:
        """``tail``, the beginning of the next part, with ``data`` from byte ``at`` on.

        It is ``tail`` itself where that has the same bytes already, and None where part ``part`` is
        whole. Raises InvalidError (out of order, too long), ConflictError (a repeat that differs),
        TooLargeError.
        """
        if part < self.count:
            return None
        if part > self.count or at > len(tail) or self.size != self.count * self.part_size:
            raise InvalidError(f"the upload goes on at byte {len(tail)} of part {self.count}")
        told = bytes(data)
        known = tail[at : at + len(told)]
        if told[: len(known)] != known:
            raise ConflictError(f"bytes of part {part} were sent before with other values")
        if len(known) == len(told):
            return tail
        joined = tail[:at] + told
        if len(joined) > self.part_size:
            raise InvalidError(f"a part has at most {self.part_size} bytes, not {len(joined)}")
        if self.size + len(joined) > self._max_bytes:
            raise TooLargeError(f"a blob has at most {self._max_bytes} bytes")
        return joined

    def check_final(self, parts: int, *expected: Digest | None, size: int | None = None) -> None:
        """Whether the upload may end with ``parts`` parts.

        ``expected`` are the digests and ``size`` the size that the sender announced. Raises
        InvalidError.
        """
        if parts != self.count:
            raise InvalidError(f"the upload has {self.count} parts, not {parts}")
        if size is not None and size != self.size:
            raise InvalidError(f"the upload has {self.size} bytes, not the {size} announced")
        check_expected(self.digest, *expected)

    def _check_repeat(self, part: int, data: Buffer) -> None:
        back = self.count - part
        if back > len(self._recent):
            raise InvalidError(f"part {part} is out of order: part {self.count} is next")
        if self._recent[-back] != _mark(data):
            raise ConflictError(f"part {part} was sent before with other bytes")


def _mark(data: Buffer) -> tuple[int, int]:
    """Tells a part from an honest repeat of it; the digest of the whole decides in the end.

    CRC-32 runs at several GB/s here, five times as fast as any hash: it is on every part's way.
    """
    return memoryview(data).nbytes, zlib.crc32(data)
