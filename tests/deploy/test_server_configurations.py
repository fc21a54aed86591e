"""The files of ``deploy/nats`` make the servers that the documentation promises."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.deploy.shipped import (
    CONFIGURATIONS,
    PASSWORDS,
    options,
    read_environment_file,
    server_environment,
    shipped_server,
)
from tests.nats.tools import connected, until
from tests.ports import free_ports

from holdfast.bootstrap.admin import init_store
from holdfast.runtime.embedded import find_nats_server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.shipped import ShippedServer

pytestmark = pytest.mark.nats

SECONDS = 10**9
NODES = (1, 2, 3)


def example_routes() -> dict[str, str]:
    """The routes of the shipped example, with the password that Compose puts in."""
    routes = read_environment_file(CONFIGURATIONS.parent / "compose.server.env")
    password = PASSWORDS["CLUSTER_PASSWORD"]
    return {name: value.replace("${CLUSTER_PASSWORD}", password) for name, value in routes.items()}


@pytest.mark.parametrize("name", ["single.conf", *(f"cluster-{n}.conf" for n in NODES)])
def test_a_configuration_is_valid_and_says_nothing_that_the_server_does_not_know(
    tmp_path: Path, name: str
) -> None:
    checked = subprocess.run(
        [find_nats_server(), "-t", "-c", CONFIGURATIONS / name],
        env=server_environment(tmp_path, example_routes()),
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
    assert "is valid" in checked.stderr
    assert "warning" not in checked.stderr


def test_without_its_passwords_a_server_does_not_start(tmp_path: Path) -> None:
    given = server_environment(tmp_path, example_routes())
    del given["WORKER_PASSWORD"]

    checked = subprocess.run(
        [find_nats_server(), "-t", "-c", CONFIGURATIONS / "single.conf"],
        env=given,
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode != 0
    assert "WORKER_PASSWORD" in checked.stderr


def test_one_node_syncs_what_it_acknowledges_and_gives_up_silent_clients(
    tmp_path: Path,
) -> None:
    with shipped_server(tmp_path) as server:
        told = server.monitor("/varz")

        assert told["jetstream"]["config"]["sync_always"] is True
        assert told["ping_interval"] * told["ping_max"] == 40 * SECONDS
        assert told["max_payload"] == 1024 * 1024
        assert told["max_connections"] == 1024
        assert told["jetstream"]["config"]["max_storage"] == 20 * 1024**3


@pytest.mark.slow
async def test_three_nodes_find_each_other_and_keep_three_replicas(tmp_path: Path) -> None:
    ports = free_ports(len(NODES))
    user = f"cluster:{PASSWORDS['CLUSTER_PASSWORD']}"
    routes = {
        f"ROUTE_{n}": f"nats://{user}@127.0.0.1:{p}" for n, p in zip(NODES, ports, strict=True)
    }
    with ExitStack() as running:
        servers: list[ShippedServer] = []
        for node, port in zip(NODES, ports, strict=True):
            directory = tmp_path / str(node)
            directory.mkdir()
            servers.append(
                running.enter_context(
                    shipped_server(
                        directory, f"cluster-{node}.conf", cluster_port=port, routes=routes
                    )
                )
            )
        await until(lambda: all(is_current(server) for server in servers), timeout_seconds=60)
        config = servers[0].config("admin")

        lines = await init_store(
            msgspec.structs.replace(config, store="nats://blobs?replicas=3&max_bytes=1GiB"),
            wait_seconds=60,
        )

        assert [line for line in lines if "with 3 replica(s)" in line] == lines[:-1]
        varz = [server.monitor("/varz") for server in servers]
        assert {one["cluster"]["name"] for one in varz} == {"holdfast"}
        assert {tuple(one["tags"]) for one in varz} == {(f"zone:{node}",) for node in NODES}
        # Nobody is told addresses that mean something only where the servers are.
        async with connected(options(servers[0].url, "client")) as connection:
            assert connection.server_info.get("connect_urls") is None


def is_current(server: ShippedServer) -> bool:
    """Whether it sees a leader, and as many others as there are."""
    meta = server.monitor("/jsz").get("meta_cluster", {})
    return bool(meta.get("leader")) and meta.get("cluster_size") == len(NODES)
