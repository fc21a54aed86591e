"""Processes that run the ``holdfast`` command without loading it first: see ``preloaded.py``."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

_PROGRAM: Final = Path(__file__).with_name("preloaded.py")
_ANSWER_BYTES: Final = 64


class Forked:
    """A process that was forked, with the part of ``subprocess.Popen`` that tests use.

    It gets SIGTERM when this process ends, and has a session of its own. On SIGUSR2 it prints what
    its threads and tasks are at.
    """

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.args = arguments
        self.pid = _forker().start(arguments, environment)
        self.returncode: int | None = None
        self._descriptor = os.pidfd_open(self.pid)
        weakref.finalize(self, os.close, self._descriptor)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended. Raises TimeoutExpired after ``timeout`` seconds."""
        if not select.select([self._descriptor], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        with self._lock:  # who waits holds up nobody, and only one asks
            if self.returncode is None:
                self.returncode = _forker().ended(self.pid)
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as the kernel would."""
        self.send_signal(signal.SIGKILL)


class _Forker:
    """The preloaded process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={n: v for n, v in os.environ.items() if not n.startswith("COVERAGE_")},
                start_new_session=True,
            )

    def start(self, arguments: list[str], environment: dict[str, str]) -> int:
        """The id of a new process."""
        return self._ask(
            {"arguments": arguments, "environment": environment, "directory": str(Path.cwd())},
            [1, 2],
        )

    def ended(self, pid: int) -> int:
        """How the process ended, which it has."""
        return self._ask({"ended": pid})

    def close(self) -> None:
        """End it, and all that it started."""
        self._connection.close()
        self._process.wait()

    def _ask(self, request: dict[str, object], descriptors: list[int] | None = None) -> int:
        with self._lock:
            socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors or [])
            answer = self._connection.recv(_ANSWER_BYTES)
        assert answer, "the process that forks others has ended"
        return int(answer)


@cache
def _forker() -> _Forker:
    """That of this process, started when it is first needed."""
    forker = _Forker()
    atexit.register(forker.close)
    return forker
