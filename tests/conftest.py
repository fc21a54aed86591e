"""Fixtures of every test: a real nats-server, shared or its own."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING, Final, Protocol

import pytest
from hypothesis import settings
from tests.examples import QUICK
from tests.ports import free_ports

from holdfast.runtime.embedded import SERVER_VARIABLE, EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has it ignored for what runs in its background, and commands that tests start would
    # take no Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.load_profile(QUICK)  # and pytest's --hypothesis-profile=thorough the other one

_LONG_SECONDS: Final = 400
_MARKS_LONG: Final = re.compile(r"\bmark\.long\b|\bat_length\b")
"""In the text of each file that has long tests, as ``test_house.py`` has it."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only long tests are asked for, files without are not loaded: to load all takes 10 s."""
    if config.option.markexpr != "long" or not collection_path.name.startswith("test_"):
        return None
    return None if _MARKS_LONG.search(collection_path.read_text()) else True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests may take long, on a busy machine too, and files that need a server come first.

    With a file that takes long at the end, other processes would idle.
    """
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_LONG_SECONDS))
    with_server = {item.path for item in items if item.get_closest_marker("nats")}
    items.sort(key=lambda item: item.path not in with_server)


class StartServer(Protocol):
    """See ``start_server``."""

    def __call__(
        self,
        *,
        port: int = 0,
        directory: Path | None = None,
        sync_interval: str = "always",
        extra_configuration: str = "",
    ) -> EmbeddedServer:
        """A new nats-server with JetStream, on a directory of its own unless one is given."""
        ...


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A nats-server with JetStream for the whole session (of one test process).

    Tests share it, so each makes its own buckets, or a prefix. One that stops, pauses or fills a
    server starts its own with ``start_server``.
    """
    with EmbeddedServer.start(tmp_path_factory.mktemp("nats-server")) as server:
        yield server


@pytest.fixture
def nats_url(nats_server: EmbeddedServer) -> str:
    """The address of the shared server."""
    return nats_server.url


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Starts servers that are this test's own. Whatever still runs is stopped afterwards.

    To restart one, stop it, and start another with its directory and port.
    """
    started: list[EmbeddedServer] = []

    def start(
        *,
        port: int = 0,
        directory: Path | None = None,
        sync_interval: str = "always",
        extra_configuration: str = "",
    ) -> EmbeddedServer:
        server = EmbeddedServer.start(
            directory or tmp_path_factory.mktemp("own-nats-server"),
            port=port or free_ports(1)[0],
            sync_interval=sync_interval,
            extra_configuration=extra_configuration,
        )
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the NATS and holdfast settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("NATS_", "HOLDFAST_")) and name != SERVER_VARIABLE:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nonexistent")
