"""The application: the routes of all families, and the one place where failures become answers."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog
from starlette.applications import Starlette
from starlette.convertors import register_url_convertor
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route as Place

from holdfast.client.budget import ByteBudget
from holdfast.errors import HoldfastError, InternalError
from holdfast.gateway.access import MAY, STILL_MAY, Access
from holdfast.gateway.console.console import console_routes
from holdfast.gateway.content.answers import SAFE, Readers, SlowReaderError
from holdfast.gateway.content.bodies import Bodies
from holdfast.gateway.front import Front
from holdfast.gateway.guard import ABORT
from holdfast.gateway.http_route import ROUTE, HttpRoute
from holdfast.gateway.limits import RequestLimits
from holdfast.gateway.link_gate import LinkGate
from holdfast.gateway.meters import Meters, metric_route
from holdfast.gateway.openapi import document_route
from holdfast.gateway.paths import AnyText, check_segments
from holdfast.gateway.problems import HttpError, problem
from holdfast.gateway.routes.blobs import BlobRoutes
from holdfast.gateway.routes.health import HealthRoutes
from holdfast.gateway.routes.snapshots import SnapshotRoutes
from holdfast.gateway.routes.states import StateRoutes
from holdfast.gateway.routes.store import StoreRoutes
from holdfast.gateway.routes.tus import TusRoutes
from holdfast.sources import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.types import Receive, Scope, Send

    from holdfast.client import Client
    from holdfast.gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)
_EXPOSED: Final = (
    "Content-Range",
    "Content-Disposition",
    "ETag",
    "Location",
    "Repr-Digest",
    "Retry-After",
    "Blob-Version",
    "Blob-Lineage",
    "Blob-Labels",
    "Blob-Expires",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Upload-Expires",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
)
_PREFLIGHT_SECONDS: Final = 600


def build(client: Client, settings: GatewaySettings) -> Starlette:
    """The application in front of ``client``. It holds nothing that a restart would lose."""
    register_url_convertor("any", AnyText())
    access = Access(settings, utc_now)
    meters = Meters()
    limits = RequestLimits(
        max_requests=settings.max_requests, per_second=settings.requests_per_second
    )
    links = Middleware(LinkGate, client=client, settings=settings, clock=utc_now)
    by_path = _by_path(all_routes(client, settings, meters))
    app = Starlette(
        routes=[Place(path, Resource(path, access, methods)) for path, methods in by_path.items()],
        middleware=[
            Middleware(Front, limits, meters, client.requester.tracer),
            *_cors(settings),
            links,
        ],
        exception_handlers={404: _not_found},
    )
    app.router.redirect_slashes = False  # it would answer anybody, and name any host
    return app


def all_routes(client: Client, settings: GatewaySettings, meters: Meters) -> tuple[HttpRoute, ...]:
    """The gateway's routes. Nothing is asked of ``client`` before there is a request."""
    bodies = Bodies(settings)
    readers = Readers(ByteBudget(settings.memory_bytes), settings.body_seconds)
    blobs = BlobRoutes(client, bodies, readers)
    store = StoreRoutes(client, bodies, readers)
    snapshots = SnapshotRoutes(client, bodies, readers)
    families = (
        HealthRoutes(client),
        blobs,
        store,
        snapshots,
        TusRoutes(client, bodies, utc_now, urlsplit(settings.public_url or "").path.rstrip("/")),
        StateRoutes(client, bodies, readers, only=settings.state),
    )
    routes = [route for family in families for route in family.routes()]
    routes += console_routes(
        client, settings, bodies, utc_now, blobs=blobs, snapshots=snapshots, store=store
    )
    routes.append(metric_route(client, meters))
    return (*routes, document_route(routes))


def _cors(settings: GatewaySettings) -> list[Middleware]:
    """Let pages of the origins named ask, and read the answers, in a browser."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*", *_EXPOSED],
            max_age=_PREFLIGHT_SECONDS,
        )
    ]


def _by_path(routes: Iterable[HttpRoute]) -> Mapping[str, Mapping[str, HttpRoute]]:
    grouped: defaultdict[str, dict[str, HttpRoute]] = defaultdict(dict)
    for route in routes:
        grouped[route.path][route.method] = route
    return grouped


class Resource:
    """One path's resource: an ASGI application that knows its methods."""

    def __init__(self, path: str, access: Access, methods: Mapping[str, HttpRoute]) -> None:
        """``methods`` has a route by method; that of GET answers HEAD."""
        self._path = path
        self._access = access
        self._methods = {**methods, "HEAD": methods["GET"]} if "GET" in methods else methods
        self._allow = ", ".join(sorted({*self._methods, "OPTIONS"}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. An error before the answer has begun becomes a problem."""
        scope[ROUTE] = self._path
        request = Request(scope, receive, send)
        begun = False

        async def sending(message: object) -> None:
            nonlocal begun
            await send(message)  # type: ignore[arg-type]
            begun = True

        response: Response
        failure: HoldfastError | HttpError
        try:
            response = await self._answer(request)
            await response(scope, receive, sending)
        except (HoldfastError, HttpError) as error:
            failure = error
        except ClientDisconnect:
            return  # the client is gone
        except SlowReaderError:
            if ABORT in scope:  # closing would wait until what was sent is taken
                scope[ABORT]()
            return
        except Exception:
            log.exception("request_failed", path=request.url.path)
            failure = InternalError()
        else:
            return
        if begun:  # a short answer breaks the connection: it never looks whole
            log.warning("answer_broken", path=request.url.path, detail=failure.detail)
            return
        await self._failure(request, failure)(scope, receive, send)

    def _failure(self, request: Request, failure: HoldfastError | HttpError) -> Response:
        route = self._methods.get(request.method)
        if route is not None and route.show_failure is not None:
            return route.show_failure(request, failure)
        return problem(failure)

    async def _answer(self, request: Request) -> Response:
        check_segments(request, self._path)
        route = self._methods.get(request.method)
        if route is None:
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": self._allow})
            detail = f"this path takes {self._allow}"
            raise HttpError(405, "invalid", detail, {"Allow": self._allow})
        _check_query(request, route)
        request.scope[STILL_MAY] = partial(self._check_access, request, route)
        request.scope[MAY] = partial(self._access.check, request, by_cookie=route.is_page)
        await self._check_access(request, route)
        return await route.handle(request)

    async def _check_access(self, request: Request, route: HttpRoute) -> None:
        scope = route.scope(request)
        for path in (scope,) if isinstance(scope, str) else scope:
            await self._access.check(request, route.verb, path, by_cookie=route.is_page)


def _check_query(request: Request, route: HttpRoute) -> None:
    """Raises HttpError of a parameter that the route does not know: it would be a typo."""
    known = {parameter.name for parameter in route.query}
    for name in request.query_params:
        if name not in known:
            raise HttpError(400, "invalid", f"there is no parameter {name!r} here")


async def _not_found(request: Request, _: Exception) -> Response:
    """In the shape that was asked for: a browser gets a page."""
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(_NO_PAGE, status_code=404, headers=SAFE)
    return problem(HttpError(404, "not_found", "there is nothing at this path"))


_NO_PAGE: Final = (
    '<!doctype html><html lang="en"><title>Not found</title>'
    "<h1>Not found</h1><p>There is nothing at this path.</p></html>"
)
