"""A cluster of real nats-servers on this machine, for the tests that need more than one."""

from __future__ import annotations

import http.client
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final, Self

from tests.ports import free_ports

from holdfast.runtime.child import dies_with_this_process
from holdfast.runtime.embedded import find_nats_server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0

_CONFIGURATION: Final = """\
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor}"
server_tags: {tags}
jetstream {{ store_dir: "{directory}", sync_interval: {sync_interval} }}
cluster {{
  name: {cluster}
  listen: "127.0.0.1:{route}"
  no_advertise: true
  routes: {routes}
}}
log_file: "{directory}/log"
{extra}"""


class Cluster:
    """nats-servers that know one another, by name. Start them from the main thread.

    ``tags``, ``sync_intervals`` (always, unless given) and ``extra`` configuration are told by
    the name of the server that they are for.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str] = ("nats-1", "nats-2", "nats-3"),
        *,
        cluster: str = "test",
        tags: Mapping[str, Sequence[str]] | None = None,
        sync_intervals: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.names = tuple(names)
        ports = free_ports(3 * len(names))
        self._ports = dict(zip(names, ports[::3], strict=True))
        self._monitors = dict(zip(names, ports[1::3], strict=True))
        self._routes = dict(zip(names, ports[2::3], strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._directory = directory
        routes = [f"nats://127.0.0.1:{port}" for port in self._routes.values()]
        for name in names:
            home = directory / name
            home.mkdir(parents=True)
            configuration = _CONFIGURATION.format(
                name=name,
                port=self._ports[name],
                monitor=self._monitors[name],
                route=self._routes[name],
                routes=routes,
                cluster=cluster,
                directory=home,
                sync_interval=(sync_intervals or {}).get(name, "always"),
                tags=list((tags or {}).get(name, ())),
                extra=(extra or {}).get(name, ""),
            )
            (home / "nats.conf").write_text(configuration, encoding="utf-8")

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients connect, in the order of the names."""
        return tuple(f"nats://127.0.0.1:{port}" for port in self._ports.values())

    @property
    def monitor_urls(self) -> tuple[str, ...]:
        """Where each tells of itself, in the order of the names."""
        return tuple(f"http://127.0.0.1:{port}" for port in self._monitors.values())

    def monitor_url(self, name: str) -> str:
        """Where one of them tells of itself."""
        return f"http://127.0.0.1:{self._monitors[name]}"

    def url(self, name: str) -> str:
        """Where clients connect to one of them."""
        return f"nats://127.0.0.1:{self._ports[name]}"

    def launch(self, *names: str) -> None:
        """Start some, and do not wait for them."""
        program = str(find_nats_server())
        for name in names:
            configuration = str(self._directory / name / "nats.conf")
            self._processes[name] = subprocess.Popen(
                dies_with_this_process([program, "-c", configuration]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def start(self, *names: str) -> None:
        """Start some, or all, and wait until each is healthy. Raises TimeoutError."""
        starting = names or self.names
        self.launch(*starting)
        self.wait_healthy(*starting)

    def wait_healthy(self, *names: str) -> None:
        """Until each of ``names``, which were started, is healthy. Raises TimeoutError."""
        deadline = time.monotonic() + START_SECONDS
        for name in names:
            while not _is_healthy(self._monitors[name]):
                assert self._processes[name].poll() is None, f"{name} ended"
                if time.monotonic() > deadline:
                    msg = f"{name} is not healthy after {START_SECONDS:g} s"
                    raise TimeoutError(msg)
                time.sleep(0.05)

    def kill(self, *names: str) -> None:
        """End some as a power cut would."""
        for name in names:
            process = self._processes.pop(name)
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_healthy(port: int) -> bool:
    """Whether the server takes connections, has recovered its streams and knows a leader."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
