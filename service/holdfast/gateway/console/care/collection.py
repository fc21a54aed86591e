"""A collection: what nothing needs is shown first, and removed where that is confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.client.long_requests import ask_long
from holdfast.errors import InvalidError
from holdfast.gateway.console.base.family import PageFamily
from holdfast.protocol.blobs import COLLECT_BLOBS, CollectBlobs

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.gateway.http_route import HttpRoute

_PLACE: Final = "/collection"
_PATIENCE_SECONDS: Final = 20.0


class CollectionPages(PageFamily):
    """``/console/collection``."""

    async def about(self, request: Request) -> Response:
        """``GET /console/collection``: what it is, before anything was looked at."""
        return self._pages.show(request, "collection.html", report=None)

    async def run(self, request: Request) -> Response:
        """``POST /console/collection``: a dry run; or a run, where that was confirmed.

        A run that takes longer than a page waits goes on, and is asked about again.
        """
        form = await self._form(request)
        is_dry = form.text("do") != "collect"
        if not is_dry and not form.is_on("sure"):
            raise InvalidError("tick the box that says that you have read what would go")
        asked = CollectBlobs(dry_run=is_dry)
        report = await ask_long(self._client.requester, COLLECT_BLOBS, asked, _PATIENCE_SECONDS)
        return self._pages.show(request, "collection.html", report=report)

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        return (
            route(_PLACE, "read", self.about, scope=lambda _: "/"),
            route(_PLACE, "admin", self.run, scope=lambda _: "/", does=True),
        )
