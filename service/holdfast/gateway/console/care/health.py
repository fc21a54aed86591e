"""The findings, with their remedies; and the progress of the scrub."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from holdfast.client.long_requests import ask_long
from holdfast.gateway.console.base.family import PageFamily
from holdfast.protocol.care import DIAGNOSE, GetDoctor

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.gateway.http_route import HttpRoute

_PATIENCE_SECONDS: Final = 3.0
_PLACE: Final = "/health"


class HealthPages(PageFamily):
    """``/console/health``."""

    async def health(self, request: Request) -> Response:
        """``GET /console/health``: as far as a worker has looked yet."""
        report, scrub = await asyncio.gather(
            ask_long(self._client.requester, DIAGNOSE, GetDoctor(), _PATIENCE_SECONDS),
            self._client.care.scrub(),
        )
        return self._pages.show(
            request, "health.html", report=report, scrub=scrub, refresh=not report.done
        )

    async def scrub(self, request: Request) -> Response:
        """``POST /console/health``: have everything read back once more."""
        await self._form(request)
        await self._client.care.scrub(start=True)
        return self._pages.see(_PLACE)

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        return (
            route(_PLACE, "read", self.health, scope=lambda _: "/"),
            route(_PLACE, "admin", self.scrub, scope=lambda _: "/", does=True),
        )
