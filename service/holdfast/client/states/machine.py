"""A state as one object of a program: loaded, kept up to date, appended to, and saved.

async with hf.state("orders", apply=apply, initial={}) as orders:
    result = await orders.append({"add": "apple"})

Why: docs/decisions.md, "A state as one object applies commands as the log has them".
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Self

from holdfast.client.states.ahead import Ahead
from holdfast.client.states.api import States, to_append
from holdfast.client.states.appending import Fence, ToAppend
from holdfast.client.states.following import ReadLog, adopt, followed, log_page, replayed
from holdfast.client.states.values import LogCommand, SavedState, positions, value_of
from holdfast.domain.blob_names import check_blob_name
from holdfast.domain.canonical import json_of
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InternalError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from holdfast.client.requests import Requester
    from holdfast.protocol.states import Appended, ExpectedIndex, LoadedState, LogPage, Saved

DEFAULT_SAVE_EVERY: Final = 1000

PAGES_AHEAD: Final = 16
"""Of the log, each of them as much as one message holds, while the state is on its way."""

_FIRST_WAIT_SECONDS: Final = 0.1
_MAX_WAIT_SECONDS: Final = 2.0


class StateMachine:
    """One state, as its log has it: ``Client.state`` makes one. Enter it before anything else.

    It follows the log, so it is the same in every program that has it open, but for the moment
    that commands take to get there. Errors are raised as by ``States``.
    """

    def __init__(
        self,
        states: States,
        requester: Requester,
        name: str,
        *,
        apply: Callable[[Any, Any], Any],
        initial: object,
        save_every: int | None,
        only_writer: bool,
    ) -> None:
        """Made by ``Client.state``. Raises InvalidError."""
        if save_every is not None and save_every < 1:
            raise InvalidError("a state is saved every so many commands, at least 1")
        self._name = check_blob_name(name)
        self._states = states
        self._requester = requester
        self._function = apply
        self._save_every = save_every
        self._fence = Fence(0) if only_writer else None
        self._read = ReadLog(self._name)
        self._state: Any = initial if isinstance(initial, bytes) else value_of(json_of(initial))
        self._index = 0
        self._hlc = ""
        self._saved_index = 0
        self._save_error: HoldfastError | None = None
        self._is_loaded = False
        self._early: dict[int, LogCommand] = {}
        self._under_way: dict[object, int] = {}
        self._results: dict[int, tuple[str, Any]] = {}
        self._waiting: dict[int, asyncio.Future[tuple[str, Any]]] = {}
        self._moved: asyncio.Future[None] | None = None
        self._failure: HoldfastError | None = None
        self._following: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._save_every is None:
            self._save_every = await self._policy()
        await self._load()
        if self._fence is not None:
            self._fence.index = self._index
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._saving is not None and kind is None:
                await asyncio.wait([self._saving])
        finally:
            self._is_loaded = False
            self._release()
            tasks = [task for task in (self._following, self._saving) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _release(self) -> None:
        """Nothing is applied any more: tell whoever waits for it."""
        for index, waiting in self._waiting.items():
            if not waiting.done():
                waiting.set_exception(_not_applied(index))
        self._tell_moved()

    @property
    def state(self) -> Any:
        """The state as the commands so far have made it. Only ``apply`` may change it."""
        return self._state

    @property
    def index(self) -> int:
        """The command that was applied last, 0 before the first."""
        return self._index

    @property
    def hlc(self) -> str:
        """The time of that command by a hybrid logical clock, empty before the first."""
        return self._hlc

    @property
    def saved_index(self) -> int:
        """Up to where the newest save goes that was loaded or made here."""
        return self._saved_index

    @property
    def save_error(self) -> HoldfastError | None:
        """Why it could not be saved when that was due; it is tried again after the next append."""
        return self._save_error

    # --- what a program asks for ---

    async def append(
        self, command: object, *, expected_index: ExpectedIndex = "any", hlc: str | None = None
    ) -> Any:
        """Append a command, and wait until it is applied here; what ``apply`` said of it.

        Raises as ``States.append``, also where the log that was applied here was removed or
        repaired, InternalError once ``apply`` has raised, and OutcomeUnknownError where the state
        is closed before it is applied.
        """
        one = to_append(
            command,
            expected_index=expected_index,
            lineage=self._read.lineage,
            hlc=hlc,
            fence=self._fence,
        )
        return (await self._append(one, [command] if one.data is not None else None))[0]

    async def append_many(
        self,
        commands: Iterable[object],
        *,
        expected_index: ExpectedIndex = "any",
        hlc: str | None = None,
    ) -> list[Any]:
        """As ``append``, of several: all of them or none, one right after the other."""
        texts = [json_of(command) for command in commands]
        if not texts:
            return []
        one = ToAppend(
            texts,
            expected_index=expected_index,
            lineage=self._read.lineage,
            fence=self._fence,
            hlc=hlc,
        )
        return await self._append(one)

    async def refresh(self) -> None:
        """Wait until everything is applied that was appended before, by anybody.

        Raises as ``append``.
        """
        known = self._index  # an own append may make the log meanwhile
        try:
            page = await self._page_from(known + 1)
        except NotFoundError:
            if known:
                raise
            return  # there is no such state yet
        await self.until(page.last_index)

    async def until(self, index: int) -> None:
        """Wait until command ``index`` is applied."""
        while self._index < index:
            self._check()
            if self._moved is None:
                self._moved = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._moved)
        self._check()

    async def save(self) -> Saved:
        """Save the state as it is now. Raises as ``States.save``."""
        self._check()
        index = self._index
        # It is written out before anything is waited for: no command comes between.
        saved = await self._states.save(
            self._name,
            self._state,
            last_applied_index=index,
            last_applied_hlc=self._hlc,
            lineage=self._read.lineage,
        )
        self._saved_index = max(self._saved_index, index)
        self._save_error = None
        return saved

    # --- appending ---

    async def _append(self, one: ToAppend, values: list[Any] | None = None) -> list[Any]:
        self._check()
        key = object()
        self._under_way[key] = self._index
        try:
            reply, before = await self._states.appends.append(self._name, one, ordered=True)
            self._read.lineage = self._read.lineage or reply.lineage
            if self._read.lineage != reply.lineage:
                await self._check_there(reply)
            count = len(one.commands) or 1
            commands = values or [value_of(text) for text in one.commands]
            found = []
            for position, command in zip(positions(reply, before, count), commands, strict=True):
                own = LogCommand(index=position.index, hlc=position.hlc, command=command)
                if self._read.lineage == reply.lineage:  # else it is taken from the log
                    self._take(own)
                found.append(await self._result(own))
        finally:
            del self._under_way[key]
            self._forget_results()
        self._save_if_due()
        return found

    async def _check_there(self, reply: Appended) -> None:
        """Raises ConflictError where what was appended was taken back by now."""
        log = ReadLog(self._name, reply.lineage)
        log.know(reply.index + reply.count - 1)
        try:
            await adopt(self._requester, log, self._read.lineage)
        except ConflictError:
            raise
        except HoldfastError:
            return  # it shows when the log is followed

    async def _result(self, own: LogCommand) -> Any:
        """The result of ``apply`` for ``own``. Raises ConflictError if another is there."""
        hlc, result = await self._applied(own.index)
        if hlc != own.hlc:
            raise ConflictError(f"it was appended as command {own.index}, which a repair took back")
        return result

    async def _applied(self, index: int) -> tuple[str, Any]:
        """The time and the result of command ``index``."""
        if index in self._results:
            return self._results.pop(index)
        if self._failure is None and not self._is_loaded:
            raise _not_applied(index)
        self._check()
        if index <= self._index:
            msg = f"it was appended as command {index}, which was trimmed before it came here"
            raise OutcomeUnknownError(msg)
        waiting: asyncio.Future[tuple[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[index] = waiting
        try:
            return await waiting
        finally:
            self._waiting.pop(index, None)

    def _forget_results(self) -> None:
        """Forget what nobody can wait for: of commands before the oldest append under way."""
        since = next(iter(self._under_way.values()), self._index)
        while self._results and (index := next(iter(self._results))) <= since:
            del self._results[index]

    # --- applying ---

    def _take(self, one: LogCommand) -> None:
        """Apply a command, once all before it are; each one is applied once."""
        if one.index <= self._index:
            return
        self._read.know(one.index)
        self._early[one.index] = one
        while (following := self._early.pop(self._index + 1, None)) is not None:
            self._apply(following)

    def _apply(self, one: LogCommand) -> None:
        try:
            made = self._function(self._state, one.command)
        except Exception as error:
            msg = f"apply raised at command {one.index}: {type(error).__name__}: {error}"
            raise self._fail(InternalError(msg)) from error
        self._state, result = made if isinstance(made, tuple) else (made, made)
        self._index, self._hlc = one.index, one.hlc
        waiting = self._waiting.get(one.index)
        if waiting is not None and not waiting.done():
            waiting.set_result((one.hlc, result))
        elif self._under_way:
            self._results[one.index] = one.hlc, result
        self._tell_moved()

    def _tell_moved(self) -> None:
        if self._moved is not None:
            self._moved.set_result(None)
            self._moved = None

    def _fail(self, error: HoldfastError) -> HoldfastError:
        """Go no further: all that wait, or ask from now on, are told."""
        self._failure = error
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
        self._tell_moved()
        return error

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._is_loaded:
            raise InvalidError("the state is not open: use it inside of async with")

    # --- loading and following ---

    async def _page_from(self, index: int) -> LogPage:
        """The log from a command on, or from where it begins by now.

        Raises NotFoundError, and ConflictError where what is applied here is not in it.
        """
        log = ReadLog(self._name, self._read.lineage)
        while True:
            try:
                return await log_page(self._requester, log, index, limit=1)
            except NotFoundError as error:
                if error.index is None:
                    raise
                index = error.index  # a trim was faster than what follows the log here

    async def _policy(self) -> int:
        try:
            policy = await self._states.policy(self._name)
        except NotFoundError:
            return DEFAULT_SAVE_EVERY
        return policy.save_every or DEFAULT_SAVE_EVERY

    async def _load(self) -> None:
        """Take the newest save that is beyond what is here, and the log behind it."""
        number = -1
        while True:
            newest = await self._newest()
            try:
                await self._take_from(newest)
                break
            except NotFoundError as error:
                if error.index is None and not self._index:
                    break  # there is no such state yet
                if newest is None or newest.number == number:
                    raise
                number = newest.number  # a trim came between
        self._is_loaded = True

    async def _newest(self) -> LoadedState | None:
        """The newest save, if it is beyond what is here; not all of its state may be there."""
        try:
            newest = await self._states.saving.newest(self._name)
        except NotFoundError:
            return None
        is_beyond = newest.last_applied_index > self._index or not self._is_loaded
        return newest if is_beyond else None

    async def _take_from(self, newest: LoadedState | None) -> None:
        """Take a save, while the log behind it is on its way, and then that."""
        first = (self._index if newest is None else newest.last_applied_index) + 1
        if newest is not None:
            await adopt(self._requester, self._read, newest.lineage)
        async with aclosing(self._log(first)) as log:
            if newest is not None:
                self._pass_to(await self._states.saving.newest_whole(newest))
            if first <= self._index + 1:
                await self._take_all(log)
                return
        async with aclosing(self._log(self._index + 1)) as log:  # the save was damaged
            await self._take_all(log)

    def _log(self, first: int) -> Ahead[Sequence[LogCommand]]:
        return Ahead(replayed(self._requester, self._read, first), PAGES_AHEAD)

    async def _take_all(self, log: Ahead[Sequence[LogCommand]]) -> None:
        async for page in log.items():
            for one in page:
                self._take(one)

    def _pass_to(self, saved: SavedState) -> None:
        """Be where a save is, unless that is behind by now."""
        record = saved.record
        if record.last_applied_index > self._index or not self._is_loaded:
            self._state, self._index = saved.state, record.last_applied_index
            self._hlc = record.last_applied_hlc
            self._saved_index = record.last_applied_index
            self._read.know(self._index)
            self._pass_over()

    def _pass_over(self) -> None:
        """Commands that a save includes are not applied here, and nobody is told their results."""
        for index in [index for index in self._early if index <= self._index]:
            del self._early[index]
        for index, waiting in self._waiting.items():
            if index <= self._index and not waiting.done():
                msg = f"it was appended as command {index}, which was trimmed before it came here"
                waiting.set_exception(OutcomeUnknownError(msg))
        self._tell_moved()

    async def _follow(self) -> None:
        """Apply what others append, for as long as the state is open."""
        backoff = Backoff(_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS)
        is_left_behind = False
        while self._failure is None:
            known = self._index  # an own append may make the log while it is asked for
            try:
                if is_left_behind:
                    await self._load()
                    is_left_behind = False
                stream = followed(self._requester, self._read, self._index + 1)
                async with aclosing(stream) as batches:
                    async for batch in batches:
                        backoff = Backoff(_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS)
                        for one in batch:
                            self._take(one)
            except (UnavailableError, RateLimitedError, OutcomeUnknownError) as error:
                if self._requester.connection.is_closed:
                    self._fail(error)
                await backoff.wait()
            except NotFoundError as error:
                if error.index is None and known:
                    self._fail(error)  # it was removed
                is_left_behind = True  # there is no such state yet, or a trim was faster
                await backoff.wait()
            except HoldfastError as error:
                self._fail(error)

    # --- saving ---

    def _save_if_due(self) -> None:
        is_due = self._index - self._saved_index >= (self._save_every or DEFAULT_SAVE_EVERY)
        if is_due and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self._save())

    async def _save(self) -> None:
        index = self._index
        try:
            await self.save()
        except ConflictError:  # another program has saved a later state
            self._saved_index = max(self._saved_index, index)
        except InvalidError as error:
            self._fail(error)
        except HoldfastError as error:
            self._save_error = error


def _not_applied(index: int) -> OutcomeUnknownError:
    msg = f"it was appended as command {index}, and the state was closed before it was applied"
    return OutcomeUnknownError(msg)
