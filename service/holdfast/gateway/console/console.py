"""All pages together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.gateway.console.blobs import BlobPages
from holdfast.gateway.console.collection import CollectionPages
from holdfast.gateway.console.health import HealthPages
from holdfast.gateway.console.name_changes import NameChangePages
from holdfast.gateway.console.name_rules import NameRulePages
from holdfast.gateway.console.names import NamePages
from holdfast.gateway.console.overview import OverviewPages
from holdfast.gateway.console.pages import Pages
from holdfast.gateway.console.restores import RestorePages
from holdfast.gateway.console.retention import RetentionPages
from holdfast.gateway.console.sign_in import SignInPages
from holdfast.gateway.console.snapshots import SnapshotPages
from holdfast.gateway.console.state_upkeep import StateUpkeepPages
from holdfast.gateway.console.states import StatePages
from holdfast.gateway.console.static_files import static_route
from holdfast.gateway.console.tokens import TokenPages
from holdfast.gateway.console.verify import VerifyPages

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
