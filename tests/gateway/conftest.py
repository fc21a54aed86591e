"""A gateway in this process, on a free port, in front of a worker process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvloop
from tests.deployment import deployed

from holdfast.client import connect
from holdfast.gateway.server import serve
from holdfast.gateway.settings import GatewaySettings
from holdfast.runtime.child import dies_with_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.deployment import Deployment

    from holdfast.runtime.embedded import EmbeddedServer


@contextmanager
def serving(
    deployment: Deployment, *, timeout_seconds: float = 30, **settings: Any
) -> Iterator[str]:
    """A gateway of ``deployment`` while the context lasts; where it is."""
    told: list[str] = []
    up = threading.Event()
    loop = uvloop.new_event_loop()
    stop = asyncio.Event()

    def tell(url: str) -> None:
        told.append(url)
        up.set()

    async def run() -> None:
        async with await connect(
            deployment.config.nats, prefix=deployment.prefix, timeout_seconds=timeout_seconds
        ) as client:
            given = GatewaySettings(**{"listen": "127.0.0.1:0", **settings})
            await serve(client, given, stop, ready=tell)

    def work() -> None:
        try:
            loop.run_until_complete(run())
        finally:
            up.set()
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    up.wait()
    try:
        yield told[0]
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture(scope="session")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the worker's apps are."""
    return tmp_path_factory.mktemp("apps")


@pytest.fixture(scope="session")
def deployment(nats_server: EmbeddedServer, apps: Path) -> Iterator[Deployment]:
    """A worker for all tests here."""
    with deployed(nats_server.url, "one", apps=str(apps)) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def url(deployment: Deployment) -> Iterator[str]:
    """Where the gateway of these tests is."""
    with serving(deployment) as url:
        yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """A client of that gateway, which follows nothing and trusts no environment."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        yield client


@contextmanager
def gateway_process(deployment: Deployment, *flags: str) -> Iterator[tuple[str, int]]:
    """A gateway of ``deployment`` as a process of its own; where it is, and its process id."""
    command = [sys.executable, "-m", "holdfast", "gateway", "--listen", "127.0.0.1:0", *flags]
    environment = {
        **os.environ,
        "NATS_URL": deployment.url,
        "HOLDFAST_PREFIX": deployment.prefix,
        "HOLDFAST_LOG_LEVEL": "warning",
    }
    with subprocess.Popen(
        dies_with_this_process(command), env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()
            process.wait(60)
