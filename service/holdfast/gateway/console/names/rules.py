"""The rules by which names are kept: by prefix, or of one name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.errors import ConflictError, InvalidError
from holdfast.gateway.console.base.asked import count_of, seconds_typed
from holdfast.gateway.console.base.family import PageFamily
from holdfast.protocol.names import KeptRule, NameRule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.gateway.console.base.session import SentForm
    from holdfast.gateway.http_route import HttpRoute

_PLACE: Final = "/names/rules"


class NameRulePages(PageFamily):
    """``/console/names/rules``."""

    async def listed(self, request: Request) -> Response:
        """``GET /console/names/rules``."""
        return self._pages.show(request, "name_rules.html", found=await self._client.names.rules())

    async def change(self, request: Request) -> Response:
        """``POST /console/names/rules``: add a rule, or put it in the place of one; or remove one.

        Raises ConflictError unless the rules are those that were shown, and InvalidError where it
        was not confirmed.
        """
        form = await self._form(request)
        subject = form.text("kind"), form.raw("text")
        if not form.is_on("sure"):
            raise InvalidError("tick the box that says what may go")
        found = await self._client.names.rules()
        if found.revision != count_of(form.text("revision"), "the revision"):
            raise ConflictError("the rules have changed meanwhile: look at them again")
        rules = _others(found.rules, subject)
        if form.text("do") != "remove":
            rules.append(_rule_of(form, subject))
        await self._client.names.set_rules(rules, if_revision=found.revision)
        return self._pages.see(_PLACE)

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        return (
            route(_PLACE, "read", self.listed, scope=lambda _: "/store/"),
            route(_PLACE, "admin", self.change, scope=lambda _: "/store/", does=True),
        )


def _others(rules: Iterable[KeptRule], subject: tuple[str, str]) -> list[NameRule]:
    """The rules but for that of ``subject``, as they are sent."""
    return [
        msgspec.convert(msgspec.to_builtins(rule), NameRule)
        for rule in rules
        if _subject_of(rule) != subject
    ]


def _subject_of(rule: KeptRule) -> tuple[str, str]:
    """Its subject, as a form has it."""
    return ("name", rule.name) if rule.name is not None else ("prefix", rule.prefix or "")


def _rule_of(form: SentForm, subject: tuple[str, str]) -> NameRule:
    """The rule typed. Raises InvalidError."""
    kind, text = subject
    return NameRule(
        prefix=None if kind == "name" else text,
        name=text if kind == "name" else None,
        keep_versions=count_of(form.text("versions"), "the count of versions") or None,
        keep_seconds=seconds_typed(form.text("keep")),
        expire_seconds=seconds_typed(form.text("expire")),
    )
