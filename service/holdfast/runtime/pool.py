"""Workers as child processes of one machine: started, watched, restarted, drained.

For ``holdfast up``. Where there is an init system, that does all of this.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import TYPE_CHECKING, Final, Self

from holdfast.errors import UnavailableError
from holdfast.runtime.child import dies_with_this_process, log_tail
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

FIRST_BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A worker that has run so long is restarted at once, as if it had never died."""

KILL_GRACE_SECONDS: Final = 20.0
"""After the drain what is left is answered, archives end, and a thread may hang."""


class WorkerPool:
    """Worker processes by node name. Leaving the context drains them all.

    ``environment`` is what workers see, beside ``HOLDFAST_NODE``; ``directory`` gets a log file
    for each; ``announce`` is told, in a sentence, when one dies and is restarted. A worker has
    ``drain_seconds`` for its requests when it is stopped, and is killed a little later.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        directory: Path,
        *,
        drain_seconds: float,
        announce: Callable[[str], None],
    ) -> None:
        self._environment = environment
        self._directory = directory
        self._drain_seconds = drain_seconds
        self._announce = announce
        self._workers: dict[str, _Worker] = {}

    @property
    def nodes(self) -> frozenset[str]:
        """The workers that were started and not stopped."""
        return frozenset(self._workers)

    def pid(self, node: str) -> int:
        """The process id of a worker that was started, as long as it does not die."""
        return self._workers[node].pid

    async def start(self, node: str) -> None:
        """Start a worker, and keep it running. Does not wait until it serves."""
        log_file = self._directory / f"{node}.log"
        worker = _Worker(node, {**self._environment, "HOLDFAST_NODE": node}, log_file)
        await worker.spawn()
        worker.watcher = asyncio.create_task(self._keep_running(worker))
        self._workers[node] = worker

    async def stop(self, node: str) -> None:
        """Drain a worker, and wait until it has ended. Does nothing if there is no such worker."""
        worker = self._workers.pop(node, None)
        if worker is not None:
            await worker.stop(self._drain_seconds + KILL_GRACE_SECONDS)

    def kill(self) -> None:
        """End all workers now. Requests under way have an unknown outcome."""
        for worker in self._workers.values():
            worker.send(signal.SIGKILL)

    def check(self, node: str) -> None:
        """Raise UnavailableError, with what it last logged, if a worker has ever died."""
        worker = self._workers[node]
        if worker.deaths:
            tail = log_tail(worker.log_file)
            raise UnavailableError(f"worker {node} ended; {worker.log_file}:\n{tail}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(self.stop(node) for node in list(self._workers)))

    async def _keep_running(self, worker: _Worker) -> None:
        backoff = Backoff(FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
        while True:
            started = time.monotonic()
            status = await worker.wait()
            if worker.stopping:
                return
            worker.deaths += 1
            if time.monotonic() - started > STEADY_SECONDS:
                backoff = Backoff(FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
            wait_seconds = backoff.next()
            self._announce(
                f"worker {worker.node} ended with status {status}; starting it again in"
                f" {wait_seconds:.1f} s. Its log is {worker.log_file}"
            )
            await asyncio.sleep(wait_seconds)
            await worker.spawn()


class _Worker:
    """One node's process, and its successors."""

    def __init__(self, node: str, environment: Mapping[str, str], log_file: Path) -> None:
        self.node = node
        self.log_file = log_file
        self.deaths = 0
        self.stopping = False
        self.watcher: asyncio.Task[None] | None = None
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def spawn(self) -> None:
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *dies_with_this_process([sys.executable, "-m", "holdfast", "worker"]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None, "spawned first"  # noqa: S101 - for the type checker
        return self._process.pid

    async def wait(self) -> int:
        assert self._process is not None, "spawned first"  # noqa: S101 - for the type checker
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self, timeout_seconds: float) -> None:
        self.stopping = True
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.wait()
        if self.watcher is not None:
            self.watcher.cancel()  # it may be waiting to start the next one
            await asyncio.gather(self.watcher, return_exceptions=True)
