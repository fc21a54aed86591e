"""Snapshots in one list, one of them, its files, and what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.errors import ConflictError, NotFoundError
from holdfast.gateway.console.base.asked import (
    APP,
    CURSOR,
    PATH,
    bytes_of,
    count_of,
    labels_typed,
    needed,
    text_of,
)
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.base.texts import size_text, time_text
from holdfast.gateway.console.base.tree import VIEWED_BYTES, is_text, level_of
from holdfast.gateway.http_route import HttpRoute, Parameter
from holdfast.protocol.entries import wire_path
from holdfast.protocol.files import (
    DIFF_SNAPSHOTS,
    LIST_FILES,
    DiffSnapshots,
    FileEntry,
    ListFiles,
)
from holdfast.protocol.snapshots import (
    CREATE_SNAPSHOT,
    LIST_SNAPSHOTS,
    CreateSnapshot,
    ListSnapshots,
    SnapshotRecord,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.client import Client
    from holdfast.form.terms import SnapshotState
    from holdfast.gateway.console.base.pages import Pages
    from holdfast.gateway.content.bodies import Bodies
    from holdfast.gateway.routes.snapshots import SnapshotRoutes

_LISTED: Final = 100
_CHANGES: Final = 500
_OTHERS: Final = 100
_ONE: Final = "/snapshots/{key}"
_LABEL: Final = Parameter(name="label", about="Labels that they must have.")
_STATE: Final = Parameter(name="state", about="pending, ok or failure.")
_STATES: Final[Mapping[str, SnapshotState]] = {
    "pending": "pending",
    "ok": "ok",
    "failure": "failure",
}
_SINCE: Final = Parameter(name="since", about="From this day on.")
_UNTIL: Final = Parameter(name="until", about="Before this day.")
_FROM: Final = Parameter(name="from", about="The snapshot to compare with.")
_FILTERS: Final = (APP, _LABEL, _STATE, _SINCE, _UNTIL)


class SnapshotPages(PageFamily):
    """``/console/snapshots`` and below."""

    def __init__(
        self, client: Client, pages: Pages, bodies: Bodies, contents: SnapshotRoutes
    ) -> None:
        """``contents`` give the bytes to be saved."""
        super().__init__(client, pages, bodies)
        self._contents = contents

    async def listed(self, request: Request) -> Response:
        """``GET /console/snapshots``: a page of them, newest first."""
        asked = {one.name: text_of(request, one).strip() for one in _FILTERS}
        listing = ListSnapshots(
            app=asked["app"] or None,
            labels=labels_typed(asked["label"]),
            state=_STATES.get(asked["state"]),
            since=_day(asked["since"]),
            until=_day(asked["until"]),
            cursor=text_of(request, CURSOR) or None,
            limit=_LISTED,
        )
        page = await self._client.requester.ask(LIST_SNAPSHOTS, listing)
        return self._pages.show(
            request, "snapshots.html", page=page, asked=asked, is_all=not any(asked.values())
        )

    async def create(self, request: Request) -> Response:
        """``POST /console/snapshots``: have an app archived, and look at how far it is."""
        form = await self._form(request)
        asked = CreateSnapshot(
            app=form.text("app"),
            labels=labels_typed(form.text("labels")),
            node=form.text("node") or None,
            exclude=form.texts("exclude"),
            exclude_caches=form.is_on("exclude_caches"),
            one_file_system=form.is_on("one_file_system"),
            skip_unreadable=form.is_on("skip_unreadable"),
            read_all=form.is_on("read_all"),
            wait_seconds=0.0,
        )
        record = await self._client.requester.ask(CREATE_SNAPSHOT, asked)
        return self._pages.see(f"/snapshots/{record.key}")

    async def one(self, request: Request) -> Response:
        """``GET /console/snapshots/{key}``."""
        record = await self._record(request)
        others = [one for one in await self._others(record) if one.key != record.key]
        return self._pages.show(
            request,
            "snapshot.html",
            record=record,
            others=others,
            refresh=record.state == "pending",
        )

    async def files(self, request: Request) -> Response:
        """``GET /console/snapshots/{key}/files``: one level of the tree."""
        record = await self._readable(request)
        path = bytes_of(request, PATH)
        level = await level_of(
            self._client.requester, record.key, path, text_of(request, CURSOR) or None
        )
        return self._pages.show(
            request, "files.html", record=record, path=path, level=level, crumbs=_crumbs(path)
        )

    async def file(self, request: Request) -> Response:
        """``GET /console/snapshots/{key}/file``: a file, with its beginning where that is text."""
        record = await self._readable(request)
        path = bytes_of(request, PATH)
        entry = await self._entry(record.key, path)
        data = b""
        if entry.kind in {"file", "hardlink"}:
            data = await self._client.snapshots.read(record.key, path, length=VIEWED_BYTES)
        return self._pages.show(
            request,
            "file.html",
            record=record,
            path=path,
            entry=entry,
            crumbs=_crumbs(path),
            text=data.decode(errors="replace") if is_text(data) else None,
            is_cut=entry.size > len(data),
            viewed=VIEWED_BYTES,
        )

    async def raw(self, request: Request) -> Response:
        """``GET /console/snapshots/{key}/raw``: the bytes of a file, to be saved."""
        return await self._contents.file_at(request, bytes_of(request, PATH))

    async def diff(self, request: Request) -> Response:
        """``GET /console/snapshots/{key}/diff``: a page of what changed."""
        record = await self._readable(request)
        before = text_of(request, _FROM) or record.parent
        others = [one for one in await self._others(record) if one.key != record.key]
        if before is None:
            return self._pages.show(
                request, "diff.html", record=record, before=None, others=others, page=None
            )
        changes = DiffSnapshots(
            a=before, b=record.key, cursor=text_of(request, CURSOR) or None, limit=_CHANGES
        )
        page = await self._client.requester.ask(DIFF_SNAPSHOTS, changes)
        return self._pages.show(
            request, "diff.html", record=record, before=before, others=others, page=page
        )

    async def delete(self, request: Request) -> Response:
        """``POST /console/snapshots/{key}/delete``, where that was confirmed."""
        form = await self._form(request)
        record = await self._record(request)
        if not form.is_on("sure"):
            return self._pages.confirm(
                request,
                title="Forget this snapshot?",
                of=record.key,
                text=f"It was made {time_text(record.created_at)} and has {record.files:,} files of"
                f" {size_text(record.size)}. Content that others share stays; the rest"
                " cannot be had back.",
                button="Forget it",
                back=self._pages.url(f"/snapshots/{record.key}"),
            )
        await self._client.snapshots.delete(record.key)
        return self._pages.see("/snapshots", app=record.app)

    async def purge(self, request: Request) -> Response:
        """``POST /console/purge``: forget all snapshots of an app, whose name was typed."""
        form = await self._form(request)
        app = needed(request, APP)
        if form.text("typed") == app:
            await self._client.snapshots.purge(app)
            return self._pages.see("/snapshots", app=app)
        return self._pages.confirm(
            request,
            title="Forget all snapshots of an app?",
            of=app,
            text="Those under way and those that are held go, too. Content that snapshots"
            " of other apps share stays; the rest cannot be had back.",
            button="Forget them all",
            back=self._pages.url("/snapshots", app=app),
            typed=app,
        )

    async def hold(self, request: Request) -> Response:
        """``POST /console/snapshots/{key}/hold``: keep it from policies, or no more."""
        form = await self._form(request)
        key = str(request.path_params["key"])
        if form.is_on("release"):
            await self._client.retention.release(key)
        else:
            await self._client.retention.hold(key, form.text("reason"))
        return self._pages.see(f"/snapshots/{key}")

    async def link(self, request: Request) -> Response:
        """``POST /console/snapshots/{key}/link``: a link to it, or to a file of it."""
        form = await self._form(request)
        key, path = str(request.path_params["key"]), bytes_of(request, PATH)
        link = await self._client.snapshots.link(
            key,
            count_of(form.text("seconds"), "the duration"),
            path=path or None,
            single_use=form.is_on("once"),
        )
        back = (
            self._pages.url(f"/snapshots/{key}/file", path=path)
            if path
            else self._pages.url(f"/snapshots/{key}")
        )
        return self._pages.show_link(request, link, form, of=path or key, back=back)

    async def _record(self, request: Request) -> SnapshotRecord:
        return await self._client.snapshots.get(str(request.path_params["key"]))

    async def _readable(self, request: Request) -> SnapshotRecord:
        """Raises ConflictError of a snapshot that is not ``ok``."""
        record = await self._record(request)
        if record.state != "ok":
            raise ConflictError(f"the snapshot is {record.state}: it has no files to show")
        return record

    async def _others(self, record: SnapshotRecord) -> list[SnapshotRecord]:
        """The newest snapshots of the same app that can be read."""
        listing = ListSnapshots(app=record.app, state="ok", limit=_OTHERS)
        return (await self._client.requester.ask(LIST_SNAPSHOTS, listing)).snapshots

    async def _entry(self, key: str, path: bytes) -> FileEntry:
        """Raises NotFoundError."""
        told = wire_path(path)
        listing = ListFiles(key=key, path=told.path, path_bytes=told.path_bytes, limit=1)
        page = await self._client.requester.ask(LIST_FILES, listing)
        if not page.entries:
            raise NotFoundError("the snapshot has no such file")
        return page.entries[0]

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        return (
            route(
                "/snapshots",
                "read",
                self.listed,
                scope=scope_of_app,
                query=(*_FILTERS, CURSOR),
            ),
            route("/snapshots", "write", self.create, scope=lambda _: "/snapshots/", does=True),
            route("/purge", "write", self.purge, scope=_scope_of_purge, query=(APP,), does=True),
            route(_ONE, "read", self.one, scope=scope_of_snapshot),
            route(
                f"{_ONE}/files",
                "read",
                self.files,
                scope=scope_of_snapshot,
                query=(PATH, CURSOR),
            ),
            route(f"{_ONE}/file", "read", self.file, scope=scope_of_snapshot, query=(PATH,)),
            route(f"{_ONE}/raw", "read", self.raw, scope=scope_of_snapshot, query=(PATH,)),
            route(f"{_ONE}/archive", "read", self._contents.archive, scope=scope_of_snapshot),
            route(f"{_ONE}/diff", "read", self.diff, scope=_scopes_of_diff, query=(_FROM, CURSOR)),
            route(f"{_ONE}/delete", "write", self.delete, scope=scope_of_snapshot, does=True),
            route(f"{_ONE}/hold", "write", self.hold, scope=scope_of_snapshot, does=True),
            route(
                f"{_ONE}/link",
                "write",
                self.link,
                scope=scope_of_snapshot,
                query=(PATH,),
                does=True,
            ),
        )


def scope_of_snapshot(request: Request) -> str:
    """Where a program would find the snapshot that a page is about."""
    return f"/snapshots/{request.path_params['key']}"


def scope_of_app(request: Request) -> str:
    """Where a program would find the snapshots of an app, or of all where none is asked for."""
    app = text_of(request, APP).strip()
    return f"/snapshots/{app}:" if app else "/snapshots/"


def _scope_of_purge(request: Request) -> str:
    return f"/snapshots/{needed(request, APP)}:"


def _scopes_of_diff(request: Request) -> tuple[str, ...]:
    others = request.query_params.getlist(_FROM.name)
    return scope_of_snapshot(request), *(f"/snapshots/{key}" for key in others)


def _day(text: str) -> str | None:
    """A day that was chosen as a time of the wire; a time as it is."""
    if not text:
        return None
    return text if "T" in text else f"{text}T00:00:00Z"


def _crumbs(path: bytes) -> list[tuple[bytes, bytes]]:
    """The name and path of each directory on the way to ``path``, and of itself."""
    names = path.split(b"/") if path else []
    return [(name, b"/".join(names[: number + 1])) for number, name in enumerate(names)]
