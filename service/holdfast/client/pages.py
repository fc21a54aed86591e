"""Lists and reports that come a page at a time: each answer's ``cursor`` asks for the next."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import msgspec

from holdfast.protocol.operation import Operation, RequestT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from holdfast.client.requests import Requester
    from holdfast.protocol.blobs import BlobPage, VerifyReport
    from holdfast.protocol.files import DiffPage, FilePage, SnapshotVerified
    from holdfast.protocol.names import NameHistory, NamePage
    from holdfast.protocol.retention import PruneReport
    from holdfast.protocol.snapshots import SnapshotPage
    from holdfast.protocol.states import SavePage, StatePage


T = TypeVar("T")
PageT = TypeVar(
    "PageT",
    bound="BlobPage | VerifyReport | NamePage | NameHistory"
    " | SnapshotPage | FilePage | DiffPage | SnapshotVerified | PruneReport"
    " | SavePage | StatePage",
)


async def pages(
    requester: Requester,
    operation: Operation[RequestT, PageT],
    request: RequestT,
    *,
    seconds: float | None = None,
) -> AsyncGenerator[PageT]:
    """Every page, asked for when the one before has been used.

    ``seconds`` is how long a worker may take for one, if that is more than a moment.
    Raises as ``Requester.ask``.
    """
    while True:
        page = await requester.ask(
            operation, request, timeout_seconds=seconds, attempt_seconds=seconds
        )
        yield page
        if page.cursor is None:
            return
        request = msgspec.structs.replace(request, cursor=page.cursor)


async def rows(
    requester: Requester,
    operation: Operation[RequestT, PageT],
    request: RequestT,
    of_page: Callable[[PageT], Iterable[T]],
) -> AsyncGenerator[T]:
    """The finds of ``of_page`` in each page, in order. Raises as ``Requester.ask``."""
    async with aclosing(pages(requester, operation, request)) as found:
        async for page in found:
            for row in of_page(page):
                yield row
