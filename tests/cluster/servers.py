"""Three nats-servers as one cluster on loopback, and what can be done to each of them.

Their ports stay the same while the cluster lives, so that a server comes back where the others and
its clients look for it. Routes go through ``links``, and no other way (``check_routes``).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from tests.cluster.links import Links
from tests.ports import free_ports
from tests.processes import stop

from holdfast.runtime.child import dies_with_this_process
from holdfast.runtime.embedded import find_nats_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.cluster.disk import Disk

NAMES: Final = ("n1", "n2", "n3")
SETTLED_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1
_MONITOR_SECONDS: Final = 2.0
_HOST: Final = "127.0.0.1"
_DEAD_PORT: Final = 1

_CONFIGURATION: Final = """\
server_name: {name}
host: "127.0.0.1"
port: {client}
http: "127.0.0.1:{monitor}"

jetstream {{
  store_dir: "{directory}/store"
  sync_interval: always
}}

cluster {{
  name: bench
  listen: "127.0.0.1:{cluster}"
  no_advertise: true
  # Others gossip this address on: nobody may come around the relays.
  advertise: "127.0.0.1:{dead}"
  routes: [{routes}]

  # A leader that hears nobody any more gives its routes up, and the others elect another one.
  ping_interval: "2s"
  ping_max: 2
}}

# A client that was paused or cut off is soon given up, so that others take over.
ping_interval: "20s"
ping_max: 2
write_deadline: "10s"

log_file: "{directory}/nats-server.log"
"""


@dataclass(frozen=True, slots=True)
class View:
    """One server's copy of a stream."""

    messages: int
    bytes: int
    last_seq: int
    num_deleted: int


class ClusterServer:
    """One nats-server. It is started from the main thread: see ``runtime.child``."""

    def __init__(
        self, program: Path, name: str, directory: Path, ports: tuple[int, int, int]
    ) -> None:
        self.name = name
        self.directory = directory
        self.port, self.cluster_port, self.monitor_port = ports
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{_HOST}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """Where its monitoring is."""
        return f"http://{_HOST}:{self.monitor_port}"

    @property
    def is_running(self) -> bool:
        """Whether there is a process, paused or not."""
        return self._process is not None and self._process.poll() is None

    def configure(self, routes: Iterable[int]) -> None:
        """Write the configuration; ``routes`` are the ports of its relays."""
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = _CONFIGURATION.format(
            name=self.name,
            client=self.port,
            monitor=self.monitor_port,
            cluster=self.cluster_port,
            directory=self.directory,
            dead=_DEAD_PORT,
            routes=", ".join(f'"nats://{_HOST}:{port}"' for port in routes),
        )
        (self.directory / "nats-server.conf").write_text(configuration, encoding="utf-8")

    def start(self) -> None:
        """Start it; it is not ready yet.

        As docs/operations.md has it, what a killed one had only written is made to last before.
        """
        assert not self.is_running, f"{self.name} runs already"
        subprocess.run(["sync", "-f", str(self.directory)], check=True)
        command = [str(self._program), "-c", str(self.directory / "nats-server.conf")]
        with (self.directory / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                dies_with_this_process(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it as the kernel would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """Ask it to end."""
        if self.is_running:
            self._signal(signal.SIGTERM)

    def wait_ended(self) -> None:
        """Until it has ended. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        self._process.wait(_STOP_SECONDS)

    def pause(self) -> None:
        """Stop it in its tracks."""
        assert self._process is not None
        stop(self._process.pid)

    def resume(self) -> None:
        """Let a paused one go on."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Remove all it stored. It must not run."""
        assert not self.is_running
        shutil.rmtree(self.directory / "store")

    def forget_expiries(self) -> None:
        """Remove the records of what is to expire when. It must not run."""
        assert not self.is_running
        for record in self.directory.glob("store/**/thw.db"):
            record.unlink()

    def monitor(self, path: str) -> Any:
        """Its monitoring's answer; None when there is none, or not with 200."""
        connection = http.client.HTTPConnection(_HOST, self.monitor_port, timeout=_MONITOR_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            data = answer.read()
            return json.loads(data) if answer.status == http.HTTPStatus.OK else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Cluster:
    """The three of them."""

    def __init__(self, directory: Path, disk: Disk | None = None) -> None:
        """``disk`` is what ``directory`` lies on, if its power is to be cut."""
        self.disk = disk
        program = find_nats_server()
        ports = free_ports(3 * len(NAMES))
        self.servers = {
            name: ClusterServer(
                program, name, directory / name, (ports.pop(), ports.pop(), ports.pop())
            )
            for name in NAMES
        }
        self.links = Links({name: s.cluster_port for name, s in self.servers.items()})
        for name, server in self.servers.items():
            server.configure(self.links.port(name, other) for other in NAMES if other != name)
        if disk is not None:
            disk.sync()

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect."""
        return tuple(server.url for server in self.servers.values())

    def __enter__(self) -> Self:
        for server in self.servers.values():
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers.values():
            server.kill()
        self.links.close()

    def cut_power(self) -> None:
        """All servers and disks at once; the disks are back afterwards, and no server is.

        Servers are stopped in their tracks first: one that went on without its disk would say that
        a message is not there which it cannot read.
        """
        assert self.disk is not None
        for server in self.servers.values():
            if server.is_running:
                server.pause()
        self.disk.cut()
        for server in self.servers.values():
            server.kill()
        self.disk.restore()

    def others(self, name: str) -> list[str]:
        """The names of the other servers."""
        return [other for other in self.servers if other != name]

    async def ask(self, path: str) -> dict[str, Any]:
        """The answer of each one's monitoring, by name; None from those that do not answer."""
        answers = await asyncio.gather(
            *(asyncio.to_thread(server.monitor, path) for server in self.servers.values())
        )
        return dict(zip(self.servers, answers, strict=True))

    async def ask_all(self, path: str) -> dict[str, Any]:
        """The same, once all answer. Raises TimeoutError."""
        async with asyncio.timeout(SETTLED_SECONDS):
            while None in (answers := await self.ask(path)).values():  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(_POLL_SECONDS)
        return answers

    async def leader_of(self, stream: str) -> str:
        """The server that leads a stream, as it says itself. Waits until one does."""
        return await self._wait_for(lambda state: state.leader_of(stream), f"a leader of {stream}")

    async def wait_leaderless(self, stream: str) -> None:
        """Until no server says that it leads a stream."""
        await self._wait_for(
            lambda state: "nobody" if state.leader_of(stream) is None else None,
            f"end to the leader of {stream}",
        )

    async def meta_leader(self) -> str:
        """The server that leads the meta group."""
        return await self._wait_for(lambda state: state.meta_leader(), "a meta leader")

    async def wait_formed(self) -> None:
        """Until all are connected, healthy, and of one mind about who leads."""
        await self.wait_settled(())

    async def wait_settled(self, streams: Sequence[str]) -> None:
        """Until all are healthy, and every replica of ``streams`` is current."""

        def trouble(state: _State) -> str | None:
            return state.trouble(streams)

        deadline = time.monotonic() + SETTLED_SECONDS
        while (why := trouble(await self._state())) is not None:
            if time.monotonic() > deadline:
                msg = f"the cluster did not settle in {SETTLED_SECONDS} s: {why}"
                raise TimeoutError(msg)
            await asyncio.sleep(_POLL_SECONDS)

    async def forget_expiries(self) -> None:
        """Restart each server without its record of what is to expire when.

        nats-server 2.15 writes that record before it writes that a message is gone. Killed in
        between it has the message again, and never removes it; without the record it looks at
        every message.
        """
        for server in self.servers.values():
            server.terminate()
            await asyncio.to_thread(server.wait_ended)
            server.forget_expiries()
            server.start()
            await self.wait_settled(())

    async def views(self) -> dict[str, dict[str, View]]:
        """The copies of each server, by stream and server."""
        found: dict[str, dict[str, View]] = {}
        for name, details in (await self._state()).streams.items():
            for stream, detail in details.items():
                state = detail["state"]
                found.setdefault(stream, {})[name] = View(
                    messages=state["messages"],
                    bytes=state["bytes"],
                    last_seq=state["last_seq"],
                    num_deleted=state.get("num_deleted", 0),
                )
        return found

    async def connected(self) -> dict[str, set[str]]:
        """The names of the clients of each server."""
        answers = await self.ask_all("/connz?limit=1024")
        return {
            name: {each.get("name", "") for each in answer["connections"]}
            for name, answer in answers.items()
        }

    async def check_routes(self) -> int:
        """How many ends routes have; raises AssertionError when one is not through a relay."""
        count = 0
        for name, answer in (await self.ask_all("/routez")).items():
            ours = {self.links.port(name, other) for other in self.others(name)}
            for route in answer["routes"]:
                relayed = route["port"] in ours or self.links.is_relay(route["port"])
                assert relayed, f"{name} has a route around the relays: {route}"
                count += 1
        return count

    async def _wait_for(self, find: Any, what: str) -> str:
        deadline = time.monotonic() + SETTLED_SECONDS
        while (found := find(await self._state())) is None:
            if time.monotonic() > deadline:
                msg = f"no {what} in {SETTLED_SECONDS} s"
                raise TimeoutError(msg)
            await asyncio.sleep(_POLL_SECONDS)
        assert isinstance(found, str)
        return found

    async def _state(self) -> _State:
        return _State(await self.ask("/healthz"), await self.ask("/jsz?accounts=1&streams=1"))


class _State:
    """All servers' accounts of themselves."""

    def __init__(self, health: dict[str, Any], jetstream: dict[str, Any]) -> None:
        self._health = health
        self._jetstream = jetstream
        self.streams = {
            name: {
                stream["name"]: stream
                for account in (answer or {}).get("account_details", ())
                for stream in account.get("stream_detail", ())
            }
            for name, answer in jetstream.items()
        }

    def leader_of(self, stream: str) -> str | None:
        """The server that says that it leads."""
        for name, details in self.streams.items():
            if details.get(stream, {}).get("cluster", {}).get("leader") == name:
                return name
        return None

    def meta_leader(self) -> str | None:
        """The server that says that it leads the meta group."""
        for name, answer in self._jetstream.items():
            if (answer or {}).get("meta_cluster", {}).get("leader") == name:
                return name
        return None

    def trouble(self, streams: Sequence[str]) -> str | None:
        """Why it cannot be said that all is well."""
        for name, answer in self._health.items():
            if answer is None:
                return f"{name} is not healthy"
        leader = self.meta_leader()
        if leader is None:
            return "there is no meta leader"
        if any(a["meta_cluster"].get("leader") != leader for a in self._jetstream.values()):
            return "they do not agree on the meta leader"
        return next(filter(None, map(self._trouble_of, streams)), None)

    def _trouble_of(self, stream: str) -> str | None:
        leader = self.leader_of(stream)
        if leader is None:
            return f"{stream} has no leader"
        for name, details in self.streams.items():
            if details.get(stream, {}).get("cluster", {}).get("leader") != leader:
                return f"{name} does not know that {leader} leads {stream}"
        replicas = self.streams[leader][stream]["cluster"].get("replicas", ())
        if len(replicas) != len(self.streams) - 1:
            return f"{stream} has {len(replicas)} followers"
        for replica in replicas:
            if not replica["current"] or replica.get("offline", False):
                return f"{stream} is not current on {replica['name']}"
        return None
