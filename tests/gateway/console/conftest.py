"""A gateway with links in front of a worker, and somebody who looks at its console."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.deployment import Deployment
from tests.gateway.conftest import serving
from tests.gateway.console.visitor import Visitor
from tests.ports import free_ports

from holdfast.cli import main
from holdfast.client import connect_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.client import SyncClient
    from holdfast.runtime.embedded import EmbeddedServer

ODD = b"line\nbreak \xff<b>\"'%2e.txt"
MARKUP = "<img src=x onerror=alert(1)>\"'&amp;"


class Shown(NamedTuple):
    """A console: where it is, what is behind it, and an app with two snapshots."""

    url: str
    holdfast: SyncClient
    apps: Path
    app: str
    first: str
    second: str


@pytest.fixture(scope="session")
def shown(nats_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """For all tests here."""
    directory = tmp_path_factory.mktemp("console")
    apps, keys = directory / "apps", directory / "keys"
    app = f"blog-{secrets.token_hex(4)}"
    (apps / app / "posts").mkdir(parents=True)
    (apps / app / "posts" / "one.md").write_text("# One <script>alert(1)</script>\n")
    (apps / app / "logo.png").write_bytes(b"\x89PNG\0\1\2")
    with open(os.fsencode(apps / app / "posts") + b"/" + ODD, "wb") as odd:
        odd.write(b"odd")
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    assert main(["link-key", "create", "spring", "--file", str(keys)]) == 0
    with Deployment(nats_server.url) as deployment:
        deployment.start("one", apps=str(apps), link_keys=str(keys), public_url=url)
        with (
            serving(deployment, listen=f"127.0.0.1:{port}", public_url=url, link_keys=str(keys)),
            connect_sync(servers=deployment.url, prefix=deployment.prefix) as holdfast,
        ):
            first = holdfast.snapshots.create(app, labels={"why": MARKUP})
            (apps / app / "posts" / "two.md").write_text("two")
            second = holdfast.snapshots.create(app)
            yield Shown(url, holdfast, apps, app, first.key, second.key)


@pytest.fixture
def visitor(shown: Shown) -> Iterator[Visitor]:
    """Somebody of this machine."""
    with Visitor(shown.url) as visitor:
        yield visitor
