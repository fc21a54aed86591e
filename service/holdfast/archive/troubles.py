"""Entries that cannot be archived as they are: some fail the archive, of others it warns."""

from __future__ import annotations

import errno
import os
from typing import Final, Literal

from holdfast.archive.paths import path_text
from holdfast.archive.ports import Warn
from holdfast.errors import ForbiddenError, InvalidError
from holdfast.form.terms import EntryWarning

_MAX_SHOWN_BYTES: Final = 512
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})

_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})

Unreadable = Literal["fail", "skip"]


def changed(path: bytes) -> EntryWarning:
    """The warning of a file whose bytes may be partly old and partly new."""
    return EntryWarning(kind="changed", path=path, detail="while it was being read")


class Troubles:
    """Decide about an entry that cannot be read; the one place that does."""

    def __init__(self, unreadable: Unreadable) -> None:
        self._skips = unreadable == "skip"

    def failed(self, path: bytes, error: OSError, warn: Warn) -> None:
        """Warn of ``path``, or raise ForbiddenError or InvalidError naming it."""
        if error.errno in _GONE:
            warn(EntryWarning(kind="vanished", path=path))
            return
        if not self._skips:
            raise unreadable(path, error)
        warn(EntryWarning(kind="unreadable", path=path, detail=os.strerror(error.errno or 0)))

    def refused(self, path: bytes, reason: str, warn: Warn) -> None:
        """The same for what cannot be archived for ``reason``."""
        if not self._skips:
            raise InvalidError(f"cannot archive {_shown(path)}: {reason}")
        warn(EntryWarning(kind="unreadable", path=path, detail=reason))


def unreadable(path: bytes, error: OSError) -> ForbiddenError | InvalidError:
    """The error for an entry that cannot be read because of ``error``."""
    kind = ForbiddenError if error.errno in _FORBIDDEN else InvalidError
    return kind(f"cannot read {_shown(path)}: {os.strerror(error.errno or 0)}")


def _shown(path: bytes) -> str:
    return path[:_MAX_SHOWN_BYTES].decode("utf-8", "replace") or "the directory"


def separate_symlink(path: bytes, first: bytes) -> EntryWarning:
    """The warning of a hard link to a symlink, which an archive has twice."""
    detail = f"it is a symlink of its own, and no longer a hard link to {path_text(first)}"
    return EntryWarning(kind="link", path=path, detail=detail)
