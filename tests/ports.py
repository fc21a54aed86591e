"""Ports for servers that are told theirs before they listen."""

from __future__ import annotations

import random
import socket
from typing import Final

_HOST: Final = "127.0.0.1"
_NOT_EPHEMERAL: Final = range(12_000, 32_000)
"""Below those of Linux's ``ip_local_port_range``: 32,768 and up, unless it was set otherwise."""


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody uses, nor any outgoing connection gets by chance.

    Of ports that one gets, a client that keeps trying to reach a dead server may in the end be
    connected to itself, and the server finds the port taken.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().choice(_NOT_EPHEMERAL)
        with socket.socket() as attempt:
            try:
                attempt.bind((_HOST, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
