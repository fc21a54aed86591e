"""Puts, deletions and changes in a JetStream Object Store bucket, in the order of its stream.

The stream itself is the log: the last record of each blob, under its sequence. A put that nobody
has read yet and that a touch has replaced since is still told as a put, for the touch says which
record made the blob. Touches of versions that did not say so are told as puts.

Why: docs/decisions.md, "A bucket's stream is the log of its blobs".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from holdfast.domain.digest import Digest, is_digest
from holdfast.stores.jetstream.blobs.meta import name_at, to_info
from holdfast.stores.jetstream.blobs.object_records import CHANGE, entry_of
from holdfast.stores.jetstream.blobs.walk import RecordWalk
from holdfast.stores.keys import check_limit
from holdfast.stores.ports import BlobChanged, BlobChanges

if TYPE_CHECKING:
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage


async def changes_of(js: JetStream, bucket: str, after: int, limit: int) -> BlobChanges:
    """See ``BlobStore.changes``. One request where there is nothing new."""
    check_limit(limit)
    last = (await js.state(f"OBJ_{bucket}")).last_sequence
    if last <= after:
        return BlobChanges(changes=(), position=after, is_end=True)
    walk = RecordWalk(js, bucket, after + 1)
    changes: list[BlobChanged] = []
    while walk.goes_on:
        for record in await walk.step(limit - len(changes)):
            changed = _changed(record, after)
            if changed is not None:
                changes.append(changed)
            if len(changes) == limit:
                return BlobChanges(changes=changes, position=record.sequence, is_end=False)
    # At the end, what lies up to the last message of before is chunks: no record comes there.
    position = max(walk.position - 1, last if walk.is_at_end else 0)
    return BlobChanges(changes=changes, position=position, is_end=walk.is_at_end)


def _changed(record: StoredMessage, after: int) -> BlobChanged | None:
    """The change in ``record`` for a reader up to ``after``; None if it is left out."""
    name = name_at(record.subject)
    if not is_digest(name):
        return None
    entry = entry_of(record, Digest(name))
    if entry.fault is not None or (entry.live is not None and not entry.live.is_ours):
        return None
    kind: Literal["put", "deleted", "changed"] = "put"
    if entry.live is None:
        kind = "deleted"
    elif CHANGE in record.headers and entry.put_at <= after:
        kind = "changed"
    return BlobChanged(
        digest=Digest(name),
        revision=record.sequence,
        put_at=entry.put_at or record.sequence,
        at=record.time,
        info=to_info(entry.live) if entry.live is not None else None,
        kind=kind,
    )
