"""Whether the process lives, and whether it is of use now."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from starlette.responses import PlainTextResponse, Response

from holdfast.gateway.http_route import HttpAnswer, HttpRoute

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast.client import Client

READY_SECONDS: Final = 5.0
FRESH_SECONDS: Final = 1.0
"""Time to repeat a worker's answer: frequent requests ask only the gateway."""

_TEXT: Final = "text/plain; charset=utf-8"


class HealthRoutes:
    """``/healthz`` and ``/readyz``: open to everybody, and told nothing."""

    def __init__(self, client: Client) -> None:
        """``client`` is asked whether workers answer."""
        self._client = client
        self._asking: asyncio.Task[None] | None = None
        self._answered_at = 0.0

    async def live(self, request: Request) -> Response:
        """The process answers."""
        del request
        return PlainTextResponse("ok\n")

    async def ready(self, request: Request) -> Response:
        """A worker answers, or did a moment ago. Raises UnavailableError."""
        del request
        asking = self._asking
        is_old = time.monotonic() - self._answered_at > FRESH_SECONDS
        if asking is None or (asking.done() and is_old):
            self._asking = asking = asyncio.create_task(self._ask())
        await asyncio.shield(asking)
        return PlainTextResponse("ok\n")

    async def _ask(self) -> None:
        try:
            await self._client.store_status(timeout_seconds=READY_SECONDS)
        finally:
            self._answered_at = time.monotonic()

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        ok = HttpAnswer(about="It is.", media_type=_TEXT)
        return (
            HttpRoute(
                method="GET",
                path="/healthz",
                verb="open",
                summary="Whether the gateway lives.",
                handle=self.live,
                answers={200: ok},
            ),
            HttpRoute(
                method="GET",
                path="/readyz",
                verb="open",
                summary="Whether workers answer it.",
                handle=self.ready,
                answers={200: ok, 503: HttpAnswer(about="None does.")},
            ),
        )
