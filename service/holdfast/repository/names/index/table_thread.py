"""The table of an index, and the one thread in which it is made, used and closed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.errors import UnavailableError
from holdfast.repository.names.index.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_READY: Final = "this worker's index of names is not ready yet: try again"


class TableThread:
    """Has no table at first. Begun work is done, even if nobody waits for it any more."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="names")
        self._table: Table | None = None
        self._is_closed = False

    @property
    def names(self) -> int:
        """The table's number of names."""
        table = self._table
        return 0 if table is None else table.names

    async def make_anew(self) -> None:
        """An empty table from here on. Raises OSError, sqlite3.Error."""
        await self._run(self._make_anew)

    async def ask[Found](self, work: Callable[[Table], Found]) -> Found:
        """The result of ``work``. Raises UnavailableError where there is no table."""
        return await self._run(partial(self._ask, work))

    async def aclose(self) -> None:
        """Give the file back. May be repeated."""
        if not self._is_closed:
            await self._run(self._drop)
            self._is_closed = True
            self._executor.shutdown()

    async def _run[Found](self, work: Callable[[], Found]) -> Found:
        if self._is_closed:
            raise UnavailableError(NOT_READY)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _make_anew(self) -> None:
        self._drop()
        self._table = Table()

    def _ask[Found](self, work: Callable[[Table], Found]) -> Found:
        if self._table is None:
            raise UnavailableError(NOT_READY)
        return work(self._table)

    def _drop(self) -> None:
        if self._table is not None:
            table, self._table = self._table, None
            table.close()
