"""Faults of a deployment, each in a sentence, with how bad it is and what to do.

Plain values and the decisions about them: `holdfast.repository.care.doctor` gathers what they
are made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from holdfast.domain.store_state import BucketState, Durability, StoreState

Severity = Literal["error", "warning", "note"]
NEARLY_FULL: Final = 0.9
MANY_TOMBSTONES: Final = 100_000
CLOCK_OFF: Final = timedelta(seconds=60)
CLOCK_DIFFERS: Final = timedelta(seconds=2)
LAPS_BEHIND: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``kind`` is a word for programs, ``text`` says what is so, ``advice`` what to do.

    An ``error`` loses data, has lost some, or keeps something from working; a ``warning`` may come
    to that; a ``note`` is worth knowing.
    """

    kind: str
    severity: Severity
    text: str
    advice: str


def of_store(state: StoreState) -> Iterator[Finding]:
    """Findings of the store."""
    for problem in state.problems:
        yield Finding(
            kind="store",
            severity="error",
            text=problem,
            advice="do what the sentence says; `holdfast status` shows servers and buckets",
        )
    for advice in state.advice:
        yield Finding(
            kind="old_server", severity="warning", text=advice, advice="upgrade the nats-server"
        )
    if state.buckets:
        yield from _of_durability(state.durability)
    for bucket in state.buckets:
        yield from _of_room(bucket)


def _of_durability(durability: Durability) -> Iterator[Finding]:
    if durability == "lazy":
        yield Finding(
            kind="lazy_sync",
            severity="warning",
            text="a power cut may lose what was acknowledged: writes are not synced",
            advice="set sync_interval: always in the jetstream block of each nats-server",
        )
    if durability == "unknown":
        yield Finding(
            kind="lazy_sync",
            severity="note",
            text="nothing tells whether writes are synced",
            advice="set monitor_url to the monitoring addresses of all nats-servers",
        )


def _of_room(bucket: BucketState) -> Iterator[Finding]:
    if bucket.max_bytes > 0 and bucket.bytes >= NEARLY_FULL * bucket.max_bytes:
        yield Finding(
            kind="nearly_full",
            severity="warning",
            text=f"bucket {bucket.bucket} has {bucket.bytes} of {bucket.max_bytes} bytes",
            advice=(
                "delete what is not needed and wait for a collection, or raise max_bytes in the"
                " store's URL and run `holdfast admin init`"
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCount:
    """A server's report on its copy of a stream."""

    server: str
    stream: str
    last: int
    messages: int
    bytes: int
    deleted: int


def of_replicas(counts: Iterable[StreamCount]) -> Iterator[Finding]:
    """Copies that have come equally far and do not hold the same."""
    seen: dict[tuple[str, int], StreamCount] = {}
    for count in counts:
        other = seen.setdefault((count.stream, count.last), count)
        if (count.messages, count.deleted) != (other.messages, other.deleted):
            yield Finding(
                kind="replicas_differ",
                severity="error",
                text=(
                    f"{count.stream} has {count.messages} messages on {count.server} and"
                    f" {other.messages} on {other.server}, up to the same {count.last}"
                ),
                advice=(
                    "stop the server that lacks messages, remove its store, and let it come back"
                    " from the others"
                ),
            )


def of_clocks(offs: Mapping[str, timedelta]) -> Iterator[Finding]:
    """Clocks of workers, by their nodes, that are so far off the store's."""
    for node, off in sorted(offs.items()):
        told = f"the clock of {node} is {abs(off).total_seconds():.0f} s off the store's"
        if abs(off) > CLOCK_OFF:
            yield Finding(
                kind="clock",
                severity="error",
                text=f"{told}: it removes no snapshots by a policy and ends no names",
                advice="set the clock of that machine by NTP",
            )
        elif abs(off) > CLOCK_DIFFERS:
            yield Finding(
                kind="clock",
                severity="note",
                text=told,
                advice="set the clock of that machine by NTP",
            )


def of_tombstones(store: str, count: int) -> Iterator[Finding]:
    """Notes of what was removed, which stay for good."""
    if count >= MANY_TOMBSTONES:
        yield Finding(
            kind="tombstones",
            severity="note",
            text=f"{store} keeps {count} notes of what was deleted",
            advice="a million of them take the server 0.4 GB of memory and 115 MB of disk",
        )
