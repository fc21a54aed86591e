"""States: their saves, and the logs of their commands."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from holdfast.domain.blob_names import check_blob_name
from holdfast.errors import NotFoundError
from holdfast.gateway.console.base.asked import CURSOR, NAME, PREFIX, count_of, needed, text_of
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.base.tree import VIEWED_BYTES, is_text
from holdfast.gateway.console.states.upkeep import policy_mark
from holdfast.gateway.http_route import HttpRoute, Parameter
from holdfast.protocol.states import (
    LIST_SAVES,
    LIST_STATES,
    ListSaves,
    ListStates,
    LogEntry,
    LogPage,
)

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


SHOWN_CHARS: Final = 2000
"""The part of a command shown."""

_LISTED: Final = 100
_COMMANDS: Final = 50
_HASH: Final = Parameter(name="hash", about="The hash of a save.")
_FROM: Final = Parameter(name="from", about="The first command to show.")


class StatePages(PageFamily):
    """``/console/states`` and below."""

    async def listed(self, request: Request) -> Response:
        """``GET /console/states``."""
        prefix = text_of(request, PREFIX)
        listing = ListStates(prefix=prefix, cursor=text_of(request, CURSOR) or None, limit=_LISTED)
        page = await self._client.requester.ask(LIST_STATES, listing)
        return self._pages.show(request, "states.html", page=page, prefix=prefix)

    async def one(self, request: Request) -> Response:
        """``GET /console/states/one``: a page of saves, and one of the log.

        It says so where there is no such state, and offers to begin it.
        """
        name = check_blob_name(needed(request, NAME))
        listing = ListSaves(name=name, cursor=text_of(request, CURSOR) or None, limit=_LISTED)
        try:
            saves = await self._client.requester.ask(LIST_SAVES, listing)
        except NotFoundError:
            return self._pages.show(request, "state_new.html", 404, name=name)
        log = await self._log(name, count_of(text_of(request, _FROM), "the first command"))
        commands = [] if log is None else [(entry, *_command(entry)) for entry in log.entries]
        policy = await self._client.states.policy(name)
        return self._pages.show(
            request,
            "state.html",
            name=name,
            saves=saves,
            log=log,
            commands=commands,
            policy=policy,
            policy_mark=policy_mark(policy),
        )

    async def save(self, request: Request) -> Response:
        """``GET /console/states/save``: a save, with its beginning where that is text."""
        name = check_blob_name(needed(request, NAME))
        record = await self._client.states.record(name, hash=needed(request, _HASH))
        data = await self._client.get(record.digest, length=VIEWED_BYTES)
        return self._pages.show(
            request,
            "save.html",
            name=name,
            record=record,
            text=data.decode(errors="replace") if is_text(data) else None,
            is_cut=record.size > len(data),
            viewed=VIEWED_BYTES,
        )

    async def _log(self, name: str, first: int) -> LogPage | None:
        """Commands from ``first`` on, or the last ones; None where there is no log."""
        try:
            last = max(1, (await self._page(name, 1, 1)).last_index)
            begin = min(first, last) or max(1, last - _COMMANDS + 1)
            return await self._page(name, begin, _COMMANDS)
        except NotFoundError:
            return None

    async def _page(self, name: str, first: int, limit: int) -> LogPage:
        """Where the log begins later, from there. Raises NotFoundError."""
        try:
            return await self._client.states.page(name, first, limit)
        except NotFoundError as error:
            if error.index is None:
                raise
            return await self._client.states.page(name, error.index, limit)

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        return (
            route(
                "/states",
                "read",
                self.listed,
                scope=lambda request: f"/state/{text_of(request, PREFIX)}",
                query=(PREFIX, CURSOR),
            ),
            route(
                "/states/one",
                "read",
                self.one,
                scope=_scopes,
                query=(NAME, _FROM, CURSOR),
            ),
            route(
                "/states/save",
                "read",
                self.save,
                scope=lambda request: f"/state/{needed(request, NAME)}",
                query=(NAME, _HASH),
            ),
        )


def _scopes(request: Request) -> tuple[str, ...]:
    name = needed(request, NAME)
    return f"/state/{name}", f"/log/{name}"


def _command(entry: LogEntry) -> tuple[str, bool]:
    """The beginning of a command as text, and whether that is all of it."""
    if entry.data is not None:
        text = f"base64:{base64.b64encode(entry.data[:SHOWN_CHARS]).decode()}"
        return text[:SHOWN_CHARS], len(text) <= SHOWN_CHARS
    command = b"" if entry.command is UNSET else bytes(entry.command)
    text = command.decode(errors="replace")
    return text[:SHOWN_CHARS], len(text) <= SHOWN_CHARS
