"""The directory trees that are backed up: a copy that may be changed, and changes drawn by seed.

The same seed on the same tree changes the same bytes, so every contender meets the same work.
"""

from __future__ import annotations

import os
import random
import stat
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from holdfast.cli.bench.snapshots import walk
from holdfast.domain.limits import KIB, MIB
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from pathlib import Path

CHANGED_EVERY: Final = 100
"""One file in so many is changed: a scattered one per cent of the files."""

LEAST_CHANGED_BYTES: Final = 16
MOST_CHANGED_BYTES: Final = 64

CHANGED_BLOCK_BYTES: Final = 64 * KIB
"""The unit that is overwritten in the one big file: an aligned, contiguous block."""

CHANGED_BLOCKS_EVERY: Final = 100
_MID_SIZED_BYTES: Final = 32 * KIB


class Change(Struct, frozen=True, kw_only=True):
    """A change: in so many places (files, or blocks of one), so many bytes."""

    places: int
    size: int


def warm(tree: Path) -> None:
    """Read every file once: all contenders find the tree in the page cache."""
    for path in regular_files(tree):
        with path.open("rb", buffering=0) as file:
            while file.read(MIB):
                pass


def regular_files(tree: Path) -> list[Path]:
    """Regular files that are not empty, in the order of their paths."""
    return sorted(
        path for path, status in walk(tree) if stat.S_ISREG(status.st_mode) and status.st_size
    )


def scatter_change(tree: Path, *, seed: int, every: int = CHANGED_EVERY) -> Change:
    """Overwrite 16 to 64 bytes in the middle of one file in ``every``, in place.

    Which one of each ``every`` and with what is drawn from ``seed``. A file keeps its size, and
    its new bytes are not those it had.
    """
    rng = random.Random(seed)  # noqa: S311  (to be repeatable, not secret)
    files = regular_files(tree)
    size = places = 0
    for first in range(0, len(files), every):
        path = rng.choice(files[first : first + every])
        places += 1
        size += _overwrite_middle(path, rng.randint(LEAST_CHANGED_BYTES, MOST_CHANGED_BYTES), rng)
    return Change(places=places, size=size)


def _overwrite_middle(path: Path, wanted: int, rng: random.Random) -> int:
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, (size - wanted) // 2)
        file.seek(start)
        old = file.read(wanted)
        new = rng.randbytes(len(old))
        file.seek(start)
        file.write(new if new != old else bytes(byte ^ 1 for byte in old))
    return len(old)


def mid_file(tree: Path) -> Path:
    """A file of middling size in the middle of ``tree``, relative to it. Raises InvalidError.

    Of the middle tenth of all files by path, the one nearest to 32 KiB.
    """
    files = regular_files(tree)
    if not files:
        raise InvalidError(f"{tree} has no file that is not empty")
    middle = files[len(files) * 9 // 20 : len(files) * 11 // 20 + 1]
    nearest = min(middle, key=lambda path: abs(path.stat().st_size - _MID_SIZED_BYTES))
    return nearest.relative_to(tree)


def write_large_file(path: Path, size: int, *, seed: int) -> None:
    """A file of ``size`` random bytes that nothing can compress."""
    rng = random.Random(seed)  # noqa: S311
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            file.write(rng.randbytes(min(MIB, size - start)))


def change_blocks(
    path: Path, *, seed: int, block: int = CHANGED_BLOCK_BYTES, every: int = CHANGED_BLOCKS_EVERY
) -> Change:
    """Overwrite one aligned ``block`` in ``every`` with random bytes, in place; at least one."""
    rng = random.Random(seed)  # noqa: S311
    blocks = max(1, path.stat().st_size // block)
    size = places = 0
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        for first in range(0, blocks, every):
            start = rng.randrange(first, min(first + every, blocks)) * block
            length = min(block, end - start)
            file.seek(start)
            file.write(rng.randbytes(length))
            places += 1
            size += length
    return Change(places=places, size=size)


def allocated_bytes(tree: Path) -> int:
    """The sizes of all regular files below ``tree``: what a repository holds."""
    return sum(status.st_size for _, status in walk(tree) if stat.S_ISREG(status.st_mode))
