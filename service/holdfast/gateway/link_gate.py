"""Links, before anything else sees a request: a spoilt one is refused whatever it points at.

Parameters of links (`holdfast.domain.link_targets`) are acted on here and taken away, with the
signature, so that routes and logs see the plain request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, unquote_plus

from starlette.requests import ClientDisconnect

from holdfast.domain.link_keys import read_keys, secrets_at
from holdfast.domain.link_targets import LINK_CREATE, LINK_DIGEST, LINK_ONCE, PublicUrl
from holdfast.domain.sigv4 import PREFIX, LinkTarget, Signed, is_link, verify_link
from holdfast.errors import ForbiddenError, HoldfastError, NotFoundError
from holdfast.gateway.access import LINKED
from holdfast.gateway.guard import IS_GONE
from holdfast.gateway.problems import problem
from holdfast.live_file import LiveFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from holdfast.client import Client
    from holdfast.gateway.settings import GatewaySettings

_OWN: Final = frozenset({LINK_CREATE, LINK_DIGEST, LINK_ONCE})
_WITH_BYTES: Final = frozenset({200, 206})


class LinkGate:
    """An ASGI application in front of another: requests without a link pass as they are."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        client: Client,
        settings: GatewaySettings,
        clock: Callable[[], datetime],
    ) -> None:
        """``settings`` say where the keys are, and for which URL links are made."""
        self._app = app
        self._client = client
        self._clock = clock
        self._public = PublicUrl.parse(settings.public_url) if settings.public_url else None
        self._keys = LiveFile(settings.link_keys, read_keys) if settings.link_keys else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or answer 403."""
        if scope["type"] == "http" and is_link(_path(scope), _query(scope)):
            try:
                link = await self._admit(scope)
            except HoldfastError as error:
                await problem(error)(scope, receive, send)
                return
            if link is not None:
                send = self._using(link, scope, send)
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> str | None:
        """Make it the request that the link is for; the link that its answer will use.

        Raises ForbiddenError, NotFoundError.
        """
        signed = self._verified(scope)
        own, rest = _split(_query(scope))
        if LINK_DIGEST in own:
            await self._check_snapshot(_path(scope), own[LINK_DIGEST])
        link = own.get(LINK_ONCE)
        if link is not None and scope["method"] != "GET":
            await self._client.use_link(link)
            link = None
        scope["query_string"] = rest.encode("latin-1")
        if LINK_CREATE in own:
            scope["method"] = "POST"
        scope[LINKED] = signed
        return link

    def _using(self, link: str, scope: Scope, send: Send) -> Send:
        """``send``, which notes the use of ``link`` before the first bytes go out.

        An answer without any uses nothing, nor does a client gone before them. Raises
        ForbiddenError, ClientDisconnect instead of beginning.
        """

        async def sending(message: Message) -> None:
            if message.get("status") in _WITH_BYTES:
                if IS_GONE in scope and scope[IS_GONE]():
                    raise ClientDisconnect
                await self._client.use_link(link, ranged="range" in _headers(scope))
            await send(message)

        return sending

    def _verified(self, scope: Scope) -> Signed:
        if self._public is None or self._keys is None:
            raise ForbiddenError("this gateway takes no links")
        now = self._clock()
        target = LinkTarget(
            method=scope["method"],
            host=self._public.host,
            path=self._public.base + _path(scope),
            query=_query(scope),
            headers=_headers(scope),
        )
        return verify_link(target, secrets_at(self._keys.read(), now), now)

    async def _check_snapshot(self, path: str, digest: str) -> None:
        """Raises NotFoundError unless the snapshot has that digest."""
        _, _, key, *_ = [*path.split("/"), "", ""]
        record = await self._client.snapshots.get(unquote(key))
        if record.digest != digest:
            raise NotFoundError("the snapshot is not the one that the link was made for")


def _path(scope: Scope) -> str:
    """As it came."""
    raw: bytes = scope["raw_path"]
    return raw.partition(b"?")[0].decode("latin-1")


def _query(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return query.decode("latin-1")


def _headers(scope: Scope) -> dict[str, str]:
    """By their names in lower case, those of one name joined."""
    headers: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
        headers[name] = f"{headers[name]},{text}" if name in headers else text
    return headers


def _split(query: str) -> tuple[dict[str, str], str]:
    """The link's parameters, and those asked for."""
    own: dict[str, str] = {}
    rest = []
    for pair in query.split("&"):
        name, _, text = pair.partition("=")
        if unquote_plus(name) in _OWN:
            own[unquote_plus(name)] = unquote_plus(text)
        elif not name.startswith(PREFIX):
            rest.append(pair)
    return own, "&".join(rest)
