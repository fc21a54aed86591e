"""``blob.status``: how the store is kept, and whether that is what it is asked to be."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import field

from holdfast.protocol.message import Reply, Request, ToldCount
from holdfast.protocol.operation import AnyOperation, Operation


class GetStatus(Request, frozen=True, kw_only=True):
    """The store's state, read anew for each request: ask every few seconds at most."""


class ServerStatus(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """A nats-server; what is not known of it is empty.

    ``durability`` and ``max_payload`` are known of those whose monitoring the worker may read.
    """

    name: str
    version: str = ""
    cluster: str = ""
    durability: Literal["synced", "lazy", "unknown"] = "unknown"
    max_payload: ToldCount | None = None


class PeerStatus(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """A server that holds a copy of a bucket. ``lag``: changes that it is behind the leader."""

    name: str
    current: bool
    offline: bool
    lag: ToldCount


class BucketStatus(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """A bucket, and the stream that it is.

    A bucket of logs is told as ``records``. ``wanted`` is how many replicas the worker's
    configuration asks for, if it does. ``leader`` and ``peers`` are empty where one server without
    a cluster has it. ``max_bytes``: none, no limit.
    """

    bucket: str
    stream: str
    kind: Literal["objects", "records"]
    storage: Literal["file", "memory"]
    replicas: ToldCount
    wanted: ToldCount | None
    leader: str
    peers: list[PeerStatus]
    messages: ToldCount
    bytes: ToldCount
    max_bytes: ToldCount | None


class IndexStatus(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The index of names of the worker that answers; until ``ready`` it lists none.

    ``lag``: changes that it is behind. ``rebuilt``: how often it was begun anew.
    """

    ready: bool
    names: ToldCount
    lag: ToldCount
    rebuilt: ToldCount


class StoreStatus(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The servers, the buckets, and what of them is not as the configuration asks.

    ``durability``: ``synced`` if what was acknowledged survives a power cut. A store on a disk or
    in memory has no buckets. ``problems`` are sentences; there are none when all is well.
    ``advice`` is what would be better, of what is no problem: servers that are not the newest.
    """

    durability: Literal["synced", "lazy", "unknown"]
    servers: list[ServerStatus]
    buckets: list[BucketStatus]
    problems: list[str]
    advice: list[str] = field(default_factory=list)
    index: IndexStatus | None = None


GET_STATUS: Final = Operation(
    "blob.status", GetStatus, StoreStatus, "The state of the store, and its problems."
)

STATUS_OPERATIONS: Final[tuple[AnyOperation, ...]] = (GET_STATUS,)
