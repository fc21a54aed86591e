"""Bytes that each app, prefix of names or label takes, and bytes that nothing needs."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import UnavailableError
from holdfast.repository.care.runs import LONGEST_SECONDS, Runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.repository.care.inventory import Inventory, InventoryReport
    from holdfast.repository.care.owners import Grouping
    from holdfast.repository.collector.collector import Collector
    from holdfast.repository.collector.report import CollectionReport


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The stored blobs and their users, and what a collection would remove at that time."""

    inventory: InventoryReport
    collection: CollectionReport


class Usage(Runs["Grouping", UsageReport]):
    """The reports of one worker, by their grouping. Raises UnavailableError, CorruptError."""

    def __init__(
        self, inventory: Inventory, collector: Collector, *, monotonic: Callable[[], float]
    ) -> None:
        """``collector`` says what nothing needs."""
        super().__init__(self._report, monotonic=monotonic)
        self._inventory = inventory
        self._collector = collector

    async def _report(self, grouping: Grouping) -> UsageReport:
        try:
            inventory = await self._inventory.take(grouping)
        except (OSError, sqlite3.Error) as error:
            raise UnavailableError(f"the worker's temporary files: {error}") from error
        collection = await self._collector.collect(dry_run=True, seconds=LONGEST_SECONDS)
        return UsageReport(inventory, collection)
