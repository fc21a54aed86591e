"""nats-servers with the configuration files of ``deploy/nats``, as they are, on free ports."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from holdfast.runtime.child import dies_with_this_process
from holdfast.runtime.config import Config
from holdfast.runtime.embedded import find_nats_server
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
CONFIGURATIONS: Final = DEPLOY / "nats"
INBOXES: Final = {"worker": "_INBOX.worker", "admin": "_INBOX.admin"}
READY_SECONDS: Final = 60.0


def read_environment_file(path: Path) -> dict[str, str]:
    """The variables that the file sets, as they stand there."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


PASSWORDS: Final = read_environment_file(DEPLOY / "compose.env")


def options(url: str, user: str) -> NatsOptions:
    """How ``user`` connects, as docker-compose.yml has it."""
    return NatsOptions(
        servers=(url,),
        user=user,
        password=PASSWORDS[f"{user.upper()}_PASSWORD"],
        inbox_prefix=INBOXES.get(user, "_INBOX"),
    )


def server_environment(directory: Path, routes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a server that stores in ``directory``."""
    return {**os.environ, **PASSWORDS, "JETSTREAM_DIR": str(directory), **(routes or {})}


@dataclass(frozen=True, slots=True)
class ShippedServer:
    """A running server."""

    process: subprocess.Popen[bytes]
    url: str
    monitor_url: str
    log_file: Path

    def violations(self) -> list[str]:
        """The refusals to the server's users since it started, as it logged them."""
        log = self.log_file.read_text(encoding="utf-8", errors="replace")
        return re.findall(r"(?:Publish|Subscription) Violation - .*", log)

    def monitor(self, path: str) -> dict[str, Any]:
        """The monitoring port's answer under ``path``."""
        host, _, port = self.monitor_url.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def config(self, user: str) -> Config:
        """The configuration of a command of ``user``."""
        return Config(nats=options(self.url, user))


@contextmanager
def shipped_server(
    directory: Path,
    name: str = "single.conf",
    *,
    configurations: Path = CONFIGURATIONS,
    cluster_port: int | None = None,
    routes: Mapping[str, str] | None = None,
) -> Iterator[ShippedServer]:
    """The server ``name``, ready for clients unless it is to be one of a cluster.

    Only where it listens and where it stores differ from the file: ports are free ones of
    127.0.0.1, the store is in ``directory``.
    """
    log_file = directory / "nats-server.log"
    command = [
        str(find_nats_server()),
        *("--config", str(configurations / name)),
        *("--addr", "127.0.0.1", "--port", "-1", "--http_port", "-1"),
        *("--ports_file_dir", str(directory), "--log", str(log_file)),
    ]
    if cluster_port is not None:
        user = f"cluster:{PASSWORDS['CLUSTER_PASSWORD']}"
        command += ["--cluster", f"nats://{user}@127.0.0.1:{cluster_port}"]
    process = subprocess.Popen(
        dies_with_this_process(command),
        env=server_environment(directory, routes),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url, monitor_url = _wait_listening(process, directory)
        server = ShippedServer(process, url, monitor_url, log_file)
        if cluster_port is None:
            _wait_healthy(server)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def _wait_listening(process: subprocess.Popen[bytes], directory: Path) -> tuple[str, str]:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "nats-server ended: see its log"
        for path in directory.glob(f"*_{process.pid}.ports"):
            if text := path.read_text():
                ports = json.loads(text)
                return ports["nats"][0], ports["monitoring"][0]
        time.sleep(0.02)
    msg = f"nats-server did not listen within {READY_SECONDS:g} s"
    raise TimeoutError(msg)


def _wait_healthy(server: ShippedServer) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while server.monitor("/healthz").get("status") != "ok":
        assert time.monotonic() < deadline, server.monitor("/healthz")
        time.sleep(0.02)
