"""The files that pages are shown with: one style, one script, one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from holdfast.errors import NotFoundError
from holdfast.gateway.console.base.pages import GUARDS, STATIC, Pages
from holdfast.gateway.content.answers import IMMUTABLE
from holdfast.gateway.http_route import ABSENT, HttpAnswer, HttpRoute, Parameter

if TYPE_CHECKING:
    from starlette.requests import Request


_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_MARK: Final = Parameter(name="v", about="Changes with the file, so browsers keep it for ever.")


def static_route(pages: Pages) -> HttpRoute:
    """``GET /console/static/{file}``: open to everybody, the same everywhere, and read once."""
    files = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in STATIC.iterdir()}

    async def file(request: Request) -> Response:
        found = files.get(str(request.path_params["file"]))
        if found is None:
            raise NotFoundError("there is no such file")
        data, media_type = found
        headers = {**GUARDS, "Cache-Control": IMMUTABLE}
        return Response(data, headers=headers, media_type=media_type)

    return HttpRoute(
        method="GET",
        path="/console/static/{file}",
        verb="open",
        summary="A file of the console.",
        handle=file,
        answers={200: HttpAnswer(about="It."), 404: ABSENT},
        query=(_MARK,),
        show_failure=pages.failure,
    )
