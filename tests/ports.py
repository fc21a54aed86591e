"""Ports for servers that are told theirs before they listen."""

from __future__ import annotations

import os
import random
import socket
from typing import Final

_HOST: Final = "127.0.0.1"
_NOT_EPHEMERAL: Final = range(12_000, 32_000)
"""Below those of Linux's ``ip_local_port_range``: 32,768 and up, unless it was set otherwise."""

_GIVEN: Final[set[int]] = set()
"""Whoever has one may stop, and come back to it."""


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody uses, nor any outgoing connection gets by chance.

    Nobody else in this run of the tests is given them, in this process or another.

    Of ports that one gets, a client that keeps trying to reach a dead server may in the end be
    connected to itself, and the server finds the port taken.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().choice(_of_this_process())
        with socket.socket() as attempt:
            try:
                attempt.bind((_HOST, port))
            except OSError:
                continue
        if port not in _GIVEN:
            _GIVEN.add(port)
            found.append(port)
    return found


def _of_this_process() -> range:
    """The ports that are left to this one of the processes that run tests side by side."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return _NOT_EPHEMERAL[number % processes :: processes]
