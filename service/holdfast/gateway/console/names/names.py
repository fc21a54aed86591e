"""Blobs by name: listed as in folders, with what became of each, replaced and removed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.domain.blob_names import check_blob_name
from holdfast.errors import NotFoundError
from holdfast.gateway.console.base.asked import (
    CURSOR,
    NAME,
    PREFIX,
    count_of,
    labels_typed,
    needed,
    text_of,
    time_typed,
)
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.base.texts import shown, size_text
from holdfast.gateway.http_route import HttpRoute, Parameter
from holdfast.gateway.parameters import media_type_of
from holdfast.gateway.paths import name_url
from holdfast.protocol.names import GET_HISTORY, LIST_NAMES, GetHistory, ListNames
from holdfast.protocol.times import parse_time

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.client import Client
    from holdfast.gateway.console.base.pages import Pages
    from holdfast.gateway.content.bodies import Bodies
    from holdfast.gateway.routes.store import StoreRoutes

_LISTED: Final = 200
_SEPARATOR: Final = "/"
_LABEL: Final = Parameter(name="label", about="Labels that a name must have.")
_VERSION: Final = Parameter(name="version", about="A version of the name.")
_LABELS: Final = Parameter(name="labels", about="Labels that the name is to have.")
_EXPIRES: Final = Parameter(name="expires", about="When the name is to end.")
_ONE: Final = "/names/one"


class NamePages(PageFamily):
    """``/console/names`` and below."""

    def __init__(self, client: Client, pages: Pages, bodies: Bodies, contents: StoreRoutes) -> None:
        """``contents`` give the bytes to be saved."""
        super().__init__(client, pages, bodies)
        self._contents = contents

    async def listed(self, request: Request) -> Response:
        """``GET /console/names``: a page of names and of what they have in common."""
        prefix, label = text_of(request, PREFIX), text_of(request, _LABEL).strip()
        listing = ListNames(
            prefix=prefix,
            delimiter=_SEPARATOR,
            labels=labels_typed(label),
            cursor=text_of(request, CURSOR) or None,
            limit=_LISTED,
        )
        page = await self._client.requester.ask(LIST_NAMES, listing)
        return self._pages.show(
            request,
            "names.html",
            page=page,
            prefix=prefix,
            label=label,
            crumbs=_crumbs(prefix),
            is_all=not prefix and not label,
        )

    async def one(self, request: Request) -> Response:
        """``GET /console/names/one``: what a name has, had, and what became of it.

        It says so of a name that never was, and offers to give it a blob.
        """
        name = check_blob_name(needed(request, NAME))
        asked = GetHistory(name=name, cursor=text_of(request, CURSOR) or None)
        history = stat = None
        with suppress(NotFoundError):
            history = await self._client.requester.ask(GET_HISTORY, asked)
            stat = await self._client.names.stat(name)
        return self._pages.show(
            request,
            "name.html",
            200 if history else 404,
            name=name,
            history=history,
            stat=stat,
            crumbs=_crumbs(name),
            api=name_url(name),
        )

    async def upload(self, request: Request) -> Response:
        """``POST /console/names/upload``: the body is what the name is to have.

        With ``version`` only while it has that, whose labels and end it keeps; without, only where
        there is none.
        """
        self._check_script(request)
        name, version = check_blob_name(needed(request, NAME)), text_of(request, _VERSION)
        media_type = media_type_of(request)
        labels, expires = text_of(request, _LABELS), text_of(request, _EXPIRES)
        async with self._bodies.upload(request, None) as body:
            if version:
                stat = await self._client.names.stat(name)
                await self._client.names.replace(
                    name,
                    body,
                    type=media_type,
                    labels=stat.labels,
                    expires_at=parse_time(stat.expires_at or ""),
                    if_version=count_of(version, "a version"),
                )
            else:
                await self._client.names.create(
                    name,
                    body,
                    type=media_type,
                    labels=labels_typed(labels),
                    expires_at=time_typed(expires),
                )
        return self._sent_on(self._at(name))

    async def delete(self, request: Request) -> Response:
        """``POST /console/names/delete``, where that was confirmed."""
        form = await self._form(request)
        name = check_blob_name(needed(request, NAME))
        if not form.is_on("sure"):
            stat = await self._client.names.stat(name)
            return self._pages.confirm(
                request,
                title="Take the blob from this name?",
                of=shown(name),
                text=f"It has version {stat.version}, {size_text(stat.size)} of {shown(stat.type)}."
                " Its history stays, and as many versions as the rules of names keep.",
                button="Remove it",
                back=self._at(name),
                fields={"version": stat.version or 0},
            )
        version = count_of(form.text("version"), "a version")
        await self._client.names.delete(name, if_version=version or None)
        return self._pages.see_url(self._at(name))

    async def restore(self, request: Request) -> Response:
        """``POST /console/names/restore``: give it what it had as a version, as a new one.

        Raises ConflictError unless it has what was shown.
        """
        form = await self._form(request)
        name = check_blob_name(needed(request, NAME))
        there = count_of(form.text("there"), "the version")
        await self._client.names.copy(
            name,
            source=name,
            version=count_of(form.text("version"), "a version"),
            if_absent=not there,
            if_version=there or None,
        )
        return self._pages.see_url(self._at(name))

    async def link(self, request: Request) -> Response:
        """``POST /console/names/link``: to get what it has, had or will have; or to put it once."""
        form = await self._form(request)
        name, of = check_blob_name(needed(request, NAME)), form.text("of")
        is_latest = of == "latest"
        link = await self._client.names.link(
            name,
            count_of(form.text("seconds"), "the duration"),
            version=None if is_latest else count_of(of, "a version") or None,
            latest=is_latest,
            method="PUT" if form.is_on("upload") else "GET",
            single_use=form.is_on("once"),
        )
        return self._pages.show_link(request, link, form, of=name, back=self._at(name))

    def _at(self, name: str) -> str:
        return self._pages.url(_ONE, name=name)

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        return (
            route(
                "/names",
                "read",
                self.listed,
                scope=lambda request: f"/store/{text_of(request, PREFIX)}",
                query=(PREFIX, _LABEL, CURSOR),
            ),
            route(_ONE, "read", self.one, scope=_scope, query=(NAME, CURSOR)),
            route("/names/raw", "read", self._contents.get, scope=_scope, query=(NAME, _VERSION)),
            route(
                "/names/upload",
                "write",
                self.upload,
                scope=_scope,
                query=(NAME, _VERSION, _LABELS, _EXPIRES),
                does=True,
            ),
            route("/names/delete", "write", self.delete, scope=_scope, query=(NAME,), does=True),
            route("/names/restore", "write", self.restore, scope=_scope, query=(NAME,), does=True),
            route("/names/link", "write", self.link, scope=_scope, query=(NAME,), does=True),
        )


def _scope(request: Request) -> str:
    return f"/store/{needed(request, NAME)}"


def _crumbs(name: str) -> list[tuple[str, str]]:
    """The last segment and the whole of each prefix of ``name`` that ends with a slash."""
    parts = name.split(_SEPARATOR)[:-1]
    return [
        (part, _SEPARATOR.join(parts[: number + 1]) + _SEPARATOR)
        for number, part in enumerate(parts)
    ]
