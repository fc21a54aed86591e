"""What a server's writes survive, as far as it can be seen from here."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from typing import Any, Final, Literal

import msgspec
import structlog

from holdfast.errors import UnavailableError

Durability = Literal["synced", "lazy", "unknown"]
MIN_SERVER: Final = (2, 12)
_PROBE_SECONDS: Final = 3.0
log = structlog.get_logger(__name__)


async def probe_durability(monitor_url: str | None) -> Durability:
    """``synced`` when every write is synced before it is acknowledged, ``lazy`` when not.

    ``unknown`` where there is no monitoring address or it does not say.
    """
    if monitor_url is None:
        return "unknown"
    try:
        config = await asyncio.to_thread(_jetstream_config, monitor_url)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        log.warning("durability_not_probed", monitor_url=monitor_url, reason=str(error))
        return "unknown"
    return "synced" if config.get("sync_always") is True else "lazy"


def _jetstream_config(monitor_url: str) -> dict[str, Any]:
    url = f"{monitor_url.rstrip('/')}/varz"
    with urllib.request.urlopen(url, timeout=_PROBE_SECONDS) as answer:  # noqa: S310  (http only, by config)
        status: dict[str, Any] = msgspec.json.decode(answer.read())
    config: dict[str, Any] = status.get("jetstream", {}).get("config", {})
    return config


def check_server_version(version: str) -> None:
    """Raises UnavailableError when the server is too old."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < MIN_SERVER:
        wanted = ".".join(map(str, MIN_SERVER))
        msg = f"nats-server {version} is too old: {wanted} or newer is needed (atomic batches)"
        raise UnavailableError(msg)
