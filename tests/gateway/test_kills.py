"""A worker and a gateway are killed while bytes go both ways: clients resume, and all is right.

With ``TRANSFERS=20`` and ``ARCHIVE_MB=1024`` in the environment it is as heavy as by hand.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import httpx
import pytest
from nats.aio.client import Client as NatsClient
from tests.client.test_client import digest_of
from tests.contracts.blob_store import some_bytes
from tests.deployment import Asker, Deployment
from tests.gateway.balancer import balanced, cutting
from tests.gateway.conftest import serving

from holdfast.client import connect_sync
from holdfast.errors import NotFoundError
from holdfast.runtime.child import dies_with_this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = [pytest.mark.nats, pytest.mark.long]

TRANSFERS: Final = int(os.environ.get("TRANSFERS", "3"))
ARCHIVE_MB: Final = int(os.environ.get("ARCHIVE_MB", "8"))
CHUNK: Final = 700_001
CHUNKS: Final = 8
TUS: Final = {"Tus-Resumable": "1.0.0"}
OCTETS: Final = {**TUS, "Content-Type": "application/offset+octet-stream"}


@contextmanager
def gateway(deployment: Deployment) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process of its own; where it answers."""
    words = ["gateway", "--listen", "127.0.0.1:0", "-s", deployment.url]
    command = [sys.executable, "-m", "holdfast", *words, "--prefix", deployment.prefix]
    with subprocess.Popen(
        dies_with_this_process(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "HOLDFAST_LOG_LEVEL": "error"},
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            yield url, process
        finally:
            process.kill()


def upload(http: httpx.Client, data: bytes, sent: Callable[[], None]) -> str:
    """Upload as a tus client does that never gives up; where the blob is."""
    path = ""
    while True:
        try:
            if not path:
                made = http.post("/uploads", headers={**TUS, "Upload-Length": str(len(data))})
                path = made.raise_for_status().headers["Location"]
            held = http.head(path, headers=TUS).raise_for_status()
            if "ETag" in held.headers:
                return str(held.headers["Content-Location"])
            offset = int(held.headers["Upload-Offset"])
            headers = {**OCTETS, "Upload-Offset": str(offset)}
            content = data[offset : offset + CHUNK]
            http.patch(path, headers=headers, content=content).raise_for_status()
        except httpx.HTTPError:
            continue
        sent()


def download(url: str, path: Path, size: int) -> bytes:
    """The bytes that curl has in the end, which goes on where it was cut off."""
    while not path.exists() or path.stat().st_size < size:
        command = ["curl", "-sS", "--fail", "-C", "-", "-o", str(path), url]
        subprocess.run(command, check=False, timeout=120, stderr=subprocess.DEVNULL)
    return path.read_bytes()


@pytest.mark.timeout(1800)
def test_a_worker_and_a_gateway_are_killed_and_every_transfer_ends_well(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    data = [some_bytes(CHUNK * CHUNKS + number, seed=number) for number in range(2 * TRANSFERS)]
    up, down = data[:TRANSFERS], data[TRANSFERS:]
    under_way = threading.Event()
    chunks = itertools.count(1)

    def sent() -> None:
        if next(chunks) >= TRANSFERS * CHUNKS // 3:
            under_way.set()

    with ExitStack() as stack:
        deployment = stack.enter_context(Deployment(nats_server.url))
        deployment.start("one", "two")
        hf = stack.enter_context(connect_sync(servers=deployment.url, prefix=deployment.prefix))
        digests = [hf.put(one).digest for one in down]
        (first, victim), (second, _) = (stack.enter_context(gateway(deployment)) for _ in range(2))
        url = stack.enter_context(balanced(first, second))
        http = stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=60))
        pool = stack.enter_context(ThreadPoolExecutor(2 * TRANSFERS))

        uploads = [pool.submit(upload, http, one, sent) for one in up]
        downloads = [
            pool.submit(download, f"{url}/blobs/{digest}", tmp_path / digest, len(one))
            for digest, one in zip(digests, down, strict=True)
        ]
        under_way.wait()
        deployment.kill("one")
        victim.kill()

        assert [done.result() for done in uploads] == [f"/blobs/{digest_of(one)}" for one in up]
        assert [done.result() for done in downloads] == down
        assert [hf.get(digest_of(one)) for one in up] == up


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("program", ["curl", "wget"])
def test_an_archive_that_is_cut_ten_times_is_resumed_and_right(
    nats_server: EmbeddedServer, tmp_path: Path, program: str
) -> None:
    apps = tmp_path / "apps"
    (apps / "big").mkdir(parents=True)
    for number in range(ARCHIVE_MB):
        (apps / "big" / f"{number}.bin").write_bytes(some_bytes(2**20, seed=number))
    target = tmp_path / "archive.tar.zst"

    with ExitStack() as stack:
        deployment = stack.enter_context(Deployment(nats_server.url))
        deployment.start("one", apps=str(apps))
        hf = stack.enter_context(connect_sync(servers=deployment.url, prefix=deployment.prefix))
        record = hf.snapshots.create("big")
        size = record.archive_size
        whole = stack.enter_context(serving(deployment))
        cut = stack.enter_context(cutting(whole, size // 11, 10))

        words = {
            "curl": ["curl", "-sS", "--fail", "-C", "-", "-o", str(target)],
            "wget": ["wget", "-q", "-c", "--tries=1", "-O", str(target)],
        }[program]
        runs = 0
        while not target.exists() or target.stat().st_size < size:
            subprocess.run(
                [*words, f"{cut}/snapshots/{record.key}/archive"],
                check=False,
                timeout=300,
                stderr=subprocess.DEVNULL,
            )
            runs += 1

        expected = tmp_path / "expected.tar.zst"
        hf.snapshots.export_to(record.key, expected)
    assert runs == 11
    assert subprocess.run(["cmp", str(target), str(expected)], check=False).returncode == 0


def test_a_name_that_was_pending_when_all_was_killed_is_a_failure_without_bytes(
    nats_server: EmbeddedServer,
) -> None:
    with (
        Deployment(nats_server.url, grace_seconds=1) as deployment,
        connect_sync(servers=deployment.url, prefix=deployment.prefix) as hf,
    ):
        deployment.start("one", upload_lease_seconds="5")

        def chunks() -> int:
            return asyncio.run(chunks_in_bucket(deployment))

        def has_become(state: str) -> bool:
            return [row.state for row in hf.names.list() if not isinstance(row, str)] == [state]

        with gateway(deployment) as (url, process):

            def dying() -> Iterator[bytes]:
                yield some_bytes(4 * CHUNK)
                while not (has_become("pending") and chunks()):
                    pass
                process.kill()
                deployment.kill("one")
                yield b"never sent"

            with pytest.raises(httpx.TransportError):
                httpx.post(f"{url}/store/half", content=dying(), timeout=60)
        deployment.start("one", upload_lease_seconds="5")
        while not has_become("failure"):
            pass
        while chunks():
            hf.collect()

        with pytest.raises(NotFoundError):
            hf.names.get("half")


async def chunks_in_bucket(deployment: Deployment) -> int:
    """How many chunks the users' bucket has."""
    client = NatsClient()
    await client.connect(deployment.servers)
    try:
        return await Asker(deployment, client).chunks_in_bucket()
    finally:
        await client.close()
