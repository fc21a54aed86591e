"""The first page, the pool; and the page of what is stored, and whose it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from holdfast.client.long_requests import ask_long
from holdfast.client.pages import rows
from holdfast.errors import HoldfastError, NotFoundError
from holdfast.gateway.console.base.asked import PREFIX, text_of
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.care.growth import MAX_SNAPSHOTS, GrowthPlot, growth_of
from holdfast.gateway.http_route import HttpAnswer, HttpRoute
from holdfast.protocol.care import GET_USAGE, GetUsage, UsageReply
from holdfast.protocol.snapshots import LIST_SNAPSHOTS, ListSnapshots

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.protocol.status import StoreStatus

_PATIENCE_SECONDS: Final = 3.0
"""Time a page waits for parts it can leave away, or ask for again."""

_LIST_PAGE: Final = 1000


class OverviewPages(PageFamily):
    """``/``, ``/console`` and ``/console/storage``."""

    async def root(self, request: Request) -> Response:
        """``GET /``."""
        del request
        return self._pages.see("")

    async def pool(self, request: Request) -> Response:
        """``GET /console``: what answers, and how the store is."""
        workers, (status, trouble) = await asyncio.gather(self._client.workers(), self._status())
        return self._pages.show(
            request, "pool.html", workers=workers, status=status, trouble=trouble
        )

    async def storage(self, request: Request) -> Response:
        """``GET /console/storage``: bytes by app, name and label, as far as they are counted.

        Names are put together by what follows ``prefix``.
        """
        prefix = text_of(request, PREFIX)
        apps, names, labels, growth = await asyncio.gather(
            self._usage(GetUsage(by="app")),
            self._usage(GetUsage(by="prefix", prefix=prefix)),
            self._usage(GetUsage(by="label")),
            self._growth(),
        )
        is_counting = not (apps.done and names.done and labels.done)
        return self._pages.show(
            request,
            "storage.html",
            apps=apps,
            names=names,
            labels=labels,
            prefix=prefix,
            growth=growth,
            refresh=is_counting,
        )

    async def unknown(self, request: Request) -> Response:
        """Any path of the console where there is no page. Raises NotFoundError."""
        del request
        raise NotFoundError("there is no such page")

    async def _status(self) -> tuple[StoreStatus | None, str]:
        """The store's state; or why there is none."""
        try:
            return await self._client.store_status(timeout_seconds=_PATIENCE_SECONDS), ""
        except HoldfastError as error:
            return None, error.detail

    async def _usage(self, request: GetUsage) -> UsageReply:
        return await ask_long(self._client.requester, GET_USAGE, request, _PATIENCE_SECONDS)

    async def _growth(self) -> GrowthPlot | None:
        records = []
        listing = ListSnapshots(state="ok", limit=_LIST_PAGE)
        async for record in rows(
            self._client.requester, LIST_SNAPSHOTS, listing, lambda page: page.snapshots
        ):
            records.append(record)
            if len(records) == MAX_SNAPSHOTS:
                break
        return growth_of(records)

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        return (
            HttpRoute(
                method="GET",
                path="/",
                verb="open",
                summary="The console.",
                handle=self.root,
                answers={303: HttpAnswer(about="Where it is.")},
                show_failure=self._pages.failure,
            ),
            self._pages.route("", "read", self.pool, scope=lambda _: "/metrics"),
            self._pages.route(
                "/storage", "read", self.storage, scope=lambda _: "/", query=(PREFIX,)
            ),
        )

    def last_route(self) -> HttpRoute:
        """The route of any other path."""
        return self._pages.route("/{rest:any}", "open", self.unknown, scope=lambda _: "/")
