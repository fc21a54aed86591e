"""A nats-server and workers for one run: in its own directory, without the caller's settings."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast.bootstrap.admin import init_store
from holdfast.cli.base.output import say
from holdfast.cli.serving.local import wait_serving
from holdfast.client import connect
from holdfast.errors import InvalidError
from holdfast.runtime.config import load_config
from holdfast.runtime.embedded import SERVER_VARIABLE, EmbeddedServer
from holdfast.runtime.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from holdfast.cli.bench.report import Sync

TIMEOUT_SECONDS: Final = 60.0
_DRAIN_SECONDS: Final = 20.0
_SYNC_INTERVAL: Final[dict[Sync, str]] = {"always": "always", "default": "2m"}


@dataclass(frozen=True, slots=True)
class Pool:
    """A running nats-server with workers."""

    url: str
    sync: Sync
    directory: Path
    worker_pids: tuple[int, ...]
    server_pid: int


@asynccontextmanager
async def start_pool(
    directory: Path, *, sync: Sync, workers: int, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Pool]:
    """A server on ``directory``, made ready for holdfast, with ``workers`` answering workers.

    The directory is new, and is removed with all that is in it afterwards. ``settings`` are
    variables for the workers, which otherwise know none of the caller's.
    Raises UnavailableError, or what EmbeddedServer raises, when something does not start.
    """
    # Blocks until the server answers; there is nothing else to do until then.
    with (
        new_directory(directory),
        EmbeddedServer.start(directory / "nats", sync_interval=_SYNC_INTERVAL[sync]) as server,
    ):
        environment = child_environment(os.environ, server.url) | dict(settings or {})
        # By this workers learn that writes are synced, as they do where `holdfast up` starts them.
        environment["HOLDFAST_MONITOR_URL"] = server.monitor_url
        await init_store(load_config(environ=child_environment({}, server.url)).config)
        nodes = [f"worker-{number}" for number in range(workers)]
        async with WorkerPool(
            environment, directory, drain_seconds=_DRAIN_SECONDS, announce=say
        ) as pool:
            for node in nodes:
                await pool.start(node)
            async with await connect(servers=server.url) as client:
                await wait_serving(client, pool, nodes)
            pids = tuple(pool.pid(node) for node in nodes)
            yield Pool(server.url, sync, directory, pids, server.pid)


def child_environment(environ: Mapping[str, str], url: str) -> dict[str, str]:
    """``environ`` without the caller's own NATS and holdfast settings."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(("NATS_", "HOLDFAST_")) or name == SERVER_VARIABLE
    }
    return kept | {"NATS_URL": url, "HOLDFAST_LOG_LEVEL": "warning", "HOLDFAST_LOG_FORMAT": "json"}


@contextmanager
def run_directory(parent: Path | None, needed_bytes: float, advice: str) -> Iterator[Path]:
    """A directory below ``parent`` that goes with all that is in it.

    Raises InvalidError, with ``advice``, when ``needed_bytes`` would fill the disk.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=parent) as name:
        free = shutil.disk_usage(name).free
        if free < needed_bytes:
            raise InvalidError(
                f"{Path(name).parent} has {free >> 20:,} MiB free, and this run needs about"
                f" {int(needed_bytes) >> 20:,}: choose another --directory, or {advice}"
            )
        yield Path(name)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A new directory, removed with all that is in it afterwards."""
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
