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
    from collections.abc import Iterator


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass all on, and then that it has ended."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


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

    class Joined(socketserver.BaseRequestHandler):
        """One connection."""

        def handle(self) -> None:
            """Until both sides have ended."""
            with suppress(ConnectionRefusedError), reached() as behind:
                answers = threading.Thread(target=_pump, args=(behind, self.request))
                answers.start()
                _pump(self.request, behind)
                answers.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Joined) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()
