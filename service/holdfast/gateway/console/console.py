"""All pages together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.gateway.console.base.pages import Pages
from holdfast.gateway.console.base.static_files import static_route
from holdfast.gateway.console.blobs import BlobPages
from holdfast.gateway.console.care.collection import CollectionPages
from holdfast.gateway.console.care.health import HealthPages
from holdfast.gateway.console.care.overview import OverviewPages
from holdfast.gateway.console.care.verify import VerifyPages
from holdfast.gateway.console.names.changes import NameChangePages
from holdfast.gateway.console.names.names import NamePages
from holdfast.gateway.console.names.rules import NameRulePages
from holdfast.gateway.console.sign_in import SignInPages
from holdfast.gateway.console.snapshots.restores import RestorePages
from holdfast.gateway.console.snapshots.retention import RetentionPages
from holdfast.gateway.console.snapshots.snapshots import SnapshotPages
from holdfast.gateway.console.states.states import StatePages
from holdfast.gateway.console.states.upkeep import StateUpkeepPages
from holdfast.gateway.console.tokens import TokenPages

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from holdfast.client import Client
    from holdfast.gateway.content.bodies import Bodies
    from holdfast.gateway.http_route import HttpRoute
    from holdfast.gateway.routes.blobs import BlobRoutes
    from holdfast.gateway.routes.snapshots import SnapshotRoutes
    from holdfast.gateway.routes.store import StoreRoutes
    from holdfast.gateway.settings import GatewaySettings


def console_routes(
    client: Client,
    settings: GatewaySettings,
    bodies: Bodies,
    clock: Callable[[], datetime],
    *,
    blobs: BlobRoutes,
    snapshots: SnapshotRoutes,
    store: StoreRoutes,
) -> tuple[HttpRoute, ...]:
    """``/`` and ``/console``. ``blobs``, ``snapshots`` and ``store`` give the bytes to be saved."""
    pages = Pages(settings, clock)
    parts = client, pages, bodies
    overview = OverviewPages(*parts)
    families = (
        overview,
        HealthPages(*parts),
        CollectionPages(*parts),
        VerifyPages(*parts),
        SnapshotPages(*parts, snapshots),
        RestorePages(*parts),
        RetentionPages(*parts),
        NameRulePages(*parts),
        NameChangePages(*parts),
        NamePages(*parts, store),
        BlobPages(*parts, blobs),
        StateUpkeepPages(*parts),
        StatePages(*parts),
        SignInPages(*parts),
        TokenPages(*parts),
    )
    routes = [route for family in families for route in family.routes()]
    return (*routes, static_route(pages), overview.last_route())
