"""The policy of an app, or of all others: tried before it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.gateway.console.base.asked import APP, count_of, labels_typed, text_of
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.snapshots.snapshots import scope_of_app
from holdfast.protocol.retention import KeepSnapshots, KeptSnapshots, PruneReport, SnapshotPolicy

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.gateway.console.base.session import SentForm
    from holdfast.gateway.http_route import HttpRoute

_PLACE: Final = "/retention"
_COUNTS: Final = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


class RetentionPages(PageFamily):
    """``/console/retention``."""

    async def policy(self, request: Request) -> Response:
        """``GET /console/retention``: the policy of an app, or of all without one of their own."""
        app = text_of(request, APP).strip() or None
        policy = await self._client.retention.policy(app)
        return self._shown(request, policy, policy.keep)

    async def change(self, request: Request) -> Response:
        """``POST /console/retention``: try what was typed, make it the policy, or have it none.

        The policy of an app is made only once its dry run was shown. Superfluous snapshots are
        removed at once only where that is said by itself.
        """
        form = await self._form(request)
        app = text_of(request, APP).strip() or None
        action = form.text("do")
        if action == "prune" and app is not None and form.is_on("sure"):
            report = await self._client.retention.prune(app)
            policy = await self._client.retention.policy(app)
            return self._shown(request, policy, policy.keep, report=report, is_done=True)
        revision = count_of(form.text("revision"), "the revision")
        if action == "none":
            await self._client.retention.set_policy(None, app=app, if_revision=revision)
            return self._pages.see(_PLACE, app=app)
        keep = _keep_of(form)
        tried = msgspec.json.encode(keep).decode()
        if action == "save" and (app is None or form.text("tried") == tried):
            await self._client.retention.set_policy(keep, app=app, if_revision=revision)
            return self._pages.see(_PLACE, app=app)
        policy = await self._client.retention.policy(app)
        if app is None:
            return self._shown(request, policy, keep)
        report = await self._client.retention.prune(app, keep, dry_run=True)
        return self._shown(request, policy, keep, report=report, tried=tried)

    def _shown(
        self,
        request: Request,
        policy: SnapshotPolicy,
        keep: KeepSnapshots | KeptSnapshots | None,
        *,
        report: PruneReport | None = None,
        tried: str = "",
        is_done: bool = False,
    ) -> Response:
        labels = [
            ", ".join(f"{key}={value}" for key, value in one.items())
            for one in (keep.labels if keep else ())
        ]
        return self._pages.show(
            request,
            "retention.html",
            app=text_of(request, APP).strip(),
            policy=policy,
            keep=keep or KeepSnapshots(),
            labels="\n".join(labels),
            counts=_COUNTS,
            report=report,
            tried=tried,
            is_done=is_done,
        )

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        return (
            route(_PLACE, "read", self.policy, scope=scope_of_app, query=(APP,)),
            route(_PLACE, "admin", self.change, scope=scope_of_app, query=(APP,), does=True),
        )


def _keep_of(form: SentForm) -> KeepSnapshots:
    """The rules typed. Raises InvalidError."""
    counts = {name: count_of(form.text(name), name) for name in _COUNTS}
    return KeepSnapshots(
        **counts,
        within=form.text("within"),
        labels=[labels_typed(line) for line in form.texts("labels")],
        time_zone=form.text("time_zone") or KeepSnapshots().time_zone,
    )
