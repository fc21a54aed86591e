"""A few clients that put, get, upload, delete, archive and restore, at an easy pace.

What each of them does next, and with which bytes, comes from the seed alone. They are holdfast's
own clients with their default settings, and every call is recorded. A blob is kept or doomed from
the beginning: only doomed ones are deleted, and only kept ones are read.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from tests.cluster.history import History
from tests.cluster.workers import NODES
from tests.e2e_snapshots.trees import contents, plain_tree

from holdfast.client import connect
from holdfast.domain.digest import digest_of
from holdfast.errors import HoldfastError, OutcomeUnknownError
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.cluster.checker import Sight
    from tests.cluster.history import Fate, Kind
    from tests.cluster.workers import Pool

    from holdfast.client import Client

WRITERS: Final = ("writer-0", "writer-1", "writer-2")
UPLOADER: Final = "uploader"
ARCHIVERS: Final = ("archiver-0", "archiver-1")
_SMALL_BYTES: Final = (0, 1, 500, 5_000, 40_000, 200_000)
_UPLOAD_BYTES: Final = (1_100_000, 3_000_000)
_BLOCK_BYTES: Final = 100_000
_FILES: Final = 50
_FILE_BYTES: Final = 1_000
_DOOMED: Final = 0.25
_PAUSE_SECONDS: Final = (0.01, 0.09)
_UPLOAD_PAUSE_SECONDS: Final = (0.2, 0.8)

type Contents = dict[bytes, str]


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that can be made again."""

    seed: str
    size: int
    fate: Fate

    @property
    def data(self) -> bytes:
        """The bytes."""
        head = self.seed.encode()  # so that no two are equal
        return head + Random(self.seed).randbytes(self.size)  # noqa: S311


class Load:
    """The clients. ``blobs`` has every blob that was sent, by digest; see also ``kept``."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self.pool = pool
        self.seed = seed
        self.history = History(time.monotonic)
        self.blobs: dict[str, Blob] = {}
        self.kept: list[str] = []
        self.snapshots: dict[str, Contents] = {}
        self.restoring: dict[str, Contents] = {}
        self._doomed: list[str] = []
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until ``stop``; what is under way then is finished."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            for name in WRITERS:
                tasks.create_task(self._write(name, await self._client(stack, name)))
            tasks.create_task(self._upload(await self._client(stack, UPLOADER)))
            for name in ARCHIVERS:
                archiver = Archiver(self, name, await self._client(stack, name))
                tasks.create_task(archiver.run())

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()

    def choices(self, name: str) -> Random:
        """The choices of one client."""
        return Random(f"{self.seed} {name}")  # noqa: S311

    async def going_on(
        self, rng: Random, pause_seconds: tuple[float, float] = _PAUSE_SECONDS
    ) -> bool:
        """After a short pause, whether there is more to do."""
        try:
            async with asyncio.timeout(rng.uniform(*pause_seconds)):
                await self._stopping.wait()
        except TimeoutError:
            return True
        return False

    async def do(
        self,
        kind: Kind,
        key: str,
        client: str,
        call: Callable[[], Awaitable[Sight]],
        target: str = "",
    ) -> bool:
        """Record a call; whether it succeeded. It says itself whether the answer was right."""
        operation = self.history.begin(kind, key, client, target)
        try:
            sight = await call()
        except OutcomeUnknownError as error:
            self.history.end(operation, "unknown", error.code, error.detail)
        except HoldfastError as error:
            self.history.end(operation, "failed", error.code, error.detail)
        else:
            self.history.end(operation, "ok" if sight == "right" else "wrong")
        return operation.outcome == "ok"

    async def _client(self, stack: AsyncExitStack, name: str) -> Client:
        options = NatsOptions(servers=tuple(self.pool.servers), name=name)
        client = await connect(options, prefix=self.pool.prefix)
        return await stack.enter_async_context(client)

    async def _write(self, name: str, client: Client) -> None:
        rng = self.choices(name)
        number = 0
        while await self.going_on(rng):
            choice = rng.random()
            if choice < 0.3 and self.kept:
                await self._get(name, client, rng.choice(self.kept))
            elif choice < 0.4 and self._doomed:
                doomed = self._doomed.pop(rng.randrange(len(self._doomed)))
                await self._delete(name, client, doomed)
            else:
                number += 1
                fate: Fate = "doomed" if rng.random() < _DOOMED else "kept"
                blob = Blob(f"{self.seed} {name} {number} ", rng.choice(_SMALL_BYTES), fate)
                await self._put(name, client, blob)

    async def _put(self, name: str, client: Client, blob: Blob) -> None:
        data = blob.data
        digest = self._remember(blob, data)

        async def call() -> Sight:
            return "right" if (await client.put(data)).digest == digest else "wrong"

        if await self.do("put", digest, name, call):
            (self.kept if blob.fate == "kept" else self._doomed).append(digest)

    async def _get(self, name: str, client: Client, digest: str) -> None:
        async def call() -> Sight:
            return "right" if await client.get(digest) == self.blobs[digest].data else "wrong"

        await self.do("get", digest, name, call)

    async def _delete(self, name: str, client: Client, digest: str) -> None:
        async def call() -> Sight:
            await client.delete(digest)
            return "right"

        await self.do("delete", digest, name, call)

    async def _upload(self, client: Client) -> None:
        """Streams that cannot be rewound."""
        rng = self.choices(UPLOADER)
        number = 0
        while await self.going_on(rng, _UPLOAD_PAUSE_SECONDS):
            number += 1
            blob = Blob(f"{self.seed} {UPLOADER} {number} ", rng.randint(*_UPLOAD_BYTES), "kept")
            data = blob.data
            digest = self._remember(blob, data)

            async def call(data: bytes = data, digest: str = digest) -> Sight:
                return "right" if (await client.put(_blocks(data))).digest == digest else "wrong"

            if await self.do("upload", digest, UPLOADER, call):
                self.kept.append(digest)

    def _remember(self, blob: Blob, data: bytes) -> str:
        digest = digest_of(data)
        self.blobs[digest] = blob
        return digest


class Archiver:
    """One client that takes snapshots of an app on each node, and restores them beside it."""

    def __init__(self, load: Load, name: str, client: Client) -> None:
        self._load = load
        self._name = name
        self._client = client
        self._rng = load.choices(name)
        self._own: list[tuple[str, str]] = []
        self._count = 0

    async def run(self) -> None:
        """Until the load is stopped."""
        trees = {
            node: plain_tree(
                self._load.pool.apps[node] / f"{self._name}-{node}",
                files=_FILES,
                size=_FILE_BYTES,
                seed=self._rng.getrandbits(32),
            )
            for node in NODES
        }
        while await self._load.going_on(self._rng):
            choice = self._rng.random()
            if choice < 0.4 or not self._own:
                await self._create(self._rng.choice(NODES), trees)
                continue
            key, node = self._rng.choice(self._own)
            if choice < 0.65:
                await self._restore(key, node)
            elif choice < 0.8:
                await self._verify(key)
            else:
                await self._read(key)

    async def _create(self, node: str, trees: dict[str, Path]) -> None:
        tree = trees[node]
        for path in self._rng.sample(sorted(tree.glob("*/*")), 5):
            path.write_bytes(self._rng.randbytes(self._rng.randint(0, 2 * _FILE_BYTES)))
        stored = contents(tree)
        operation = self._load.history.begin("create", tree.name, self._name)
        try:
            record = await self._client.snapshots.create(tree.name, labels={"by": self._name})
        except OutcomeUnknownError as error:
            self._load.history.end(operation, "unknown", error.code, error.detail)
        except HoldfastError as error:
            self._load.history.end(operation, "failed", error.code, error.detail)
        else:
            operation.key = record.key
            self._load.history.end(operation, "ok")
            self._load.snapshots[record.key] = stored
            self._own.append((record.key, node))

    async def _restore(self, key: str, node: str) -> None:
        self._count += 1
        target = self._load.pool.apps[node] / f"restored-{self._name}-{self._count}"
        stored = self._load.snapshots[key]
        self._load.restoring[str(target)] = stored

        async def call() -> Sight:
            await self._client.snapshots.restore(key, app=target.name)
            return "right" if target.is_dir() and contents(target) == stored else "wrong"

        if await self._load.do("restore", key, self._name, call, str(target)):
            del self._load.restoring[str(target)]
            await asyncio.to_thread(shutil.rmtree, target)

    async def _verify(self, key: str) -> None:
        async def call() -> Sight:
            pages = [page async for page in self._client.snapshots.verify(key)]
            return "wrong" if any(page.damaged for page in pages) else "right"

        await self._load.do("verify", key, self._name, call)

    async def _read(self, key: str) -> None:
        files = {path: sha for path, sha in self._load.snapshots[key].items() if sha}
        path = self._rng.choice(sorted(files))

        async def call() -> Sight:
            data = await self._client.snapshots.read(key, path)
            return "right" if hashlib.sha256(data).hexdigest() == files[path] else "wrong"

        await self._load.do("read", key, self._name, call)


async def _blocks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _BLOCK_BYTES):
        yield data[start : start + _BLOCK_BYTES]
