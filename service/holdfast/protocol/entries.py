"""Entries on the wire: their paths and kinds, and what is told of them.

A path is text, with its exact bytes beside it where text cannot say it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from holdfast.form.entries import Kind
from holdfast.protocol.files import SnapshotChange
from holdfast.protocol.snapshots import SnapshotWarning

if TYPE_CHECKING:
    from holdfast.form.terms import EntryChange, EntryWarning
    from holdfast.protocol.files import EntryKind

KIND_NAMES: Final[dict[Kind, EntryKind]] = {
    Kind.FILE: "file",
    Kind.DIRECTORY: "directory",
    Kind.SYMLINK: "symlink",
    Kind.HARDLINK: "hardlink",
}


class ToldPath(NamedTuple):
    """A path as text, and as bytes where it is not UTF-8."""

    path: str
    path_bytes: bytes | None


def wire_path(path: bytes) -> ToldPath:
    """``path``, with U+FFFD in the text for what is not UTF-8."""
    text = path.decode(errors="replace")
    return ToldPath(text, None if text.encode() == path else path)


def warning_message(warning: EntryWarning) -> SnapshotWarning:
    """``warning`` as it is told."""
    path, raw = wire_path(warning.path)
    return SnapshotWarning(kind=warning.kind, path=path, path_bytes=raw, detail=warning.detail)


def change_message(change: EntryChange) -> SnapshotChange:
    """``change`` as it is told."""
    path, raw = wire_path(change.path)
    return SnapshotChange(
        path=path,
        path_bytes=raw,
        change=change.change,
        kind=None if change.kind is None else KIND_NAMES[change.kind],
        size_before=change.size_before,
        size_after=change.size_after,
    )
