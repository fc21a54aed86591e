"""The parts of a worker that look after the stores."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from holdfast.bootstrap.snapshots import packs_of
from holdfast.repository.care.doctor import Doctor, Surroundings
from holdfast.repository.care.inventory import Inventory
from holdfast.repository.care.logs import StateLogsBack
from holdfast.repository.care.owners import (
    OwnerSource,
    needed_by_snapshot,
    owning_names,
    owning_snapshots,
    owning_states,
)
from holdfast.repository.care.scrub import LOOK_SECONDS, Scrub
from holdfast.repository.care.scrub_record import ONE_PLACE
from holdfast.repository.care.usage import Usage
from holdfast.repository.collector.pace import Pace
from holdfast.repository.snapshots.roots import SnapshotRoots
from holdfast.repository.states.keeping import StateRoots
from holdfast.runtime.lifecycle import Chore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.bootstrap.setup import Setup
    from holdfast.bootstrap.stores import Stores
    from holdfast.repository.collector.collector import Collector
    from holdfast.repository.collector.roots import RootSource
    from holdfast.repository.snapshots.packs import Packs
    from holdfast.repository.states.replays import Replays

_JITTER: Final = 0.2


class CareParts:
    """Everything with which one worker looks after what is stored."""

    def __init__(
        self,
        setup: Setup,
        stores: Stores,
        collector: Collector,
        replays: Replays,
        surroundings: Surroundings,
        greeting: Callable[[], Mapping[str, Any]],
    ) -> None:
        """``replays`` read the logs of states back.

        ``greeting`` gives what the nats-server that is connected to says of itself.
        """
        sources = setup.sources
        inventory = inventory_of(setup, stores, collector)
        self.scrub = Scrub(
            collector.spaces,
            stores.records,
            Pace(setup.config.scrub_bytes_per_second, monotonic=sources.monotonic),
            StateLogsBack(stores.snapshots, replays),
            place=lambda: place_of(greeting()) if stores.streams else ONE_PLACE,
            worker=setup.worker,
            every=timedelta(days=setup.config.scrub_days),
            sources=sources,
        )
        self.doctor = Doctor(
            inventory,
            collector,
            stores.records,
            self.scrub,
            surroundings,
            sources=sources,
        )
        self.usage = Usage(inventory, collector, monotonic=sources.monotonic)

    def chores(self) -> tuple[Chore, ...]:
        """The work to be done in the background."""
        return (Chore("scrub", LOOK_SECONDS, self.scrub.run, jitter=_JITTER),)

    async def aclose(self) -> None:
        """Stop what is under way."""
        for part in (self.scrub, self.usage, self.doctor):
            await part.aclose()


def inventory_of(setup: Setup, stores: Stores, collector: Collector) -> Inventory:
    """An inventory of what ``collector`` collects from."""
    packs = packs_of(setup, stores)
    owners = {
        space.name: [_owners(source, packs) for source in space.roots] for space in collector.spaces
    }
    pace = Pace(setup.config.collect_bytes_per_second, monotonic=setup.sources.monotonic)
    return Inventory(collector.spaces, owners, pace)


def _owners(source: RootSource, packs: Packs) -> OwnerSource:
    """The owners of what the roots of ``source`` keep."""
    match source:
        case SnapshotRoots():
            return OwnerSource(source, owning_snapshots, partial(needed_by_snapshot, packs))
        case StateRoots():
            return OwnerSource(source, owning_states)
        case _:
            return OwnerSource(source, owning_names)


def place_of(greeting: Mapping[str, Any]) -> str:
    """The server's name, unless it made that up when it was started."""
    name = str(greeting.get("server_name", ""))
    return name if name and name != greeting.get("server_id") else ONE_PLACE
