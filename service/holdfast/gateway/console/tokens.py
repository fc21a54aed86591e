"""Tokens: they are made and removed here where the gateway may write their file."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING

from holdfast.errors import UnavailableError
from holdfast.gateway.access import SESSION_COOKIE
from holdfast.gateway.console.base.asked import seconds_typed
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.base.texts import shown
from holdfast.gateway.tokens import (
    Token,
    find_token,
    new_token,
    read_tokens,
    without,
    write_tokens,
)
from holdfast.live_file import LiveFile, change_live_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.gateway.http_route import HttpRoute

    Change = Callable[[Sequence[Token]], Sequence[Token]]

_PLACE = "/tokens"


class TokenPages(PageFamily):
    """``/console/tokens``."""

    async def listed(self, request: Request) -> Response:
        """``GET /console/tokens``."""
        return self._shown(request)

    async def create(self, request: Request) -> Response:
        """``POST /console/tokens``: make one, and show it this once."""
        form = await self._form(request)
        now = self._pages.now().replace(microsecond=0)
        seconds = seconds_typed(form.text("expires"))
        text, token = new_token(
            form.texts("scopes"),
            now=now,
            expires_at=None if seconds is None else now + timedelta(seconds=seconds),
            note=shown(form.text("note")),
        )
        await self._change(lambda tokens: (*tokens, token))
        return self._shown(request, made=text)

    async def remove(self, request: Request) -> Response:
        """``POST /console/tokens/remove``, where that was confirmed."""
        form = await self._form(request)
        id_ = form.text("id")
        if form.is_on("sure"):
            await self._change(partial(without, ids=[id_]))
            return self._pages.see(_PLACE)
        is_mine = id_ == self._mine(request)
        return self._pages.confirm(
            request,
            title="Remove this token?",
            of=id_,
            text="Its holder is refused at once."
            + (" It is yours: you will be signed out." if is_mine else ""),
            button="Remove it",
            back=self._pages.url(_PLACE),
            fields={"id": id_},
        )

    async def _change(self, change: Change) -> None:
        """Change the file. Raises InvalidError, NotFoundError, UnavailableError."""
        file = self._file()
        try:
            await asyncio.to_thread(change_live_file, file.path, read_tokens, write_tokens, change)
        except OSError as error:
            raise UnavailableError(f"{file.path}: {error.strerror}") from error

    def _shown(self, request: Request, *, made: str = "") -> Response:
        if self._pages.tokens is None:
            return self._pages.show(request, "tokens.html", tokens=None)
        now, path = self._pages.now(), self._pages.tokens.path
        return self._pages.show(
            request,
            "tokens.html",
            tokens=[(token, token.holds(now)) for token in self._pages.tokens.read()],
            file=quote(str(path)),
            mine=self._mine(request),
            made=made,
            may_write=os.access(path.parent, os.W_OK | os.X_OK),
        )

    def _mine(self, request: Request) -> str:
        """The id of the token of this session; empty where there is none."""
        shown_token = request.cookies.get(SESSION_COOKIE, "")
        mine = find_token(self._file().read(), shown_token, self._pages.now())
        return "" if mine is None else mine.id

    def _file(self) -> LiveFile[tuple[Token, ...]]:
        """Raises UnavailableError."""
        if self._pages.tokens is None:
            raise UnavailableError("this gateway has no file of tokens")
        return self._pages.tokens

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        return (
            route(_PLACE, "admin", self.listed, scope=lambda _: "/"),
            route(_PLACE, "admin", self.create, scope=lambda _: "/", does=True),
            route(f"{_PLACE}/remove", "admin", self.remove, scope=lambda _: "/", does=True),
        )
