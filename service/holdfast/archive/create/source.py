"""A directory as the source of an archive."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from holdfast.archive.chain import DirectoryChain
from holdfast.archive.create.ignore import Excludes
from holdfast.archive.create.read import TreeReader
from holdfast.archive.create.walk import Walk, WalkOptions
from holdfast.archive.troubles import Troubles, unreadable
from holdfast.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Generator

    from holdfast.archive.ports import Described, FileReader, Scanned, Warn


class DirectorySource:
    """The tree below a directory, read as it is now. Implements ``ports.Source``."""

    def __init__(
        self, root: str | bytes | os.PathLike[str], options: WalkOptions | None = None
    ) -> None:
        """Open ``root``, which must be a directory and not a symlink to one.

        Raises NotFoundError, ForbiddenError, and InvalidError for something else there or for a
        bad pattern.
        """
        self._root = root
        self._options = options or WalkOptions()
        Excludes(self._options.exclude)
        self._is_scanned = False
        self._walked = _open(root)
        self._begin()

    def _begin(self) -> None:
        self._read = DirectoryChain(self._walked.root)
        self._unlisted: set[bytes] = set()
        self._reader = TreeReader(self._read, Troubles(self._options.unreadable), self._unlisted)

    def scan(self, warn: Warn) -> Generator[Scanned]:
        """See ``ports.Source``. Again, it is of what the root's name stands for then."""
        if self._is_scanned:
            self.close()
            self._walked = _open(self._root)
            self._begin()
        self._is_scanned = True
        excludes = Excludes(self._options.exclude) if self._options.exclude else None
        return Walk(self._walked, self._options, excludes, warn, self._unlisted).entries()

    def is_current(self) -> bool:
        """See ``ports.Source``."""
        try:
            status = os.stat(self._root, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(status, os.fstat(self._walked.root))

    def describe(self, scanned: Scanned, content_limit: int, warn: Warn) -> Described | None:
        """See ``ports.Source``."""
        return self._reader.describe(scanned, content_limit, warn)

    def open(self, scanned: Scanned, size: int, warn: Warn) -> FileReader | None:
        """See ``ports.Source``."""
        return self._reader.open(scanned, size, warn)

    def close(self) -> None:
        """See ``ports.Source``."""
        self._walked.close()
        self._read.close()


def _open(root: str | bytes | os.PathLike[str]) -> DirectoryChain:
    try:
        return DirectoryChain(root)
    except OSError as error:
        failure = unreadable(b"", error)
        if error.errno == errno.ENOENT:
            raise NotFoundError(failure.detail) from error
        raise failure from error
