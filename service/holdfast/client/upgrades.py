"""Pools in which a worker is older than the client: what it does not know is not just a failure."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from holdfast.client.discovery import DISCOVERY_SECONDS, find_workers
from holdfast.errors import HoldfastError, InvalidError, UnavailableError
from holdfast.protocol.names import NAMES_FEATURE
from holdfast.transport.inbox import NoRespondersError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.client.requests import Requester

UPGRADE: Final = "workers of the pool know nothing of names: upgrade all workers of the pool"


@asynccontextmanager
async def on_new_subjects(requester: Requester) -> AsyncGenerator[None]:
    """What only workers that know names listen to: where nobody does there may be others."""
    try:
        yield
    except NoRespondersError as error:
        await _check_workers(requester, error)
        raise


@asynccontextmanager
async def on_old_subjects(requester: Requester) -> AsyncGenerator[None]:
    """What a worker that knows no names refuses as it would refuse a typo."""
    try:
        yield
    except InvalidError as error:
        await _check_workers(requester, error)
        raise


async def _check_workers(requester: Requester, error: HoldfastError) -> None:
    """Raises UnavailableError where a worker of the pool knows no names."""
    for worker in await find_workers(requester, DISCOVERY_SECONDS):
        if NAMES_FEATURE not in worker.features:
            raise UnavailableError(UPGRADE) from error
