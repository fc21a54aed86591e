"""Terms that files, records and messages share, written down once."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from holdfast.form.entries import Kind

SnapshotState = Literal["pending", "ok", "failure"]
RestoreMode = Literal["new", "replace", "merge"]
ChangeKind = Literal["added", "removed", "modified", "metadata"]

MAX_WARNINGS: Final = 100
"""Kept in full; more are only counted."""


class EntryWarning(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that is not in a snapshot, or was not restored, or not as it was.

    In archives: ``changed`` while it was read; ``vanished`` before it was read; ``unreadable`` and
    left out; ``skipped`` because an archive has no such thing (sockets, devices, pipes) or an
    option says so; ``attribute``: one of its attributes is left out, or not as it was; ``link``:
    what was a hard link is not one; ``pattern``: one of the patterns matched nothing (``path`` is
    the root's).

    In restores: ``owner`` could not be given away; ``mode``: set-user-ID and set-group-ID bits were
    left out; ``attribute`` could not be set, or was left out; ``link``: a hard link became a file
    of its own; ``leftover``: the old tree could not be removed and still lies in the staging
    directory.

    A client may send others. ``path`` is relative to the app's directory.
    """

    kind: str
    path: bytes
    detail: str = ""


class EntryChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The change of an entry by a restore, or between two snapshots.

    ``modified``: another kind, content or link target; ``metadata``: only mode, owner, time,
    attributes. Sizes are of files.
    """

    change: ChangeKind
    path: bytes
    kind: Kind | None = None
    size_before: int | None = None
    size_after: int | None = None
