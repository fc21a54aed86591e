"""The state of a store as tables and sentences: ``status``, ``admin layout``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from holdfast.cli.base.output import human_bytes, print_line
from holdfast.runtime.escapes import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.domain.store_state import BucketState
    from holdfast.protocol.status import BucketStatus, PeerStatus, ServerStatus, StoreStatus

_FILE_WIDTH = 512


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()
) -> None:
    """A table of results; the columns that ``numbers`` names are right-aligned."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left")
    for row in rows:
        table.add_row(*map(escape_control, row))
    # In a file or a pipe nothing is cut to the width of a terminal that is not there.
    Console(width=None if sys.stdout.isatty() else _FILE_WIDTH).print(table)


def print_servers(servers: Iterable[ServerStatus]) -> None:
    """The nats-servers."""
    rows = [
        (server.name, server.version or "unknown", server.cluster, server.durability)
        for server in servers
    ]
    print_table(("server", "version", "cluster", "durability"), rows)


def print_buckets(buckets: Iterable[BucketStatus]) -> None:
    """The buckets, with how many replicas are current of how many, and where."""
    rows = [
        (
            bucket.bucket,
            bucket.stream,
            bucket.kind,
            _replicas(bucket),
            bucket.leader or ("none" if bucket.peers else "-"),
            ", ".join(_peer(peer) for peer in bucket.peers if peer.name != bucket.leader) or "-",
            f"{bucket.messages:,}",
            human_bytes(bucket.bytes),
            "no limit" if bucket.max_bytes is None else human_bytes(bucket.max_bytes),
        )
        for bucket in buckets
    ]
    headings = ("bucket", "stream", "kind", "replicas", "leader", "others")
    numbers = ("messages", "bytes", "max_bytes")
    print_table((*headings, *numbers), rows, numbers=numbers)


def _replicas(bucket: BucketStatus) -> str:
    """The current replicas of those there are; and the wanted count if another."""
    current = sum(peer.current and not peer.offline for peer in bucket.peers) or 1
    if bucket.peers and not bucket.leader:
        current = 0
    told = f"{current}/{bucket.replicas}"
    if bucket.wanted is not None and bucket.wanted != bucket.replicas:
        told += f", not {bucket.wanted}"
    return told


def _peer(peer: PeerStatus) -> str:
    if peer.offline:
        return f"{peer.name} offline"
    if peer.current:
        return f"{peer.name} current"
    return f"{peer.name} {peer.lag:,} behind"


def print_verdict(store: StoreStatus) -> None:
    """Whether the store is as it should be, and if not, why; then what would be better."""
    if store.problems:
        print_line("The store is not what the configuration asks for:")
    else:
        print_line("The store is what the configuration asks for.")
    for problem in store.problems:
        print_line(f"- {problem}")
    for advice in store.advice:
        print_line(f"Advice: {advice}")


def progress_of(state: BucketState) -> str:
    """A bucket's copies and their lag, in a line."""
    behind = [
        f"{peer.name} {'offline' if peer.offline else f'{peer.lag:,} behind'}"
        for peer in state.peers
        if peer.offline or not peer.current
    ]
    told = f"{state.stream}: {state.current} current, {state.replicas} wanted"
    return f"{told}, {', '.join(behind)}" if behind else told
