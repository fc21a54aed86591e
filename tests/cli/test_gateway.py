"""``holdfast gateway``: in front of a pool, or one command with a store of its own."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.cli.conftest import wait_until
from tests.deployment import deployed
from tests.gateway.console.visitor import Visitor
from tests.ports import free_ports

from holdfast.cli import main
from holdfast.cli.base import exit_codes
from holdfast.errors import InvalidError, UnavailableError
from holdfast.gateway.settings import GatewaySettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Holdfast

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = [pytest.mark.nats, pytest.mark.slow]


@contextmanager
def gateway(*arguments: str, listen: str = "127.0.0.1:0") -> Iterator[str]:
    """The command while the context lasts; where it answers."""
    with started(*arguments, listen=listen) as process:
        try:
            yield url_of(process)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == exit_codes.OK


def started(*arguments: str, listen: str = "127.0.0.1:0", **settings: str) -> subprocess.Popen[str]:
    """The command, with these settings in its environment."""
    command = [sys.executable, "-m", "holdfast", "gateway", "--listen", listen, *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}
    )


def url_of(process: subprocess.Popen[str]) -> str:
    """Where it answers, once it does."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def the_requests_of_a_named_blob_server(url: str) -> None:
    """As its users type them: a blob is made, read, replaced and removed."""

    def curl(*arguments: str) -> tuple[int, str]:
        command = ["curl", "-sS", "-w", "\n%{http_code}", *arguments, f"{url}/store/test"]
        out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        body, _, status = out.rpartition("\n")
        return int(status), body

    assert curl("-X", "POST", "--data-binary", "one")[0] == 201
    assert curl("-X", "POST", "--data-binary", "two")[0] == 409
    assert curl() == (200, "one")
    assert curl("-X", "PUT", "--data-binary", "three")[0] == 200
    assert curl() == (200, "three")
    assert curl("-X", "DELETE")[0] == 204
    assert curl("-X", "DELETE")[0] == 404
    assert curl()[0] == 404
    assert curl("-X", "PUT", "--data-binary", "four")[0] == 404


def test_a_named_blob_server_is_one_command_on_a_disk(tmp_path: Path) -> None:
    store = f"disk://{tmp_path / 'store'}"

    with gateway("--store", store) as url:
        the_requests_of_a_named_blob_server(url)
        httpx.post(f"{url}/store/kept", content=b"kept", timeout=60)
    with gateway("--store", store) as url:
        assert httpx.get(f"{url}/store/kept", timeout=60).content == b"kept"


def test_and_in_memory() -> None:
    with gateway("--store", "memory://") as url:
        the_requests_of_a_named_blob_server(url)


def test_a_worker_of_its_own_makes_the_links_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["link-key", "create", "spring", "--file", "keys"]) == exit_codes.OK
    public, (port,) = "http://files.example", free_ports(1)
    own = f"127.0.0.1:{port}"
    told = ("--link-keys", "keys", "--public-url", public)

    with (
        gateway("--store", "memory://", *told, listen=own),
        Visitor(f"http://{own}") as visitor,
    ):
        visitor.http.post("/store/x", content=b"linked")
        page = visitor.open("/console/names/one?name=x")
        made = visitor.send(page.form("/names/link"), seconds="3600")
        (link,) = re.findall(rf"{public}\S+X-Amz-Signature[^\s']+", made.text)

        assert visitor.http.get(link.removeprefix(public)).content == b"linked"


def test_and_in_front_of_a_pool(nats_server: EmbeddedServer) -> None:
    with (
        deployed(nats_server.url, "one") as deployment,
        gateway("--server", deployment.url, "--prefix", deployment.prefix) as url,
    ):
        the_requests_of_a_named_blob_server(url)


def test_a_name_that_was_being_written_when_all_of_it_died_is_a_failure(tmp_path: Path) -> None:
    store, lease = f"disk://{tmp_path / 'store'}", {"HOLDFAST_UPLOAD_LEASE_SECONDS": "3"}
    begun = secrets.token_bytes(3_000_000)

    with started("--store", store, **lease) as process:
        url = url_of(process)

        def dying() -> Iterator[bytes]:
            yield begun
            wait_until(lambda: states(url) == ["pending"] and has_bytes(tmp_path, begun[:1000]))
            process.kill()
            yield b"y"

        with pytest.raises(httpx.TransportError):
            httpx.post(f"{url}/store/half", content=dying(), timeout=60)
    assert has_bytes(tmp_path, begun[:1000])
    with started("--store", store, **lease) as process:
        url = url_of(process)
        wait_until(lambda: states(url) == ["failure"])
        assert httpx.get(f"{url}/store/half", timeout=60).status_code == 404
        wait_until(lambda: not has_bytes(tmp_path, begun[:1000]))
        assert httpx.post(f"{url}/store/half", content=b"whole", timeout=60).status_code == 201
        process.terminate()


def has_bytes(directory: Path, data: bytes) -> bool:
    """Whether a file below ``directory`` has ``data``."""

    def holds(path: Path) -> bool:
        with suppress(FileNotFoundError):
            return path.is_file() and data in path.read_bytes()
        return False

    return any(holds(path) for path in directory.rglob("*"))


def states(url: str) -> list[str]:
    """The states of the names in the list."""
    return [row["state"] for row in httpx.get(f"{url}/store", timeout=60).json()["names"]]


def test_a_store_in_nats_is_its_pools(holdfast: Holdfast) -> None:
    assert holdfast("gateway", "--store", "nats://blobs").status == exit_codes.USAGE


def test_an_address_that_is_taken_is_said(holdfast: Holdfast) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = holdfast("gateway", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")

    assert ran.status == exit_codes.exit_code_of(UnavailableError())
    assert "cannot listen" in ran.err


def test_settings_come_from_variables_and_flags() -> None:
    environ = {
        "HOLDFAST_GATEWAY_LISTEN": ":1",
        "HOLDFAST_GATEWAY_CORS_ORIGINS": "https://a.example, https://b.example",
        "HOLDFAST_PUBLIC_URL": "https://files.example",
    }

    settings = load_settings({"listen": "[::1]:2", "max_requests": None}, environ)

    assert settings.address == ("::1", 2)
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.public_url == "https://files.example"
    assert settings.max_requests == GatewaySettings().max_requests


@pytest.mark.parametrize(
    "flags",
    [
        {"listen": "nowhere"},
        {"listen": ":70000"},
        {"tls_cert": "a.pem"},
        {"cors_origins": "a.example"},
        {"public_url": "ftp://a.example"},
        {"max_requests": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(flags: dict[str, str | int]) -> None:
    with pytest.raises(InvalidError):
        load_settings(flags, {})
