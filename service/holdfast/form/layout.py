"""The division of a tree into pages, runs and frames, by metadata alone.

Cuts depend on what is at the cut and not on what came before it, so that a change in one place
moves no boundary elsewhere: the rest of the archive stays the bytes it was. The parent snapshot's
data can then be reused without reading it.

A run is consecutive members whose tar bytes share one frame. A file of ``OWN_FRAME_BYTES`` or more
lies outside: its header ends the run, and its data with padding is a frame, or several from
``CHUNKED_BYTES`` on. A page is whole runs.

Why: docs/decisions.md, "Pages are cut by path, and by weight", "Runs of 4 KiB", and "Chunks of at
most 832 KiB".
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from holdfast.domain.limits import KIB, MIB
from holdfast.form.sparse import padding

if TYPE_CHECKING:
    from collections.abc import Iterable

MIN_RUN_BYTES: Final = 4 * KIB
TYPICAL_RUN_BYTES: Final = 4 * KIB
"""Beyond the least. Longer runs compress a little better, but one changed file stores all of its
run again: of 16 KiB each, 1 % of files changed cost 70 % more, and saved 1 % of the first snapshot.
"""

MAX_RUN_BYTES: Final = 16 * KIB
"""A run has more only if one member alone does."""

OWN_FRAME_BYTES: Final = 16 * KIB
CHUNKED_BYTES: Final = 512 * KIB
MIN_CHUNK_BYTES: Final = 256 * KIB
TYPICAL_CHUNK_BYTES: Final = 512 * KIB
MAX_CHUNK_BYTES: Final = 832 * KIB
"""So that even incompressible chunks with padding fit into a pack."""

MAX_FRAME_BYTES: Final = 864 * KIB
"""Of raw bytes, whatever the frame holds. Compressed at worst, it still fits into a pack."""

MIN_PAGE_WEIGHT: Final = 128
TYPICAL_PAGE_WEIGHT: Final = 1024
MAX_PAGE_WEIGHT: Final = 4096
_WEIGHT_UNIT_BYTES: Final = 1 * MIB

_PAGE_SEED: Final = 0x70616765
"""Makes cuts of pages independent of those of runs."""

_HASHES: Final = 2**32


def has_own_frame(data_size: int) -> bool:
    """Whether ``data_size`` bytes of file data (of a sparse file: as stored) lie outside runs."""
    return data_size >= OWN_FRAME_BYTES


def cuts_run(path: bytes, member_bytes: int, run_bytes: int) -> bool:
    """Whether a new run begins before a member that adds ``member_bytes`` to ``run_bytes``.

    The larger a member, the likelier: one cut in TYPICAL_RUN_BYTES on average.
    """
    if run_bytes + member_bytes > MAX_RUN_BYTES:
        return run_bytes > 0
    return (
        run_bytes >= MIN_RUN_BYTES and zlib.crc32(path) * TYPICAL_RUN_BYTES < member_bytes * _HASHES
    )


def plan_run(members: Iterable[tuple[bytes, int, int]]) -> tuple[int, int]:
    """The count of ``members`` in the run that the first one begins, and its raw bytes.

    Each is its path, the size of its header, and that of its data without padding, which is 0 for
    all but files. No more members are asked for than it takes to find the end.
    """
    count = run_bytes = 0
    for path, header_size, data_size in members:
        is_own = data_size >= OWN_FRAME_BYTES
        added = header_size if is_own else header_size + data_size + padding(data_size)
        if cuts_run(path, added, run_bytes):
            break
        run_bytes += added
        count += 1
        if is_own:
            break
    return count, run_bytes


def page_weight(data_size: int) -> int:
    """The weight in its page of a member with so much stored data: 1, and 1 more for each MiB.

    A page of large files would otherwise list millions of frames.
    """
    return 1 + data_size // _WEIGHT_UNIT_BYTES


def cuts_page(path: bytes, member_weight: int, weight: int) -> bool:
    """Whether a new page begins before a member, when those since the last cut weigh ``weight``."""
    if weight + member_weight > MAX_PAGE_WEIGHT:
        return weight > 0
    return (
        weight >= MIN_PAGE_WEIGHT
        and zlib.crc32(path, _PAGE_SEED) * TYPICAL_PAGE_WEIGHT < member_weight * _HASHES
    )
