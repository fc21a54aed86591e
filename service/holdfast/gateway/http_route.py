"""A route is a value: path, right, parameters and answers. The document follows from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.errors import HoldfastError
    from holdfast.gateway.access import ScopeVerb
    from holdfast.gateway.problems import HttpError

    Handle = Callable[[Request], Awaitable[Response]]
    ShowFailure = Callable[[Request, HoldfastError | HttpError], Response]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter or header. ``kind`` is what msgspec would take its text for."""

    name: str
    about: str
    kind: Any = str
    required: bool = False
    many: bool = False


ROUTE: Final = "holdfast.route"
"""In the scope of a request: the pattern of the path that answers it."""

BYTES: Final = bytes
"""Instead of a message: whatever bytes."""

EVENTS: Final = Iterator
"""Instead of a message: server-sent events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """One status. ``message`` is the type of its JSON, or BYTES; without it there is nothing.

    ``has_bytes``: it may be bytes, too. Failures have a problem.
    """

    about: str
    message: Any = None
    has_bytes: bool = False
    media_type: str | None = None


ABSENT: Final = HttpAnswer(about="There is none.")
CONTENT: Final[Mapping[int, HttpAnswer]] = {
    200: HttpAnswer(about="All of it.", message=BYTES),
    206: HttpAnswer(about="Ranges of it.", message=BYTES),
    304: HttpAnswer(about="You have it."),
    404: ABSENT,
    412: HttpAnswer(about="A condition does not hold."),
    416: HttpAnswer(about="It has no such range."),
}
"""The answers of a read of bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRoute:
    """One method of a path. ``path`` is a pattern such as ``/store/{name:any}``.

    ``body`` is the type of its JSON, or BYTES; ``known`` are fields of it that are not sent.
    ``scope`` gives the canonical path of what a request asks for, or all of them, which ``Access``
    judges. ``show_failure`` is that of a page for people: how it tells of a failure, if not by a
    problem. A page takes the session's cookie as well as a token, and is not in the document.
    """

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    path: str
    verb: ScopeVerb
    summary: str
    handle: Handle
    answers: Mapping[int, HttpAnswer]
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    body: Any = None
    known: tuple[str, ...] = ()
    scope: Callable[[Request], str | tuple[str, ...]] = field(
        default=lambda request: str(request.scope["path"])
    )
    show_failure: ShowFailure | None = None

    @property
    def is_page(self) -> bool:
        """Whether people look at it."""
        return self.show_failure is not None


reading: Final = partial(HttpRoute, method="GET", verb="read")
"""A route that is read from."""
