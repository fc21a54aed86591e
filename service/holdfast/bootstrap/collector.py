"""The collector of a worker."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.bootstrap.snapshots import opener_of, packs_of
from holdfast.repository.blobs import BLOBS, PACKS
from holdfast.repository.collector.collector import Collector, Space
from holdfast.repository.collector.pace import Pace
from holdfast.repository.collector.removals import Removals
from holdfast.repository.names.roots import NameRoots
from holdfast.repository.snapshots.roots import SnapshotRoots
from holdfast.repository.states.keeping import StateRoots
from holdfast.repository.uploads.stagings import living_stagings

if TYPE_CHECKING:
    from holdfast.bootstrap.names import NameParts
    from holdfast.bootstrap.setup import Setup
    from holdfast.bootstrap.stores import Stores


REST: Final = 2.0
"""A collection has a third of the time: puts wait for what it asks the server."""


def assemble_collector(setup: Setup, stores: Stores, names: NameParts) -> Collector:
    """Packs are kept by snapshots, blobs by names, states or a pin."""
    pace = Pace(setup.config.collect_bytes_per_second, monotonic=setup.sources.monotonic, rest=REST)
    return Collector(
        (
            Space(
                name=PACKS,
                store=stores.packs,
                roots=(SnapshotRoots(stores.snapshots, opener_of(packs_of(setup, stores))),),
            ),
            Space(
                name=BLOBS,
                store=stores.blobs,
                roots=(NameRoots(stores.names), StateRoots(stores.snapshots)),
                before=names.expiry.expire,
            ),
        ),
        stores.records,
        Removals(stores.records, setup.sources.new_id),
        partial(living_stagings, stores.records),
        pace,
    )
