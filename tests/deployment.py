"""Worker processes against a real nats-server, and a look at what lies in the bucket."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import msgspec
from nats.aio.client import Client as NatsClient
from tests.forked import Forked
from tests.processes import stop

from holdfast.bootstrap.admin import init_store
from holdfast.runtime.config import Config
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from nats.aio.msg import Msg

START_SECONDS = 60.0
STOP_SECONDS = 45.0
_SILENT_SECONDS = 2.0
"""When no answer came for so long, workers are asked anew."""
_STARTING_SECONDS = 0.25
"""The same of workers that start, and a little longer each time: they may be slow to answer."""
_LONGER_SECONDS = 0.05
_TELLING_SECONDS = 3.0


class Deployment:
    """A prefix of its own on a server: buckets, and worker processes by node name.

    ``url`` may be several, separated by commas, as in ``NATS_URL``.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "",
        store: str = "nats://blobs",
        grace_seconds: int | None = None,
    ) -> None:
        self.url = url
        self.prefix = prefix or f"d{secrets.token_hex(4)}"
        self.store = store
        self.grace_seconds = grace_seconds
        self.workers: dict[str, Forked] = {}

    @property
    def bucket(self) -> str:
        """The object store with the users' blobs."""
        return f"{self.prefix}_blobs"

    @property
    def servers(self) -> list[str]:
        """The address of each server."""
        return self.url.split(",")

    @property
    def config(self) -> Config:
        """The configuration of the processes."""
        nats = NatsOptions(servers=tuple(self.servers))
        return Config(nats=nats, prefix=self.prefix, store=self.store)

    def __enter__(self) -> Self:
        asyncio.run(init_store(self.config, grace_seconds=self.grace_seconds))
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as waits:
            for node in list(self.workers):
                waits.callback(_wait_ended, node, self._tell(node))

    def start(self, *nodes: str, **settings: str) -> None:
        """Start workers, and wait until each of them answers."""
        self.spawn(*nodes, **settings)
        asyncio.run(self.wait_serving(set(nodes)))

    def spawn(self, *nodes: str, **settings: str) -> None:
        """Start workers, which do not serve yet."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NATS_", "HOLDFAST_"))
        }
        environment |= {
            "NATS_URL": self.url,
            "HOLDFAST_PREFIX": self.prefix,
            "HOLDFAST_STORE": self.store,
            "HOLDFAST_LOG_LEVEL": "error",
            **{f"HOLDFAST_{name.upper()}": value for name, value in settings.items()},
        }
        for node in nodes:
            self.workers[node] = Forked(["worker", "--node", node], environment)

    async def wait_serving(self, nodes: set[str]) -> None:
        """Until a worker of each of ``nodes`` answers."""
        client = NatsClient()
        await client.connect(self.servers)
        try:
            seconds = _STARTING_SECONDS
            async with asyncio.timeout(START_SECONDS):
                while missing := nodes - (await self._told(client, "INFO", nodes, seconds)).keys():
                    seconds += _LONGER_SECONDS
                    for node in missing:
                        assert self.workers[node].poll() is None, f"worker {node} ended"
        finally:
            await client.close()

    async def told(self, client: NatsClient, what: str) -> dict[str, dict[str, Any]]:
        """What each worker says of itself, ``INFO`` or ``STATS``, by node; all are waited for."""
        nodes = set(self.workers)
        found: dict[str, dict[str, Any]] = {}
        async with asyncio.timeout(START_SECONDS):
            while not nodes <= found.keys():
                found = await self._told(client, what, nodes, _SILENT_SECONDS)
        return found

    async def _told(
        self, client: NatsClient, what: str, nodes: Collection[str], seconds: float
    ) -> dict[str, dict[str, Any]]:
        """The same of those that answer within ``seconds`` of each other."""
        found: dict[str, dict[str, Any]] = {}
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        await client.publish(f"$SRV.{what}.holdfast", b"", reply=inbox)
        with suppress(TimeoutError):
            while not found.keys() >= set(nodes):
                message = await subscription.next_msg(seconds)
                answer = json.loads(message.data or b"{}")
                if self._is_mine(answer):
                    found[answer["metadata"]["node"]] = answer
        await subscription.unsubscribe()
        return found

    def _is_mine(self, answer: dict[str, Any]) -> bool:
        """Other deployments of the same server answer too, and the server where there is none."""
        endpoints = answer.get("endpoints", ())
        return any(one["subject"].startswith(f"{self.prefix}.") for one in endpoints)

    def signal(self, node: str, number: signal.Signals) -> None:
        """Send a worker a signal."""
        self.workers[node].send_signal(number)

    def pause(self, node: str) -> None:
        """Stop a worker between two steps, as a busy machine might; SIGCONT wakes it."""
        stop(self.workers[node].pid)

    def kill(self, node: str) -> None:
        """End a worker as the kernel would."""
        self.signal(node, signal.SIGKILL)
        self.workers.pop(node).wait()

    def stop(self, node: str) -> int:
        """Drain a worker; how it ended. One that does not end says what it is at."""
        return _wait_ended(node, self._tell(node))

    def _tell(self, node: str) -> Forked:
        """Tell a worker to stop, once: a second signal ends one that is on its way out."""
        worker = self.workers.pop(node)
        worker.send_signal(signal.SIGCONT)
        worker.terminate()
        return worker

    def subject(self, operation: str) -> str:
        """Where the pool takes ``operation``."""
        return f"{self.prefix}.{operation}"


def _wait_ended(node: str, worker: Forked) -> int:
    """How a worker ended that was told to stop. Raises AssertionError if not by itself."""
    try:
        status = worker.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    else:
        assert status != -signal.SIGTERM, f"worker {node} was told to stop once more"
        return status
    worker.send_signal(signal.SIGUSR2)
    with suppress(subprocess.TimeoutExpired):
        worker.wait(_TELLING_SECONDS)
    worker.kill()
    worker.wait()
    msg = f"worker {node} did not stop within {STOP_SECONDS} s; standard error has its stacks"
    raise AssertionError(msg)


@contextmanager
def deployed(
    url: str, *nodes: str, store: str = "nats://blobs", **settings: str
) -> Iterator[Deployment]:
    """A deployment with workers that serve."""
    with Deployment(url, store=store) as deployment:
        deployment.start(*nodes, **settings)
        yield deployment


class Asker:
    """Raw requests, as any client of any language would send them, each waited for ``seconds``."""

    seconds = 30.0

    def __init__(self, deployment: Deployment, client: NatsClient) -> None:
        self.deployment = deployment
        self.client = client

    async def __call__(
        self, operation: str, body: bytes | dict[str, Any] = b"", **headers: str
    ) -> Msg:
        """One request. ``_`` in a header's name stands for ``-``."""
        return await self.to(self.deployment.subject(operation), body, **headers)

    async def to(self, subject: str, body: bytes | dict[str, Any] = b"", **headers: str) -> Msg:
        """One request to a full subject."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.request(subject, data, self.seconds, headers=named or None)

    async def json(
        self, operation: str, body: bytes | dict[str, Any] = b"", **headers: str
    ) -> dict[str, Any]:
        """The body of the answer."""
        decoded: dict[str, Any] = json.loads((await self(operation, body, **headers)).data)
        return decoded

    async def messages_in_bucket(self) -> int:
        """How many messages the bucket's stream holds."""
        info = await self.client.jetstream().stream_info(f"OBJ_{self.deployment.bucket}")
        return int(info.state.messages)

    async def chunks_in_bucket(self) -> int:
        """How many of them are chunks."""
        bucket = self.deployment.bucket
        info = await self.client.jetstream().stream_info(
            f"OBJ_{bucket}", subjects_filter=f"$O.{bucket}.C.>"
        )
        return sum((info.state.subjects or {}).values())

    async def chunks_of_blobs(self) -> int:
        """How many chunks the blobs have that are listed."""
        total, cursor = 0, None
        while True:
            request = {"limit": 1000} if cursor is None else {"limit": 1000, "cursor": cursor}
            page = await self.json("blob.list", request)
            for entry in page["blobs"]:
                total += (await self.json("blob.stat", {"digest": entry["digest"]}))["chunks"]
            cursor = page.get("cursor")
            if cursor is None:
                return total

    async def wait_no_orphans(self, seconds: float = 60) -> None:
        """Until the bucket holds the chunks that its blobs need and no other."""
        deadline = asyncio.get_running_loop().time() + seconds
        while (found := await self.chunks_in_bucket()) != (needed := await self.chunks_of_blobs()):
            assert asyncio.get_running_loop().time() < deadline, f"{found} chunks, not {needed}"
            await asyncio.sleep(0.1)


def code_of(message: Msg) -> str:
    """``ok``, or the code of a failed answer."""
    headers = message.headers or {}
    if "Nats-Service-Error-Code" not in headers:
        return "ok"
    if headers.get("Content-Type") == "application/msgpack":
        return str(msgspec.msgpack.decode(message.data)["code"])
    return str(json.loads(message.data)["code"])
