"""How many copies of a bucket there are, where, and how they keep up; and changing that online.

A change is ordered from the server and then watched, so that whoever was interrupted may order it
again: what is done already stays done.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.domain.store_state import (
    BucketState,
    Layout,
    Peer,
    is_elsewhere,
    is_settled,
)
from holdfast.errors import NotFoundError, UnavailableError
from holdfast.stores.readiness import NotReadyError, ask_api
from holdfast.transport.jetstream_messages import ApiRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.transport.jetstream import JetStream

POLL_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 60.0
"""For how long a bucket that is being copied may give no answer."""
_NANOSECONDS: Final = 10**9


class _PeerInfo(msgspec.Struct):
    name: str
    current: bool = False
    offline: bool = False
    active: int = 0
    lag: int = 0


class _ClusterInfo(msgspec.Struct):
    leader: str = ""
    replicas: list[_PeerInfo] = []
    desired: msgspec.Raw | None = None


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
    """Where ``layout`` wants a stream, as JetStream is told. Empty: anywhere."""
    tags = {"tags": list(layout.tags)} if layout.tags else {}
    return tags if layout.cluster is None else {**tags, "cluster": layout.cluster}


def bucket_state(answer: Mapping[str, Any]) -> BucketState:
    """What an answer of ``STREAM.INFO`` tells."""
    info = msgspec.convert(answer, _StreamInfo)
    kind, _, bucket = info.config.name.partition("_")
    where = info.config.placement
    return BucketState(
        bucket=bucket,
        stream=info.config.name,
        kind="objects" if kind == "OBJ" else "records",
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
            offline=peer.offline,
            lag=peer.lag,
            silent_seconds=peer.active / _NANOSECONDS,
        )
        for peer in cluster.replicas
        if peer.name != cluster.leader
    )
    return (*leader, *sorted(others, key=lambda peer: peer.name))


async def read_bucket(js: JetStream, stream: str) -> BucketState:
    """The bucket behind ``stream``. Raises NotFoundError, NotReadyError, UnavailableError."""
    return bucket_state(await ask_api(js, f"STREAM.INFO.{stream}"))


async def wait_for_leader(js: JetStream, stream: str) -> None:
    """Once. Raises NotReadyError while there is none: then it takes no writes."""
    found = await read_bucket(js, stream)
    if found.clustered and not found.leader:
        msg = f"{stream} has no leader yet"
        raise NotReadyError(msg)


async def order_replicas(js: JetStream, stream: str, replicas: int, layout: Layout) -> bool:
    """Have the servers keep ``replicas`` copies where ``layout`` says; whether that is a change.

    Raises UnavailableError with the server's reason when there cannot be so many; nothing is
    changed then.
    """
    answer = await ask_api(js, f"STREAM.INFO.{stream}")
    found = bucket_state(answer)
    if found.replicas == replicas and not is_elsewhere(found, layout):
        return False
    where = placement_of(layout)
    settings = {**answer["config"], "num_replicas": replicas}
    if where:
        settings["placement"] = where
    try:
        await ask_api(js, f"STREAM.UPDATE.{stream}", settings)
    except ApiRefusedError as refused:
        msg = f"the server refused {replicas} replica(s) of {stream}: {refused.detail}"
        raise UnavailableError(msg) from refused
    return True


async def watch_replicas(
    js: JetStream, stream: str, replicas: int, seen: Callable[[BucketState], None]
) -> None:
    """Return once ``replicas`` copies are there and up to date; ``seen`` is told how it goes.

    Raises UnavailableError when the bucket gives no answer for a minute, or is gone.
    """
    loop = asyncio.get_running_loop()
    heard = loop.time()
    while True:
        try:
            state = await read_bucket(js, stream)
        except NotFoundError as error:
            msg = f"{stream} is not there any more"
            raise UnavailableError(msg) from error
        except NotReadyError:
            # While its copies change a stream has no leader for a moment.
            if loop.time() - heard > SILENCE_SECONDS:
                raise
        else:
            heard = loop.time()
            seen(state)
            if is_settled(state, replicas):
                return
        await asyncio.sleep(POLL_SECONDS)
