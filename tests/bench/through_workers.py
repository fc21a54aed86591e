"""The process in which holdfast's client is measured: it answers the commands of ``peers``."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, BinaryIO, cast

from tests.bench.peers import ObjectCommands, serve

from holdfast.client import connect

if TYPE_CHECKING:
    from tests.bench.peers import Sink

    from holdfast.client import Client


class Holdfast:
    """The client library: what it puts goes through a worker, and its content is its address."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def put(self, name: str, data: bytes) -> str:
        """Put from memory."""
        del name
        return (await self._client.put(data)).digest

    async def get(self, key: str, sink: Sink) -> None:
        """Get into a file object."""
        await self._client.get_to(key, cast("BinaryIO", sink))

    async def delete(self, key: str) -> None:
        """Delete."""
        await self._client.delete(key)


async def main(url: str) -> None:
    """Answer until stdin ends."""
    async with await connect(servers=url, timeout_seconds=60) as client:
        await serve(ObjectCommands(Holdfast(client)).table())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
