"""``holdfast up``: one command, a whole machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from tests.cli.conftest import wait_until
from tests.ports import free_ports

from holdfast.cli.base import exit_codes
from holdfast.client import connect_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import StartServer

pytestmark = [pytest.mark.nats, pytest.mark.slow]

HOLDFAST = (sys.executable, "-m", "holdfast")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``holdfast up`` on a directory of its own and a free port."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*HOLDFAST, "up", "--data-dir", tmp_path / "data", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def children(process: subprocess.Popen[str], last_argument: str) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(process.pid).children()
        if child.cmdline()[-1].endswith(last_argument)
    ]


def runs(process: psutil.Process) -> bool:
    """Not when it has ended and only waits for whoever has it now to notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pool(url: str) -> dict[str, str]:
    """Node to id of the workers that answer."""
    ran = subprocess.run(
        [*HOLDFAST, "status", "--json", "--server", url], capture_output=True, check=False
    )
    workers = json.loads(ran.stdout)["workers"] if ran.stdout else []
    return {worker["metadata"]["node"]: worker["id"] for worker in workers}


def whole_pool(url: str, size: int, *, other_than: dict[str, str] | None = None) -> dict[str, str]:
    """The pool once so many answer: one that is busy may miss a question."""
    found: dict[str, str] = {}

    def is_whole() -> bool:
        found.update(pool(url))
        return len(found) == size and found != other_than

    wait_until(is_whole)
    return found


def wait_for_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if "NATS_URL=" in line:
            return line.split("=", 1)[1].strip()
    pytest.fail(f"it ended: {process.communicate()}")


def test_the_demonstration_stores_real_files_and_reads_them_back(
    up: Callable[..., subprocess.Popen[str]], tmp_path: Path, start_server: StartServer
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for name, content in {"a": b"same", "b": b"same", "c": bytes(3_000_000), "d": b""}.items():
        (files / name).write_bytes(content)
    (files / "link").symlink_to("a")

    process = up("--demo", str(files), "--exit-after-demo")
    out, err = process.communicate(timeout=90)

    assert process.returncode == exit_codes.OK, err
    row = next(line for line in out.splitlines() if "MB/s" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert (cells[0], cells[-2], cells[-1]) == ("4", "1", "4")
    assert "skipped: 1 symbolic link" in err
    assert start_server(directory=tmp_path / "data").exit_status() is None


def test_a_worker_that_dies_is_started_again_and_sigterm_ends_all_in_order(
    up: Callable[..., subprocess.Popen[str]],
) -> None:
    process = up("--workers", "2")
    url = wait_for_url(process)
    before = whole_pool(url, 2)
    everybody = psutil.Process(process.pid).children()

    children(process, "worker")[0].kill()
    whole_pool(url, 2, other_than=before)
    everybody += psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)

    assert before.keys() == {"worker-1", "worker-2"}
    assert process.returncode == exit_codes.OK
    assert "starting it again" in err
    assert not [child for child in everybody if runs(child)]


def test_links_can_be_made_and_followed_at_once(
    up: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    url = wait_for_url(up("--workers", "1", "--listen", f"127.0.0.1:{port}"))

    with connect_sync(servers=url) as holdfast:
        link = holdfast.link(holdfast.put(b"linked").digest, 60).url

    assert link.startswith(f"http://127.0.0.1:{port}/")
    assert httpx.get(link, trust_env=False, timeout=60).content == b"linked"
    assert (tmp_path / "data" / "link-keys.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("when", "number"),
    [
        ("while it starts", signal.SIGINT),
        pytest.param("while it starts", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("when it is up", signal.SIGINT, marks=pytest.mark.long),
        ("when it is up", signal.SIGTERM),
    ],
)
def test_a_job_in_the_background_ends_on_either_signal(
    up: Callable[..., subprocess.Popen[str]], when: str, number: signal.Signals
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a job
    try:
        process = up("--workers", "1")
    finally:
        signal.signal(signal.SIGINT, before)
    if when == "when it is up":
        wait_for_url(process)
    else:
        wait_until(lambda: bool(psutil.Process(process.pid).children()))
    everybody = psutil.Process(process.pid).children()

    process.send_signal(number)
    _, err = process.communicate(timeout=60)

    assert process.returncode in {exit_codes.OK, exit_codes.INTERRUPTED}
    assert "Traceback" not in err
    assert not [child for child in everybody if runs(child)]


def test_a_second_one_on_the_same_directory_is_refused(
    up: Callable[..., subprocess.Popen[str]],
) -> None:
    wait_for_url(up("--workers", "1"))

    second = up("--workers", "1")
    _, err = second.communicate(timeout=60)

    assert second.returncode == exit_codes.CONFLICT
    assert "is running on" in err


def test_everything_ends_when_the_server_does(up: Callable[..., subprocess.Popen[str]]) -> None:
    process = up("--workers", "1")
    wait_for_url(process)

    os.kill(children(process, "/nats-server.conf")[0].pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)

    assert process.returncode == exit_codes.UNAVAILABLE
    assert "nats-server ended with status -9" in err
