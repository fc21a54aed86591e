"""Workers that reach their servers through relays of their own, so that each can be cut off."""

from __future__ import annotations

import signal

from tests.cluster.links import Links
from tests.deployment import Deployment


class RelayedDeployment(Deployment):
    """A deployment on one server or several, for workers on ``nodes``."""

    def __init__(self, urls: list[str], nodes: tuple[str, ...], *, store: str) -> None:
        super().__init__(",".join(urls), store=store)
        self.nodes = nodes
        self._names = {url: f"server {url}" for url in urls}
        ports = {name: int(url.rpartition(":")[2]) for url, name in self._names.items()}
        self.links = Links(ports | dict.fromkeys(nodes, 0))  # nobody connects to a node

    def __exit__(self, *error: object) -> None:
        self.links.heal()
        try:
            super().__exit__(*error)
        finally:
            self.links.close()

    def spawn(self, *nodes: str, **settings: str) -> None:
        """Start workers, each told of its own relays."""
        direct = self.url
        for node in nodes:
            ports = (self.links.port(node, name) for name in self._names.values())
            self.url = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
            try:
                super().spawn(node, **settings)
            finally:
                self.url = direct

    def cut_off(self, node: str, *, is_heard: bool) -> None:
        """Drop what the servers send to ``node``, and what it sends unless it ``is_heard``."""
        for name in self._names.values():
            self.links.cut(name, node)
            if not is_heard:
                self.links.cut(node, name)

    def connect_again(self, node: str) -> None:
        """Forward everything to and from ``node``."""
        self.links.join(node)

    def revive(self) -> None:
        """Start what has ended, as a supervisor does: a worker that is cut off while it starts."""
        for node in self.nodes:
            if self.workers[node].poll() is not None:
                self.spawn(node)

    def wake(self, node: str) -> None:
        """Let a paused worker go on."""
        self.signal(node, signal.SIGCONT)
