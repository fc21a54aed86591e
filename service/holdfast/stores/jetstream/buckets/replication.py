"""The copies of a bucket: their number, places and lag; and changing these online.

A change is ordered from the server and then watched, so that one that was interrupted may be
ordered again: what is done already stays done.

Why: docs/decisions.md, "A peer of which nothing is heard is offline".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.domain.store_state import (
    BucketKind,
    BucketState,
    Layout,
    Peer,
    is_elsewhere,
    is_settled,
)
from holdfast.errors import NotFoundError, UnavailableError
from holdfast.stores.jetstream.buckets.check import unfit
from holdfast.stores.jetstream.buckets.readiness import NotReadyError, ask_api, wait_ready
from holdfast.transport.jetstream_messages import ApiRefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from holdfast.transport.jetstream import JetStream

POLL_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 60.0
"""Seconds a bucket that is being copied may give no answer."""
_KINDS: Final[dict[str, BucketKind]] = {"OBJ": "objects", "KV": "records", "HF": "logs"}
_SILENT_NS: Final = 10 * 10**9
"""After that long without a word from a peer its leader no longer counts on it."""


class _PeerInfo(msgspec.Struct):
    name: str
    current: bool = False
    offline: bool = False
    active: int = 0
    lag: int = 0
    pending: bool = False


class _ClusterInfo(msgspec.Struct):
    leader: str = ""
    replicas: list[_PeerInfo] = []
    desired: dict[str, Any] | None = None


class _Placement(msgspec.Struct):
    cluster: str = ""
    tags: list[str] = []


class _Config(msgspec.Struct):
    name: str
    storage: str = "file"
    num_replicas: int = 1
    max_bytes: int = -1
    placement: _Placement = msgspec.field(default_factory=_Placement)


class _State(msgspec.Struct):
    messages: int = 0
    bytes: int = 0


class _StreamInfo(msgspec.Struct):
    config: _Config
    state: _State = msgspec.field(default_factory=_State)
    cluster: _ClusterInfo | None = None


def placement_of(layout: Layout) -> dict[str, Any]:
    """The placement of ``layout``, as JetStream is told. Empty: anywhere."""
    tags = {"tags": list(layout.tags)} if layout.tags else {}
    return tags if layout.cluster is None else {**tags, "cluster": layout.cluster}


def bucket_state(answer: Mapping[str, Any]) -> BucketState:
    """The bucket's state in an answer of ``STREAM.INFO``."""
    info = msgspec.convert(answer, _StreamInfo)
    kind, _, bucket = info.config.name.partition("_")
    where = info.config.placement
    return BucketState(
        bucket=bucket,
        stream=info.config.name,
        kind=_KINDS[kind],
        storage="memory" if info.config.storage == "memory" else "file",
        replicas=info.config.num_replicas,
        clustered=info.cluster is not None,
        leader=info.cluster.leader if info.cluster is not None else "",
        peers=_peers(info.cluster) if info.cluster is not None else (),
        moving=info.cluster is not None and info.cluster.desired is not None,
        messages=info.state.messages,
        bytes=info.state.bytes,
        max_bytes=info.config.max_bytes,
        tags=tuple(where.tags),
        cluster=where.cluster or None,
    )


def _peers(cluster: _ClusterInfo) -> tuple[Peer, ...]:
    """The leader first, which is not among those that the server lists."""
    leader = (Peer(name=cluster.leader, current=True),) if cluster.leader else ()
    others = (
        Peer(
            name=peer.name,
            current=peer.current,
            offline=peer.offline or _is_silent(peer),
            lag=peer.lag,
        )
        for peer in cluster.replicas
        if peer.name != cluster.leader
    )
    return (*leader, *sorted(others, key=lambda peer: peer.name))


def _is_silent(peer: _PeerInfo) -> bool:
    """Servers find out late that one was killed; that a leader hears nothing tells it sooner.

    ``active`` is how long ago that was, and 0 if the leader never heard anything.
    """
    return not peer.current and not peer.pending and not 0 < peer.active < _SILENT_NS


async def read_bucket(js: JetStream, stream: str) -> BucketState:
    """The bucket behind ``stream``. Raises NotFoundError, NotReadyError, UnavailableError."""
    answer = await ask_api(js, f"STREAM.INFO.{stream}")
    return replace(bucket_state(answer), unfit=unfit(answer["config"]))


async def wait_for_leader(js: JetStream, stream: str) -> None:
    """Once. Raises NotReadyError while there is none: then it takes no writes."""
    found = await read_bucket(js, stream)
    if found.clustered and not found.leader:
        raise NotReadyError(f"{stream} has no leader yet")


@dataclass(frozen=True, slots=True)
class Kept:
    """A bucket that is kept as it should be; ``changed``: it was not before."""

    state: BucketState
    changed: bool


async def keep_replicas(
    js: JetStream, stream: str, replicas: int, layout: Layout, seen: Callable[[BucketState], None]
) -> Kept:
    """Keep ``replicas`` copies where ``layout`` says; returns once all are there and up to date.

    ``seen`` is told how it goes. It may be repeated if interrupted. Raises UnavailableError
    when there cannot be so many, with the server's reason; and when the bucket is gone, or gives
    no answer for a minute.
    """
    changed = False
    while True:
        ordered = await _order(js, stream, replicas, layout)
        state = await _watch(js, stream, ordered or replicas, seen)
        if ordered is None:
            return Kept(state, changed)
        changed = True


async def _order(js: JetStream, stream: str, replicas: int, layout: Layout) -> int | None:
    """Have the servers take the next step; how many copies it leads to, None: nothing to do."""
    answer = await _patiently(lambda: ask_api(js, f"STREAM.INFO.{stream}"), stream)
    settings = next_step(bucket_state(answer), replicas, layout)
    if settings is None:
        return None
    try:
        await _patiently(
            lambda: ask_api(js, f"STREAM.UPDATE.{stream}", {**answer["config"], **settings}), stream
        )
    except ApiRefusedError as refused:
        msg = f"the server refused {replicas} replica(s) of {stream}: {refused.detail}"
        raise UnavailableError(msg) from refused
    ordered: int = settings.get("num_replicas", answer["config"]["num_replicas"])
    return ordered


def next_step(found: BucketState, replicas: int, layout: Layout) -> dict[str, Any] | None:
    """The settings to change first; None when all is as it should be.

    The server does not change the number and the servers at once. There must be enough servers at
    each step, so copies are removed before the rest moves, and added afterwards.
    """
    move = {"placement": placement_of(layout)} if is_elsewhere(found, layout) else None
    if move is not None and replicas >= found.replicas:
        return move
    return {"num_replicas": replicas} if replicas != found.replicas else move


async def _patiently(ask: Callable[[], Awaitable[dict[str, Any]]], stream: str) -> dict[str, Any]:
    """The result of ``ask``: while its copies change a stream has no leader for a moment."""
    try:
        return await wait_ready(ask, SILENCE_SECONDS)
    except NotFoundError as error:
        raise UnavailableError(f"{stream} is not there; `holdfast admin init` makes it") from error


async def _watch(
    js: JetStream, stream: str, replicas: int, seen: Callable[[BucketState], None]
) -> BucketState:
    """The bucket, once ``replicas`` copies are there and up to date."""
    while True:
        answer = await _patiently(lambda: ask_api(js, f"STREAM.INFO.{stream}"), stream)
        state = bucket_state(answer)
        seen(state)
        if is_settled(state, replicas):
            return state
        await asyncio.sleep(POLL_SECONDS)
