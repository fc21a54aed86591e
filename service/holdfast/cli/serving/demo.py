"""The demonstration of ``holdfast up --demo``: real files in, and out again, compared.

Data that one worker stored is read back while only another runs: a client cannot choose which
worker of a pool answers it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from holdfast.cli.base.output import as_total, human_bytes, progress_bar, say
from holdfast.client.many import in_order, weight_of
from holdfast.domain.limits import MIB
from holdfast.errors import InvalidError
from holdfast.runtime.escapes import escape_control

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from holdfast.client import Client

SKIPPED_DIRECTORIES: Final = frozenset({".git", ".venv", ".holdfast"})
_SMALL_BYTES: Final = MIB
_NAMED_AT_MOST: Final = 5


@dataclass(kw_only=True)
class Demo:
    """Files stored and read back. ``skipped`` counts by reason."""

    digests: dict[Path, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    deduplicated: int = 0
    verified: int = 0
    wrong: list[Path] = field(default_factory=list)
    put_seconds: float = 0
    get_seconds: float = 0

    @property
    def succeeded(self) -> bool:
        """Whether something was stored, and all of it came back."""
        return bool(self.digests) and not self.wrong


def find_files(roots: Iterable[Path], *, besides: Path, skipped: Counter[str]) -> Iterator[Path]:
    """The regular files under ``roots``, sorted.

    Leaves out ``besides`` and the ``SKIPPED_DIRECTORIES``. Links below a root are not followed:
    they, special files and what cannot be read are counted in ``skipped``. Raises InvalidError for
    a root that does not exist.
    """
    for root in roots:
        if not root.exists():
            raise InvalidError(f"there is no {root}")
        candidates = _walk(root.resolve(), besides, skipped) if root.is_dir() else (root.resolve(),)
        for path in candidates:
            reason = _reason_to_skip(path)
            if reason is None:
                yield path
            else:
                skipped[reason] += 1


def _walk(root: Path, besides: Path, skipped: Counter[str]) -> Iterator[Path]:
    def unreadable(_error: OSError) -> None:
        skipped["unreadable"] += 1

    for folder, folders, names in os.walk(root, onerror=unreadable):
        here = Path(folder)
        yield from (here / name for name in folders if (here / name).is_symlink())
        folders[:] = sorted(
            name for name in folders if name not in SKIPPED_DIRECTORIES and here / name != besides
        )
        yield from (here / name for name in sorted(names))


def _reason_to_skip(path: Path) -> str | None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return "unreadable"
    if stat.S_ISLNK(mode):
        return "symbolic link"
    if not stat.S_ISREG(mode):
        return "special file"
    return None if os.access(path, os.R_OK) else "unreadable"


async def put_files(client: Client, files: list[Path], demo: Demo) -> None:
    """Store ``files``, several at once. One that has become unreadable is skipped."""
    total = sum(path.stat().st_size for path in files)
    with progress_bar(f"put {len(files)} files", total) as advance:

        async def put(path: Path) -> None:
            try:
                stored = await client.put(path, progress=as_total(advance))
            except OSError:
                demo.skipped["unreadable"] += 1
                return
            demo.digests[path] = stored.digest
            demo.bytes += stored.size
            demo.deduplicated += not stored.created

        started = time.monotonic()
        await _for_each(files, put)
        demo.put_seconds = time.monotonic() - started


async def read_back(client: Client, demo: Demo) -> None:
    """Read every blob, and compare it with its file, byte for byte."""
    with progress_bar(f"get {len(demo.digests)} files", demo.bytes) as advance:

        async def check(path: Path) -> None:
            same = await _is_same(client, demo.digests[path], path, advance)
            if same:
                demo.verified += 1
            elif _digest_of_file(path) != demo.digests[path]:
                demo.skipped["changed meanwhile"] += 1
            else:
                demo.wrong.append(path)

        started = time.monotonic()
        await _for_each(list(demo.digests), check)
        demo.get_seconds = time.monotonic() - started


async def _is_same(client: Client, digest: str, path: Path, advance: Callable[[int], None]) -> bool:
    with path.open("rb") as file:
        if _size_of(path) <= _SMALL_BYTES:
            data = await client.get(digest, progress=as_total(advance))
            return file.read() == data
        same = True
        async for piece in client.stream(digest, progress=as_total(advance)):
            same = same and file.read(len(piece)) == piece
        return same and not file.read(1)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _digest_of_file(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


async def _for_each(paths: list[Path], act: Callable[[Path], Awaitable[None]]) -> None:
    """Run ``act`` on all paths, many at a time. The first failure ends it."""
    async with aclosing(in_order(paths, act, weight_of)) as ended:
        async for _ in ended:
            pass


def report(demo: Demo) -> None:
    """Print the table, and what is not in it."""
    table = Table(
        title="Stored through one worker, read back through another", title_justify="left"
    )
    for heading in ("files", "bytes", "put", "get", "deduplicated", "verified"):
        table.add_column(heading, justify="right")
    table.add_row(
        f"{len(demo.digests):,}",
        human_bytes(demo.bytes),
        f"{_rate(demo.bytes, demo.put_seconds)} MB/s",
        f"{_rate(demo.bytes, demo.get_seconds)} MB/s",
        f"{demo.deduplicated:,}",
        f"{demo.verified:,}",
    )
    Console().print(table)
    for reason, count in sorted(demo.skipped.items()):
        if count:
            say(f"skipped: {count:,} {reason}")
    for path in demo.wrong[:_NAMED_AT_MOST]:
        say(f"not what was stored: {escape_control(str(path))}")


def _rate(size: int, seconds: float) -> str:
    return f"{size / 1e6 / seconds:.1f}" if seconds > 0 else "-"
