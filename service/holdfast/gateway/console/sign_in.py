"""Signing in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.base.session import new_session, open_form_of
from holdfast.gateway.http_route import HttpRoute, Parameter
from holdfast.gateway.tokens import find_token

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


_THEN = Parameter(name="then", about="The page to go to.")


class SignInPages(PageFamily):
    """``/console/sign-in`` and ``/console/sign-out``."""

    async def ask(self, request: Request) -> Response:
        """``GET /console/sign-in``."""
        if self._pages.tokens is None:
            return self._pages.see("")
        then = self._then(request.query_params.get(_THEN.name, ""))
        return self._pages.show(request, "sign_in.html", then=then, is_wrong=False)

    async def sign_in(self, request: Request) -> Response:
        """``POST /console/sign-in``: begin a session with a token that holds."""
        form = await open_form_of(request, self._bodies)
        if self._pages.tokens is None:
            return self._pages.see("")
        text, then = form.text("token"), self._then(form.text("then"))
        if find_token(self._pages.tokens.read(), text, self._pages.now()) is None:
            return self._pages.show(request, "sign_in.html", 401, then=then, is_wrong=True)
        answer = self._pages.see_url(then)
        self._pages.begin_session(request, answer, text)
        return answer

    async def sign_out(self, request: Request) -> Response:
        """``POST /console/sign-out``: the browser forgets the token."""
        await open_form_of(request, self._bodies)
        answer = self._pages.see("")
        self._pages.begin_session(request, answer, new_session())
        return answer

    def _then(self, url: str) -> str:
        """Where to go: a page of this console whatever was asked for."""
        return url if self._pages.is_here(url) else self._pages.url("")

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route

        def scope(_: Request) -> str:
            return "/"

        return (
            route("/sign-in", "open", self.ask, scope=scope, query=(_THEN,)),
            route("/sign-in", "open", self.sign_in, scope=scope, does=True),
            route("/sign-out", "open", self.sign_out, scope=scope, does=True),
        )
