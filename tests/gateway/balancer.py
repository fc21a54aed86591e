"""One address in front of several servers: each connection goes to the next one that is there."""

from __future__ import annotations

import itertools
import socket
import socketserver
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass all on, and then that it has ended."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _pump_some(source: socket.socket, target: socket.socket, most: int) -> None:
    """Pass on ``most`` bytes, and then neither more nor that it has ended well."""
    with suppress(OSError):
        while most > 0 and (data := source.recv(min(1 << 16, most))):
            target.sendall(data)
            most -= len(data)
        target.shutdown(socket.SHUT_RDWR)


@contextmanager
def balanced(*urls: str) -> Iterator[str]:
    """The URL of all of ``urls``, while the context lasts."""
    addresses = [(url.hostname, url.port) for url in map(urlsplit, urls)]
    turns = itertools.cycle(addresses)

    def reached() -> socket.socket:
        for address in itertools.islice(turns, len(addresses)):
            with suppress(OSError):
                return socket.create_connection(address)
        raise ConnectionRefusedError

    def join(front: socket.socket) -> None:
        with suppress(ConnectionRefusedError), reached() as behind:
            answers = threading.Thread(target=_pump, args=(behind, front))
            answers.start()
            _pump(front, behind)
            answers.join()

    with _serving(join) as url:
        yield url


@contextmanager
def cutting(url: str, most: int, times: int) -> Iterator[str]:
    """``url`` by connections of which the first so many ``times`` end after ``most`` bytes."""
    address = urlsplit(url).hostname, urlsplit(url).port
    numbers = itertools.count()

    def join(front: socket.socket) -> None:
        with socket.create_connection(address) as behind:
            asking = threading.Thread(target=_pump, args=(front, behind))
            asking.start()
            if next(numbers) < times:
                _pump_some(behind, front, most)
            else:
                _pump(behind, front)
            asking.join()

    with _serving(join) as at:
        yield at


@contextmanager
def _serving(join: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL at which each connection goes to ``join``."""

    class Joined(socketserver.BaseRequestHandler):
        """One connection."""

        def handle(self) -> None:
            """Until both sides have ended."""
            join(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Joined) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()
