"""A worker, and the command called in this process."""

from __future__ import annotations

import array
import fcntl
import termios
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.deployment import Deployment

from holdfast.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.runtime.embedded import EmbeddedServer

PREFIX = "cli"


class Ran(NamedTuple):
    """How a command ended, and what it wrote."""

    status: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()


class Holdfast(NamedTuple):
    """Calls the command, connected to the worker of these tests."""

    capture: pytest.CaptureFixture[bytes]
    connection: tuple[str, ...]

    def __call__(self, *arguments: str) -> Ran:
        return self.unconnected(*arguments, *self.connection)

    def unconnected(self, *arguments: str) -> Ran:
        self.capture.readouterr()
        status = main(arguments)
        captured = self.capture.readouterr()
        return Ran(status, captured.out, captured.err.decode())


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the worker's apps are."""
    return tmp_path_factory.mktemp("apps")


@pytest.fixture(scope="module")
def worker_connection(nats_server: EmbeddedServer, apps: Path) -> Iterator[tuple[str, ...]]:
    """The flags that reach a worker which serves for as long as the module's tests run."""
    with Deployment(nats_server.url, prefix=PREFIX) as deployment:
        deployment.start("one", apps=str(apps))
        yield ("--server", deployment.url, "--prefix", deployment.prefix)
        assert deployment.stop("one") == 0


def wait_until(condition: Callable[[], bool], timeout_seconds: float = 60) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)


def unread_bytes(pipe: int) -> int:
    """How much of what was written into a pipe nobody has read."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


@pytest.fixture
def holdfast(
    worker_connection: tuple[str, ...], capsysbinary: pytest.CaptureFixture[bytes]
) -> Holdfast:
    """The command, with a worker to talk to."""
    return Holdfast(capsysbinary, worker_connection)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name, or a state, of this test alone: the tests of a module share a deployment."""
    return f"{request.node.name}/é"
