"""The gateway beside the client library, bare Starlette and nginx, in one run.

    python -m tests.bench.http --size 1GiB --requests 20000

A blob of ``size`` is put and read, and a snapshot with one file of ``size`` is read as an archive,
by the library and by curl through one gateway, in turn, ``rounds`` times; the best of each counts.
Then blobs of 4 KiB are read by 64 connections, of the gateway, of bare Starlette, which has them in
memory, and where nginx is installed, of one process of that, which has them in a file. Server,
worker, gateway and curl are processes of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from tests.bench.cpu_per_request import seconds_of
from tests.bench.large import write_random
from tests.deployment import deployed
from tests.gateway.conftest import gateway_process
from tests.ports import free_ports

from holdfast.cli.bench import parse_size
from holdfast.client import connect
from holdfast.domain.limits import MIB
from holdfast.runtime.child import dies_with_this_process
from holdfast.runtime.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from starlette.requests import Request
    from tests.deployment import Deployment

SMALL: Final = 4096
CONNECTIONS: Final = 64
PROMISED: Final = {"download": 0.6, "archive": 0.6, "upload": 0.5}
"""The least rate through a gateway for that of the library."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print every figure as a line of JSON."""
    parser = argparse.ArgumentParser(prog="tests.bench.http", description=__doc__)
    parser.add_argument("--size", default="1GiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="holdfast-http-") as directory:
        measure(Path(directory), parse_size(options.size), options.rounds, options.requests)


def measure(directory: Path, size: int, rounds: int, requests: int) -> None:
    """See the module."""
    app = directory / "apps" / "bench"
    app.mkdir(parents=True)
    source = write_random(app / "large", size)
    with (
        EmbeddedServer.start(directory / "nats") as server,
        deployed(server.url, "one", apps=str(app.parent)) as deployment,
        gateway_process(deployment) as (url, pid),
    ):
        best: dict[str, float] = {}

        def note(what: str, seconds: float) -> None:
            best[what] = min(seconds, best.get(what, seconds))

        key = asyncio.run(_snapshot(deployment))
        for _ in range(rounds):
            digest = asyncio.run(_library(deployment, source, key, note))
            note("upload gateway", curl("-T", str(source), f"{url}/blobs"))
            note("download gateway", curl(f"{url}/blobs/{digest}"))
            note("archive gateway", curl(f"{url}/snapshots/{key}/archive"))
            asyncio.run(_forget(deployment, digest))
        for what, promised in PROMISED.items():
            library, ours = best[f"{what} library"], best[f"{what} gateway"]
            tell(what, size / MIB / library, size / MIB / ours, promised)
        small(url, pid, deployment, requests, directory)


def tell(what: str, library: float, gateway: float, promised: float) -> None:
    """One figure, in MiB/s."""
    told = {
        "what": what,
        "library": round(library),
        "gateway": round(gateway),
        "ratio": round(gateway / library, 2),
        "promised": promised,
    }
    print(json.dumps(told), flush=True)


async def _snapshot(deployment: Deployment) -> str:
    async with await connect(deployment.config.nats, prefix=deployment.prefix) as client:
        return (await client.snapshots.create("bench")).key


async def _library(
    deployment: Deployment, source: Path, key: str, note: Callable[[str, float], None]
) -> str:
    async with await connect(deployment.config.nats, prefix=deployment.prefix) as client:
        began = time.perf_counter()
        stored = await client.put(source)
        note("upload library", time.perf_counter() - began)
        began = time.perf_counter()
        await client.get_to(stored.digest, os.devnull)
        note("download library", time.perf_counter() - began)
        began = time.perf_counter()
        await client.snapshots.export_to(key, os.devnull)
        note("archive library", time.perf_counter() - began)
        await client.delete(stored.digest)
        return stored.digest


async def _forget(deployment: Deployment, digest: str) -> None:
    async with await connect(deployment.config.nats, prefix=deployment.prefix) as client:
        await client.delete(digest)


def curl(*arguments: str) -> float:
    """How many seconds a request takes. Raises where it fails."""
    began = time.perf_counter()
    subprocess.run(["curl", "-sSf", "-H", "Expect:", "-o", os.devnull, *arguments], check=True)
    return time.perf_counter() - began


def small(url: str, pid: int, deployment: Deployment, requests: int, directory: Path) -> None:
    """Requests a second for a small blob, of the gateway, bare Starlette and nginx.

    Also the microseconds of processor that one takes of the gateway (``pid``) and of a worker.
    """
    digest = asyncio.run(_put_small(deployment))
    rates: dict[str, str | int] = {
        "what": f"blobs of {SMALL} bytes a second",
        "connections": CONNECTIONS,
    }
    used = {"gateway_us": pid, "worker_us": deployment.workers["one"].pid}
    before = {name: seconds_of(of) for name, of in used.items()}
    rates["gateway"] = rate(f"{url}/blobs/{digest}", requests)
    for name, of in used.items():
        rates[name] = round((seconds_of(of) - before[name]) * 1e6 / requests)
    with bare() as other:
        rates["starlette"] = rate(other, requests)
    if program := shutil.which("nginx"):
        with nginx(program, directory) as other:
            rates["nginx"] = rate(other, requests)
    print(json.dumps(rates), flush=True)


@contextmanager
def bare() -> Iterator[str]:
    """Where bare Starlette answers ``SMALL`` bytes."""
    command = [sys.executable, "-m", "tests.bench.http_bare"]
    with subprocess.Popen(
        dies_with_this_process(command), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def nginx(program: str, directory: Path) -> Iterator[str]:
    """Where one process of nginx answers ``SMALL`` bytes from a file in ``directory``."""
    (port,) = free_ports(1)
    (directory / "small").write_bytes(os.urandom(SMALL))
    (directory / "nginx.conf").write_text(
        f"user root; daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log;"
        "events { worker_connections 1024; }"
        f"http {{ access_log off; sendfile on; keepalive_requests 1000000;"
        f"server {{ listen 127.0.0.1:{port}; root {directory}; }} }}"
    )
    command = [program, "-p", str(directory), "-c", str(directory / "nginx.conf")]
    with subprocess.Popen(dies_with_this_process(command)) as process:
        try:
            while not is_listening(port):
                assert process.poll() is None
            yield f"http://127.0.0.1:{port}/small"
        finally:
            process.terminate()


def is_listening(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _put_small(deployment: Deployment) -> str:
    async with await connect(deployment.config.nats, prefix=deployment.prefix) as client:
        return (await client.put(os.urandom(SMALL))).digest


def rate(url: str, requests: int) -> int:
    """How many requests a second ``CONNECTIONS`` connections get answered."""
    return uvloop.run(_load(url, requests))


async def _load(url: str, requests: int) -> int:
    parts = urlsplit(url)
    asked = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for _ in range(requests // CONNECTIONS):
            writer.write(asked)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(SMALL)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return round(requests / (time.perf_counter() - began))


def serve_bare() -> None:
    """Bare Starlette that answers bytes from memory; prints where."""
    body = os.urandom(SMALL)

    async def answer(request: Request) -> Response:
        del request
        return Response(body, media_type="application/octet-stream")

    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
    app = Starlette(routes=[Route("/", answer)])
    config = uvicorn.Config(app, http="httptools", log_config=None, access_log=False)
    uvloop.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
