"""Events of names, blobs and snapshots, read off the changes of their stores.

A record tells its last state. A name's also tells the last steps to it, so that one which was
rewritten between two reads hides none of them. A blob, and a snapshot that is no longer pending,
are told by their last change alone.

Why: docs/decisions.md, "A snapshot is pending from its marker".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from holdfast.domain.blob_names import key_name
from holdfast.domain.names import SnapshotKey, untoken
from holdfast.errors import CorruptError, InvalidError
from holdfast.repository.names.record import MAX_TRANSITIONS, NAME, NameRecord, Transition
from holdfast.repository.snapshots.record import SNAPSHOT, StoredSnapshot

if TYPE_CHECKING:
    from holdfast.stores.ports import BlobChanged, BlobStore
    from holdfast.stores.record_ports import Changed, Extent, RecordStore

_AT_ONCE: Final = 64
"""Records that are read before others have their turn of the event loop."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A change ``at`` a time of the name, blob or snapshot ``subject``: it is ``state`` now.

    ``revision`` is that of the change, which no other event of its kind has. The time is in UTC, as
    records have it.
    """

    revision: int
    subject: str
    state: str
    at: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """A page of events, of records that were read up to and with the revision ``position``.

    ``is_end`` as in `holdfast.stores.ports.Changes`.
    """

    events: Sequence[Event]
    position: int
    is_end: bool


IsNew = Callable[[int], bool]
"""Whether the event of a revision was not told yet."""


class EventSource(Protocol):
    """The source of the events of one kind."""

    async def extent(self) -> Extent:
        """The extent of the store."""

    async def read(self, after: int, is_new: IsNew) -> Events:
        """The events of the last writes behind ``after``, of those revisions that are new.

        Some may come before ``after``, where a record has moved. Raises as the store does.
        """


class RecordEvents:
    """The events of records."""

    def __init__(
        self, records: RecordStore, told: Callable[[Changed, IsNew], Iterator[Event]]
    ) -> None:
        """``told`` gives the new events of one that was changed, or raises CorruptError."""
        self._records = records
        self._told = told

    async def extent(self) -> Extent:
        """See `EventSource`."""
        return await self._records.extent()

    async def read(self, after: int, is_new: IsNew) -> Events:
        """See `EventSource`. A record that is unreadable hides no other."""
        page = await self._records.changes(after)
        events: list[Event] = []
        for some in batched(page.changes, _AT_ONCE):
            for changed in some:
                try:
                    events.extend(self._told(changed, is_new))
                except (CorruptError, InvalidError):
                    log.warning("record_unreadable", key=changed.key)
            await asyncio.sleep(0)
        return Events(events=events, position=page.position, is_end=page.is_end)


class BlobEvents:
    """The events of blobs. A touch or a pin is none."""

    def __init__(self, blobs: BlobStore) -> None:
        """The users' blobs."""
        self._blobs = blobs

    async def extent(self) -> Extent:
        """See `EventSource`."""
        return await self._blobs.extent()

    async def read(self, after: int, is_new: IsNew) -> Events:
        """See `EventSource`."""
        page = await self._blobs.changes(after)
        events = [_blob_event(one) for one in page.changes]
        return Events(
            events=[event for event in events if is_new(event.revision)],
            position=page.position,
            is_end=page.is_end,
        )


def name_events(changed: Changed, is_new: IsNew) -> Iterator[Event]:
    """The new steps of a name. Raises CorruptError, InvalidError.

    The first says that others may be ``missed``, where all that are kept are new.
    """
    if not NAME.lies_at(changed.key):
        return
    held = NAME.of(changed)
    if held is None:
        if is_new(changed.revision):
            yield _removed(changed, key_name(NAME.name_at(changed.key)))
        return
    steps = [(one.revision or held.revision, one) for one in held.record.transitions]
    news = [(revision, one) for revision, one in steps if is_new(revision)]
    for number, (revision, one) in enumerate(news):
        data = _name_data(held.record, one)
        if number == 0 and len(news) == MAX_TRANSITIONS:
            data["missed"] = True
        yield Event(
            revision=revision,
            subject=held.record.name,
            state=one.state,
            at=one.at,
            data=data,
        )


def _name_data(record: NameRecord, step: Transition) -> dict[str, Any]:
    told = {
        "digest": step.digest,
        "size": step.size if step.digest is not None else None,
        "reason": step.reason or None,
        "worker": step.worker or None,
    }
    present = {key: value for key, value in told.items() if value is not None}
    return {"name": record.name, "state": step.state, "version": step.version, **present}


def snapshot_events(changed: Changed, is_new: IsNew) -> Iterator[Event]:
    """The event of a snapshot, if new. Raises CorruptError, InvalidError.

    A snapshot is pending from when it is marked so: its record is rewritten all the while.
    """
    live = SNAPSHOT.live_key("")
    if not is_new(changed.revision):
        return
    if changed.key.startswith(live) and changed.value is not None:
        key = _snapshot_key(changed.key.removeprefix(live))
        data = {"key": str(key), "app": key.app, "state": "pending"}
        yield _at_once(changed, str(key), "pending", data)
    elif SNAPSHOT.lies_at(changed.key):
        held = SNAPSHOT.of(changed)
        if held is None:
            yield _removed(changed, str(_snapshot_key(SNAPSHOT.name_at(changed.key))))
        elif not held.is_live:
            record = held.record
            yield _at_once(changed, str(record.key), record.state, _snapshot_data(record))


def _snapshot_key(name: str) -> SnapshotKey:
    app, _, identifier = name.rpartition(".")
    return SnapshotKey(untoken(app), identifier)


def _snapshot_data(record: StoredSnapshot) -> dict[str, Any]:
    told = {
        "node": record.node or None,
        "digest": record.digest if record.state == "ok" else None,
        "labels": record.labels or None,
        "size": record.totals.size if record.state == "ok" else None,
        "code": record.code,
        "reason": record.reason,
        "held": record.hold is not None or None,
    }
    present = {key: value for key, value in told.items() if value is not None}
    return {"key": str(record.key), "app": record.app, "state": record.state, **present}


def _blob_event(changed: BlobChanged) -> Event:
    """The blob's put, with its time, or its deletion."""
    info = changed.info
    if info is None:
        return Event(
            revision=changed.revision,
            subject=changed.digest,
            state="deleted",
            at=changed.at.isoformat(),
            data={"digest": changed.digest},
        )
    return Event(
        revision=changed.put_at,
        subject=changed.digest,
        state="put",
        at=info.created_at.isoformat(),
        data={"digest": changed.digest, "size": info.size, "type": info.type},
    )


def _removed(changed: Changed, subject: str) -> Event:
    return _at_once(changed, subject, "deleted", {"state": "deleted"})


def _at_once(changed: Changed, subject: str, state: str, data: Mapping[str, Any]) -> Event:
    """The event of the change itself."""
    return Event(
        revision=changed.revision,
        subject=subject,
        state=state,
        at=changed.at.isoformat(),
        data=data,
    )
