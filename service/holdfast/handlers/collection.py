"""``blob.collect``: a run of this worker's collector, and what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from holdfast.domain.collection import Reason
from holdfast.handlers.endpoint import AnyEndpoint, Call, Endpoint
from holdfast.protocol.blobs import (
    COLLECT_BLOBS,
    CollectBlobs,
    CollectedSpace,
    CollectionReply,
)
from holdfast.repository.collector.report import CollectionReport, SpaceReport, Tally

if TYPE_CHECKING:
    from holdfast.protocol.blobs import SpaceName
    from holdfast.repository.collector.collector import Collector

_SHARE: Final = 0.8
"""Of the caller's time: then it is told how far the run has come."""


class CollectionHandlers:
    """Answers requests to collect."""

    def __init__(self, collector: Collector) -> None:
        """``collector`` is this worker's."""
        self._collector = collector

    async def collect(self, request: CollectBlobs, call: Call) -> CollectionReply:
        """``blob.collect``. A run goes on when the caller's time is over."""
        report = await self._collector.collect(
            dry_run=request.dry_run, seconds=call.seconds_left() * _SHARE
        )
        return collection_reply(report)

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (Endpoint(COLLECT_BLOBS, self.collect),)


def collection_reply(report: CollectionReport) -> CollectionReply:
    """The report as the wire has it."""
    return CollectionReply(
        dry_run=report.dry_run,
        done=report.is_done,
        off=report.off,
        spaces=[] if report.off is not None else [_space(one) for one in report.spaces],
    )


def _space(found: SpaceReport) -> CollectedSpace:
    needed, young, pinned, damaged = (
        found.kept.get(reason, Tally())
        for reason in (Reason.NEEDED, Reason.YOUNG, Reason.PINNED, Reason.DAMAGED)
    )
    return CollectedSpace(
        space=cast("SpaceName", found.space),
        removed=found.removed.blobs,
        removed_bytes=found.removed.bytes,
        repacked=found.repacked.blobs,
        repacked_bytes=found.repacked.bytes,
        needed=needed.blobs,
        needed_bytes=needed.bytes,
        young=young.blobs,
        young_bytes=young.bytes,
        pinned=pinned.blobs,
        pinned_bytes=pinned.bytes,
        damaged=damaged.blobs,
        damaged_bytes=damaged.bytes,
        refused=found.refused,
        others=found.others,
        more=found.is_cut,
        failure=found.failure,
        orphans=found.orphans.copies,
        orphan_chunks=found.orphans.chunks,
        orphan_bytes=found.orphans.bytes,
    )
