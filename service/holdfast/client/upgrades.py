"""Pools in which a worker is older than the client: what it does not know is not just a failure.

Why: docs/decisions.md, "What older workers would refuse has subjects of its own".
"""

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
UPGRADE_FOR_STATES: Final = (
    "workers of the pool know nothing of states: upgrade all workers of the pool"
)


@asynccontextmanager
async def on_new_subjects(
    requester: Requester, feature: str = NAMES_FEATURE, upgrade: str = UPGRADE
) -> AsyncGenerator[None]:
    """For requests that only workers with ``feature`` listen to; others may be there instead."""
    try:
        yield
    except NoRespondersError as error:
        await _check_workers(requester, feature, upgrade, error)
        raise


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
