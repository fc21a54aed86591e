"""A worker's counts, as Prometheus metrics: each function gives those of one part, as they are."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)

from holdfast.repository.states.totals import GROUP_SIZES, StateTotals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

    from prometheus_client import Metric

    from holdfast.protocol.operation import AnyOperation
    from holdfast.repository.care.lap import ScrubTotals
    from holdfast.repository.collector.report import RunTotals
    from holdfast.repository.names.index.follower import IndexState
    from holdfast.repository.snapshots.retention.prune import PruneTotals
    from holdfast.runtime.statistics import EndpointStats
    from holdfast.runtime.worker import Worker
    from holdfast.transport.connection import Connection

    Told = Mapping[str, tuple[str, float]]

_NS: Final = 1e9


def connection_metrics(connection: Connection, worker: Worker) -> Iterator[Metric]:
    """Metrics of the connection to NATS, and of what is under way on it."""
    ready = worker.is_serving and connection.is_connected
    yield from _gauges(
        {
            "ready": ("1 while the worker serves and is connected.", int(ready)),
            "requests_in_flight": ("Requests under way.", worker.in_flight),
            "watches": ("Watches under way.", worker.watches),
        }
    )
    counters = connection.counters
    yield from _counters(
        {
            "nats_disconnects": ("Connections to NATS that were lost.", counters.disconnects),
            "nats_reconnects": ("Connections to NATS that were made anew.", counters.reconnects),
            "nats_servers_left": ("Servers left for being of no use.", counters.left),
            "nats_violations": ("Publishes and subscriptions denied.", counters.violations),
            "nats_unsent": ("Messages refused while disconnected or flooded.", counters.unsent),
            "replies_refused": (
                "Requests dropped because their reply subject is not an inbox.",
                worker.refused_replies,
            ),
        }
    )


def request_metrics(
    stats: Mapping[AnyOperation, EndpointStats], clocks: Mapping[str, timedelta]
) -> Iterator[Metric]:
    """Metrics of the requests answered, but for operations that nobody asked for; and of clocks."""
    seconds = SummaryMetricFamily(
        "holdfast_request_seconds",
        "Requests that were answered, and the seconds that this took.",
        labels=["subject"],
    )
    errors = CounterMetricFamily(
        "holdfast_request_errors", "Of these, failures by code.", labels=["subject", "code"]
    )
    for operation, found in stats.items():
        if found.requests:
            seconds.add_metric([operation.subject], found.requests, found.processing_ns / _NS)
        for code, count in found.codes.items():
            errors.add_metric([operation.subject, code], count)
    ahead_seconds = GaugeMetricFamily(
        "holdfast_clock_ahead_seconds",
        "Seconds that a node's clock is ahead of this worker's.",
        labels=["node"],
    )
    for node, ahead in clocks.items():
        ahead_seconds.add_metric([node], ahead.total_seconds())
    yield from (seconds, errors, ahead_seconds)


def index_metrics(state: IndexState) -> Iterator[Metric]:
    """Metrics of the index of names."""
    yield from _gauges(
        {
            "index_ready": ("1 while names are listed by this worker.", int(state.is_ready)),
            "index_names": ("Names in the index of this worker.", state.names),
            "index_lag": (
                "Changes of names that the index is behind.",
                max(state.last - state.position, 0),
            ),
        }
    )
    yield from _counters({"index_rebuilt": ("Times that the index was built anew.", state.rebuilt)})


def collector_metrics(totals: RunTotals) -> Iterator[Metric]:
    """Metrics of the collections made here."""
    return _counters(
        {
            "collections": ("Collections that have ended.", totals.runs),
            "collections_failed": (
                "Of these, those that met something which could not be read.",
                totals.failed,
            ),
            "collected_blobs": ("Blobs and packs that were removed.", totals.removed.blobs),
            "collected_bytes": ("Bytes of them.", totals.removed.bytes),
            "repacked_packs": (
                "Packs of which only what is needed was kept.",
                totals.repacked.blobs,
            ),
            "repacked_bytes": ("Bytes that these gave back.", totals.repacked.bytes),
            "collected_orphan_chunks": (
                "Chunks that were removed because no record names them.",
                totals.orphans.chunks,
            ),
            "collected_orphan_bytes": ("Bytes of them, at the most.", totals.orphans.bytes),
        }
    )


def care_metrics(scrub: ScrubTotals, prune: PruneTotals) -> Iterator[Metric]:
    """Metrics of what a scrub read and found, and of what policies removed."""
    return _counters(
        {
            "scrub_laps": ("Laps of the scrub that ended here.", scrub.laps),
            "scrubbed_blobs": ("Blobs and packs that were read back.", scrub.checked),
            "scrubbed_bytes": ("Bytes of them.", scrub.bytes),
            "scrub_damaged": ("Of these, those that were damaged.", scrub.damaged),
            "scrub_healed": ("Of these, those put anew from another copy.", scrub.healed),
            "scrub_unreadable": ("Records that were unreadable or lost.", scrub.unreadable),
            "prunes": ("Policies applied to an app.", prune.runs),
            "prunes_failed": ("Of these, those that failed or were stopped.", prune.failed),
            "pruned_snapshots": ("Snapshots that they removed.", prune.removed),
        }
    )


def state_metrics(totals: StateTotals) -> Iterator[Metric]:
    """Metrics of states and their logs."""
    yield from _counters(
        {
            "state_appends": (
                "Requests to append that have their place in a log.",
                totals.requests,
            ),
            "state_log_bytes": ("Bytes of the groups that were written to logs.", totals.bytes),
            "state_saves": ("States that were saved.", totals.saves),
            "state_replays": ("Pages of commands that were told.", totals.replays),
        }
    )
    yield from _gauges({"state_followers": ("Followers of logs at this worker.", totals.followers)})
    counts = [*accumulate(totals.sizes)]
    limits = [*map(str, GROUP_SIZES[:-1]), "+Inf"]
    yield HistogramMetricFamily(
        "holdfast_state_group_commands",
        "Commands of each group that was written.",
        buckets=[*zip(limits, counts, strict=True)],
        sum_value=totals.commands,
    )


def _gauges(told: Told) -> Iterator[Metric]:
    """The meaning and the value of each, by its name without ``holdfast_``."""
    for name, (text, value) in told.items():
        yield GaugeMetricFamily(f"holdfast_{name}", text, value=value)


def _counters(told: Told) -> Iterator[Metric]:
    """As ``_gauges``, of what only rises."""
    for name, (text, value) in told.items():
        yield CounterMetricFamily(f"holdfast_{name}", text, value=value)
