"""Promises beside other clients and backup tools, besides those that the package measures.

Of snapshots: ``first`` may take as long as the others, everything else is so many times as fast as
restic. One file is promised as a service asks for it, on a connection that is open; the same by a
whole command, with its start, is an aim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.bench.backup_tools import BORG, RESTIC
from tests.bench.contenders import NATSRPY, NATSRPY_128K

from holdfast.cli.bench.blobs import OTHER_PROMISES, SPEEDS, speed
from holdfast.cli.bench.report import Promise
from holdfast.cli.bench.snapshots import PROMISES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.cli.bench.report import BoundKind, Sync

BLOB_PROMISES: Final = (
    speed("default", "get", NATSRPY, 1.2),
    speed("default", "get", NATSRPY_128K, 1.1, "aim"),
    speed("default", "put", NATSRPY_128K, 1.0, "aim"),
    *SPEEDS,
    *OTHER_PROMISES,
)

REPOSITORY: Final = "repository"
LARGE_FILE: Final = "one large file"
_SPEEDS: Final[tuple[tuple[str, str, str, float, BoundKind], ...]] = (
    ("first", "first snapshot", RESTIC, 1.0, "promise"),
    ("first", "first snapshot", BORG, 1.0, "promise"),
    ("unchanged", "snapshot of what has not changed", RESTIC, 2.5, "promise"),
    ("changed", "snapshot after a scattered change", RESTIC, 2.0, "promise"),
    ("restore", "restore of everything", RESTIC, 1.5, "promise"),
    ("one file", "one file, by a request", RESTIC, 3.0, "promise"),
    ("command", "one file, by a whole command", RESTIC, 3.0, "aim"),
    ("export", "export as an archive", RESTIC, 5.0, "promise"),
)


def snapshot_promises(syncs: Iterable[Sync]) -> list[Promise]:
    """All promises of snapshots, those of speed and of what is stored for each of ``syncs``."""
    return [
        *(promise for sync in syncs for promise in _promises_with(sync)),
        _bytes(f"added by blocks of one large file / {RESTIC}", None, LARGE_FILE, "added MiB", 1.2),
        *PROMISES,
    ]


def _promises_with(sync: Sync) -> Iterator[Promise]:
    for action, name, tool, bound, kind in _SPEEDS:
        yield Promise(
            name=f"speed of {name}, {sync} sync / {tool}",
            sync=sync,
            what=action,
            # The peers' single file is a command anyway.
            theirs="one file" if action == "command" else "",
            unit="s",
            against=tool,
            comparison="at least",
            bound=bound,
            kind=kind,
        )
    stored, added = f"stored by the first, {sync} sync", f"added by the changed, {sync} sync"
    yield _bytes(f"{stored} / {RESTIC}", sync, REPOSITORY, "first MiB", 1.05)
    yield _bytes(f"{added} / {RESTIC}", sync, REPOSITORY, "changed KiB", 1.6)


def _bytes(name: str, sync: Sync | None, what: str, unit: str, bound: float) -> Promise:
    return Promise(
        name=f"bytes {name}",
        sync=sync,
        what=what,
        unit=unit,
        against=RESTIC,
        comparison="at most",
        bound=bound,
    )
