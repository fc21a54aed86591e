"""The parts of a worker that tell changes as they happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.handlers.watch import MAX_BYTES, WatchHandlers
from holdfast.repository.watch.events import (
    BlobEvents,
    RecordEvents,
    name_events,
    snapshot_events,
)
from holdfast.repository.watch.feed import Feed

if TYPE_CHECKING:
    from holdfast.bootstrap.setup import Setup
    from holdfast.bootstrap.stores import Stores

SOURCE: Final = "urn:holdfast"


def assemble_watch(setup: Setup, stores: Stores) -> WatchHandlers:
    """A feed for each kind, which reads while somebody watches."""
    prefix = setup.config.prefix
    return WatchHandlers(
        {
            "names": Feed(RecordEvents(stores.names, name_events)),
            "blobs": Feed(BlobEvents(stores.blobs)),
            "snapshots": Feed(RecordEvents(stores.snapshots, snapshot_events)),
        },
        source=f"{SOURCE}:{prefix}" if prefix else SOURCE,
        monotonic=setup.sources.monotonic,
        max_bytes=min(MAX_BYTES, setup.max_inline_bytes // 2),
    )
