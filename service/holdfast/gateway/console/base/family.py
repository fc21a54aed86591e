"""The base of pages that belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from holdfast.gateway.console.base.pages import GUARDS, Pages
from holdfast.gateway.console.base.session import FORM_HEADER, SentForm, check_form, form_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast.client import Client
    from holdfast.gateway.content.bodies import Bodies


class PageFamily:
    """Pages that belong together."""

    def __init__(self, client: Client, pages: Pages, bodies: Bodies) -> None:
        """``pages`` are those of the whole console; ``bodies`` take what is sent."""
        self._client = client
        self._pages = pages
        self._bodies = bodies

    async def _form(self, request: Request) -> SentForm:
        """The form that was sent. Raises HttpError (400; 403 unless it is one of this session)."""
        return await form_of(request, self._bodies)

    def _check_script(self, request: Request) -> None:
        """Raises HttpError (403) unless the script of a page of this session sends the body."""
        check_form(request, request.headers.get(FORM_HEADER, ""))

    def _sent_on(self, at: str) -> Response:
        """Tell the script to go on to the page whose URL is ``at``."""
        return Response(status_code=204, headers={**GUARDS, "Location": at})
