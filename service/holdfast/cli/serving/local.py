"""A nats-server and workers of a command's own, on this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast.cli.base.output import say
from holdfast.errors import UnavailableError
from holdfast.gateway.settings import GatewaySettings, setting_variable
from holdfast.runtime.config import Config, load_config
from holdfast.runtime.pool import WorkerPool

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.runtime.embedded import EmbeddedServer

READY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1


def own_pool(environment: dict[str, str], directory: Path) -> tuple[Config, WorkerPool]:
    """Workers in ``environment``, which log in ``directory``, and their configuration."""
    config = load_config(environ=environment).config
    return config, WorkerPool(
        environment, directory, drain_seconds=config.drain_seconds, announce=say
    )


async def wait_serving(connection: Client, pool: WorkerPool, nodes: list[str]) -> None:
    """Return once a worker of each of ``nodes``, which ``pool`` started, answers.

    Raises UnavailableError when one cannot start, or does not in time.
    """
    try:
        async with asyncio.timeout(READY_SECONDS):
            while missing := set(nodes) - await _answering(connection):
                for node in missing:
                    pool.check(node)
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as error:
        raise UnavailableError(f"the workers do not serve after {READY_SECONDS:g} s") from error


async def _answering(connection: Client) -> set[str]:
    return {worker.metadata.get("node", "") for worker in await connection.workers()}


def environment_of(server: EmbeddedServer, settings: GatewaySettings) -> dict[str, str]:
    """This process's environment, but for this server, and none of another one's credentials.

    It has workers make the links that a gateway with ``settings`` takes.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        # Workers on one machine cannot share a port for their metrics.
        if not name.startswith("NATS_") and name not in {"HOLDFAST_NODE", "HOLDFAST_METRICS_PORT"}
    }
    kept |= {"NATS_URL": server.url, "HOLDFAST_MONITOR_URL": server.monitor_url}
    if settings.public_url is not None:
        kept[setting_variable("public_url")] = settings.public_url
    if settings.link_keys is not None:
        kept[setting_variable("link_keys")] = str(Path(settings.link_keys).absolute())
    return kept
