"""Parts in a disk store that are no blob's.

Their bytes are copied when they become one, so no blob's record ever names them, and a removal
of parts of a commit that is under way has it fail: nobody has to claim them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast.stores.leftover_ports import Naming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime

    from holdfast.stores.disk.staging import StagingFiles
    from holdfast.stores.leftover_ports import StoredCopy


class DiskLeftovers:
    """The `Leftovers` under one root."""

    def __init__(self, staging: StagingFiles) -> None:
        self._staging = staging

    async def copies(self, offset: int) -> Sequence[str]:
        """See Leftovers."""
        return (await asyncio.to_thread(self._staging.names))[offset:]

    async def look(self, copy: str) -> StoredCopy | None:
        """See Leftovers."""
        return await asyncio.to_thread(self._staging.look, copy)

    async def counted(self) -> int:
        """See Leftovers. A directory that cannot be read is an error."""
        return 0

    async def named(self, after: int) -> AsyncIterator[Naming]:
        """See Leftovers. None."""
        del after
        yield Naming()

    async def claim(self, copy: str, *, abandoned: Callable[[datetime], bool]) -> str | None:
        """See Leftovers."""
        del abandoned
        return copy

    async def release(self, copy: str, mark: str) -> None:
        """See Leftovers."""

    async def remove(self, copy: str, mark: str) -> bool:
        """See Leftovers."""
        await asyncio.to_thread(self._staging.discard, copy)
        return True
