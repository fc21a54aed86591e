"""Names changed without bytes moving: copied, renamed, given a blob, labelled anew."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from holdfast.domain.blob_names import check_blob_name
from holdfast.domain.digest import parse_digest
from holdfast.errors import ConflictError, InvalidError, NotFoundError
from holdfast.gateway.console.base.asked import (
    NAME,
    count_of,
    labels_typed,
    needed,
    text_of,
    time_typed,
)
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.http_route import HttpRoute, Parameter

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


_MOVE: Final = "/names/move"
_TO: Final = Parameter(name="to", about="The name that is to have the blob.")
_DIGEST: Final = Parameter(name="digest", about="The blob, where it is not that of a name.")


class NameChangePages(PageFamily):
    """``/console/names/move`` and ``/console/names/labels``."""

    async def ask(self, request: Request) -> Response:
        """``GET /console/names/move``: what a name is to get, and what it has now."""
        name, to = text_of(request, NAME), check_blob_name(needed(request, _TO))
        digest = "" if name else parse_digest(needed(request, _DIGEST).strip())
        source = await (self._client.names.stat(name) if name else self._client.stat(digest))
        return self._pages.show(
            request,
            "name_move.html",
            name=name,
            to=to,
            source=source,
            there=await self._version_of(to),
        )

    async def move(self, request: Request) -> Response:
        """``POST /console/names/move``: copy or rename, while the name has what was shown."""
        form = await self._form(request)
        to, name = check_blob_name(needed(request, _TO)), text_of(request, NAME)
        there = count_of(form.text("there"), "the version")
        if form.text("do") == "rename":
            await self._client.names.rename(
                to,
                source=check_blob_name(needed(request, NAME)),
                if_absent=not there,
                if_version=there or None,
            )
        else:
            await self._client.names.copy(
                to,
                source=name or None,
                digest=None if name else parse_digest(needed(request, _DIGEST)),
                if_absent=not there,
                if_version=there or None,
            )
        return self._pages.see("/names/one", name=to)

    async def label(self, request: Request) -> Response:
        """``POST /console/names/labels``: other labels and another end, as a new version.

        The blob is put again, of which nothing is sent where it is large. Raises ConflictError
        where the name has another version than was shown.
        """
        form = await self._form(request)
        name = check_blob_name(needed(request, NAME))
        version = count_of(form.text("version"), "a version")
        stat = await self._client.names.stat(name)
        if stat.version != version:
            raise ConflictError("the name has another blob meanwhile: look at it again")
        async with aclosing(self._client.stream(stat.digest)) as pieces:
            await self._client.names.replace(
                name,
                (bytes(piece) async for piece in pieces),
                type=stat.type,
                digest=stat.digest,
                labels=labels_typed(form.text("labels")),
                expires_at=time_typed(form.text("expires")),
                if_version=version,
            )
        return self._pages.see("/names/one", name=name)

    async def _version_of(self, name: str) -> int:
        """0 where it has no blob."""
        try:
            return (await self._client.names.stat(name)).version or 0
        except NotFoundError:
            return 0

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        query = (NAME, _DIGEST, _TO)
        return (
            route(_MOVE, "read", self.ask, scope=_scopes, query=query),
            route(_MOVE, "write", self.move, scope=_scopes, query=query, does=True),
            route(
                "/names/labels",
                "write",
                self.label,
                scope=lambda request: f"/store/{needed(request, NAME)}",
                query=(NAME,),
                does=True,
            ),
        )


def _scopes(request: Request) -> tuple[str, str]:
    """Where the blob comes from, and where it goes. Raises InvalidError."""
    name, digest = text_of(request, NAME), text_of(request, _DIGEST).strip()
    if bool(name) == bool(digest):
        raise InvalidError("a name gets the blob of another name, or one by its digest")
    return f"/store/{name}" if name else f"/blobs/{digest}", f"/store/{needed(request, _TO)}"
