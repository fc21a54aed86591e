"""Programs that people use: a download that is cut goes on, over TLS too, whoever else idles."""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from tests.gateway.conftest import gateway_process, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deployment import Deployment

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def archive(url: str, apps: Path) -> str:
    """The path of an archive of some megabytes."""
    app = f"resumed-{secrets.token_hex(4)}"
    (apps / app).mkdir()
    (apps / app / "file").write_bytes(secrets.token_bytes(6 * MIB))
    key = httpx.post(f"{url}/snapshots", json={"app": app}).json()["key"]
    with httpx.stream("GET", f"{url}/snapshots/{key}/events", timeout=60) as events:
        assert "event: end" in list(events.iter_lines())
    return f"/snapshots/{key}/archive"


@pytest.mark.parametrize("program", ["curl", "wget"])
def test_a_download_that_is_cut_ten_times_is_carried_on(
    url: str, archive: str, tmp_path: Path, program: str
) -> None:
    commands = {
        "curl": ["curl", "-sS", "-C", "-", "-o", "file", f"{url}{archive}"],
        "wget": ["wget", "-q", "-c", "-O", "file", f"{url}{archive}"],
    }
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    whole = httpx.get(f"{url}{archive}", timeout=60).content
    target = tmp_path / "file"

    for cut in range(10):
        subprocess.run(commands[program], cwd=tmp_path, check=True)
        assert target.read_bytes() == whole
        os.truncate(target, len(whole) * cut // 10)
    subprocess.run(commands[program], cwd=tmp_path, check=True)

    assert target.read_bytes() == whole


def test_a_gateway_speaks_tls(deployment: Deployment, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(command, check=True, capture_output=True)
    data = secrets.token_bytes(3 * MIB)

    with serving(deployment, tls_cert=str(certificate), tls_key=str(key)) as url:
        assert url.startswith("https://")
        curl = ["curl", "-sS", "--cacert", str(certificate)]
        put = [*curl, "-T", "-", f"{url}/blobs"]
        stored = subprocess.run(put, input=data, capture_output=True, check=True)
        digest = hashlib.sha256(data).hexdigest()
        assert digest.encode() in stored.stdout
        got = subprocess.run([*curl, f"{url}/blobs/{digest}"], capture_output=True, check=True)

    assert got.stdout == data


@pytest.mark.fault("H07")
@pytest.mark.long
def test_two_thousand_that_say_next_to_nothing_leave_others_served(deployment: Deployment) -> None:
    with gateway_process(deployment) as (url, _):
        parts = urlsplit(url)
        idle = []
        try:
            for _ in range(2000):
                connection = socket.create_connection((parts.hostname or "", parts.port or 80))
                connection.sendall(b"GET /blobs HTTP/1.1\r\nHost: loc")
                idle.append(connection)
            stored = httpx.put(f"{url}/blobs", content=b"served", timeout=60)
            assert httpx.get(f"{url}{stored.headers['Location']}", timeout=60).content == b"served"
        finally:
            for connection in idle:
                connection.close()


@pytest.mark.long
def test_when_a_gateway_dies_its_clients_go_on_at_another(
    deployment: Deployment, tmp_path: Path
) -> None:
    data = secrets.token_bytes(12 * MIB)
    digest = hashlib.sha256(data).hexdigest()
    with gateway_process(deployment) as (one, pid), gateway_process(deployment) as (two, _):
        assert httpx.put(f"{one}/blobs", content=data, timeout=60).status_code == 201
        command = ["curl", "-sS", "--limit-rate", "10M", "-o"]
        readers = [
            subprocess.Popen([*command, str(tmp_path / str(number)), f"{url}/blobs/{digest}"])
            for number, url in zip(range(10), itertools.cycle([one, two]), strict=False)
        ]
        while not all((tmp_path / str(number)).exists() for number in range(10)):
            pass
        os.kill(pid, 9)
        failed = [number for number, reader in enumerate(readers) if reader.wait() != 0]
        for number in failed:
            again = ["curl", "-sS", "-C", "-", "-o", str(tmp_path / str(number))]
            subprocess.run([*again, f"{two}/blobs/{digest}"], check=True)

        assert set(failed) <= set(range(0, 10, 2))
        for number in range(10):
            assert hashlib.sha256((tmp_path / str(number)).read_bytes()).hexdigest() == digest
