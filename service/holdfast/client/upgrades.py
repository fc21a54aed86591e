"""Pools in which a worker is older than the client: what it does not know is not just a failure.

Why: docs/decisions.md, "What older workers would refuse has subjects of its own".
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final, Self, TypeVar

from holdfast.client.discovery import DISCOVERY_SECONDS, find_workers
from holdfast.client.pages import PageT, rows
from holdfast.errors import HoldfastError, InvalidError, UnavailableError
from holdfast.protocol.names import NAMES_FEATURE
from holdfast.protocol.operation import Operation, ReplyT, RequestT
from holdfast.transport.inbox import NoRespondersError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from types import TracebackType

    from holdfast.client.requests import Requester

T = TypeVar("T")

UPGRADE: Final = "workers of the pool know nothing of names: upgrade all workers of the pool"
UPGRADE_FOR_STATES: Final = (
    "workers of the pool know nothing of states: upgrade all workers of the pool"
)


class NewVerbs:
    """Requests that only workers with a ``feature`` listen to; others may be there instead.

    They are made in its context, which raises UnavailableError then. It is no generator: one that
    is left in the middle of a list would be closed before the list that is in it.
    """

    def __init__(
        self, requester: Requester, feature: str = NAMES_FEATURE, upgrade: str = UPGRADE
    ) -> None:
        """Where nobody listens ``upgrade`` says what to do, if a worker lacks the feature."""
        self._requester = requester
        self._feature = feature
        self._upgrade = upgrade

    async def __aenter__(self) -> Self:
        """Requests follow."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raises UnavailableError in place of what nobody listens to."""
        if isinstance(error, NoRespondersError):
            await _check_workers(self._requester, self._feature, self._upgrade, error)

    async def ask(self, operation: Operation[RequestT, ReplyT], request: RequestT) -> ReplyT:
        """The reply. Raises as ``Requester.ask``."""
        async with self:
            return await self._requester.ask(operation, request)

    async def rows(
        self,
        operation: Operation[RequestT, PageT],
        request: RequestT,
        of_page: Callable[[PageT], Iterable[T]],
    ) -> AsyncGenerator[T]:
        """See ``pages.rows``."""
        found = rows(self._requester, operation, request, of_page)
        async with self, aclosing(found):
            async for row in found:
                yield row


@asynccontextmanager
async def on_old_subjects(requester: Requester) -> AsyncGenerator[None]:
    """For requests that a worker that knows no names refuses as it would refuse a typo."""
    try:
        yield
    except InvalidError as error:
        await _check_workers(requester, NAMES_FEATURE, UPGRADE, error)
        raise


async def _check_workers(
    requester: Requester, feature: str, upgrade: str, error: HoldfastError
) -> None:
    """Raises UnavailableError where a worker of the pool is without ``feature``."""
    for worker in await find_workers(requester, DISCOVERY_SECONDS):
        if feature not in worker.features:
            raise UnavailableError(upgrade) from error
