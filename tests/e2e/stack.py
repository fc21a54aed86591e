"""The composed stack, as ``docker compose`` runs it from this checkout, beside any other."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING, Final

from nats.aio.client import Client as NatsClient
from tests.deploy.shipped import PASSWORDS, ROOT, options
from tests.ports import free_ports

from holdfast.client import Client, connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.js.api import StreamInfo

NODES: Final = ("node-1", "node-2", "node-3")
STREAMS: Final = ("OBJ_blobs", "OBJ_packs", "KV_holdfast", "KV_snapshots", "KV_names", "HF_states")
COMMAND_SECONDS: Final = 600
CURRENT_SECONDS: Final = 120


class Stack:
    """A project of its own: containers, volumes, an image and a port that nobody else has."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.project = f"holdfast-e2e-{self.port}"
        self.image = f"{self.project}:local"
        self.url = f"nats://127.0.0.1:{self.port}"

    def compose(self, *arguments: str, data: bytes | None = None) -> str:
        """Run Compose; its standard output. Raises CalledProcessError."""
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.project, *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "HOLDFAST_PORT": str(self.port),
                "HOLDFAST_IMAGE": self.image,
                # What each server may hold is what the test can fill a disk with.
                "HOLDFAST_MAX_BYTES": "4GiB",
            },
            input=data,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            print(done.stderr.decode(errors="replace"))  # noqa: T201  (pytest shows it with the failure)
            done.check_returncode()
        return done.stdout.decode()

    async def run(self, *arguments: str) -> float:
        """The same, while the test goes on; how many seconds it took."""
        started = time.monotonic()
        await asyncio.to_thread(self.compose, *arguments)
        return time.monotonic() - started

    def remove(self) -> None:
        """Everything that was made, volumes and image included."""
        self.compose("down", "--volumes", "--timeout", "2")
        subprocess.run(["docker", "image", "rm", self.image], capture_output=True, check=False)

    def states(self) -> dict[str, str]:
        """How each service's container is: ``running``, ``healthy``, ``exited 0``."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        found = {}
        for one in map(json.loads, lines):
            ended = f"exited {one['ExitCode']}" if one["State"] == "exited" else one["State"]
            found[one["Service"]] = one["Health"] or ended if one["State"] == "running" else ended
        return found

    def violations(self) -> list[str]:
        """The servers' refusals to their users since they were made."""
        log = self.compose("logs", "--no-log-prefix", "nats-1", "nats-2", "nats-3")
        return [line for line in log.splitlines() if "Violation" in line]

    def unpack(self, worker: str, app: str, files: Mapping[str, bytes]) -> None:
        """Make an app in a worker's volume, as deploy/README.md shows it."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(f"{app}/{name}")
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
        self.compose(
            "exec", "-T", worker, "tar", "-xf", "-", "-C", "/srv/apps", data=archive.getvalue()
        )

    def digests(self, worker: str, app: str) -> dict[str, str]:
        """The SHA-256 of each file of an app in a worker's volume."""
        find = f"cd /srv/apps/{app} && find . -type f -exec sha256sum {{}} +"
        lines = self.compose("exec", "-T", worker, "sh", "-c", find).splitlines()
        return {name.removeprefix("./"): digest for digest, name in map(str.split, lines)}

    async def client(self) -> Client:
        """A client on the host."""
        return await connect(options(self.url, "client"))

    async def wait_current(self) -> None:
        """Until every bucket has all of its replicas, and none is behind."""
        client = NatsClient()
        await client.connect(self.url, user="admin", password=PASSWORDS["ADMIN_PASSWORD"])
        try:
            async with asyncio.timeout(CURRENT_SECONDS):
                js = client.jetstream()
                while not all([_is_current(await js.stream_info(name)) for name in STREAMS]):  # noqa: ASYNC110  (no event tells)
                    await asyncio.sleep(0.2)
        finally:
            await client.close()


def _is_current(found: StreamInfo) -> bool:
    cluster = found.cluster
    if cluster is None or not cluster.leader:
        return False
    others = cluster.replicas or []
    return len(others) == 2 and all(one.current and not one.lag for one in others)
