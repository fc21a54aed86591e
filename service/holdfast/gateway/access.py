"""Rights: by a token, by a link for exactly this request, or as somebody of this machine.

A request is refused before anything is looked up, so nobody learns whether it is there.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from holdfast.gateway.problems import HttpError
from holdfast.gateway.tokens import Right, Token, find_token, live_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from holdfast.gateway.settings import GatewaySettings

ScopeVerb = Literal["open", "read", "write", "admin"]
"""``open`` is what everybody may."""

LINKED: Final = "holdfast.link"
"""In the scope of a request that a link is for: its signer (`holdfast.gateway.link_gate`)."""

STILL_MAY: Final = "holdfast.still_may"
"""In the scope of a request: what raises as ``Access.check`` once it would be refused."""

MAY: Final = "holdfast.may"
"""In the scope of a request: what raises as ``Access.check`` unless it may do that at a path."""

SESSION_COOKIE: Final = "holdfast_session"
"""The cookie of a session of the console: its token."""

_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_LINKED_METHODS: Final = {"read": {"GET"}, "write": {"POST", "PUT"}}
_PROXIED: Final = ("forwarded", "x-forwarded-for", "x-real-ip")


class Access:
    """Checks every request before its handler sees it."""

    def __init__(self, settings: GatewaySettings, clock: Callable[[], datetime]) -> None:
        """``settings`` say where the tokens are, and which origins are right."""
        self._origins = frozenset(settings.cors_origins)
        self._clock = clock
        self._tokens = live_tokens(settings.tokens)
        if self._tokens is not None:
            self._tokens.read()

    async def check(
        self, request: Request, verb: ScopeVerb, path: str, *, by_cookie: bool = False
    ) -> None:
        """Raise HttpError (401, 403) unless ``request`` may ``verb`` what is at ``path``.

        ``path`` is the canonical one of what is asked for, such as ``/store/NAME`` for a name that
        was asked for by ``/store?name=``; or, of a list, that of its prefix. ``by_cookie``: the
        cookie of a session counts as its token. Raises UnavailableError where the tokens cannot be
        read.
        """
        if verb == "open":
            return
        if LINKED in request.scope:
            if request.method not in _LINKED_METHODS.get(verb, ()):
                raise _forbidden("a link is not for this")
        elif self._tokens is not None:
            text = _token_of(request, by_cookie=by_cookie)
            self._check_token(text, verb, path, self._tokens.read())
        else:
            self._check_local(request)

    def _check_token(self, text: str, right: Right, path: str, tokens: tuple[Token, ...]) -> None:
        if not text:
            raise _unauthorized("this needs a token", "Bearer")
        token = find_token(tokens, text, self._clock())
        if token is None:
            challenge = 'Bearer error="invalid_token"'
            raise _unauthorized("the token is not valid", challenge)
        if not token.may(right, path):
            raise _forbidden("the token is not for this")

    def _check_local(self, request: Request) -> None:
        """Without tokens only this machine may, and no page of somebody else's in it."""
        address = request.client.host if request.client else ""
        if not _is_loopback(address) or any(name in request.headers for name in _PROXIED):
            raise _unauthorized("this needs a token, and the gateway has none", "Bearer")
        if _host_of(f"//{request.headers.get('host', '')}") not in _LOCAL_NAMES:
            raise _forbidden("the Host of the request is not this machine")
        origin = request.headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        if _host_of(origin) not in _LOCAL_NAMES:
            raise _forbidden("the Origin of the request is another site")


async def check_also(request: Request, verb: ScopeVerb, path: str) -> None:
    """Raise as ``Access.check``, of a path that no scope has: a body names it, or an answer."""
    await request.scope[MAY](verb, path)


async def may_also(request: Request, verb: ScopeVerb, path: str) -> bool:
    """Whether ``check_also`` raises nothing of what the request may not."""
    try:
        await check_also(request, verb, path)
    except HttpError:
        return False
    return True


def _token_of(request: Request, *, by_cookie: bool) -> str:
    """The token that a request shows; empty where there is none."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return text.strip()
    return request.cookies.get(SESSION_COOKIE, "") if by_cookie else ""


def _unauthorized(detail: str, challenge: str) -> HttpError:
    return HttpError(401, "forbidden", detail, {"WWW-Authenticate": challenge})


def _forbidden(detail: str) -> HttpError:
    return HttpError(403, "forbidden", detail)


def _host_of(url: str) -> str | None:
    """The host in ``url``; None where it has none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
