"""``holdfast up``: a nats-server and a pool of workers on this machine, with one command.

Everything lies in one data directory and ends with this process. Ctrl-C and SIGTERM drain the
workers, then stop the server; a second one does not wait for them.
"""

from __future__ import annotations

import asyncio
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from msgspec.structs import replace

from holdfast import client
from holdfast.bootstrap.admin import init_store
from holdfast.cli.base import exit_codes
from holdfast.cli.base.output import print_line, say
from holdfast.cli.link import new_key
from holdfast.cli.serving import demo as demonstration
from holdfast.cli.serving.local import environment_of, own_pool, wait_serving
from holdfast.domain.link_keys import read_keys, write_keys
from holdfast.errors import InvalidError, UnavailableError
from holdfast.gateway.settings import GatewaySettings, load_settings
from holdfast.live_file import change_live_file
from holdfast.runtime.embedded import EmbeddedServer
from holdfast.runtime.spans import kept_spans

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.tracing import Tracer

DEFAULT_PORT: Final = 4222
DEFAULT_HTTP_PORT: Final = 7777
MAX_WORKERS: Final = 64
_KEYS: Final = "link-keys.json"
_WATCH_SECONDS: Final = 0.5


def up(
    *,
    data_dir: Annotated[Path, Parameter(help="Directory for all data.")] = Path(".holdfast"),
    port: Annotated[
        int | None, Parameter(help="Port of nats-server; by default 4222, or a free one.")
    ] = None,
    listen: Annotated[
        str | None,
        Parameter(help="Address of the gateway; by default 127.0.0.1:7777, or a free port."),
    ] = None,
    workers: Annotated[int, Parameter(help="Number of workers.")] = 2,
    demo: Annotated[
        list[Path] | None,
        Parameter(
            help="Files and directories to store and read back first.",
            consume_multiple=True,
            negative="",
        ),
    ] = None,
    exit_after_demo: Annotated[
        bool,
        Parameter(
            help="Exit after the demo, by default of this directory; 0 if every byte came back.",
            negative="",
        ),
    ] = False,
) -> int:
    """Run a nats-server, workers and a gateway until Ctrl-C.

    They listen on 127.0.0.1, and the server syncs every write. A worker that dies is started again.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise InvalidError(f"--workers is 1 to {MAX_WORKERS}")
    roots = demo or ([Path()] if exit_after_demo else None)
    directory = data_dir.expanduser().absolute()
    # In this thread: see runtime.child.
    with (
        EmbeddedServer.start(
            directory, port=_free(DEFAULT_PORT) if port is None else port
        ) as server,
        kept_spans("holdfast-gateway") as tracer,
    ):
        nodes = [f"worker-{n + 1}" for n in range(workers)]
        address = listen or f"127.0.0.1:{_free(DEFAULT_HTTP_PORT)}"
        settings = _with_links(load_settings({"listen": address}), directory)
        machine = _Machine(server, directory, nodes, settings, tracer)
        return asyncio.run(machine.run(roots, exit_after_demo=exit_after_demo))


def _free(port: int) -> int:
    """``port`` if nobody has it; or 0, any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


class _Machine:
    """The server, the pool and a client of them, for as long as ``up`` runs."""

    def __init__(
        self,
        server: EmbeddedServer,
        directory: Path,
        nodes: list[str],
        settings: GatewaySettings,
        tracer: Tracer,
    ) -> None:
        self._server = server
        self._tracer = tracer
        self._directory = directory
        self._nodes = nodes
        self._settings = settings
        self._config, self._pool = own_pool(environment_of(server, settings), directory)

    async def run(self, roots: list[Path] | None, *, exit_after_demo: bool) -> int:
        """The exit status. Raises what a step raises, after everything has been stopped."""
        stopped = self._stop_on_signal()
        async with self._pool:
            failed = asyncio.create_task(self._watch_server())
            work = asyncio.create_task(self._work(roots, stay=not exit_after_demo))
            waiting = asyncio.create_task(stopped.wait())
            tasks = (failed, work, waiting)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    failed.result()
                if work.done():
                    return work.result()
                say("Stopping: the workers finish what they have begun")
                return exit_codes.OK if not exit_after_demo else exit_codes.INTERRUPTED
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, roots: list[Path] | None, *, stay: bool) -> int:
        for line in await init_store(self._config):
            say(line)
        status = exit_codes.OK
        async with await client.connect(
            self._config.nats, prefix=self._config.prefix, tracer=self._tracer
        ) as connection:
            if roots is not None:
                status = await self._demonstrate(connection, roots)
            if not stay:
                return status
            await self._start(connection, self._nodes)
            await self._serve(connection)
        return status

    async def _serve(self, connection: Client) -> None:
        """Answer HTTP, where the gateway is installed, until this is cancelled."""
        try:
            from holdfast.gateway.server import serve  # noqa: PLC0415 - an extra
        except ImportError:
            self._tell(None)
            await asyncio.Event().wait()
            return
        await serve(connection, self._settings, asyncio.Event(), ready=self._tell)

    async def _demonstrate(self, connection: Client, roots: list[Path]) -> int:
        """Through the first worker in, through the others out."""
        first, *others = self._nodes
        demo = demonstration.Demo()
        files = list(demonstration.find_files(roots, besides=self._directory, skipped=demo.skipped))
        await self._start(connection, [first])
        await demonstration.put_files(connection, files, demo)
        if others:
            await self._start(connection, others)
            await self._pool.stop(first)
        await demonstration.read_back(connection, demo)
        demonstration.report(demo)
        return exit_codes.OK if demo.succeeded else exit_codes.FAILURE

    async def _start(self, connection: Client, nodes: list[str]) -> None:
        """Start those of ``nodes`` that do not run, and wait until all of them serve."""
        starting = [node for node in nodes if node not in self._pool.nodes]
        for node in starting:
            await self._pool.start(node)
        await wait_serving(connection, self._pool, nodes)

    async def _watch_server(self) -> None:
        while (status := self._server.exit_status()) is None:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(_WATCH_SECONDS)
        raise UnavailableError(
            f"nats-server ended with status {status}; {self._server.log_file}:\n"
            f"{self._server.log_tail()}"
        )

    def _stop_on_signal(self) -> asyncio.Event:
        stopped = asyncio.Event()

        def stop() -> None:
            if stopped.is_set():
                self._pool.kill()
            stopped.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop)
        return stopped

    def _tell(self, url: str | None) -> None:
        holdfast = _own_command()
        workers = "1 worker" if len(self._nodes) == 1 else f"{len(self._nodes)} workers"
        print_line(f"holdfast is up: {workers}, {self._server.url}")
        if url is not None:
            print_line(f"HTTP is at {url}")
        print_line(f"Data and logs are in {self._directory}")
        print_line("")
        print_line("Try, in another terminal:")
        print_line(f"  export NATS_URL={self._server.url}")
        print_line(f"  echo hello | {holdfast} blob put -")
        print_line(f"  {holdfast} blob ls")
        print_line(f"  {holdfast} status")
        if url is not None:
            print_line(f"  curl --data-binary hello {url}/store/greeting")
            print_line(f"  curl {url}/store/greeting")
        print_line("and with the nats command, if you have it:")
        print_line("  nats req blob.put --no-templates hello")
        print_line("  nats req blob.list '{}'")
        print_line("  nats micro ls")
        print_line("")
        print_line("Ctrl-C drains the workers and stops.")
        sys.stdout.flush()


def _with_links(settings: GatewaySettings, directory: Path) -> GatewaySettings:
    """``settings`` with keys for links, in ``directory`` where none are given.

    Not where a free port is yet to be found, and nothing says where clients reach it.
    """
    _, port = settings.address
    if settings.public_url is None and port == 0:
        return settings
    file = directory / _KEYS
    if settings.link_keys is None and not file.exists():
        change_live_file(file, read_keys, write_keys, lambda _: [new_key()], is_new=True)
    return replace(
        settings, public_url=settings.url(port), link_keys=settings.link_keys or str(file)
    )


def _own_command() -> str:
    """This command as it was called, to be repeated."""
    called = Path(sys.argv[0])
    if called.name != "holdfast":
        return f"{shlex.quote(sys.executable)} -m holdfast"
    if called.is_relative_to(Path.cwd()):
        return shlex.quote(str(called.relative_to(Path.cwd())))
    return shlex.quote(str(called))
