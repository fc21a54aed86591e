"""Putting a snapshot back: choose, see what it would do, and only then confirm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.errors import InvalidError
from holdfast.gateway.console.base.asked import count_of, text_of
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.base.session import SentForm, is_seal, seal_of, session_of
from holdfast.gateway.console.snapshots.snapshots import scope_of_snapshot
from holdfast.gateway.http_route import HttpRoute, Parameter
from holdfast.gateway.routes.snapshots import check_target
from holdfast.protocol.snapshots import RESTORE_SNAPSHOT, RestoreSnapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.form.terms import RestoreMode

_RESTORE: Final = "/snapshots/{key}/restore"
_CARRIED: Final = (
    Parameter(name="paths", about="The only paths to restore, one a line."),
    Parameter(name="delete", about="Whether what the snapshot lacks was to go."),
    Parameter(name="owner", about="The owner of the files."),
    Parameter(name="privileged", about="Whether a client's set-ID bits were to be restored."),
    Parameter(name="max_expansion", about="Most bytes written for each byte stored."),
)
"""Options that a restore's record lacks: its pages carry them to the form that confirms."""

_SEAL: Final = Parameter(name="seal", about="What shows that the rest is as it was asked for.")

_MODES: Final[Mapping[str, RestoreMode]] = {"new": "new", "merge": "merge", "replace": "replace"}


class RestorePages(PageFamily):
    """``/console/snapshots/{key}/restore`` and ``/console/restores``."""

    async def choose(self, request: Request) -> Response:
        """``GET /console/snapshots/{key}/restore``."""
        record = await self._client.snapshots.get(str(request.path_params["key"]))
        return self._pages.show(request, "restore_choose.html", record=record)

    async def begin(self, request: Request) -> Response:
        """``POST /console/snapshots/{key}/restore``: a dry run, or what one showed if confirmed."""
        form = await self._form(request)
        asked = _restore_of(str(request.path_params["key"]), form)
        await check_target(request, asked)
        record = await self._client.requester.ask(RESTORE_SNAPSHOT, asked)
        carried = {one.name: form.text(one.name) for one in _CARRIED}
        seal = seal_of(session_of(request) or "", record.restore, *carried.values())
        given = {name: text or None for name, text in carried.items()}
        return self._pages.see(f"/restores/{record.restore}", **given, seal=seal)

    async def one(self, request: Request) -> Response:
        """``GET /console/restores/{restore}``: how far it is, and what a dry run found.

        It can be confirmed by whoever asked for the dry run, as it was asked for: an address with
        anything else in it is passed over.
        """
        record = await self._client.snapshots.get_restore(str(request.path_params["restore"]))
        carried = {one.name: text_of(request, one) for one in _CARRIED}
        is_ours = is_seal(request, text_of(request, _SEAL), record.restore, *carried.values())
        return self._pages.show(
            request,
            "restore.html",
            record=record,
            carried=carried if is_ours else dict.fromkeys(carried, ""),
            is_ours=is_ours,
            refresh=record.state == "pending",
        )

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route

        def scope(request: Request) -> str:
            return f"{scope_of_snapshot(request)}/restore"

        return (
            route(_RESTORE, "read", self.choose, scope=scope_of_snapshot),
            route(_RESTORE, "admin", self.begin, scope=scope, does=True),
            route(
                "/restores/{restore}",
                "read",
                self.one,
                scope=lambda request: f"/restores/{request.path_params['restore']}",
                query=(*_CARRIED, _SEAL),
            ),
        )


def _restore_of(key: str, form: SentForm) -> RestoreSnapshot:
    """A form's restore. Raises InvalidError unless it is a dry run, or confirmed."""
    is_dry = form.text("do") != "restore"
    mode = _MODES.get(form.text("mode"))
    if mode is None:
        raise InvalidError("a restore is new, merge or replace")
    if not is_dry and not form.is_on("sure"):
        raise InvalidError("tick the box that says that you have read what it would do")
    return RestoreSnapshot(
        key=key,
        app=form.text("app") or None,
        node=form.text("node") or None,
        paths=form.texts("paths"),
        mode=mode,
        delete=form.is_on("delete"),
        owner=form.text("owner") or "keep",
        privileged=form.is_on("privileged"),
        max_expansion=count_of(form.text("max_expansion"), "the factor") or None,
        dry_run=is_dry,
        wait_seconds=0.0,
    )
