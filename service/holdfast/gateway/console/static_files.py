"""The files that pages are shown with: one style, one script, one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from holdfast.errors import NotFoundError
from holdfast.gateway.console.pages import GUARDS, STATIC
from holdfast.gateway.content import IMMUTABLE
from holdfast.gateway.route import HttpAnswer, HttpRoute, Parameter

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast.gateway.console.pages import Pages

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_MARK: Final = Parameter(name="v", about="Changes with the file, so browsers keep it for ever.")


class StaticFiles:
    """``/console/static/{file}``: open to everybody, and the same everywhere."""

    def __init__(self, pages: Pages) -> None:
        """The files are read once."""
        self._pages = pages
        self._files = {
            path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in STATIC.iterdir()
        }

    async def file(self, request: Request) -> Response:
        """``GET /console/static/{file}``."""
        found = self._files.get(str(request.path_params["file"]))
        if found is None:
            msg = "there is no such file"
            raise NotFoundError(msg)
        data, media_type = found
        headers = {**GUARDS, "Cache-Control": IMMUTABLE}
        return Response(data, headers=headers, media_type=media_type)

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        return (
            HttpRoute(
                method="GET",
                path="/console/static/{file}",
                verb="open",
                summary="A file of the console.",
                handle=self.file,
                answers={200: HttpAnswer(about="It."), 404: HttpAnswer(about="There is none.")},
                query=(_MARK,),
                show_failure=self._pages.failure,
            ),
        )
