"""Workers that refuse to start: one sentence, the exit status, and servers left as they were."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import nats
import pytest
from structlog.testing import capture_logs
from tests.nats.clusters import Cluster
from tests.runtime.test_peers import peers

from holdfast.bootstrap import worker
from holdfast.bootstrap.admin import init_store
from holdfast.bootstrap.worker import run_worker
from holdfast.cli.base import exit_codes
from holdfast.cli.base.exit_codes import exit_code_of
from holdfast.errors import HoldfastError
from holdfast.runtime.config import load_config
from holdfast.runtime.embedded import find_nats_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartServer

    from holdfast.runtime.config import Config
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

RUN_SECONDS = 90


class Refusal(NamedTuple):
    """How a worker ended, and why it says it did."""

    status: int
    code: str
    detail: str


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NATS_", "HOLDFAST_"))
    }
    environment |= {f"HOLDFAST_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )


def refusal(url: str, **settings: str) -> Refusal:
    """The words of a worker that does not start; it says them once."""
    ended = run("worker", "--server", url, "--log-format", "json", **settings)
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    refused = [event for event in events if event["event"] == "worker_not_started"]
    assert len(refused) == 1, ended.stderr
    return Refusal(ended.returncode, refused[0]["code"], refused[0]["detail"])


async def refusal_here(url: str, **settings: str) -> Refusal:
    """The same of a worker in this process, which has everything loaded already."""
    with capture_logs() as events, pytest.raises(HoldfastError) as raised:
        await run_worker(config_of(url, **settings))
    refused = [event for event in events if event["event"] == "worker_not_started"]
    assert len(refused) == 1, events
    return Refusal(exit_code_of(raised.value), refused[0]["code"], refused[0]["detail"])


def config_of(url: str, **settings: str) -> Config:
    """The configuration of a process."""
    environ = {f"HOLDFAST_{name.upper()}": value for name, value in settings.items()}
    return load_config(environ=environ | {"NATS_URL": url}).config


async def streams(url: str, prefix: str) -> dict[str, Any]:
    """Every stream by name, with settings and contents where ``prefix`` is in it.

    Workers that other tests share may serve beside this, with a prefix of their own.
    """
    client = await nats.connect(url)
    try:
        answer = json.loads((await client.request("$JS.API.STREAM.LIST", timeout=30)).data)
    finally:
        await client.close()
    return {
        name: (stream["config"], stream["state"]["messages"]) if prefix in name else None
        for stream in answer["streams"] or []
        for name in [stream["config"]["name"]]
    }


async def check_refused(url: str, sentence: str, **settings: str) -> None:
    """The sentence, the status of its code, and every stream as it was before."""
    prefix = settings.get("prefix", "")
    before = await streams(url, prefix)

    found = await refusal_here(url, **settings)

    assert sentence in found.detail
    assert (found.status, found.code) == (exit_codes.UNAVAILABLE, "unavailable")
    assert await streams(url, prefix) == before


@pytest.mark.fault("N06")
async def test_a_server_without_synced_writes_is_refused_where_they_are_required(
    start_server: StartServer,
) -> None:
    server = start_server(sync_interval="2m")
    await init_store(config_of(server.url))

    await check_refused(
        server.url,
        "are lazy: set sync_interval: always in the jetstream block of its configuration",
        require_sync="true",
        monitor_url=server.monitor_url,
    )


@pytest.mark.fault("N18")
@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        ("nats://blobs?replicas=3", "3 replicas cannot be: there is 1 server with JetStream"),
        ("nats://blobs?max_bytes=1GiB", "asks for 1073741824: `holdfast admin init` changes it"),
        ("nats://blobs?storage=memory", "has storage=file and the configuration asks for memory"),
        ("nats://blobs?tags=ssd", "is placed anywhere and the configuration asks for tags=ssd"),
        ("nats://other", "the bucket 'refused_other' is not there; `holdfast admin init` makes it"),
    ],
    ids=["too few servers", "max_bytes", "storage", "placement", "missing"],
)
async def test_a_store_that_is_not_what_its_url_says_is_refused(
    nats_server: EmbeddedServer, store: str, sentence: str
) -> None:
    await init_store(config_of(nats_server.url, prefix="refused"))

    await check_refused(nats_server.url, sentence, store=store, prefix="refused")


@pytest.mark.usefixtures("patience")
async def test_a_second_directory_of_one_node_is_refused(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    await init_store(config_of(nats_server.url, prefix="twins"))
    roots = [tmp_path / name for name in ("one", "two")]
    for root in roots:
        root.mkdir()

    async with peers(nats_server.url, "twins", "twin", roots[0]) as one:
        await one.check_node()
        found = await refusal_here(nats_server.url, prefix="twins", node="twin", apps=str(roots[1]))

    assert (found.status, found.code) == (exit_codes.UNAVAILABLE, "unavailable")
    assert found.detail.startswith(
        "another worker of node twin has another directory of apps: give each machine"
    )


@pytest.fixture
def url_without_jetstream(tmp_path: Path) -> Iterator[str]:
    """A nats-server that only passes messages on."""
    configuration = tmp_path / "nats.conf"
    configuration.write_text(f'host: "127.0.0.1"\nport: -1\nports_file_dir: "{tmp_path}"\n')
    server = subprocess.Popen(
        [find_nats_server(), "-c", configuration],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + RUN_SECONDS
        while not (found := [at.read_bytes() for at in tmp_path.glob("*.ports")]) or not found[0]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield json.loads(found[0])["nats"][0]
    finally:
        server.terminate()
        server.wait()


@pytest.mark.fault("N18")
async def test_a_server_without_jetstream_is_refused(
    url_without_jetstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", 0.5)  # nobody is there to wait for

    refused = await refusal_here(url_without_jetstream)

    assert "give it a jetstream block in its configuration" in refused.detail
    assert (refused.status, refused.code) == (exit_codes.UNAVAILABLE, "unavailable")


@pytest.mark.fault("N19")
async def test_a_server_that_takes_only_tiny_messages_is_refused(
    start_server: StartServer,
) -> None:
    server = start_server(extra_configuration="max_payload: 4KB")

    await check_refused(server.url, "has max_payload 4096: set it to 16384 or more")


class OldServer:
    """Says that it is a nats-server of long ago, and remembers what it was sent."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        greeting = {"server_id": "OLD", "server_name": "old", "version": "2.10.22"}
        greeting |= {"max_payload": 2**20, "headers": True, "jetstream": True}  # type: ignore[dict-item]
        with connection:
            connection.sendall(f"INFO {json.dumps(greeting)}\r\n".encode())
            while received := connection.recv(65536):
                self.received += received
                connection.sendall(b"PONG\r\n" * received.count(b"PING\r\n"))

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def old_server() -> Iterator[OldServer]:
    server = OldServer()
    yield server
    server.close()


@pytest.mark.fault("N18")
def test_a_server_that_is_too_old_is_refused_and_asked_for_nothing(old_server: OldServer) -> None:
    refused = refusal(old_server.url)

    assert refused == Refusal(
        exit_codes.UNAVAILABLE,
        "unavailable",
        "old is nats-server 2.10.22, which is too old: upgrade it to 2.14 or newer",
    )
    assert b"$JS" not in old_server.received


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers, one of which does not sync its writes, with a store of three replicas."""
    with Cluster(
        tmp_path_factory.mktemp("cluster"),
        sync_intervals={"nats-2": "2m"},
        extra={"nats-3": "max_payload: 2MB"},
    ) as cluster:
        store = ("--store", "nats://blobs?replicas=3", "--wait", "60")
        assert run("admin", "init", "--server", cluster.urls[0], *store).returncode == 0
        yield cluster


@pytest.mark.slow
@pytest.mark.fault("N06")
@pytest.mark.fault("N18")
@pytest.mark.parametrize(
    ("settings", "monitored", "sentence"),
    [
        (
            {"store": "nats://blobs?replicas=1"},
            (),
            "bucket blobs has 3 replicas and the configuration asks for 1: `holdfast admin",
        ),
        (
            {"store": "nats://blobs?replicas=5"},
            ("nats-1",),
            "5 replicas cannot be: there are 3 servers with JetStream",
        ),
        (
            {"store": "nats://blobs?replicas=5"},
            (),
            "bucket blobs has 3 replicas and the configuration asks for 5: `holdfast admin",
        ),
        (
            {"require_sync": "true"},
            ("nats-1", "nats-2"),
            "the writes of nats-2 are lazy: set sync_interval: always",
        ),
        (
            {},
            ("nats-2", "nats-3"),
            "not the same on all servers (nats-1 1048576, nats-2 1048576, nats-3 2097152)",
        ),
    ],
    ids=["fewer", "more than servers", "more", "one lazy", "different sizes"],
)
async def test_a_cluster_that_is_not_as_configured_is_refused(
    cluster: Cluster, settings: dict[str, str], monitored: tuple[str, ...], sentence: str
) -> None:
    monitors = ",".join(cluster.monitor_url(name) for name in monitored)

    await check_refused(cluster.urls[0], sentence, **settings, monitor_url=monitors)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.fault("N01")
@pytest.mark.fault("N03")
def test_a_worker_waits_for_its_cluster_and_starts_while_a_server_is_away(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Cluster(tmp_path_factory.mktemp("waited-for")) as cluster:
        # Given a store of three replicas, and one server of its three,
        at = ("--server", ",".join(cluster.urls), "--store", "nats://blobs?replicas=3")
        assert run("admin", "init", *at, "--wait", "60").returncode == 0
        cluster.kill("nats-2", "nats-3")
        while has_leaders(*at):  # it takes the one that is left a while to notice
            pass

        # when a worker is started, and a second server comes once it has missed it,
        worker, before = started_too_early(*at)
        try:
            cluster.start("nats-2")
            after = events_until(worker, "worker_started")
        finally:
            worker.terminate()
            worker.communicate(timeout=RUN_SECONDS)

        # then it serves, and has said what is missing.
        assert "worker_not_started" not in before | after
        assert "bucket_degraded" in after
        assert worker.returncode == exit_codes.OK


def started_too_early(*at: str) -> tuple[subprocess.Popen[str], set[str]]:
    """A worker that waits for its store, and what it has logged.

    The server that is left may believe for some seconds yet that it leads: then again.
    """
    while True:
        worker = subprocess.Popen(
            [sys.executable, "-m", "holdfast", "worker", *at, "--log-format", "json"],
            stderr=subprocess.PIPE,
            text=True,
        )
        seen = events_until(worker, "store_not_ready", "worker_started")
        if "worker_started" not in seen:
            return worker, seen
        worker.terminate()
        worker.communicate(timeout=RUN_SECONDS)


def has_leaders(*at: str) -> bool:
    """Whether each of the buckets has one that answers."""
    done = run("admin", "layout", "--json", *at)
    buckets = json.loads(done.stdout)["buckets"] if done.returncode == 0 else []
    return len(buckets) == 6 and all(bucket["leader"] for bucket in buckets)


def events_until(worker: subprocess.Popen[str], *events: str) -> set[str]:
    """The events that the worker logs, up to and with one of ``events``."""
    assert worker.stderr is not None
    seen: set[str] = set()
    for line in worker.stderr:
        seen.add(json.loads(line)["event"])
        if not seen.isdisjoint(events):
            return seen
    pytest.fail(f"the worker ended with {worker.wait()} after {seen}")
