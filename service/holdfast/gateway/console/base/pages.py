"""Templates to answers, with the headers that keep a page from being somebody else's."""

from __future__ import annotations

import hashlib
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response

from holdfast.gateway.console.base.session import (
    SentForm,
    form_token,
    is_token,
    new_session,
    session_of,
    set_session,
)
from holdfast.gateway.console.base.texts import (
    duration_text,
    mode_text,
    place,
    shown,
    size_text,
    time_text,
)
from holdfast.gateway.http_route import HttpAnswer, HttpRoute
from holdfast.gateway.problems import RETRY_SECONDS, HttpError
from holdfast.gateway.tokens import live_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from starlette.requests import Request

    from holdfast.errors import HoldfastError
    from holdfast.gateway.access import ScopeVerb
    from holdfast.gateway.http_route import Handle, Parameter
    from holdfast.gateway.settings import GatewaySettings
    from holdfast.protocol.links import LinkMade

STATIC: Final = Path(__file__).parents[1] / "static"
HTML: Final = "text/html; charset=utf-8"
GUARDS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Pages:
    """The base of all pages."""

    def __init__(self, settings: GatewaySettings, clock: Callable[[], datetime]) -> None:
        """``settings`` say below which path clients reach the console, and where tokens are."""
        self.now = clock
        public = urlsplit(settings.public_url or "")
        self._base = public.path.rstrip("/")
        self._origin = (settings.public_url or "").rstrip("/")
        self._is_https = public.scheme == "https"
        self.tokens = live_tokens(settings.tokens)
        self._templates = Environment(
            loader=PackageLoader("holdfast.gateway.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "shown": shown,
            "size": size_text,
            "time": time_text,
            "mode": mode_text,
            "duration": duration_text,
        }
        self._templates.globals |= {
            "url": partial(place, self._base),
            "has_tokens": self.tokens is not None,
            "static": _static_marks(),
        }

    def show(
        self,
        request: Request,
        template: str,
        answered: int = 200,
        headers: Mapping[str, str] | None = None,
        **context: Any,
    ) -> Response:
        """The page that ``template`` makes of ``context``; ``answered`` is its status."""
        session = session_of(request) or new_session()
        text = self._templates.get_template(template).render(
            context,
            at=request.url.path.removeprefix("/console"),
            here=self._here(request),
            origin=self._origin or str(request.base_url).rstrip("/"),
            form_token=form_token(session),
            is_signed_in=is_token(session),
        )
        answer = Response(
            text.encode("utf-8", "replace"), answered, {**GUARDS, **(headers or {})}, HTML
        )
        if session_of(request) is None:
            self.begin_session(request, answer, session)
        return answer

    def confirm(
        self,
        request: Request,
        *,
        title: str,
        of: str,
        text: str,
        button: str,
        back: str,
        fields: Mapping[str, str | int] | None = None,
        typed: str = "",
    ) -> Response:
        """Ask whether to do what a form asked for: it is sent again with ``sure``, and ``fields``.

        ``text`` says what is lost. Where ``typed`` is said, that has to be typed as ``typed``.
        """
        return self.show(
            request,
            "confirm.html",
            title=title,
            of=of,
            text=text,
            button=button,
            back=back,
            fields={} if fields is None else fields,
            typed=typed,
        )

    def show_link(
        self,
        request: Request,
        link: LinkMade,
        form: SentForm,
        *,
        of: str | bytes,
        back: str,
    ) -> Response:
        """The page of a link ``of`` something, as ``form`` has asked for it."""
        once, is_upload = form.is_on("once"), form.is_on("upload")
        return self.show(
            request, "link.html", link=link, of=of, back=back, once=once, is_upload=is_upload
        )

    def begin_session(self, request: Request, answer: Response, session: str) -> None:
        """Have the browser show ``session`` from now on, here only."""
        is_https = self._is_https or request.url.scheme == "https"
        set_session(answer, session, f"{self._base}/console", is_https=is_https)

    def see(self, path: str, /, **query: str | bytes | int | None) -> Response:
        """Send the browser on to another page."""
        return self.see_url(place(self._base, path, **query))

    def see_url(self, url: str) -> Response:
        """Send the browser on to a page of the console, whose URL that is."""
        return Response(status_code=303, headers={**GUARDS, "Location": url})

    def url(self, path: str, /, **query: str | bytes | int | None) -> str:
        """Where a page is."""
        return place(self._base, path, **query)

    def is_here(self, url: str) -> bool:
        """Whether ``url`` is that of a page of this console."""
        at = f"{self._base}/console"
        is_below = url == at or url.startswith((f"{at}/", f"{at}?"))
        return is_below and url.isascii() and url.isprintable()

    def _here(self, request: Request) -> str:
        """The path and query as the browser has it."""
        path = quote(request.url.path, safe="/:")
        return f"{self._base}{path}{'?' if request.url.query else ''}{request.url.query}"

    def failure(self, request: Request, error: HoldfastError | HttpError) -> Response:
        """The page of an error, or that to sign in."""
        status = error.status
        headers = dict(error.headers) if isinstance(error, HttpError) else {}
        if status in RETRY_SECONDS:
            headers.setdefault("Retry-After", str(RETRY_SECONDS[status]))
        if status == HTTPStatus.UNAUTHORIZED and self.tokens is not None:
            is_wrong = is_token(session_of(request) or "")
            then = self.url("") if request.method == "POST" else self._here(request)
            return self.show(request, "sign_in.html", status, headers, then=then, is_wrong=is_wrong)
        return self.show(
            request,
            "failure.html",
            status,
            headers,
            status=status,
            title=HTTPStatus(status).phrase,
            detail=error.detail,
        )

    def route(
        self,
        path: str,
        verb: ScopeVerb,
        handle: Handle,
        *,
        scope: Callable[[Request], str | tuple[str, ...]],
        query: tuple[Parameter, ...] = (),
        does: bool = False,
    ) -> HttpRoute:
        """The route of a page; ``does``: of a form that is sent."""
        return HttpRoute(
            method="POST" if does else "GET",
            path=f"/console{path}",
            verb=verb,
            summary="A page of the console.",
            handle=handle,
            answers={200: HttpAnswer(about="It.", media_type=HTML)},
            query=query,
            scope=scope,
            show_failure=self.failure,
        )


def _static_marks() -> dict[str, str]:
    """A mark of each static file's content, by name."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in STATIC.iterdir()
    }
