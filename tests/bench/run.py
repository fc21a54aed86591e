"""A whole run: which measurements, on which servers, in which order."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.contenders import find_contenders
from tests.bench.figures import Report
from tests.bench.machine import describe_machine
from tests.bench.measure import (
    measure_client_memory,
    measure_has,
    measure_large,
    measure_small,
    measure_worker_memory,
)
from tests.bench.processes import start_pool
from tests.bench.promises import WORKER_STREAMS

from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.figures import HasFigure, LargeFigure, MemoryFigure, SmallFigure, Sync

    Say = Callable[[str], None]

_PURGED_LATER: Final = 4  # a deleted blob's file goes a little later than the blob


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRun:
    """What to measure. Sizes are bytes; a count of 0 leaves that measurement out."""

    syncs: tuple[Sync, ...]
    size: int
    rounds: int
    small_size: int
    requests: int
    in_flight: int
    blobs: int
    has_requests: int
    workers: int
    memory_size: int
    client_size: int
    node_modules: Path | None
    directory: Path | None


async def run_blob_bench(run: BlobRun, say: Say) -> Report:
    """Everything that ``run`` asks for. ``say`` is told what is going on.

    Raises InvalidError when it cannot be run here, UnavailableError when the server, a worker or
    holdfast's own client does not work.
    """
    contenders = find_contenders(run.node_modules)
    large: list[LargeFigure] = []
    small: list[SmallFigure] = []
    has: list[HasFigure] = []
    memory: list[MemoryFigure] = []
    problems: list[str] = []
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=run.directory)
            )
        )
        _check_space(run, directory)
        machine = describe_machine(directory)
        for sync in run.syncs:
            async with start_pool(_new(directory, sync), sync=sync, workers=run.workers) as pool:
                if run.rounds:
                    figures, missing = await measure_large(
                        pool, contenders, size=run.size, rounds=run.rounds, say=say
                    )
                    large += figures
                    problems += missing
                if run.requests:
                    say(f"{sync} sync: {run.requests:,} small requests of each kind")
                    small += await measure_small(
                        pool, size=run.small_size, requests=run.requests, in_flight=run.in_flight
                    )
                if run.blobs and sync == run.syncs[0]:  # reading does not depend on it
                    has.append(
                        await measure_has(pool, blobs=run.blobs, requests=run.has_requests, say=say)
                    )
        memory += await _measure_memory(run, directory, say)
    return Report(
        machine=machine,
        workers=run.workers,
        large=large,
        small=small,
        has=has,
        memory=memory,
        problems=problems,
    )


async def _measure_memory(run: BlobRun, directory: Path, say: Say) -> list[MemoryFigure]:
    """On a server and a worker of their own: a peak is for ever."""
    sync = run.syncs[0]
    figures = []
    if run.memory_size:
        async with start_pool(_new(directory, "worker-memory"), sync=sync, workers=1) as pool:
            say(f"{WORKER_STREAMS} clients stream through one worker")
            figures.append(
                await measure_worker_memory(pool, streams=WORKER_STREAMS, size=run.memory_size)
            )
        shutil.rmtree(pool.directory)
    if run.client_size:
        async with start_pool(_new(directory, "client-memory"), sync=sync, workers=1) as pool:
            say("one client streams one blob")
            figures.append(await measure_client_memory(pool, size=run.client_size))
        shutil.rmtree(pool.directory)
    return figures


def _new(directory: Path, name: str) -> Path:
    path = directory / name
    path.mkdir()
    return path


def _check_space(run: BlobRun, directory: Path) -> None:
    """Raise InvalidError when the blobs would fill the disk."""
    needed = max(
        run.size * _PURGED_LATER if run.rounds else 0,
        run.memory_size * WORKER_STREAMS,
        run.client_size,
    )
    free = shutil.disk_usage(directory).free
    if free < needed * 1.1:
        raise InvalidError(
            f"{directory.parent} has {free >> 20:,} MiB free, and this run needs about"
            f" {int(needed * 1.1) >> 20:,}: choose another --directory, or smaller sizes"
        )
