"""The index is kept up to date by one task that follows the changes of the bucket of names.

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
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.deadline import look_at, seconds_left
from holdfast.errors import HoldfastError, UnavailableError
from holdfast.repository.names.index.census import Census
from holdfast.repository.names.index.table import NOT_READY, Table, TableThread
from holdfast.stores.record_ports import MAX_CHANGES, Changed, Changes, Extent, RecordStore
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


SETTLE_SECONDS: Final = 10.0
"""Seconds a list waits for its round."""

FIRST_IDLE_SECONDS: Final = 0.1
LONGEST_IDLE_SECONDS: Final = 1.0
"""Between two rounds that nobody waits for: the longer the less there is to read."""

_FIRST_LAG_SECONDS: Final = 0.002
_LONGEST_LAG_SECONDS: Final = 0.2
_LAG_SECONDS: Final = 2.0
"""After so long behind the leader, the leader is asked again: it may have lost something."""

_FIRST_RETRY_SECONDS: Final = 0.1
_LONGEST_RETRY_SECONDS: Final = 2.0
_NOT_SETTLED: Final = "this worker's index of names did not catch up in time: try again"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """The state of the index. ``names``: their number, deleted ones aside.

    It has read up to the revision ``position``; the store had got to ``last`` in the last round.
    ``rebuilt``: how often it was built anew.
    """

    is_ready: bool = False
    names: int = 0
    position: int = 0
    last: int = 0
    rebuilt: int = 0


class Follower:
    """Takes the changes of a store into a table, and answers from there."""

    def __init__(self, records: RecordStore, *, monotonic: Callable[[], float]) -> None:
        """``monotonic`` gives seconds that only rise."""
        self._records = records
        self._monotonic = monotonic
        self._table = TableThread()
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._wanted = asyncio.Event()
        self._next_round: asyncio.Future[None] | None = None
        self._state = IndexState()
        self._census = Census()
        self._created = ""
        self._read_last: Changed | None = None
        self._ahead: Sequence[Changed] = ()
        self._removed = 0

    @property
    def state(self) -> IndexState:
        """Its state now."""
        return replace(self._state, is_ready=self._ready.is_set(), names=self._table.names)

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow())

    async def aclose(self) -> None:
        """End, and give the file back. May be repeated."""
        self._ready.clear()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        _fail(self._take_waiting(), UnavailableError(NOT_READY))
        await self._table.aclose()

    async def wait_ready(self) -> None:
        """Wait until the index is built."""
        await self._ready.wait()

    async def settled[Found](self, work: Callable[[Table], Found]) -> Found:
        """The result of ``work`` on a table that lacks nothing acknowledged before the call.

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
        return await self._table.ask(work)

    def _check_ready(self) -> None:
        if not self._ready.is_set():
            raise UnavailableError(NOT_READY)

    async def _follow(self) -> None:
        """Build the index and keep it up to date, and again once it is in doubt."""
        backoff = _retries()
        while True:
            try:
                await self._build()
                backoff = _retries()
                await self._keep_up()
            except _OtherStoreError as error:
                log.warning("names_index_in_doubt", reason=str(error))
            except (OSError, sqlite3.Error) as error:
                log.warning("names_index_failed", error=str(error))
            except Exception:
                log.exception("names_index_failed")
            self._ready.clear()
            self._state = replace(self._state, rebuilt=self._state.rebuilt + 1)
            _fail(self._take_waiting(), UnavailableError(NOT_READY))
            await backoff.wait()

    async def _build(self) -> None:
        """Read everything there is into a new table."""
        began = self._monotonic()
        await self._table.make_anew()
        self._census, self._created = Census(), ""
        self._read_last, self._ahead, self._removed = None, (), 0
        self._state = replace(self._state, position=0)
        await self._round()
        await self._table.ask(Table.find_digests)
        seconds = self._monotonic() - began
        self._ready.set()
        log.info("names_index_built", names=self._table.names, seconds=round(seconds, 3))

    async def _keep_up(self) -> None:
        """Take rounds, at once where a list waits."""
        idle_seconds = FIRST_IDLE_SECONDS
        while True:
            position = self._state.position
            await self._round()
            has_read = self._state.position > position
            idle_seconds = FIRST_IDLE_SECONDS if has_read else idle_seconds * 2
            idle_seconds = min(idle_seconds, LONGEST_IDLE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(idle_seconds):
                    await self._wanted.wait()

    async def _round(self) -> None:
        """Catch up, trying again while the store cannot be read; those who waited are told."""
        backoff = _retries()
        is_first = True
        while True:
            waiting = self._take_waiting()
            try:
                await self._catch_up()
            except HoldfastError as error:
                _fail(waiting, UnavailableError(error.detail))
                if is_first:
                    log.warning("names_not_followed", code=error.code, detail=error.detail)
                is_first = False
                await backoff.wait()
            except BaseException:
                _fail(waiting, UnavailableError(NOT_READY))
                raise
            else:
                if waiting is not None:
                    waiting.set_result(None)
                return

    def _take_waiting(self) -> asyncio.Future[None] | None:
        """Those who wait for the round that begins now. Later ones wait for the next."""
        waiting, self._next_round = self._next_round, None
        self._wanted.clear()
        return waiting

    async def _catch_up(self) -> None:
        """Lack nothing that was acknowledged before. Raises _OtherStoreError."""
        extent = await self._extent()
        while not await self._has_reached(extent):
            extent = await self._extent()
        await self._take_in()
        records = await self._table.ask(lambda table: table.keys)
        removed, self._removed = self._removed, 0
        if not self._census.is_right(extent.keys, records=records, removed=removed):
            raise _OtherStoreError("it has another number of keys than its changes tell of")

    async def _extent(self) -> Extent:
        """The extent of the store. Raises _OtherStoreError."""
        extent = await self._records.extent()
        self._created = self._created or extent.created
        if extent.created != self._created:
            raise _OtherStoreError("it was made anew")
        if extent.last < self._state.position:
            raise _OtherStoreError("its last revision went down")
        self._state = replace(self._state, last=extent.last)
        return extent

    async def _has_reached(self, extent: Extent) -> bool:
        """Read up to ``extent``. False where that took several pages: see the module's text."""
        lag = Backoff(_FIRST_LAG_SECONDS, _LONGEST_LAG_SECONDS, within_seconds=_LAG_SECONDS)
        # The last change comes again, unless its record has changed.
        after = 0 if self._read_last is None else self._read_last.revision - 1
        while self._state.position < extent.last:
            page = await self._read(after)
            after = self._state.position
            if not page.is_end or (after < extent.last and not await lag.wait()):
                return False
        return True

    async def _read(self, after: int) -> Changes:
        """The page behind ``after``; the one before is taken in meanwhile."""
        reading = self._records.changes(after, limit=MAX_CHANGES)
        page, taken = await asyncio.gather(reading, self._take_in(), return_exceptions=True)
        if isinstance(taken, BaseException):
            raise taken
        if isinstance(page, BaseException):
            raise page
        self._ahead = self._unread(page.changes)
        if self._ahead:
            self._read_last = replace(self._ahead[-1], value=None)
            self._removed += sum(changed.value is None for changed in self._ahead)
        self._state = replace(self._state, position=max(page.position, self._state.position))
        return page

    async def _take_in(self) -> None:
        """Have the page that was read last in the table, too."""
        ahead, self._ahead = self._ahead, ()
        if ahead:
            await self._table.ask(partial(Table.apply, changes=ahead))

    def _unread(self, changes: Sequence[Changed]) -> Sequence[Changed]:
        """Those that were not read yet. Raises _OtherStoreError where the last is another."""
        last = self._read_last
        if last is None or not changes or changes[0].revision > last.revision:
            return changes
        if replace(changes[0], value=None) != last:
            raise _OtherStoreError("the change that was read last is another now")
        return changes[1:]


class _OtherStoreError(Exception):
    """The store is not, or no more, what the index was built from."""


def _retries() -> Backoff:
    return Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)


def _fail(waiting: asyncio.Future[None] | None, error: HoldfastError) -> None:
    if waiting is not None:
        waiting.set_exception(error)
