"""What a worker looks after the stores with."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from holdfast.repository.care.scrub import Scrub
from holdfast.repository.collector.agreement import Agreement
from holdfast.repository.collector.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from holdfast.bootstrap.setup import Setup
    from holdfast.bootstrap.stores import Stores
    from holdfast.repository.collector.collector import Space
    from holdfast.transport.connection import Connection

ONE_PLACE: Final = "store"
"""What is called the place of copies that no nats-server has, or one without a name."""


def assemble_scrub(
    setup: Setup, stores: Stores, spaces: Sequence[Space], connection: Connection
) -> Scrub:
    """The scrub of ``spaces``, by way of ``connection``."""
    return Scrub(
        spaces,
        Agreement(stores.records),
        stores.records,
        Pace(setup.config.scrub_bytes_per_second, monotonic=setup.sources.monotonic),
        place=lambda: place_of(connection.server_info) if stores.streams else ONE_PLACE,
        worker=setup.worker,
        every=timedelta(days=setup.config.scrub_days),
        sources=setup.sources,
    )


def place_of(greeting: Mapping[str, Any]) -> str:
    """The server's name, unless it made that up when it was started."""
    name = str(greeting.get("server_name", ""))
    return name if name and name != greeting.get("server_id") else ONE_PLACE
