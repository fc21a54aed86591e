"""A gateway over TLS, and beside thousands who say nothing."""

from __future__ import annotations

import hashlib
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
