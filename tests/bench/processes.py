"""The processes of clients that are measured: apart as they would be in use.

They run in the run's own directory, know nothing of the caller's NATS settings, and end with it.
"""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from holdfast.cli.bench.pool import child_environment
from holdfast.errors import UnavailableError
from holdfast.runtime.child import dies_with_this_process

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from holdfast.cli.bench.pool import Pool

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
COMMAND_SECONDS: Final = 900.0
_ANSWER_LIMIT_BYTES: Final = 16 * 1024 * 1024
_LOG_TAIL_LINES: Final = 8


class ProcessError(UnavailableError):
    """A process of the run ended, or did not answer. The detail has what it said last."""


class ClientProcess:
    """A child that answers commands: a line of JSON for each (see ``peers.serve``)."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @classmethod
    async def connect(
        cls, name: str, command: Sequence[str], *, directory: Path, url: str
    ) -> ClientProcess:
        """Start ``command``, and return when it says that it is ready. Raises ProcessError.

        What it says beside its answers goes to a log in ``directory``.
        """
        log = directory / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *dies_with_this_process(command),
                stdin=PIPE,
                stdout=PIPE,
                stderr=output,
                limit=_ANSWER_LIMIT_BYTES,
                env=child_environment(os.environ, url),
                start_new_session=True,
            )
        client = cls(name, process, log)
        try:
            await client._hear(START_SECONDS)
        except BaseException:
            await client.stop()
            raise
        return client

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


@asynccontextmanager
async def start_client(
    pool: Pool, name: str, command: Sequence[str]
) -> AsyncIterator[ClientProcess]:
    """The client process ``command``, told the server's URL as its last argument.

    Raises ProcessError when it does not connect.
    """
    client = await ClientProcess.connect(
        name, [*command, pool.url], directory=pool.directory, url=pool.url
    )
    try:
        yield client
    finally:
        await client.stop()
