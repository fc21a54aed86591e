"""``blob.watch``: changes of names, blobs and snapshots, told as they happen.

One request is answered by many messages on its reply subject. The body of each is a JSON array of
CloudEvents 1.0, which may be empty; its headers say how far the watch has come and whether it ends.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, field

from holdfast.protocol import headers
from holdfast.protocol.message import Reply, Request, ToldCount, WireCount, WireCursor, WireTime
from holdfast.protocol.operation import AnyOperation, Body, Operation

WatchKind = Literal["names", "blobs", "snapshots"]
WatchEnd = Literal["credit", "lease", "drain"]
WireSequence = Annotated[str, Meta(pattern=r"^[0-9]{1,20}$(?!\n)", max_length=20)]
EVENTS_TYPE: Final = "application/cloudevents-batch+json"
MAX_CREDIT: Final = 65_536


class WatchChanges(Request, frozen=True, kw_only=True):
    """Tell what becomes of those whose name, digest or key starts with ``prefix``.

    From now on; from behind the revision ``since``; or from where an earlier answer was, by its
    ``cursor``. ``credit``: after so many events, or some more, the watch ends and is asked for
    again; with none it tells where it would begin.
    """

    kind: WatchKind
    prefix: Annotated[str, Meta(max_length=512)] = ""
    since: WireCount | None = None
    cursor: WireCursor | None = None
    credit: Annotated[int, Meta(ge=0, le=MAX_CREDIT)] = 4096


class WatchHead(Reply, frozen=True, kw_only=True):
    """Headers beside events. All up to and with the revision ``position`` has been told.

    ``cursor`` is for asking again. Messages are numbered by ``part``, from 0: where one is missing
    it was lost, and the cursor of the one before is to be asked with. The first message says how
    often one comes at the least, and how long the watch lasts, in seconds. ``end`` says why no more
    will come: the credit is spent, the lease is over, or the worker stops.
    """

    part: ToldCount = field(name=headers.BLOB_PART)
    position: ToldCount = field(name=headers.BLOB_POSITION)
    cursor: WireCursor = field(name=headers.BLOB_CURSOR)
    heartbeat: ToldCount | None = field(default=None, name=headers.BLOB_HEARTBEAT)
    lease: ToldCount | None = field(default=None, name=headers.BLOB_LEASE)
    end: WatchEnd | None = field(default=None, name=headers.BLOB_END)


class WatchEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change, as CloudEvents 1.0 has it in JSON.

    ``type`` is ``holdfast.name.pending``, ``.ok``, ``.failure``, ``.deleted``,
    ``holdfast.blob.put``, ``.deleted``, ``holdfast.snapshot.pending``, ``.ok``, ``.failure``,
    ``.deleted``. ``sequence`` is the revision, in 20 digits, and ``position`` that from which a
    watcher that had this event, and those before it, misses nothing.
    """

    id: str
    source: str
    type: str
    subject: str
    time: WireTime
    sequence: WireSequence
    position: WireSequence
    data: dict[str, Any] = {}
    specversion: str = "1.0"
    datacontenttype: str = "application/json"


WATCH: Final = Operation(
    "blob.watch",
    WatchChanges,
    WatchHead,
    "Changes as they happen.",
    reply_body=Body.BYTES,
    events=WatchEvent,
    events_type=EVENTS_TYPE,
)

WATCH_OPERATIONS: Final[tuple[AnyOperation, ...]] = (WATCH,)
