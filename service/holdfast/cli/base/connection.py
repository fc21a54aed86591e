"""The client of a command, as its flags say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.cli.base.settings import ClientFlags
from holdfast.tracing import NO_TRACER, Tracer

if TYPE_CHECKING:
    from holdfast.client import Client


async def connect(flags: ClientFlags | None, tracer: Tracer = NO_TRACER) -> Client:
    """A connected client. ``flags`` is None when none was given. Raises as ``client.connect``."""
    from holdfast import client  # noqa: PLC0415 - no help needs it

    given = flags or ClientFlags()
    config = given.load().config
    return await client.connect(
        config.nats,
        prefix=config.prefix,
        timeout_seconds=given.timeout,
        renew=lambda: given.load().config.nats,
        tracer=tracer,
    )
