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
from holdfast.gateway.console.static_files import StaticFiles
from holdfast.gateway.console.tokens import TokenPages
from holdfast.gateway.console.verify import VerifyPages

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from holdfast.client import Client
    from holdfast.gateway.blobs import BlobRoutes
    from holdfast.gateway.bodies import Bodies
    from holdfast.gateway.route import HttpRoute
    from holdfast.gateway.settings import GatewaySettings
    from holdfast.gateway.snapshots import SnapshotRoutes
    from holdfast.gateway.store import StoreRoutes


class ConsoleRoutes:
    """``/`` and ``/console``."""

    def __init__(
        self,
        client: Client,
        settings: GatewaySettings,
        bodies: Bodies,
        clock: Callable[[], datetime],
        *,
        blobs: BlobRoutes,
        snapshots: SnapshotRoutes,
        store: StoreRoutes,
    ) -> None:
        """``blobs``, ``snapshots`` and ``store`` give the bytes that pages offer to save."""
        pages = Pages(settings)
        overview = OverviewPages(client, pages)
        self._last = overview.last_route()
        self._families = (
            overview,
            HealthPages(client, pages, bodies),
            CollectionPages(client, pages, bodies),
            VerifyPages(client, pages, bodies),
            SnapshotPages(client, pages, bodies, snapshots),
            RestorePages(client, pages, bodies),
            RetentionPages(client, pages, bodies),
            NameRulePages(client, pages, bodies),
            NameChangePages(client, pages, bodies),
            NamePages(client, pages, bodies, store),
            BlobPages(client, pages, bodies, blobs),
            StateUpkeepPages(client, pages, bodies),
            StatePages(client, pages),
            SignInPages(settings, pages, bodies, clock),
            TokenPages(settings, pages, bodies, clock),
            StaticFiles(pages),
        )

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        routes = (route for family in self._families for route in family.routes())
        return (*routes, self._last)
