"""A process that has ``holdfast`` loaded, and forks one that runs the command for each request.

A program, which ``tests/forked.py`` starts: to load all that a worker is made of takes nearly a
second of processor time, and the tests start hundreds. Its argument is the number of a socket. A
request to start has a command's arguments, its environment and directory, and the descriptors of
its standard output and error; the answer is a process id. A request with a process id is answered
with the exit status, once that process has ended; until then it keeps its id. When the socket is
closed, this process ends, and those that it forked get SIGTERM.

In one respect a command is not run as ``python -m holdfast`` runs it: ``take_signals`` is not
called. No alarm ends a worker that was told to stop while a thread hangs, so that a test sees the
hang; and a second signal ends it as the kernel does, so that it is to be sent one alone.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

import coverage

import holdfast.cli.serving.worker  # noqa: F401 - what is forked finds it loaded
from holdfast.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST_BYTES: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1


def serve(connection: socket.socket) -> None:
    """Answer requests until there are no more; in a forked process, run its command and exit.

    SIGTERM interrupts what is forked from its first moment on, until the command handles it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    forker = os.getpid()
    while True:
        text, descriptors, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 2)
        if not text:
            return
        request = json.loads(text)
        if "ended" in request:
            _, status = os.waitpid(request["ended"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                connection.close()
                sys.exit(run(request, descriptors, forker))
            for descriptor in descriptors:
                os.close(descriptor)
        connection.sendall(str(answer).encode())


def run(request: dict[str, Any], descriptors: list[int], parent: int) -> int:
    """The command, as in a process of its own but for its signals."""
    os.setsid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        return 1
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    coverage.process_startup()
    signal.signal(signal.SIGUSR2, print_tasks)
    faulthandler.register(signal.SIGUSR2, chain=True)
    return main(request["arguments"])


def print_tasks(*_: object) -> None:
    """What each task of the running event loop waits for, on standard error."""
    for task in asyncio.all_tasks():
        sys.stderr.write(f"{task.get_name()}: {' > '.join(awaited(task.get_coro()))}\n")
    sys.stderr.flush()


def awaited(waiting: object) -> Iterator[str]:
    """Where a coroutine is, then where the one that it waits for is, and so on."""
    while isinstance(waiting, CoroutineType) and waiting.cr_frame:
        yield f"{waiting.__qualname__}, line {waiting.cr_frame.f_lineno}"
        waiting = waiting.cr_await


if __name__ == "__main__":
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as given:
        serve(given)
