"""Holdfast as a contender of ``bench snapshot``: a server, one worker and a client, all fresh.

What an action takes is the caller's wall clock, and the CPU of all three processes; the peak is
the worker's, counted anew for each action.
"""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import nats
from tests.bench.backup_tools import Taken, run_timed
from tests.bench.figures import HOLDFAST
from tests.bench.machine import cpu_seconds, forget_peak, peak_resident_bytes
from tests.bench.processes import child_environment, start_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.bench.figures import Sync
    from tests.bench.processes import ClientProcess, Pool

_CLIENT: Final = (sys.executable, "-m", "tests.bench.snapshot_client")


class Snapshots:
    """A repository like those of the backup tools. The tree is ``apps / app``."""

    name = HOLDFAST

    def __init__(self, pool: Pool, client: ClientProcess, apps: Path) -> None:
        self.added: list[int] = []
        self._pool = pool
        self._client = client
        self._apps = apps
        self._key = ""

    async def prepare(self) -> None:
        """Nothing: the pool runs."""

    async def create(self, tree: Path) -> Taken:
        """A snapshot of ``tree``, an app of the worker's. ``added`` gets what its record says."""
        taken, answer = await self._ask("create", app=tree.name)
        self._key = answer["key"]
        self.added.append(answer["added"])
        return taken

    async def restore(self, target: Path) -> Taken:
        """By the worker, into a new app. ``target`` is where: below the apps, and not there yet."""
        taken, _ = await self._ask("restore", key=self._key, app=target.name)
        return taken

    async def read_file(self, path: Path, target: Path) -> Taken:
        """One file, by a request on an open connection."""
        taken, _ = await self._ask("read", key=self._key, path=str(path), target=str(target))
        return taken

    async def read_by_command(self, path: Path, target: Path) -> Taken:
        """The same by the whole command, its start included. The peak is the worker's."""
        environment = child_environment(os.environ, self._pool.url)
        before = self._cpu()
        taken = await run_timed(
            [[sys.executable, "-m", "holdfast", "snapshot", "cat", self._key, str(path)]],
            log=self._pool.directory / "command.log",
            cwd=self._pool.directory,
            environment=environment,
            stdout=target,
        )
        return Taken(
            seconds=taken.seconds,
            cpu_seconds=taken.cpu_seconds + self._cpu() - before,
            peak_bytes=peak_resident_bytes(self._pool.workers[0].pid),
        )

    async def export(self, target: Path) -> Taken | None:
        """The ``.tar.zst`` into the file ``target``."""
        taken, _ = await self._ask("export", key=self._key, target=str(target))
        return taken

    async def stored_bytes(self) -> int:
        """What all streams of the server hold: packs, records, and what NATS adds to each."""
        connection = await nats.connect(self._pool.url)
        try:
            streams = await connection.jetstream().streams_info()
        finally:
            await connection.close()
        return sum(stream.state.bytes for stream in streams)

    def _cpu(self) -> float:
        return cpu_seconds(self._pool.server_pid) + cpu_seconds(self._pool.workers[0].pid)

    async def _ask(self, do: str, **given: Any) -> tuple[Taken, dict[str, Any]]:
        worker = self._pool.workers[0]
        forget_peak(worker.pid)
        before = self._cpu()
        answer = await self._client.ask(do, **given)
        taken = Taken(
            seconds=answer["seconds"],
            cpu_seconds=answer["cpu_seconds"] + self._cpu() - before,
            peak_bytes=peak_resident_bytes(worker.pid),
        )
        return taken, answer


@asynccontextmanager
async def start_snapshots(directory: Path, *, sync: Sync, apps: Path) -> AsyncIterator[Snapshots]:
    """A fresh repository in ``directory``, for the apps below ``apps``."""
    settings = {"HOLDFAST_APPS": str(apps)}
    async with (
        start_pool(directory, sync=sync, workers=1, settings=settings) as pool,
        pool.client(HOLDFAST, _CLIENT) as client,
    ):
        yield Snapshots(pool, client, apps)
