"""The upkeep of a state: appending commands, its policy, and mending its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.domain.blob_names import check_blob_name
from holdfast.errors import ConflictError, InvalidError
from holdfast.gateway.console.base.asked import NAME, count_of, needed, seconds_typed, text_of
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.base.texts import shown
from holdfast.gateway.http_route import Parameter
from holdfast.gateway.routes.states import MAX_JSON_BYTES

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.gateway.access import ScopeVerb
    from holdfast.gateway.http_route import Handle, HttpRoute
    from holdfast.protocol.states import KeptPolicy

_INDEX: Final = Parameter(name="index", about="The last command that a save includes.")
_KIND: Final = Parameter(name="kind", about="Kind of save: json or bytes.")


def policy_mark(policy: KeptPolicy) -> str:
    """The policy that a page shows, as the page's form carries it."""
    return msgspec.json.encode(policy).decode()


class StateUpkeepPages(PageFamily):
    """The forms of ``/console/states/one``."""

    async def append(self, request: Request) -> Response:
        """``POST /console/states/append``: a command, while the last one is that which was shown.

        A conflict tells of commands appended meanwhile and not seen.
        """
        form = await self._form(request)
        name, text = check_blob_name(needed(request, NAME)), form.text("command")
        try:
            command: object = msgspec.json.decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidError(f"a command is JSON: {error}") from error
        last = count_of(form.text("last"), "the last command")
        await self._client.states.append(name, command, expected_index=last)
        return self._back(name)

    async def save(self, request: Request) -> Response:
        """``POST /console/states/save``: the body is the state as of the command ``index``."""
        self._check_script(request)
        name = check_blob_name(needed(request, NAME))
        index = count_of(text_of(request, _INDEX), "the last command that it includes")
        states = self._client.states
        if text_of(request, _KIND) == "bytes":
            async with self._bodies.upload(request, None) as body:
                await states.save_from(name, body, last_applied_index=index)
        else:
            async with self._bodies.whole(request, MAX_JSON_BYTES) as text:
                await states.save_json(name, text, last_applied_index=index)
        return self._sent_on(self._pages.url("/states/one", name=name))

    async def policy(self, request: Request) -> Response:
        """``POST /console/states/policy``: change what was typed anew; the rest stays.

        Raises ConflictError unless the policy is that which was shown.
        """
        form = await self._form(request)
        name = check_blob_name(needed(request, NAME))
        typed: dict[str, Any] = {
            "save_every": count_of(form.text("save_every"), "the count of commands") or None,
            "keep": count_of(form.text("keep"), "the count of saves") or None,
            "keep_seconds": seconds_typed(form.text("keep_for")),
            "trim": form.is_on("trim"),
        }
        present = await self._client.states.policy(name)
        if form.text("there") != policy_mark(present):
            raise ConflictError("the policy has changed meanwhile: look at it again")
        changes = {key: value for key, value in typed.items() if value != getattr(present, key)}
        await self._client.states.set_policy(name, **changes)
        return self._back(name)

    async def trim(self, request: Request) -> Response:
        """``POST /console/states/trim``, where that was confirmed."""
        form = await self._form(request)
        name = check_blob_name(needed(request, NAME))
        through = count_of(form.text("through"), "the last command to forget")
        if form.is_on("sure"):
            await self._client.states.trim(name, through)
            return self._back(name)
        return self._confirm(
            request,
            name,
            title=f"Forget the commands up to {through}?",
            text="They cannot be had back; the saves stay, and what came after the one before the"
            " newest.",
            button="Forget them",
            fields={"through": through},
        )

    async def repair(self, request: Request) -> Response:
        """``POST /console/states/repair``, where that was confirmed."""
        form = await self._form(request)
        name = check_blob_name(needed(request, NAME))
        begin = count_of(form.text("from"), "the index of the next command")
        if form.is_on("sure"):
            await self._client.states.repair(name, begin)
            return self._back(name)
        return self._confirm(
            request,
            name,
            title=f"Have the log go on with command {begin}?",
            text=f"The commands from {begin} on are lost. This is for a log that is damaged.",
            button="Repair it",
            fields={"from": begin},
        )

    async def remove(self, request: Request) -> Response:
        """``POST /console/states/remove``, where that was confirmed."""
        form = await self._form(request)
        name = check_blob_name(needed(request, NAME))
        if form.is_on("sure"):
            await self._client.states.remove(name)
            return self._pages.see("/states")
        return self._confirm(
            request,
            name,
            title="Remove this state?",
            text="Its saves and its log go, and cannot be had back.",
            button="Remove it",
        )

    def _confirm(
        self,
        request: Request,
        name: str,
        *,
        title: str,
        text: str,
        button: str,
        fields: dict[str, int] | None = None,
    ) -> Response:
        return self._pages.confirm(
            request,
            title=title,
            of=shown(name),
            text=text,
            button=button,
            back=self._pages.url("/states/one", name=name),
            fields=fields,
        )

    def _back(self, name: str) -> Response:
        return self._pages.see("/states/one", name=name)

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        return (
            self._route("append", "write", self.append, "/command"),
            self._route("save", "write", self.save, "/state", query=(_INDEX, _KIND)),
            self._route("policy", "admin", self.policy, "/state"),
            self._route("trim", "admin", self.trim, "/log"),
            self._route("repair", "admin", self.repair, "/log"),
            self._route("remove", "admin", self.remove, "/state", "/log"),
        )

    def _route(
        self,
        what: str,
        verb: ScopeVerb,
        handle: Handle,
        *roots: str,
        query: tuple[Parameter, ...] = (),
    ) -> HttpRoute:
        """The route of a form of a state, for a right to ``verb`` below all ``roots``."""
        return self._pages.route(
            f"/states/{what}",
            verb,
            handle,
            scope=lambda request: tuple(f"{root}/{needed(request, NAME)}" for root in roots),
            query=(NAME, *query),
            does=True,
        )
