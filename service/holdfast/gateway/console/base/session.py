"""Sessions: a cookie with the token that somebody signed in with, and what proves a form is ours.

The gateway keeps nothing of a session, so any of several answers, and a token that is removed ends
its sessions at once. Without tokens the cookie is random: it only ties forms to a browser.

Why: docs/decisions.md, "The console's cookie is the token, for ``/console`` alone".
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import msgspec

from holdfast.gateway.access import SESSION_COOKIE
from holdfast.gateway.problems import HttpError
from holdfast.gateway.tokens import TOKEN_PREFIX

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.gateway.content.bodies import Bodies

FORM_FIELD: Final = "form-token"
FORM_HEADER: Final = "x-form-token"
_PURPOSE: Final = b"holdfast console form"
_TOLD: Final = b"holdfast console told"
_MAX_FIELDS: Final = 200


def new_session() -> str:
    """A session of nobody."""
    return secrets.token_urlsafe(32)


def session_of(request: Request) -> str | None:
    """The session's token."""
    return request.cookies.get(SESSION_COOKIE) or None


def is_token(session: str) -> bool:
    """Whether somebody signed in, with a token that may hold."""
    return session.startswith(f"{TOKEN_PREFIX}_")


def set_session(answer: Response, session: str, path: str, *, is_https: bool) -> None:
    """Have the browser show ``session`` to pages below ``path``, until it is closed."""
    answer.set_cookie(
        SESSION_COOKIE, session, path=path, secure=is_https, httponly=True, samesite="lax"
    )


def form_token(session: str) -> str:
    """The token in forms of ``session``: nobody else can make it."""
    return hmac.new(session.encode(errors="replace"), _PURPOSE, "sha256").hexdigest()


def seal_of(session: str, *texts: str) -> str:
    """A proof that a page told ``texts`` to ``session``: nobody else can make it."""
    told = _TOLD + msgspec.json.encode(texts)
    return hmac.new(session.encode(errors="replace"), told, "sha256").hexdigest()


def is_seal(request: Request, seal: str, *texts: str) -> bool:
    """Whether ``seal`` is that of ``texts``, of the session that asks."""
    expected = seal_of(session_of(request) or new_session(), *texts)
    return hmac.compare_digest(expected.encode(), seal.encode(errors="replace"))


class SentForm:
    """The fields of a form that was sent."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        """``pairs`` in the order of the form."""
        self._pairs = pairs

    def text(self, name: str) -> str:
        """The field, without space around it; empty where there is none."""
        return self.raw(name).strip()

    def raw(self, name: str) -> str:
        """The field, with the space around it."""
        return next((value for key, value in self._pairs if key == name), "")

    def texts(self, name: str) -> list[str]:
        """The lines of a field that have something in them."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]

    def all_of(self, name: str) -> list[str]:
        """Every value of a field that is there several times."""
        return [value for key, value in self._pairs if key == name]

    def is_on(self, name: str) -> bool:
        """Whether a box was ticked."""
        return bool(self.text(name))


async def form_of(request: Request, bodies: Bodies) -> SentForm:
    """The form that was sent. Raises HttpError (400; 403 unless it is one of this session)."""
    return _form(request, await bodies.message(request))


async def open_form_of(request: Request, bodies: Bodies) -> SentForm:
    """As ``form_of``, where whoever sends it need not be known."""
    return _form(request, await bodies.open_form(request))


def _form(request: Request, body: bytes) -> SentForm:
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError as error:
        raise HttpError(400, "invalid", "the form is not one of this console") from error
    check_form(request, dict(pairs).get(FORM_FIELD, ""))
    return SentForm([pair for pair in pairs if pair[0] != FORM_FIELD])


def check_form(request: Request, token: str) -> None:
    """Raises HttpError (403) unless ``token`` is that of the session, and the page was ours."""
    session = session_of(request)
    is_own = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    expected = form_token(session or new_session())
    if not is_own or not hmac.compare_digest(expected.encode(), token.encode(errors="replace")):
        detail = "the form is not of this session: open the page again, and send it from there"
        raise HttpError(403, "forbidden", detail)
