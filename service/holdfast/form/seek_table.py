"""The seek table at the end of an exported archive, in zstd's seekable format 0.1.0.

Tools that know it find any byte of the tar without reading what is before it. For all others it
is a skippable frame, which zstd passes over.
"""

from __future__ import annotations

import sys
from array import array
from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

ROW_BYTES: Final = 8
FRAMING_BYTES: Final = 8 + 9
"""Of the skippable frame's header and of the table's footer."""

MAX_FRAMES: Final = 0x8000000
"""Frames that the format can list. An archive with more is exported without a table."""

_SKIPPABLE: Final = 0x184D2A5E
_SEEKABLE: Final = 0x8F92EAB1


def seek_table_size(frames: int) -> int:
    """The length of the table of ``frames`` frames."""
    return FRAMING_BYTES + ROW_BYTES * frames


def seek_header(frames: int) -> bytes:
    """The beginning of the table of ``frames`` frames (at most MAX_FRAMES)."""
    size = seek_table_size(frames) - 8
    return _SKIPPABLE.to_bytes(4, "little") + size.to_bytes(4, "little")


def seek_rows(sizes: Iterable[tuple[int, int]]) -> bytes:
    """The rows, ROW_BYTES each, of frames whose (stored, raw) sizes are ``sizes``.

    Without checksums: the format's would be no proof against anything.
    """
    rows = array("I", chain.from_iterable(sizes))
    if sys.byteorder != "little":  # pragma: no cover - the machine decides
        rows.byteswap()
    return rows.tobytes()


def seek_footer(frames: int) -> bytes:
    """The end of the table of ``frames`` frames."""
    return frames.to_bytes(4, "little") + b"\0" + _SEEKABLE.to_bytes(4, "little")


def seek_table(sizes: Iterable[tuple[int, int]]) -> bytes:
    """The whole table of frames whose (stored, raw) sizes are ``sizes``, at most MAX_FRAMES."""
    rows = seek_rows(sizes)
    frames = len(rows) // ROW_BYTES
    return seek_header(frames) + rows + seek_footer(frames)
