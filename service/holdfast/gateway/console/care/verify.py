"""Reading back: blobs, snapshots and states are compared with their digests, a part at a time.

A part that leaves something to read is answered with a form that asks for the next one and carries
what was found so far. The script sends it by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.client.long_requests import ask_long
from holdfast.domain.blob_names import check_blob_name
from holdfast.domain.digest import parse_digest
from holdfast.errors import UnavailableError
from holdfast.gateway.console.base.asked import NAME, count_of, needed
from holdfast.gateway.console.base.family import PageFamily
from holdfast.gateway.console.snapshots.snapshots import scope_of_snapshot
from holdfast.protocol.blobs import VERIFY_BLOBS, DamagedBlob, VerifyBlobs
from holdfast.protocol.files import VERIFY_SNAPSHOT, DamagedPack, VerifySnapshot

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.gateway.console.base.session import SentForm
    from holdfast.gateway.http_route import HttpRoute

_PART_SECONDS: Final = 120.0
_STATE_SECONDS: Final = 120.0
_SHOWN: Final = 50


@dataclass(slots=True)
class ReadBack:
    """The part read back so far. ``cursor`` is there while something remains.

    ``counts`` are by what was counted, ``bytes`` among them; ``damaged`` are the first sentences of
    ``damaged_count``.
    """

    counts: dict[str, int]
    damaged: list[str] = field(default_factory=list)
    damaged_count: int = 0
    cursor: str | None = None

    def after(self, form: SentForm) -> ReadBack:
        """This part and those before it, which ``form`` carries. Raises InvalidError."""
        counts = {
            name: count + count_of(form.text(name), name) for name, count in self.counts.items()
        }
        damaged = [*form.all_of("damaged"), *self.damaged][:_SHOWN]
        found = count_of(form.text("damaged_count"), "damaged") + self.damaged_count
        return ReadBack(counts, damaged, found, self.cursor)


class VerifyPages(PageFamily):
    """``…/verify`` of blobs, of one of them, of a snapshot and of a state."""

    async def blobs(self, request: Request) -> Response:
        """``POST /console/blobs/verify``."""
        form = await self._form(request)
        asked = VerifyBlobs(cursor=form.text("cursor") or None)
        report = await ask_long(self._client.requester, VERIFY_BLOBS, asked, _PART_SECONDS)
        part = _of_blobs(report.checked, report.bytes, report.damaged, report.cursor)
        return self._shown(request, part.after(form), of="all blobs", back="/blobs")

    async def blob(self, request: Request) -> Response:
        """``POST /console/blobs/{digest}/verify``."""
        await self._form(request)
        digest = parse_digest(str(request.path_params["digest"]))
        found = _of_blobs(0, 0, [], None)
        async for report in self._client.verify(digest):
            found = _of_blobs(report.checked, report.bytes, report.damaged, None)
        return self._shown(request, found, of=digest, back=f"/blobs/{digest}")

    async def snapshot(self, request: Request) -> Response:
        """``POST /console/snapshots/{key}/verify``."""
        form = await self._form(request)
        key = str(request.path_params["key"])
        asked = VerifySnapshot(key=key, cursor=form.text("cursor") or None)
        report = await ask_long(self._client.requester, VERIFY_SNAPSHOT, asked, _PART_SECONDS)
        part = ReadBack(
            {"packs": report.packs, "frames": report.frames, "bytes": report.bytes},
            [_of_pack(pack) for pack in report.damaged],
            max(report.damaged_count, len(report.damaged)),
            report.cursor,
        )
        return self._shown(request, part.after(form), of=key, back=f"/snapshots/{key}")

    async def state(self, request: Request) -> Response:
        """``POST /console/states/verify``. Raises UnavailableError where it takes too long."""
        await self._form(request)
        name = check_blob_name(needed(request, NAME))
        try:
            async with asyncio.timeout(_STATE_SECONDS):
                report = await self._client.states.verify(name)
        except TimeoutError as error:
            msg = "this takes longer than a page can wait: type `holdfast state verify NAME`"
            raise UnavailableError(msg) from error
        counts = {"saves": report.saves, "commands": report.commands}
        found = ReadBack(counts, report.damaged[:_SHOWN], len(report.damaged))
        return self._shown(request, found, of=name, back="/states/one", name=name)

    def _shown(
        self, request: Request, found: ReadBack, *, of: str, back: str, name: str | None = None
    ) -> Response:
        at = self._pages.url(back, name=name)
        return self._pages.show(request, "verified.html", found=found, of=of, back=at)

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        route = self._pages.route
        return (
            route("/blobs/verify", "admin", self.blobs, scope=lambda _: "/blobs/", does=True),
            route(
                "/blobs/{digest}/verify",
                "read",
                self.blob,
                scope=lambda request: f"/blobs/{request.path_params['digest']}",
                does=True,
            ),
            route(
                "/snapshots/{key}/verify",
                "read",
                self.snapshot,
                scope=scope_of_snapshot,
                does=True,
            ),
            route(
                "/states/verify",
                "read",
                self.state,
                scope=lambda request: (
                    f"/state/{needed(request, NAME)}",
                    f"/log/{needed(request, NAME)}",
                ),
                query=(NAME,),
                does=True,
            ),
        )


def _of_blobs(checked: int, size: int, damaged: list[DamagedBlob], cursor: str | None) -> ReadBack:
    sentences = [f"{one.digest} ({one.code}): {one.detail}" for one in damaged]
    return ReadBack({"blobs": checked, "bytes": size}, sentences[:_SHOWN], len(damaged), cursor)


def _of_pack(pack: DamagedPack) -> str:
    needed_by = f", needed by {', '.join(pack.paths)}" if pack.paths else ""
    return f"pack {pack.digest} ({pack.code}): {pack.detail}{needed_by}"
