"""A restore's options, limits and report."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.archive.restore.owners import Owners, Privileges
from holdfast.domain.limits import GIB, MAX_BLOB_BYTES
from holdfast.errors import InvalidError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Sized

    from holdfast.form.manifest import Page
    from holdfast.form.terms import EntryChange, EntryWarning, RestoreMode


DEFAULT_THREADS: Final = 2
"""Threads that write. More of them wait for each other in Python and in the file system."""

SPECIAL_BITS: Final = stat.S_ISUID | stat.S_ISGID

MAX_PLANNED: Final = 1000
"""Lines that are kept of what a dry run would do. More are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreLimits:
    """Limits of a snapshot for the machine that restores it. Exceeding one is TooLargeError.

    ``total_bytes`` are what is written, without holes; ``file_bytes`` one file's apparent size.
    ``expansion`` is how many times as much as is stored may be written; it counts beyond
    ``expansion_free_bytes``, for a file of zeros compresses very well. ``path_bytes`` and
    ``depth`` are those of one path.
    """

    entries: int = 50_000_000
    total_bytes: int = MAX_BLOB_BYTES
    file_bytes: int = MAX_BLOB_BYTES
    path_bytes: int = 4096
    depth: int = 2048
    expansion: int = 1000
    expansion_free_bytes: int = 64 * GIB

    def check_totals(self, entries: int, size_bytes: int) -> None:
        """Raises TooLargeError for so many entries, or so many bytes to write."""
        _check("entries", entries, self.entries)
        _check("total_bytes", size_bytes, self.total_bytes)

    def check_expansion(self, size_bytes: int, stored_bytes: int) -> None:
        """Raises TooLargeError when ``size_bytes`` to write come of ``stored_bytes``."""
        allowed = self.expansion_free_bytes + self.expansion * stored_bytes
        _check("expansion (bytes for what is stored; max_expansion raises it)", size_bytes, allowed)

    def check_page(self, page: Page) -> None:
        """Raises TooLargeError for one entry of a page."""
        _check("file_bytes", max(page.sizes), self.file_bytes)
        longest = max(map(len, page.paths))
        _check("path_bytes", longest, self.path_bytes)
        if longest > self.depth:
            _check("depth", max([path.count(b"/") for path in page.paths]) + 1, self.depth)


def _check(name: str, value: int, limit: int) -> None:
    if value > limit:
        msg = f"the snapshot exceeds the limit of a restore on {name}: {value:,} > {limit:,}"
        raise TooLargeError(msg)


DEFAULT_LIMITS: Final = RestoreLimits()


def limits_of(max_expansion: int | None) -> RestoreLimits:
    """The limits of a restore for which that ``expansion`` was asked; None: the default."""
    return DEFAULT_LIMITS if max_expansion is None else RestoreLimits(expansion=max_expansion)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """Restore options.

    ``mode``: ``new`` refuses a target that exists, ``replace`` exchanges it as a whole, ``merge``
    writes into it file by file; with ``delete`` (of merge) what the snapshot lacks is removed.
    ``staging_id`` names the staging directory, and must be unique. ``paths`` are paths or globs
    (none: everything), and do not go with ``replace``, which would remove all others. ``remove``
    are names at the top that are not restored, and are removed. ``privileges`` tells which files
    keep theirs; of each that does not there is a warning.
    """

    staging_id: str
    mode: RestoreMode = "new"
    paths: tuple[str | bytes, ...] = ()
    delete: bool = False
    dry_run: bool = False
    owners: Owners = "keep"
    privileges: Privileges = "owned"
    remove: tuple[str, ...] = ()
    limits: RestoreLimits = DEFAULT_LIMITS
    threads: int = DEFAULT_THREADS


def check_options(mode: RestoreMode, paths: Sized, *, delete: bool) -> None:
    """Raises InvalidError for what does not go together."""
    if delete and mode != "merge":
        raise InvalidError("delete goes with mode merge only")
    if paths and mode == "replace":
        msg = "replace would remove all that is not in paths: restore paths with mode merge"
        raise InvalidError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The result of a restore; of a dry run, what it would be.

    ``entries`` of all kinds, ``files`` regular ones (hard links not counted), ``bytes`` their
    apparent size. ``removed`` are entries that were there and are gone: in ``replace`` the whole
    old tree. ``plan`` is a dry run's: first what it would remove, then the others, each in path
    order. It holds the first ``MAX_PLANNED`` of ``plan_count``.
    """

    entries: int
    files: int
    bytes: int
    removed: int = 0
    warnings: tuple[EntryWarning, ...] = ()
    warning_count: int = 0
    plan: tuple[EntryChange, ...] = ()
    plan_count: int = 0
