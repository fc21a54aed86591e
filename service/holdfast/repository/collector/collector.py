"""The collector: list, then read the roots, then remove old blobs that nothing needs.

Where little of a blob is needed (of a pack that snapshots share), it keeps those bytes alone.

Any number of workers do so at once and know nothing of each other. A run removes a blob by one
compare-and-set on the blob as it was listed: one that was put, touched or pinned since is refused
and skipped. So a writer that announces that it counts on a blob, and touches it after that, has it,
or is told that it is gone. If a root cannot be read, or is not answered, nothing is removed. A pack
of which a part is to be kept and that cannot be read back stays, and the rest goes.

Why: docs/decisions.md, "Space comes back without a lock".
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.deadline import shared_task
from holdfast.domain.collection import Reason, RootsNote, is_abandoned, left_of, loss, why_kept
from holdfast.domain.kept import size_of
from holdfast.errors import CorruptError, HoldfastError, UnavailableError
from holdfast.repository.collector.removals import Removals, Removed
from holdfast.repository.collector.report import CollectionReport, RunTotals, SpaceReport
from holdfast.repository.collector.roots import RootSource, read_roots
from holdfast.repository.collector.spool import Spool
from holdfast.repository.collector.sweep import Sweep, Uploading
from holdfast.stores.deployment import FORMAT, Deployment, note_roots, read_deployment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast.domain.digest import Digest
    from holdfast.repository.collector.pace import Pace
    from holdfast.stores.ports import BlobStore, SurveyedBlob
    from holdfast.stores.record_ports import RecordStore

MAX_REMOVED: Final = 1_000_000
"""Blobs that one run removes from a space, or makes partial; the next goes on."""

_PAGE: Final = 1000
_LISTED_AT_ONCE: Final = 128
_REMOVED_AT_ONCE: Final = 8
"""Between so many it rests: requests to a server meanwhile wait for one of them."""

_RECORD_BYTES: Final = 1024
"""The cost of a blob, beside its bytes, when a run is slowed down."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Blobs, and the roots that keep those that are not pinned.

    ``before`` is told the time by the store's clock before each run that removes something: it ends
    records whose time is over.
    """

    name: str
    store: BlobStore
    roots: Sequence[RootSource]
    before: Callable[[datetime], Awaitable[object]] | None = None


class Collector:
    """Collects in the spaces of one deployment, one run after the other."""

    def __init__(
        self,
        spaces: Sequence[Space],
        records: RecordStore,
        removals: Removals,
        uploading: Uploading,
        pace: Pace,
    ) -> None:
        """``records`` have the deployment's; ``uploading`` is as of `Sweep`."""
        self.totals = RunTotals()
        self.spaces = spaces
        self._records = records
        self._removals = removals
        self._uploading = uploading
        self._pace = pace
        self._turn = asyncio.Lock()
        self._runs: dict[bool, tuple[CollectionReport, asyncio.Task[None]]] = {}

    async def collect(self, *, dry_run: bool, seconds: float) -> CollectionReport:
        """The report, within ``seconds``, of the run under way or begun now; the run goes on."""
        report, task = self._runs.get(dry_run, (None, None))
        if report is None or task is None or task.done():
            report = CollectionReport(dry_run=dry_run)
            task = shared_task(self._run(report))
            self._runs[dry_run] = report, task
        await asyncio.wait([task], timeout=seconds)
        return report

    async def run(self) -> CollectionReport:
        """Collect, to the end."""
        report = CollectionReport(dry_run=False)
        await self._run(report)
        return report

    async def aclose(self) -> None:
        """Stop the runs under way."""
        tasks = [task for _, task in self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, report: CollectionReport) -> None:
        async with self._turn:
            for space in self.spaces:
                of_space = SpaceReport(space=space.name)
                report.spaces.append(of_space)
                try:
                    await self._collect(space, of_space, report)
                except HoldfastError as error:
                    of_space.failure = error.detail
                except (OSError, sqlite3.Error) as error:
                    of_space.failure = f"the worker's temporary files: {error}"
            report.is_done = True
        _log(report)
        self.totals.count(report)

    async def _collect(self, space: Space, found: SpaceReport, report: CollectionReport) -> None:
        terms = await read_deployment(self._records)
        now = await space.store.now()
        report.off = why_off(terms, now)
        if report.off is not None:
            return
        if not report.dry_run:
            await self._removals.finish(space.name, space.store, now)
            if space.before is not None:
                await space.before(now)
        grace = timedelta(seconds=terms.grace_seconds)
        listed_after = (await space.store.extent()).last
        spool = await asyncio.to_thread(Spool)
        try:
            await self._list(space.store, spool, found, listed_from=now, grace=grace)
            for source in space.roots:
                await self._read_needed(source, spool, terms.roots.get(source.name))
            await asyncio.to_thread(spool.settle)
            await self._remove(space, spool, found, now, dry_run=report.dry_run)
            if found.unreadable:
                return  # nobody knows which copies they name
            leftovers = space.store.leftovers()
            if leftovers is not None:
                sweep = Sweep(
                    space.store,
                    leftovers,
                    spool,
                    self._uploading,
                    self._pace,
                    listed_after=listed_after,
                    is_abandoned=partial(is_abandoned, listed_from=now, grace=grace),
                )
                await sweep.run(found.orphans, dry_run=report.dry_run)
        finally:
            await asyncio.to_thread(spool.close)

    async def _list(
        self,
        store: BlobStore,
        spool: Spool,
        found: SpaceReport,
        *,
        listed_from: datetime,
        grace: timedelta,
    ) -> None:
        """Spool blobs that may go by their records alone."""
        cursor = None
        while True:
            page = await store.survey(cursor, limit=_LISTED_AT_ONCE)
            found.others += page.others
            found.unreadable += page.unreadable
            may_go: list[SurveyedBlob] = []
            for blob in page.blobs:
                reason = why_kept(
                    pinned=blob.pinned, seen_at=blob.seen_at, listed_from=listed_from, grace=grace
                )
                if reason is None:
                    may_go.append(blob)
                else:
                    found.keep(reason, blob.size)
            await asyncio.to_thread(spool.add, may_go)
            await asyncio.to_thread(spool.name, page.copies, page.records)
            await self._pace.spend(_RECORD_BYTES * len(page.blobs))
            cursor = page.cursor
            if cursor is None:
                return

    async def _read_needed(self, source: RootSource, spool: Spool, noted: RootsNote | None) -> None:
        """Mark the needs of ``source``'s roots, all of which are read after the listing.

        Also a root that was removed since has to be read: what another counts on may be known by it
        alone. Raises UnavailableError, CorruptError: nothing is known.
        """
        note = await read_roots(source, spool)
        lost = loss(noted, note)
        if lost is not None:
            msg = (
                f"records were lost: of {source.name}, {lost}; nothing is removed until they are"
                " back, or `holdfast admin accept-loss`"
            )
            raise CorruptError(msg)
        await note_roots(self._records, source.name, note)
        after: Digest | None = None
        while roots := await asyncio.to_thread(spool.roots, after, _PAGE):
            for root in roots:
                await self._need(source, root, spool)
            after = roots[-1]

    async def _need(self, source: RootSource, root: Digest, spool: Spool) -> None:
        async def news(keys: Sequence[bytes]) -> Sequence[bool]:
            return await asyncio.to_thread(spool.news, keys)

        try:
            async for some in source.needed(root, news):
                await asyncio.to_thread(spool.need, some)
                await self._pace.spend(_RECORD_BYTES * len(some))
        except HoldfastError as error:
            raise UnavailableError(f"the root {root} cannot be read: {error.detail}") from error

    async def _remove(
        self, space: Space, spool: Spool, found: SpaceReport, now: datetime, *, dry_run: bool
    ) -> None:
        """Remove unneeded blobs, and unneeded bytes of others, once that is worth it."""
        after = 0
        while candidates := await asyncio.to_thread(spool.candidates, after, _REMOVED_AT_ONCE):
            after = candidates[-1].number
            removed: list[Removed] = []
            for _, blob, needed in candidates:
                kept = None if needed is None else left_of(needed, blob.size)
                if kept is None:
                    found.keep(Reason.NEEDED, blob.size)
                else:
                    removed.append(Removed(blob, kept))
            if found.removed.blobs + found.repacked.blobs + len(removed) > MAX_REMOVED:
                found.is_cut = True
                return
            left: Sequence[int | BaseException | None] = [size_of(one.kept) for one in removed]
            if removed and not dry_run:
                left = await self._removals.remove(space.name, space.store, removed, now)
            _count(found, removed, left)
            await self._pace.spend(sum(one.blob.size + _RECORD_BYTES for one in removed))


def why_off(terms: Deployment, now: datetime) -> str | None:
    """Why nothing is collected at the time ``now`` by the store's clock; None: it is."""
    if terms.format != FORMAT:
        return (
            "workers of an older version may be at work; once there are none,"
            " `holdfast admin upgrade` lets collection begin"
        )
    if terms.collects_from is not None and now < terms.collects_from:
        return f"collection begins at {terms.collects_from.isoformat()}"
    return None


def _count(
    found: SpaceReport, removed: Sequence[Removed], left: Sequence[int | BaseException | None]
) -> None:
    """Count all that was done; raises the first error after that.

    Damage is none: what cannot be read back stays, since no part of it can be kept alone.
    """
    failures: list[BaseException] = []
    for one, size in zip(removed, left, strict=True):
        if isinstance(size, CorruptError):
            log.warning("damaged_not_repacked", space=found.space, digest=one.blob.digest)
            found.keep(Reason.DAMAGED, one.blob.size)
        elif isinstance(size, BaseException):
            failures.append(size)
        else:
            found.count(one.blob.size, size)
    for failure in failures:
        raise failure


def _log(report: CollectionReport) -> None:
    if report.off is not None:
        log.info("collection_off", reason=report.off)
        return
    for space in report.spaces:
        log.info(
            "collected",
            space=space.space,
            dry_run=report.dry_run,
            removed=space.removed.blobs,
            removed_bytes=space.removed.bytes,
            repacked=space.repacked.blobs,
            repacked_bytes=space.repacked.bytes,
            orphans=space.orphans.copies,
            refused=space.refused,
            failure=space.failure,
            **{f"kept_{reason}": tally.blobs for reason, tally in space.kept.items()},
        )
