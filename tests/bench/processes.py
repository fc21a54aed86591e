"""The processes of a run: nats-server, workers, and one for each client that is measured.

They are apart as they would be in use: what a client costs is not taken from the server's time.
Everything runs in the run's own directory, knows nothing of the caller's NATS settings, and ends
with the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import nats

from holdfast.bootstrap.admin import init_store
from holdfast.errors import UnavailableError
from holdfast.runtime.child import dies_with_this_process
from holdfast.runtime.config import load_config
from holdfast.runtime.embedded import SERVER_VARIABLE, EmbeddedServer

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from nats.aio.client import Client as NatsClient
    from tests.bench.figures import Sync

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
COMMAND_SECONDS: Final = 900.0
_WORKER: Final = (sys.executable, "-m", "holdfast", "worker")
_ANSWER_LIMIT_BYTES: Final = 16 * 1024 * 1024
_LOG_TAIL_LINES: Final = 8
_PING_SECONDS: Final = 0.25
_SYNC_INTERVAL: Final[dict[Sync, str]] = {"always": "always", "default": "2m"}


class ProcessError(UnavailableError):
    """A process of the run ended, or did not answer. The detail has what it said last."""


class Child:
    """A process that ends with this one. What it says goes to a log in ``directory``."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        directory: Path,
        url: str,
        stdin: int = DEVNULL,
        stdout: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Start ``command``, with ``url`` as its NATS server and ``settings`` as variables."""
        log = directory / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *dies_with_this_process(command),
                stdin=stdin,
                stdout=output if stdout is None else stdout,
                stderr=output,
                limit=_ANSWER_LIMIT_BYTES,
                env=child_environment(os.environ, url) | dict(settings or {}),
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.returncode is not None

    async def stop(self) -> None:
        """Ask it to end; insist when it does not. May be repeated."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.communicate()
            except TimeoutError:
                self._process.kill()
                await self._process.communicate()

    def failure(self, what: str) -> ProcessError:
        """An error that says what happened to this process."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        said = "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])
        return ProcessError(f"{self.name} {what}" + (f":\n{said}" if said else ""))


class ClientProcess(Child):
    """A child that answers commands: a line of JSON for each (see ``peers.serve``)."""

    @classmethod
    async def connect(
        cls, name: str, command: Sequence[str], *, directory: Path, url: str
    ) -> ClientProcess:
        """Start ``command``, and return when it says that it is ready. Raises ProcessError."""
        client = await cls.start(
            name, command, directory=directory, url=url, stdin=PIPE, stdout=PIPE
        )
        try:
            await client._hear(START_SECONDS)
        except BaseException:
            await client.stop()
            raise
        return client

    async def ask(self, do: str, /, **given: Any) -> dict[str, Any]:
        """Have it carry out the command ``do``. Raises ProcessError."""
        stdin = self._process.stdin
        if stdin is None:
            raise self.failure("was started without pipes")
        stdin.write(json.dumps({"do": do, **given}).encode() + b"\n")
        with suppress(ConnectionError):  # it has ended: so will what it says
            await stdin.drain()
        return await self._hear(COMMAND_SECONDS)

    async def _hear(self, wait_seconds: float) -> dict[str, Any]:
        if self._process.stdout is None:
            raise self.failure("was started without pipes")
        try:
            async with asyncio.timeout(wait_seconds):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise self.failure(f"did not answer in {wait_seconds:g} s") from error
        if not line:
            await self._process.wait()
            raise self.failure("ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True, slots=True)
class Pool:
    """A running nats-server with workers."""

    url: str
    sync: Sync
    directory: Path
    workers: tuple[Child, ...]
    server_pid: int

    @asynccontextmanager
    async def client(self, name: str, command: Sequence[str]) -> AsyncIterator[ClientProcess]:
        """The client process ``command``, told the server's URL as its last argument.

        Raises ProcessError when it does not connect.
        """
        client = await ClientProcess.connect(
            name, [*command, self.url], directory=self.directory, url=self.url
        )
        try:
            yield client
        finally:
            await client.stop()


@asynccontextmanager
async def start_pool(
    directory: Path, *, sync: Sync, workers: int, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Pool]:
    """A server on ``directory``, made ready for holdfast, with ``workers`` answering workers.

    ``settings`` are variables for the workers, which otherwise know none of the caller's.
    Raises ProcessError, or what EmbeddedServer raises, when something does not start.
    """
    async with AsyncExitStack() as stack:
        # Blocks until the server answers; there is nothing else to do until then.
        server = EmbeddedServer.start(directory / "nats", sync_interval=_SYNC_INTERVAL[sync])
        stack.callback(server.stop)
        await init_store(load_config(environ=child_environment({}, server.url)).config)
        # By this they learn that writes are synced, as they do where `holdfast up` starts them.
        told = {"HOLDFAST_MONITOR_URL": server.monitor_url} | dict(settings or {})
        children = []
        for number in range(workers):
            worker = await Child.start(
                f"worker-{number}",
                _WORKER,
                directory=directory,
                url=server.url,
                settings=told,
            )
            stack.push_async_callback(worker.stop)
            children.append(worker)
        await _wait_answering(server.url, children)
        yield Pool(
            url=server.url,
            sync=sync,
            directory=directory,
            workers=tuple(children),
            server_pid=server.pid,
        )


async def _wait_answering(url: str, workers: Sequence[Child]) -> None:
    """Return when as many services answer a ping as there are workers. Raises ProcessError."""
    connection = await nats.connect(url)
    try:
        for _ in range(int(START_SECONDS / _PING_SECONDS)):
            if await _count_services(connection) >= len(workers):
                return
            for worker in workers:
                if worker.ended:
                    raise worker.failure("ended")
        raise workers[0].failure(f"does not answer after {START_SECONDS:g} s")
    finally:
        await connection.close()


async def _count_services(connection: NatsClient) -> int:
    inbox = connection.new_inbox()
    subscription = await connection.subscribe(inbox)
    await connection.publish("$SRV.PING", reply=inbox)
    await asyncio.sleep(_PING_SECONDS)
    answered: int = subscription.pending_msgs
    await subscription.unsubscribe()
    return answered


def child_environment(environ: Mapping[str, str], url: str) -> dict[str, str]:
    """``environ`` without the caller's own NATS and holdfast settings."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(("NATS_", "HOLDFAST_")) or name == SERVER_VARIABLE
    }
    return kept | {"NATS_URL": url, "HOLDFAST_LOG_LEVEL": "warning", "HOLDFAST_LOG_FORMAT": "json"}
