"""A deployment's buckets and servers, read when somebody asks how the store is.

Why: docs/decisions.md, "``blob.status`` is answered by a worker".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.domain.store_state import (
    BucketState,
    Layout,
    StoreState,
    all_servers,
    dated_servers,
    find_problems,
    too_few_servers,
)
from holdfast.errors import HoldfastError, NotFoundError, UnavailableError
from holdfast.runtime.monitoring import Servers, see_servers, stream_counts
from holdfast.stores.jetstream.buckets.replication import Kept, keep_replicas, read_bucket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from holdfast.domain.findings import StreamCount
    from holdfast.transport.jetstream import JetStream

READ_SECONDS: Final = 3.0
"""Time to wait for one bucket. All are asked at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreWatch:
    """Reads how a store is, and changes how often it is kept.

    ``streams`` are those of its buckets: none where it is on a disk or in memory. ``layout`` is
    what the configuration asks for.
    """

    jetstream: JetStream
    streams: tuple[str, ...]
    layout: Layout
    monitor_urls: tuple[str, ...] = ()
    require_sync: bool = False

    async def servers(self) -> Servers:
        """The nats-servers, as far as they can be seen."""
        return await see_servers(self.jetstream.connection.server_info, self.monitor_urls)

    async def read(self) -> StoreState:
        """The state now, within a few seconds. A bucket that cannot be read is a problem."""
        servers, found = await asyncio.gather(
            self.servers(), asyncio.gather(*(self._bucket(stream) for stream in self.streams))
        )
        buckets = tuple(one for one in found if isinstance(one, BucketState))
        unread = [one for one in found if isinstance(one, str)]
        problems = find_problems(
            servers.known,
            servers.silent,
            buckets,
            self.layout,
            require_sync=self.require_sync,
        )
        return StoreState(
            durability=servers.durability,
            servers=all_servers(servers.told, servers.connected, buckets),
            buckets=buckets,
            layout=self.layout,
            problems=(*unread, *problems),
            advice=tuple(dated_servers(servers.known)),
        )

    async def counts(self) -> tuple[StreamCount, ...]:
        """The buckets' copies at each server that is monitored."""
        return await stream_counts(self.monitor_urls, self.streams)

    async def _bucket(self, stream: str) -> BucketState | str:
        """The bucket, or why it cannot be seen."""
        bucket = stream.partition("_")[2]
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await read_bucket(self.jetstream, stream)
        except NotFoundError:
            return (
                f"bucket {bucket} is not there: `holdfast admin init` makes it, unless the servers"
                " have just been started and it is on its way back"
            )
        except TimeoutError:
            return (
                f"bucket {bucket} gives no answer: a leader is being elected, or too few of its"
                " servers can be reached"
            )
        except HoldfastError as error:
            return f"bucket {bucket} gives no answer: {error.detail}"

    async def keep_replicas(
        self, replicas: int, seen: Callable[[BucketState], None]
    ) -> AsyncIterator[Kept]:
        """Keep ``replicas`` copies of every bucket: each one as soon as it is done, in turn.

        ``seen`` is told how it goes. May be called again after an interruption. Raises
        UnavailableError: too few servers, and then nothing is changed.
        """
        too_few = too_few_servers(replicas, (await self.servers()).known)
        if too_few is not None:
            raise UnavailableError(too_few)
        for stream in self.streams:
            yield await keep_replicas(self.jetstream, stream, replicas, self.layout, seen)
