"""Lists of snapshots, found by keys alone: no list ever reads what it does not show.

Ids are UUIDs of version 7, so the newest has the highest. A page that looked at many records to
find few of the wanted state is cut short, and says where to go on.

Why: docs/decisions.md, "A label entry is a key".
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.domain.names import (
    SnapshotKey,
    check_app,
    check_id,
    check_labels,
    token,
    untoken,
)
from holdfast.errors import InvalidError
from holdfast.repository.snapshots.record import SNAPSHOT, label_prefix, snapshot_name
from holdfast.stores.record_ports import MAX_GET_MANY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from holdfast.form.terms import SnapshotState
    from holdfast.repository.ledger.ledger import Ledger
    from holdfast.repository.snapshots.record import StoredSnapshot

MAX_READ_PER_PAGE: Final = 2000
_CURSOR: Final = re.compile(r"([0-9a-f-]{36})\.([A-Za-z0-9._-]{1,128})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A list's conditions. All hold at once.

    ``since`` and ``until`` are ids: the lowest that is listed, and the lowest that is not.
    """

    apps: Sequence[str] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    state: SnapshotState | None = None
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class SnapshotsPage:
    """Newest first. ``cursor`` is None when there is no more; ``damaged`` cannot be read."""

    snapshots: list[StoredSnapshot]
    cursor: str | None
    damaged: list[SnapshotKey] = field(default_factory=list)


class SnapshotListing:
    """Finds snapshots."""

    def __init__(self, ledger: Ledger) -> None:
        """``ledger`` has them."""
        self._ledger = ledger

    async def page(self, wanted: Wanted, *, cursor: str | None, limit: int) -> SnapshotsPage:
        """Up to ``limit`` snapshots after ``cursor``. Raises InvalidError."""
        after = _decode_cursor(cursor)
        found = await self._find(wanted)
        keys = sorted(
            (key for key in found if _within(key, wanted) and (after is None or key < after)),
            reverse=True,
        )
        snapshots: list[StoredSnapshot] = []
        damaged: list[SnapshotKey] = []
        read, last = 0, None
        for batch in growing(keys, limit):
            some = [SnapshotKey(app, id_) for id_, app in batch]
            held, unreadable = await self._ledger.get_many(SNAPSHOT, [*map(snapshot_name, some)])
            for key in some:
                if len(snapshots) + len(damaged) == limit:
                    break
                read, last = read + 1, key
                name = snapshot_name(key)
                if name in unreadable:
                    damaged.append(key)
                elif name in held and _is_wanted(held[name].record, wanted):
                    snapshots.append(held[name].record)
            if read >= MAX_READ_PER_PAGE or len(snapshots) + len(damaged) == limit:
                break
        cursor = cursor_after(last) if last is not None and read < len(keys) else None
        return SnapshotsPage(snapshots, cursor, damaged)

    async def last_node(self, app: str) -> str:
        """The node of the newest snapshot of ``app``; empty if by a client, or there is none."""
        page = await self.page(Wanted(apps=[app]), cursor=None, limit=1)
        return page.snapshots[0].node if page.snapshots else ""

    async def of_app(self, app: str) -> list[SnapshotKey]:
        """The keys of an app's snapshots, newest first. Raises InvalidError."""
        found = await self._find(Wanted(apps=[app]))
        return [SnapshotKey(app, id_) for id_, _ in sorted(found, reverse=True)]

    async def apps(self) -> list[str]:
        """The apps that have, or had, a snapshot, in order."""
        return sorted({app for _, app in await self._find(Wanted())})

    async def _find(self, wanted: Wanted) -> set[tuple[str, str]]:
        """``(id, app)`` of all that have the labels and are of the apps."""
        check_labels(wanted.labels)
        apps = None if wanted.apps is None else {check_app(app) for app in wanted.apps}
        if wanted.labels:
            prefixes = [label_prefix(name, value) for name, value in wanted.labels.items()]
            matches = await asyncio.gather(*(self._under(prefix) for prefix in prefixes))
            found = set.intersection(*matches)
            return found if apps is None else {key for key in found if key[1] in apps}
        if apps is None:
            return await self._under(SNAPSHOT.prefix)
        matches = await asyncio.gather(
            *(self._under(f"{SNAPSHOT.prefix}.{token(app)}", app=app) for app in apps)
        )
        return set().union(*matches)

    async def _under(self, prefix: str, *, app: str | None = None) -> set[tuple[str, str]]:
        tails = await self._ledger.tails(prefix)
        return set(_parse_tails(tails, app))


def growing[KeyT](keys: Sequence[KeyT], first: int) -> Iterator[Sequence[KeyT]]:
    """``keys`` in batches, each larger than the one before: keys of removed records stay."""
    start, size = 0, first
    while start < len(keys):
        yield keys[start : start + size]
        start, size = start + size, min(4 * size, MAX_GET_MANY)


def _is_wanted(record: StoredSnapshot, wanted: Wanted) -> bool:
    """Whether ``record`` is as it was found: a label's key may be there without its record's."""
    labels = wanted.labels.items() <= record.labels.items()
    return labels and wanted.state in {None, record.state}


def cursor_after(key: SnapshotKey) -> str:
    """The cursor of the page after ``key``."""
    return f"{key.id}.{key.app}"


def _parse_tails(tails: Iterable[list[str]], app: str | None) -> Iterable[tuple[str, str]]:
    for tail in tails:
        with suppress(InvalidError):  # not one of ours: it must not hide the others
            if app is not None and len(tail) == 1:
                yield check_id(tail[0]), app
            elif app is None and len(tail) == 2:
                yield check_id(tail[1]), check_app(untoken(tail[0]))


def _within(key: tuple[str, str], wanted: Wanted) -> bool:
    return (wanted.since is None or key[0] >= wanted.since) and (
        wanted.until is None or key[0] < wanted.until
    )


def _decode_cursor(cursor: str | None) -> tuple[str, str] | None:
    if cursor is None:
        return None
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidError("not a cursor of a list of snapshots")
    return match[1], match[2]
