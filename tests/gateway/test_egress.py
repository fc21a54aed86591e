"""A gateway fetches nothing, whatever address it is told: it runs where every packet is counted."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
import pytest
from tests.cli.test_gateway import gateway
from tests.gateway.test_hostile import Raw, statuses

OTHER: Final = "198.51.100.7"
"""An address out there (RFC 5737)."""

SETUP: Final = (
    "link set lo up",
    "link add out type veth peer name nowhere",
    "link set out arp off addrgenmode none",
    "link set nowhere addrgenmode none up",
    "address add 198.51.100.1/24 dev out",
    "link set out up",
    "route add default dev out",
)


def alone() -> None:
    """Give this thread, and what it starts, a network that leads nowhere."""
    os.unshare(os.CLONE_NEWNET)
    for command in SETUP:
        subprocess.run(["ip", "-4", *command.split()], check=True)


def left() -> int:
    """How many packets left this network."""
    shown = subprocess.run(
        ["ip", "-json", "-stats", "link", "show", "out"], check=True, capture_output=True
    )
    return int(json.loads(shown.stdout)[0]["stats64"]["tx"]["packets"])


def ask_for_others(url: str) -> set[int]:
    """Requests that name an address wherever one could be taken for something to fetch."""
    there = f"http://{OTHER}/blobs/{'0' * 64}"
    named = {"X-Forwarded-Host": OTHER, "Referer": there, "Location": there, "Upload-Concat": there}
    answers = [
        httpx.get(f"{url}/blobs/{'0' * 64}", headers={"Host": OTHER}, timeout=60),
        httpx.get(f"{url}/blobs/{'0' * 64}", headers=named, timeout=60),
        httpx.get(f"{url}/blobs/{'0' * 64}", params={"url": there}, timeout=60),
        httpx.get(f"{url}/store", params={"name": there}, timeout=60),
        httpx.get(f"{url}/snapshots/{there}", timeout=60),
        httpx.post(f"{url}/snapshots", json={"app": there}, timeout=60),
        httpx.post(f"{url}/uploads", headers={"Tus-Resumable": "1.0.0", **named}, timeout=60),
    ]
    found = {answer.status_code for answer in answers}
    for head in (f"GET {there}", f"CONNECT {OTHER}:80", f"GET //{OTHER}/blobs"):
        with Raw(url) as raw:
            asked = f"{head} HTTP/1.1\r\nHost: {OTHER}\r\nConnection: close\r\n\r\n"
            found.update(statuses(raw.ask(asked.encode())))
    return found


@pytest.mark.nats
@pytest.mark.slow
@pytest.mark.fault("H08")
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and ip")
def test_no_request_makes_a_gateway_connect_to_anybody() -> None:
    def run() -> tuple[set[int], int, int]:
        alone()
        before = left()
        with gateway("--store", "memory://") as url:
            found = ask_for_others(url)
            sent = left() - before
            with socket.socket(type=socket.SOCK_DGRAM) as other:
                other.sendto(b"counted", (OTHER, 9))
            return found, sent, left() - before - sent

    with ThreadPoolExecutor(1) as pool:
        found, sent, counted = pool.submit(run).result()

    assert found <= {400, 403, 404}
    assert sent == 0
    assert counted == 1
