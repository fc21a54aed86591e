"""``blob.status``: how the store is, as a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast.handlers.endpoint import AnyEndpoint, Call, Endpoint
from holdfast.protocol.status import (
    GET_STATUS,
    BucketStatus,
    GetStatus,
    IndexStatus,
    PeerStatus,
    ServerStatus,
    StoreStatus,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast.domain.store_state import BucketState, Layout, StoreState
    from holdfast.repository.names.index.follower import IndexState


class StatusHandlers:
    """Answers ``blob.status``."""

    def __init__(
        self,
        read: Callable[[], Awaitable[StoreState]],
        index: Callable[[], IndexState],
        advice: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """``read`` looks at the store, ``index`` at this worker's index of names.

        ``advice`` is what else there is to say of this worker.
        """
        self._read = read
        self._index = index
        self._advice = advice

    async def status(self, _request: GetStatus, _call: Call) -> StoreStatus:
        """``blob.status``."""
        told = store_status(await self._read())
        return msgspec.structs.replace(
            told, index=_index(self._index()), advice=[*told.advice, *self._advice()]
        )

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (Endpoint(GET_STATUS, self.status),)


def store_status(state: StoreState) -> StoreStatus:
    """``state`` as it is told."""
    return StoreStatus(
        durability=state.durability,
        servers=msgspec.convert(state.servers, list[ServerStatus], from_attributes=True),
        buckets=[_bucket(bucket, state.layout) for bucket in state.buckets],
        problems=list(state.problems),
        advice=list(state.advice),
    )


def _index(state: IndexState) -> IndexStatus:
    return IndexStatus(
        ready=state.is_ready,
        names=state.names,
        lag=max(state.last - state.position, 0),
        rebuilt=state.rebuilt,
    )


def _bucket(bucket: BucketState, layout: Layout) -> BucketStatus:
    return BucketStatus(
        bucket=bucket.bucket,
        stream=bucket.stream,
        kind="objects" if bucket.kind == "objects" else "records",
        storage=bucket.storage,
        replicas=bucket.replicas,
        wanted=layout.replicas,
        leader=bucket.leader,
        peers=msgspec.convert(bucket.peers, list[PeerStatus], from_attributes=True),
        messages=bucket.messages,
        bytes=bucket.bytes,
        max_bytes=bucket.max_bytes if bucket.max_bytes >= 0 else None,
    )
