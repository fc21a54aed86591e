"""What keeps the index up to date: one task that follows the changes of the bucket of names.

It goes in rounds. Each asks the believed leader how far the store has come, and reads on until the
index lacks nothing that was acknowledged before. A list waits for a round that began after the list
came, which all that came meanwhile share; without any the next begins within a second.

A page may come from any replica, one that lags too, and a record that is changed moves behind what
a page before has read. So one page that says it was the last settles a round, and several do only
once the leader is asked again: where it has nothing behind the position, no page came from further.

Each round also looks whether the store is the one that was followed: `created`, the last revision,
the change read last, and the number of keys (`census`). Otherwise the index is built anew.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.deadline import look_at, seconds_left
from holdfast.errors import HoldfastError, UnavailableError
from holdfast.repository.names.index.census import Census
from holdfast.repository.names.index.table import Table
from holdfast.stores.ports import MAX_CHANGES
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from holdfast.stores.ports import Changed, Changes, Extent, RecordStore

SETTLE_SECONDS: Final = 10.0
"""How long a list waits for its round."""

FIRST_IDLE_SECONDS: Final = 0.1
LONGEST_IDLE_SECONDS: Final = 1.0
"""Between two rounds that nobody waits for: the longer the less there is to read."""

_FIRST_LAG_SECONDS: Final = 0.002
_LONGEST_LAG_SECONDS: Final = 0.2
_FIRST_RETRY_SECONDS: Final = 0.1
_LONGEST_RETRY_SECONDS: Final = 2.0
_NOT_READY: Final = "this worker's index of names is not ready yet: try again"
_NOT_SETTLED: Final = "this worker's index of names did not catch up in time: try again"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """How the index is. ``names``: how many it has, the deleted ones aside.

    It has read up to the revision ``position``; the store had got to ``last`` in the last round.
    ``rebuilt``: how often it was built anew. ``built_seconds``: how long it took the last time;
    None until it was.
    """

    is_ready: bool = False
    names: int = 0
    position: int = 0
    last: int = 0
    rebuilt: int = 0
    built_seconds: float | None = None


class Follower:
    """Has the table, in a thread of its own."""

    def __init__(
        self, records: RecordStore, directory: Path | None, *, monotonic: Callable[[], float]
    ) -> None:
        """The table lies in ``directory``; None: where temporary files do."""
        self._records = records
        self._directory = directory
        self._monotonic = monotonic
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="names")
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._next_round: asyncio.Future[None] | None = None
        self._state = IndexState()
        self._table: Table | None = None
        self._census = Census()
        self._created = ""
        self._read_last: Changed | None = None
        self._removed = 0

    @property
    def state(self) -> IndexState:
        """How it is now."""
        return replace(self._state, names=self._table.names if self._table is not None else 0)

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow())

    async def aclose(self) -> None:
        """End, and give the file back. May be repeated."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._fail(self._take_round(), UnavailableError(_NOT_READY))
        self._state = replace(self._state, is_ready=False)
        await self._in_thread(self._drop)
        self._thread.shutdown()

    async def settled[Found](self, work: Callable[[Table], Found]) -> Found:
        """What ``work`` finds in the table, which lacks nothing acknowledged before the call.

        Raises UnavailableError while the index is being built, and where it does not catch up.
        """
        self._check_ready()
        if self._next_round is None:
            self._next_round = asyncio.get_running_loop().create_future()
            self._next_round.add_done_callback(look_at)
        self._wanted.set()
        try:
            async with asyncio.timeout(seconds_left(SETTLE_SECONDS)):
                await asyncio.shield(self._next_round)
        except TimeoutError as error:
            raise UnavailableError(_NOT_SETTLED) from error
        self._check_ready()
        return await self.known(work)

    async def known[Found](self, work: Callable[[Table], Found]) -> Found:
        """What ``work`` finds in the table as it is. Raises UnavailableError if there is none."""
        return await self._in_thread(partial(self._ask, work))

    def _check_ready(self) -> None:
        if not self._state.is_ready:
            raise UnavailableError(_NOT_READY)

    async def _follow(self) -> None:
        """Build the index and keep it up to date, and again once it is in doubt."""
        backoff = Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        while True:
            try:
                await self._build()
                backoff = Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
                await self._keep_up()
            except _OtherStoreError as error:
                log.warning("names_index_in_doubt", reason=str(error))
            except sqlite3.Error as error:
                log.warning("names_index_failed", error=str(error))
            except Exception:
                log.exception("names_index_failed")
            self._state = replace(self._state, is_ready=False, rebuilt=self._state.rebuilt + 1)
            self._fail(self._take_round(), UnavailableError(_NOT_READY))
            await backoff.wait()

    async def _build(self) -> None:
        """Read everything there is into a new table."""
        began = self._monotonic()
        await self._in_thread(self._open)
        self._census, self._created, self._read_last, self._removed = Census(), "", None, 0
        self._state = replace(self._state, position=0)
        backoff = Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        while not await self._round():
            await backoff.wait()
        await self.known(Table.find_digests)
        seconds = self._monotonic() - began
        self._state = replace(self._state, is_ready=True, built_seconds=seconds)
        log.info("names_index_built", names=self.state.names, seconds=round(seconds, 3))

    async def _keep_up(self) -> None:
        """Take rounds, at once where a list waits."""
        backoff = Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        idle_seconds = FIRST_IDLE_SECONDS
        while True:
            position = self._state.position
            if not await self._round():
                await backoff.wait()
                continue
            backoff = Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
            has_read = self._state.position > position
            idle_seconds = FIRST_IDLE_SECONDS if has_read else idle_seconds * 2
            idle_seconds = min(idle_seconds, LONGEST_IDLE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(idle_seconds):
                    await self._wanted.wait()

    async def _round(self) -> bool:
        """Tell those who wait for it how it went. False: the store could not be read."""
        waiting = self._take_round()
        try:
            await self._catch_up()
        except HoldfastError as error:
            log.warning("names_not_followed", code=error.code, detail=error.detail)
            self._fail(waiting, UnavailableError(error.detail))
            return False
        except BaseException:
            self._fail(waiting, UnavailableError(_NOT_READY))
            raise
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        return True

    def _take_round(self) -> asyncio.Future[None] | None:
        """Those who wait for the round that begins now. Who comes later waits for the next."""
        waiting, self._next_round = self._next_round, None
        self._wanted.clear()
        return waiting

    def _fail(self, waiting: asyncio.Future[None] | None, error: HoldfastError) -> None:
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    async def _catch_up(self) -> None:
        """Lack nothing that was acknowledged before. Raises _OtherStoreError."""
        extent = await self._asked()
        while not await self._has_reached(extent):
            extent = await self._asked()
        records = await self.known(lambda table: table.keys)
        removed, self._removed = self._removed, 0
        if not self._census.is_right(extent.keys, records=records, removed=removed):
            msg = "it has another number of keys than its changes tell of"
            raise _OtherStoreError(msg)

    async def _asked(self) -> Extent:
        """How far the store has come. Raises _OtherStoreError."""
        extent = await self._records.extent()
        self._created = self._created or extent.created
        if extent.created != self._created:
            msg = "it was made anew"
            raise _OtherStoreError(msg)
        if extent.last < self._state.position:
            msg = "its last revision went down"
            raise _OtherStoreError(msg)
        self._state = replace(self._state, last=extent.last)
        return extent

    async def _has_reached(self, extent: Extent) -> bool:
        """Read up to ``extent``. False where that took several pages: see the module's text."""
        lag = Backoff(_FIRST_LAG_SECONDS, _LONGEST_LAG_SECONDS)
        after = self._before_read_last()
        while self._state.position < extent.last:
            page = await self._records.changes(after, limit=MAX_CHANGES)
            await self._take_in(page)
            after = self._state.position
            if not page.is_end:
                return False
            if after < extent.last:
                await lag.wait()
        return True

    def _before_read_last(self) -> int:
        """From where to read so that the last change comes again, unless its record has changed."""
        return self._read_last.revision - 1 if self._read_last is not None else 0

    async def _take_in(self, page: Changes) -> None:
        changes = self._unread(page.changes)
        if changes:
            await self.known(partial(Table.apply, changes=changes))
            self._read_last = replace(changes[-1], value=None)
            self._removed += sum(changed.value is None for changed in changes)
        self._state = replace(self._state, position=max(page.position, self._state.position))

    def _unread(self, changes: Sequence[Changed]) -> Sequence[Changed]:
        """Those behind the position. Raises _OtherStoreError where what was read is another."""
        last = self._read_last
        if last is None or not changes or changes[0].revision > last.revision:
            return changes
        if replace(changes[0], value=None) != last:
            msg = "what was read last is another change now"
            raise _OtherStoreError(msg)
        return changes[1:]

    async def _in_thread[Found](self, work: Callable[[], Found]) -> Found:
        """What ``work`` finds. It is done even if nobody waits for it any more."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _ask[Found](self, work: Callable[[Table], Found]) -> Found:
        if self._table is None:
            raise UnavailableError(_NOT_READY)
        return work(self._table)

    def _open(self) -> None:
        self._drop()
        self._table = Table(self._directory)

    def _drop(self) -> None:
        if self._table is not None:
            table, self._table = self._table, None
            table.close()


class _OtherStoreError(Exception):
    """The store is not, or no more, what the index was built from."""
