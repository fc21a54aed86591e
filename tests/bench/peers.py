"""The process in which another client's object store is measured.

``python peers.py CLIENT URL`` answers one JSON line on stdout for each JSON line on stdin:
``put``, ``get``, ``sum`` and ``delete`` of one object, one at a time, with the seconds that the
call itself took. It runs as a plain file, so that nothing of holdfast is imported beside the
client: what is measured is that client as its users have it, with its own defaults. Interpreter
start, connecting and reading the source file stay outside the clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Command = Callable[..., Awaitable[dict[str, Any]]]


class Sink(Protocol):
    """Where a download goes."""

    def write(self, data: bytes, /) -> int | None:
        """Take ``data``."""


class ObjectClient(Protocol):
    """One client's object store, called as its documentation says.

    Each client checks what it reads against the recorded SHA-256 by itself, within ``get``.
    """

    async def put(self, name: str, data: bytes) -> str:
        """Store ``data``; the key under which ``get`` finds it."""

    async def get(self, key: str, sink: Sink) -> None:
        """Write the whole object into ``sink``."""

    async def delete(self, key: str) -> None:
        """Forget the object."""


class Peer(ObjectClient, Protocol):
    """A client with its connection."""

    async def close(self) -> None:
        """Disconnect."""


class HashingSink(io.RawIOBase):
    """Hashes what it is given and keeps nothing."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: Any, /) -> int:
        """Hash ``data``."""
        self.sha256.update(data)
        return len(data)


class NatsPy:
    """nats-py's object store, with its default chunk of 128 KiB."""

    def __init__(self, connection: Any, store: Any) -> None:
        self._connection = connection
        self._store = store

    @classmethod
    async def connect(cls, url: str) -> NatsPy:
        """Connect and make a bucket."""
        import nats

        connection = await nats.connect(url)
        return cls(connection, await connection.jetstream().create_object_store("nats-py"))

    async def put(self, name: str, data: bytes) -> str:
        """Put from memory."""
        await self._store.put(name, data)
        return name

    async def get(self, key: str, sink: Sink) -> None:
        """Get with ``writeinto``: to memory it copies all it has for each chunk that comes."""
        await self._store.get(key, writeinto=sink)

    async def delete(self, key: str) -> None:
        """Delete."""
        await self._store.delete(key)

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()


class Natsrpy:
    """natsrpy: the Rust client, with bindings for Python.

    It uses blocks of 24 KiB both ways unless told, which costs it nearly half its speed. So it is
    measured twice: as it comes, and with the 128 KiB that are the default of other clients.
    """

    def __init__(self, connection: Any, store: Any, **block: int) -> None:
        self._connection = connection  # the store alone does not keep it open
        self._store = store
        self._block = block

    @classmethod
    async def connect(cls, url: str, **block: int) -> Natsrpy:
        """Connect and make a bucket. ``chunk_size``: bytes of a chunk, and of a read."""
        import natsrpy
        from natsrpy.js import ObjectStoreConfig

        connection = natsrpy.Nats(addrs=[url])
        await connection.startup()
        jetstream = await connection.jetstream()
        bucket = "natsrpy" + "".join(f"-{size}" for size in block.values())
        store = await jetstream.object_store.create(ObjectStoreConfig(bucket))
        return cls(connection, store, **block)

    async def put(self, name: str, data: bytes) -> str:
        """Put from memory."""
        await self._store.put(name, data, **self._block)
        return name

    async def get(self, key: str, sink: Sink) -> None:
        """Get into a writer."""
        await self._store.get(key, sink, **self._block)

    async def delete(self, key: str) -> None:
        """Delete."""
        await self._store.delete(key)

    async def close(self) -> None:
        """Disconnect: a connection that is merely dropped aborts the process."""
        await self._connection.shutdown()


class Natsio:
    """natsio's object store, with its default chunk of 128 KiB."""

    def __init__(self, connection: Any, store: Any) -> None:
        self._connection = connection
        self._store = store

    @classmethod
    async def connect(cls, url: str) -> Natsio:
        """Connect and make a bucket."""
        import natsio
        from natsio.objectstore import ObjectStoreConfig

        connection = await natsio.connect(url)
        config = ObjectStoreConfig(bucket="natsio")
        return cls(connection, await connection.jetstream().create_object_store(config))

    async def put(self, name: str, data: bytes) -> str:
        """Put from memory."""
        await self._store.put(name, data)
        return name

    async def get(self, key: str, sink: Sink) -> None:
        """Get as an iterator of chunks."""
        async with self._store.get(key) as chunks:
            async for chunk in chunks:
                sink.write(chunk)

    async def delete(self, key: str) -> None:
        """Delete."""
        await self._store.delete(key)

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()


CLIENTS: Final[dict[str, Callable[[str], Awaitable[Peer]]]] = {
    "nats-py": NatsPy.connect,
    "natsrpy": Natsrpy.connect,
    "natsrpy-128k": lambda url: Natsrpy.connect(url, chunk_size=128 * 1024),
    "natsio": Natsio.connect,
}


def unique_bytes(source: Path, salt: str) -> bytes:
    """The bytes of ``source``, with ``salt`` written over their beginning.

    Different content for each put: a content-addressed store would otherwise store it once.
    """
    head = salt.encode()
    with source.open("rb") as file:
        file.seek(len(head))
        return head + file.read()


class ObjectCommands:
    """The calls of any client: one object at a time."""

    def __init__(self, client: ObjectClient) -> None:
        self._client = client

    async def put(self, *, source: str, salt: str) -> dict[str, Any]:
        """Store the file ``source``, made unique by ``salt``, from memory."""
        data = unique_bytes(Path(source), salt)
        start = time.perf_counter()
        key = await self._client.put(salt, data)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "key": key, "sha256": hashlib.sha256(data).hexdigest()}

    async def get(self, *, key: str) -> dict[str, Any]:
        """Read an object and drop its bytes, through a real file."""
        with open(os.devnull, "wb", buffering=0) as sink:  # noqa: ASYNC230  (never waits)
            start = time.perf_counter()
            await self._client.get(key, sink)
            return {"seconds": time.perf_counter() - start}

    async def sum(self, *, key: str) -> dict[str, Any]:
        """The SHA-256 of what is read."""
        sink = HashingSink()
        await self._client.get(key, sink)
        return {"sha256": sink.sha256.hexdigest()}

    async def delete(self, *, key: str) -> dict[str, Any]:
        """Forget an object."""
        await self._client.delete(key)
        return {}

    def table(self) -> dict[str, Command]:
        """The commands by name."""
        return {"put": self.put, "get": self.get, "sum": self.sum, "delete": self.delete}


async def serve(commands: Mapping[str, Command]) -> None:
    """Say that the client is ready, then answer commands until stdin ends."""
    reply: dict[str, Any] = {"ready": True}
    while True:
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            return
        command = json.loads(line)
        reply = await commands[command.pop("do")](**command)


async def main(name: str, url: str) -> None:
    """Measure the client ``name``."""
    client = await CLIENTS[name](url)
    await serve(ObjectCommands(client).table())
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
