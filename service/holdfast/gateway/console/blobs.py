"""Blobs by their digests: what is stored, why it is kept, and what each begins with."""

from __future__ import annotations

import re
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import is_digest, parse_digest
from holdfast.errors import CorruptError, NotFoundError
from holdfast.gateway.access import may_also
from holdfast.gateway.console.base.asked import CURSOR, PREFIX, count_of, text_of
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.base.tree import VIEWED_BYTES, is_text
from holdfast.gateway.parameters import media_type_of
from holdfast.protocol.blobs import LIST_BLOBS, BlobStat, ListBlobs

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.client import Client
    from holdfast.gateway.console.base.pages import Pages
    from holdfast.gateway.content.bodies import Bodies
    from holdfast.gateway.http_route import HttpRoute
    from holdfast.gateway.routes.blobs import BlobRoutes

_LISTED: Final = 100
_ONE: Final = "/blobs/{digest}"
_KEEPER: Final = re.compile(
    r"(?:version [0-9]+ of|a write of) (?P<name>.+)|state (?P<state>.+)", re.DOTALL
)


class BlobPages(PageFamily):
    """``/console/blobs`` and below."""

    def __init__(self, client: Client, pages: Pages, bodies: Bodies, contents: BlobRoutes) -> None:
        """``contents`` give the bytes to be saved."""
        super().__init__(client, pages, bodies)
        self._contents = contents

    async def listed(self, request: Request) -> Response:
        """``GET /console/blobs``: a page of them; a whole digest leads to its blob."""
        prefix = text_of(request, PREFIX).strip().lower()
        if is_digest(prefix):
            return self._pages.see(f"/blobs/{prefix}")
        listing = ListBlobs(prefix=prefix, cursor=text_of(request, CURSOR) or None, limit=_LISTED)
        page = await self._client.requester.ask(LIST_BLOBS, listing)
        return self._pages.show(request, "blobs.html", page=page, prefix=prefix)

    async def one(self, request: Request) -> Response:
        """``GET /console/blobs/{digest}``: what keeps it, and its beginning where that is text.

        Only what whoever asks may read is named as keeping it. Where it is not stored it says so,
        and offers to let somebody upload it.
        """
        digest = _digest_of(request)
        try:
            stat = await self._client.stat(digest)
        except NotFoundError:
            return self._pages.show(request, "blob.html", 404, digest=digest, stat=None)
        others = [one for one in stat.kept_by if one not in stat.names]
        names = [one for one in stat.names if await may_also(request, "read", f"/store/{one}")]
        told = [one for one in others if await may_also(request, "read", _scope_of_keeper(one))]
        data = b""
        with suppress(CorruptError):  # a read back tells more about that
            data = await self._client.get(digest, length=VIEWED_BYTES)
        return self._pages.show(
            request,
            "blob.html",
            digest=digest,
            stat=stat,
            names=names,
            others=told,
            untold=len(stat.names) + len(others) - len(names) - len(told),
            text=data.decode(errors="replace") if is_text(data) else None,
            is_cut=stat.size > len(data),
            viewed=VIEWED_BYTES,
        )

    async def upload(self, request: Request) -> Response:
        """``POST /console/blobs/upload``: the body is a blob, which is kept until it is deleted."""
        self._check_script(request)
        async with self._bodies.upload(request, None) as body:
            stored = await self._client.put(body, type=media_type_of(request))
        return self._sent_on(self._pages.url(f"/blobs/{stored.digest}"))

    async def pin(self, request: Request) -> Response:
        """``POST /console/blobs/{digest}/pin``: have it kept until it is deleted.

        It is read, and put again as anybody would.
        """
        await self._form(request)
        stat = await self._client.stat(_digest_of(request))
        async with aclosing(self._client.stream(stat.digest)) as pieces:
            data = (bytes(piece) async for piece in pieces)
            await self._client.put(data, type=stat.type, digest=stat.digest)
        return self._pages.see(f"/blobs/{stat.digest}")

    async def delete(self, request: Request) -> Response:
        """``POST /console/blobs/{digest}/delete``, where that was confirmed."""
        form = await self._form(request)
        digest = _digest_of(request)
        if form.is_on("sure"):
            await self._client.delete(digest)
            return self._pages.see("/blobs")
        stat = await self._client.stat(digest)
        return self._pages.confirm(
            request,
            title="Delete this blob?",
            of=digest,
            text=_loss(stat),
            button="Delete it",
            back=self._pages.url(f"/blobs/{digest}"),
        )

    async def link(self, request: Request) -> Response:
        """``POST /console/blobs/{digest}/link``: to get it, or to put it once."""
        form = await self._form(request)
        digest = _digest_of(request)
        link = await self._client.link(
            digest,
            count_of(form.text("seconds"), "the duration"),
            method="PUT" if form.is_on("upload") else "GET",
            single_use=form.is_on("once"),
        )
        back = self._pages.url(f"/blobs/{digest}")
        return self._pages.show_link(request, link, form, of=digest, back=back)

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        return (
            route("/blobs", "read", self.listed, scope=_scope_of_list, query=(PREFIX, CURSOR)),
            route("/blobs/upload", "write", self.upload, scope=lambda _: "/blobs/", does=True),
            route(_ONE, "read", self.one, scope=_scope),
            route(f"{_ONE}/raw", "read", self._contents.get, scope=_scope),
            route(f"{_ONE}/pin", "write", self.pin, scope=_scope, does=True),
            route(f"{_ONE}/delete", "admin", self.delete, scope=_scope, does=True),
            route(f"{_ONE}/link", "write", self.link, scope=_scope, does=True),
        )


def _digest_of(request: Request) -> str:
    return parse_digest(str(request.path_params["digest"]))


def _scope(request: Request) -> str:
    return f"/blobs/{request.path_params['digest']}"


def _scope_of_keeper(text: str) -> str:
    """Where that can be read which keeps a blob; ``text`` is as in ``BlobStat.kept_by``."""
    found = _KEEPER.fullmatch(text)
    if found is None:
        return f"/store/{text}"
    return f"/state/{found['state']}" if found["name"] is None else f"/store/{found['name']}"


def _scope_of_list(request: Request) -> str:
    return f"/blobs/{text_of(request, PREFIX).strip().lower()}"


def _loss(stat: BlobStat) -> str:
    if stat.names or stat.kept_by:
        return "It is not there by its digest any more; what has its bytes keeps them."
    return "Nothing else has its bytes: once they are collected they cannot be had back."
