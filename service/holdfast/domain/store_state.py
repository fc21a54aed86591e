"""The store that is asked for, the store that is seen, and how the two differ.

Plain values and the sentences about them. ``stores.jetstream.replication`` reads them off the
streams, ``runtime.monitoring`` off the servers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Durability = Literal["synced", "lazy", "unknown"]
Storage = Literal["file", "memory"]
BucketKind = Literal["objects", "records", "logs"]
MAX_REPLICAS: Final = 5
MIN_SERVER: Final = (2, 14, 0)
"""The oldest nats-server that is run with."""
GOOD_SERVER: Final = (2, 15, 1)
"""The oldest of which nothing is missed: see ``dated_servers``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The layout asked for of buckets. A field that is None, or empty, is not asked for.

    ``storage`` is always asked for: what is kept in memory is gone with its servers. ``max_bytes``
    is for the buckets of objects, ``states_max_bytes`` for that of logs; -1 is no limit. ``tags``
    and ``cluster`` say which servers may hold them.
    """

    storage: Storage = "file"
    replicas: int | None = None
    max_bytes: int | None = None
    states_max_bytes: int | None = None
    tags: tuple[str, ...] = ()
    cluster: str | None = None

    def limit_of(self, kind: BucketKind) -> int | None:
        """The limit of bytes in such a bucket, where one is asked for."""
        return {"objects": self.max_bytes, "records": None, "logs": self.states_max_bytes}[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A server that holds a copy. ``lag``: how many changes it is behind the leader.

    ``offline``: the others hear nothing of it.
    """

    name: str
    current: bool
    offline: bool = False
    lag: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketState:
    """A bucket as JetStream tells of it.

    ``leader`` is empty while there is none. ``clustered`` is False where one server has it alone:
    then neither leader nor peers are told. ``moving``: copies are being added or removed.
    ``unfit``: what of its settings loses or spoils what is stored, and what to do.
    """

    bucket: str
    stream: str
    kind: BucketKind
    storage: Storage = "file"
    replicas: int = 1
    clustered: bool = True
    leader: str = ""
    peers: tuple[Peer, ...] = ()
    moving: bool = False
    messages: int = 0
    bytes: int = 0
    max_bytes: int = -1
    tags: tuple[str, ...] = ()
    cluster: str | None = None
    unfit: str | None = None

    @property
    def current(self) -> int:
        """Copies online and up to date."""
        if not self.clustered:
            return 1
        return sum(peer.current and not peer.offline for peer in self.peers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """A nats-server. Unknown fields have their defaults.

    ``jetstream`` is False for one that only passes messages on. ``cluster_size``: how many servers
    with JetStream it knows of, itself among them; 1 where it is alone.
    """

    name: str
    version: str = ""
    cluster: str = ""
    durability: Durability = "unknown"
    max_payload: int | None = None
    jetstream: bool | None = None
    cluster_size: int | None = None


@dataclass(frozen=True, slots=True)
class Silent:
    """An address that should tell of a server and does not."""

    address: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreState:
    """A store as a whole. ``problems``: why it is not what it is asked to be, as sentences.

    ``advice``: what would be better, of what is no problem.
    """

    durability: Durability = "unknown"
    servers: tuple[ServerState, ...] = ()
    buckets: tuple[BucketState, ...] = ()
    layout: Layout = field(default_factory=Layout)
    problems: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


def server_version(text: str) -> tuple[int, ...]:
    """``2.15.1-RC.2`` as (2, 15, 1): what is not said is 0."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    return tuple([*numbers, 0, 0, 0][:3])


def version_text(version: tuple[int, ...]) -> str:
    """(2, 14, 0) as 2.14, (2, 15, 1) as 2.15.1."""
    return ".".join(map(str, version)).removesuffix(".0")


def dated_servers(servers: Iterable[ServerState]) -> Iterator[str]:
    """Servers older than recommended. No reason not to serve."""
    for server in servers:
        if server.version and server_version(server.version) < GOOD_SERVER:
            yield (
                f"{server.name} is nats-server {server.version}: before {version_text(GOOD_SERVER)}"
                " a reader may see half of an atomic batch, each replicated write is synced twice,"
                " and what is written while replicas are added may be lost"
            )


def durability_of(told: Sequence[ServerState], silent: Sequence[Silent] = ()) -> Durability:
    """The durability of the servers' writes, where ``told`` answered and ``silent`` did not.

    One that does not sync is enough for ``lazy``. ``synced`` needs the word of more than half, so
    that it can be had while a node is down.
    """
    keeping = [server for server in told if server.jetstream]
    if any(server.durability == "lazy" for server in keeping):
        return "lazy"
    if keeping and len(told) > len(silent):
        return "synced"
    return "unknown"


def cluster_size(servers: Iterable[ServerState]) -> int | None:
    """The count of servers that can hold copies, if known."""
    sizes = [server.cluster_size for server in servers if server.cluster_size is not None]
    return max(sizes, default=None)


def too_few_servers(replicas: int | None, servers: Iterable[ServerState]) -> str | None:
    """Why so many copies cannot be, if that can be told."""
    size = cluster_size(servers)
    if replicas is None or size is None or replicas <= size:
        return None
    most = "replicas=1" if size == 1 else f"replicas={size} or less"
    there = "there is 1 server" if size == 1 else f"there are {size} servers"
    return (
        f"{_count(replicas, 'replica')} cannot be: {there} with JetStream. Add servers to the"
        f" cluster, or ask for {most}"
    )


def payload_difference(servers: Iterable[ServerState]) -> str | None:
    """A problem where servers take messages of different sizes: luck decides what works."""
    known = {s.name: s.max_payload for s in servers if s.max_payload is not None}
    if len(set(known.values())) < 2:
        return None
    told = ", ".join(f"{name} {size}" for name, size in sorted(known.items()))
    return f"max_payload is not the same on all servers ({told}): set it to one value"


def lazy_servers(servers: Iterable[ServerState], *, require_sync: bool) -> Iterator[str]:
    """Servers that do not sync, where it is asked for or others do."""
    keeping = [server for server in servers if server.jetstream]
    if not require_sync and not any(server.durability == "synced" for server in keeping):
        return
    for server in keeping:
        if server.durability == "lazy":
            yield (
                f"{server.name} does not sync its writes: set sync_interval: always in its"
                " configuration"
            )


def differences(bucket: BucketState, layout: Layout) -> Iterator[str]:
    """A bucket's differences from ``layout``, with remedies."""
    name = f"bucket {bucket.bucket}"
    if bucket.unfit is not None:
        yield f"{name} has {bucket.unfit}"
    if layout.replicas is not None and layout.replicas != bucket.replicas:
        yield (
            f"{name} has {_count(bucket.replicas, 'replica')} and the configuration asks for"
            f" {layout.replicas}: `holdfast admin replicas {layout.replicas}` changes it"
        )
    if layout.storage != bucket.storage:
        yield (
            f"{name} has storage={bucket.storage} and the configuration asks for"
            f" {layout.storage}: that cannot be changed, so change the store's URL"
        )
    limit = layout.limit_of(bucket.kind)
    if limit is not None and limit != bucket.max_bytes:
        yield (
            f"{name} has max_bytes={bucket.max_bytes} and the configuration asks for {limit}:"
            " `holdfast admin init` changes it"
        )
    if is_elsewhere(bucket, layout):
        yield (
            f"{name} is placed {placement(bucket.tags, bucket.cluster)} and the configuration asks"
            f" for {placement(layout.tags, layout.cluster)}: `holdfast admin replicas"
            f" {layout.replicas or bucket.replicas}` moves it"
        )


def is_elsewhere(bucket: BucketState, layout: Layout) -> bool:
    """Whether a bucket may lie on other servers than ``layout`` allows."""
    if layout.tags and set(layout.tags) != set(bucket.tags):
        return True
    return layout.cluster is not None and layout.cluster != bucket.cluster


def placement(tags: Sequence[str], cluster: str | None) -> str:
    """The servers for a bucket, in words."""
    words = [f"cluster={cluster}"] if cluster else []
    if tags:
        words.append(f"tags={','.join(tags)}")
    return " ".join(words) or "anywhere"


def is_settled(bucket: BucketState, replicas: int) -> bool:
    """Whether exactly ``replicas`` copies are there, all of them up to date."""
    if not bucket.clustered:
        return replicas == bucket.replicas == 1
    return (
        bucket.replicas == replicas == len(bucket.peers) == bucket.current
        and bool(bucket.leader)
        and not bucket.moving
    )


def troubles(bucket: BucketState) -> Iterator[str]:
    """Troubles of a bucket: no leader, or copies that are not up to date."""
    if not bucket.clustered:
        return
    if not bucket.leader:
        yield (
            f"bucket {bucket.bucket} has no leader: one is being elected, or too few of its servers"
            " can be reached"
        )
        return
    if is_settled(bucket, bucket.replicas):
        return
    reasons = [reason for peer in bucket.peers if (reason := _trouble(peer, bucket)) is not None]
    if not reasons:
        reasons = ["copies are being added or removed"]
    yield (
        f"bucket {bucket.bucket} has {min(bucket.current, bucket.replicas)} of"
        f" {_count(bucket.replicas, 'replica')} current: {', '.join(reasons)}"
    )


def _trouble(peer: Peer, bucket: BucketState) -> str | None:
    if peer.offline:
        return f"{peer.name} is offline"
    if peer.current:
        return None
    if bucket.moving:
        return f"{peer.name} is being added or removed"
    return f"{peer.name} is {peer.lag} behind" if peer.lag else f"{peer.name} is catching up"


def all_servers(
    told: Iterable[ServerState], connected: ServerState, buckets: Iterable[BucketState]
) -> tuple[ServerState, ...]:
    """Every server that is known, by name: what it tells of itself goes first."""
    known = {server.name: server for server in told}
    known.setdefault(connected.name, connected)
    for bucket in buckets:
        for peer in bucket.peers:
            known.setdefault(peer.name, ServerState(name=peer.name))
    return tuple(known[name] for name in sorted(known))


def find_problems(
    servers: Sequence[ServerState],
    silent: Sequence[Silent],
    buckets: Iterable[BucketState],
    layout: Layout,
    *,
    require_sync: bool,
) -> Iterator[str]:
    """Everything that is not as it is asked for, most telling first."""
    for bucket in buckets:
        yield from differences(bucket, layout)
        yield from troubles(bucket)
    for at in silent:
        yield f"the monitoring address {at.address} does not answer: {at.reason}"
    if (difference := payload_difference(servers)) is not None:
        yield difference
    yield from lazy_servers(servers, require_sync=require_sync)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
