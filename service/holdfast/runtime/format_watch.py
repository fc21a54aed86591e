"""A worker looks now and then whether it still knows the form of what it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from holdfast.stores.deployment import UnfitError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

log = structlog.get_logger(__name__)


class FormatWatch:
    """Stops a worker once its store is upgraded to a form of a later version."""

    def __init__(self, check: Callable[[], Awaitable[object]], stop: asyncio.Event) -> None:
        """``check`` raises UnfitError where that is so, which sets ``stop``."""
        self.is_outdated = False
        self._check = check
        self._stop = stop

    async def look(self) -> None:
        """Look. Raises UnavailableError, CorruptError: what was so before is taken to be so."""
        try:
            await self._check()
        except UnfitError as error:
            log.error("worker_outdated", code=error.code, detail=error.detail)  # noqa: TRY400
            self.is_outdated = True
            self._stop.set()
