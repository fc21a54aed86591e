"""Who may do what. Without tokens only this machine may, and no page of somebody else's in it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from holdfast.gateway.problems import HttpError

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast.gateway.settings import GatewaySettings

Verb = Literal["open", "read", "write", "admin"]
"""``open`` is what everybody may."""

_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Access:
    """Checks every request before its handler sees it."""

    def __init__(self, settings: GatewaySettings) -> None:
        """``settings`` say which origins and which address of its own are right."""
        self._origins = frozenset(settings.cors_origins)
        public = urlsplit(settings.public_url or "")
        self._names = _LOCAL_NAMES | ({public.hostname} if public.hostname else set())

    async def check(self, request: Request, verb: Verb, path: str) -> None:
        """Raise HttpError (401, 403) unless ``request`` may ``verb`` what is at ``path``.

        ``path`` is the canonical one of what is asked for, such as ``/store/NAME`` for a name that
        was asked for by ``/store?name=``; or, of a list, that of its prefix.
        """
        del path
        if verb == "open":
            return
        if not _is_loopback(request.client.host if request.client else ""):
            challenge = {"WWW-Authenticate": "Bearer"}
            raise HttpError(401, "forbidden", "this needs a token", challenge)
        self._check_browser(request)

    def _check_browser(self, request: Request) -> None:
        """A page of another site may send requests to this machine, too: not to be believed."""
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
        if host not in self._names:
            raise HttpError(403, "forbidden", "the Host of the request is not this gateway's")
        origin = request.headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        if urlsplit(origin).hostname not in self._names:
            raise HttpError(403, "forbidden", "the Origin of the request is another site")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
