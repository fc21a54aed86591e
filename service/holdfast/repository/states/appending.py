"""Appends: those that arrive for one log while a group is on its way go as the next group.

A worker's knowledge of where a log ends is a hint for the compare-and-set and for nothing else.
Where another worker was first, what it has written is read from a believed leader, and each request
is judged again. While it is not known what came of a group nothing else is written to that log, and
the same group is sent again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from holdfast.deadline import Gathering, seconds_left
from holdfast.domain.blob_names import check_state_name, name_key
from holdfast.domain.commands import check_command
from holdfast.domain.hlc import ZERO, Hlc, check_drift, later, parse_hlc
from holdfast.domain.limits import MAX_COMMANDS
from holdfast.domain.op_id import is_repeat, split_op_id
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InternalError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    TooLargeError,
    UnavailableError,
)
from holdfast.repository.states.convoy import Convoy
from holdfast.repository.states.groups import GroupedOp, encode_group
from holdfast.repository.states.logs import LogPlace
from holdfast.repository.states.op_ids import MAX_OP_IDS_IN_ALL, AppendedRun
from holdfast.repository.states.record import check_same
from holdfast.repository.states.tail import TailReader
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from holdfast.repository.states.groups import Command
    from holdfast.repository.states.record import Lineage
    from holdfast.repository.states.skew import ClockSkew
    from holdfast.repository.states.states import StateRecords
    from holdfast.repository.states.tail import Tail
    from holdfast.sources import Sources

MAX_GROUP_BYTES: Final = 512 * 1024
"""Bytes of commands in one group, unless one request has more."""

MAX_APPEND_SECONDS: Final = 60.0
"""Seconds an append may be waited for: no attempt comes later than its Op-Id is remembered."""

MAX_LOGS: Final = 16_384
"""Logs whose end a worker knows."""

_LOGS_BETWEEN_LOOKS: Final = 256
_FIRST_WAIT_SECONDS: Final = 0.002
_LONGEST_WAIT_SECONDS: Final = 0.5
_EVERYTHING: Final = 2**53
"""The known index of a caller that names none."""

_NO_LOG: Final = "there is no log of that name"
_OVERHEAD_BYTES: Final = 2048
"""Bytes of a group, or a page, of one command beside it."""

_COMMAND_BYTES: Final = 96
"""Bytes of a message for each command, beside itself."""

_OP_BYTES: Final = 128
_TOO_LATE: Final = "the request's time was over before the log was asked to write"
log = structlog.get_logger(__name__)


class _Member(msgspec.Struct, eq=False, kw_only=True):
    """One request to append. ``at`` is when it came, by the loop's clock.

    ``expected`` is the index that the last command must have, None where it may have any;
    ``lineage`` is that of the log that it is meant for.
    """

    commands: Sequence[Command]
    size: int
    expected: int | None
    lineage: Lineage | None
    hlc: Hlc
    op_id: str | None
    at: float
    until: float
    waiters: list[asyncio.Future[AppendedRun]] = msgspec.field(default_factory=list)

    def is_wanted(self) -> bool:
        """Whether somebody still waits for it."""
        for waiter in self.waiters:  # noqa: SIM110  (one, as a rule: a generator costs more)
            if not waiter.done():
                return True
        return False

    def answer(self, run: AppendedRun) -> None:
        """The commands are in the log."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(run)

    def refuse(self, error: HoldfastError) -> None:
        """They are not, or nobody knows."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(error)


class Appender:
    """Appends to the logs of all states."""

    def __init__(
        self, states: StateRecords, skew: ClockSkew, *, sources: Sources, max_bytes: int
    ) -> None:
        """``skew`` tells whether this worker's clock may be used.

        ``max_bytes`` is what one message may carry.
        """
        self._states = states
        self._skew = skew
        self._sources = sources
        self._max_bytes = max_bytes - _OVERHEAD_BYTES
        self._max_group_bytes = min(MAX_GROUP_BYTES, max_bytes // 2)
        self._logs: dict[str, _Log] = {}
        self._added = 0

    async def append(
        self,
        name: str,
        commands: Sequence[Command],
        *,
        expected: int | None = None,
        lineage: Lineage | None = None,
        hlc: str | None = None,
        op_id: str | None = None,
    ) -> AppendedRun:
        """Append ``commands``, all or none, if the last command has the index ``expected``.

        0 stands for none; None for any. With a ``lineage``, only to the log that has it: nothing
        of what it had up to ``expected``, or at all, was taken back since. A repeat with the same
        ``op_id`` is answered as the first.
        Raises InvalidError, TooLargeError, NotFoundError (no log), ConflictError (with the index),
        QuotaExceededError, UnavailableError, OutcomeUnknownError, CorruptError.
        """
        check_state_name(name)
        member = self._member(commands, expected, lineage, hlc, op_id)
        run = await self._log(name).add(member)
        self._states.totals.requests += 1
        return run

    def _member(
        self,
        commands: Sequence[Command],
        expected: int | None,
        lineage: Lineage | None,
        hlc: str | None,
        op_id: str | None,
    ) -> _Member:
        if not 1 <= len(commands) <= MAX_COMMANDS:
            msg = f"1 to {MAX_COMMANDS} commands are appended at once"
            raise InvalidError(msg)
        for command in commands:
            if command.is_json:
                check_command(command.data)
        size = sum(command.size + _COMMAND_BYTES for command in commands)
        if size > self._max_bytes:
            msg = f"the commands of one append have at most {self._max_bytes} bytes together"
            raise TooLargeError(msg)
        seen = ZERO
        if hlc is not None:
            seen = parse_hlc(hlc)
        now = asyncio.get_running_loop().time()
        return _Member(
            commands=commands,
            size=size if op_id is None else size + _OP_BYTES,
            expected=expected,
            lineage=lineage,
            hlc=seen,
            op_id=op_id,
            at=now,
            until=now + seconds_left(MAX_APPEND_SECONDS),
        )

    def _log(self, name: str) -> _Log:
        found = self._logs.pop(name, None)
        if found is None:
            self._added += 1
            if len(self._logs) >= MAX_LOGS or self._added % _LOGS_BETWEEN_LOOKS == 0:
                self._make_room()
            found = _Log(name, self._states, self._skew, self._sources, self._max_group_bytes)
        self._logs[name] = found  # the last is the latest used
        return found

    def _make_room(self) -> None:
        """Forget the logs unused for longest: they can be read again."""
        op_ids = sum(found.op_ids for found in self._logs.values())
        for name, found in list(self._logs.items()):
            if len(self._logs) <= MAX_LOGS - _LOGS_BETWEEN_LOOKS and op_ids < MAX_OP_IDS_IN_ALL:
                break
            if found.is_idle:
                op_ids -= found.op_ids
                del self._logs[name]


class _Log:
    """One log, as this worker appends to it."""

    def __init__(
        self, name: str, states: StateRecords, skew: ClockSkew, sources: Sources, max_bytes: int
    ) -> None:
        """``max_bytes`` are those of a group of several requests."""
        self._max_bytes = max_bytes
        self._name = name
        self._key = name_key(name)
        self._states = states
        self._skew = skew
        self._sources = sources
        self._waiting: deque[_Member] = deque()
        self._commands = 0
        self._bytes = 0
        self._by_op_id: dict[str, _Member] = {}
        self._tail: Tail | None = None
        self._tails = TailReader(states, name, monotonic=sources.monotonic)
        self._flying = 0
        self._convoy = Convoy()
        self._patience: asyncio.TimerHandle | None = None
        self._gathering = Gathering(self._take, at_once=1)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, or is on its way."""
        return not self._waiting and not self._flying

    @property
    def op_ids(self) -> int:
        """The number of known Op-Ids."""
        return len(self._tail.ops) if self._tail is not None else 0

    def add(self, member: _Member) -> asyncio.Future[AppendedRun]:
        """Have ``member`` appended with what else comes; or share the answer of its first try.

        Raises ConflictError.
        """
        waiter: asyncio.Future[AppendedRun] = asyncio.get_running_loop().create_future()
        first = self._first_try(member.op_id)
        if first is not None:
            first.waiters.append(waiter)
            first.until = max(first.until, member.until)
        else:
            member.waiters.append(waiter)
            self._waiting.append(member)
            self._weigh(member, 1)
            if member.op_id is not None:
                self._by_op_id[split_op_id(member.op_id)[0]] = member
            self._gathering.schedule()
        return waiter

    def _first_try(self, op_id: str | None) -> _Member | None:
        """A request of the same Op-Id that is not answered yet. Raises ConflictError."""
        if op_id is None:
            return None
        first = self._by_op_id.get(split_op_id(op_id)[0])
        return first if first is not None and is_repeat(first.op_id, op_id) else None

    def _take(self) -> Coroutine[Any, Any, None] | None:
        """The next group of waiting members."""
        is_full = self._fill_a_group()
        if self._convoy.waits(len(self._waiting), is_full=is_full):
            return None
        if self._patience is not None:
            self._patience.cancel()
        members: list[_Member] = []
        count = size = 0
        while self._waiting:
            member = self._waiting[0]
            count, size = count + len(member.commands), size + member.size
            if members and not self._has_room(count, size):
                break
            members.append(self._waiting.popleft())
            self._weigh(member, -1)
        return self._fly(members, is_full=is_full) if members else None

    def _weigh(self, member: _Member, sign: int) -> None:
        """Note that ``member`` waits, or with -1 that it does not any more."""
        self._commands += sign * len(member.commands)
        self._bytes += sign * member.size

    def _fill_a_group(self) -> bool:
        """Whether those that wait leave no room in a group for another one like the last."""
        if not self._waiting:
            return False
        last = self._waiting[-1]
        return not self._has_room(self._commands + len(last.commands), self._bytes + last.size)

    def _has_room(self, count: int, size: int) -> bool:
        return count <= MAX_COMMANDS and size <= self._max_bytes

    async def _fly(self, members: list[_Member], *, is_full: bool) -> None:
        self._flying += 1
        begun = self._sources.monotonic()
        try:
            await self._settle(members)
        except HoldfastError as error:
            self._refuse(members, error)
        except Exception:
            log.exception("append_failed")
            self._tail = None
            self._refuse(members, InternalError())
        finally:
            self._flying -= 1
            if not is_full and not any(member.is_wanted() for member in members):
                self._await_callers(len(members), begun)

    def _await_callers(self, answered: int, begun: float) -> None:
        """Have the next group wait for those who were ``answered``, if that is worth it."""
        took = self._sources.monotonic() - begun
        seconds = self._convoy.ended(answered + len(self._waiting), took)
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(seconds, self._wait_no_longer)

    def _wait_no_longer(self) -> None:
        self._convoy.give_up(len(self._waiting))
        self._gathering.schedule()

    def _refuse(self, members: Sequence[_Member], error: HoldfastError) -> None:
        for member in members:
            self._forget(member)
            member.refuse(error)

    def _forget(self, member: _Member) -> None:
        if member.op_id is not None:
            said = split_op_id(member.op_id)[0]
            if self._by_op_id.get(said) is member:
                del self._by_op_id[said]

    async def _settle(self, members: list[_Member]) -> None:
        """Append what may be; all of ``members`` are answered, or wait for the next group."""
        backoff = Backoff(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS)
        while True:
            await self._skew.check()
            if self._tail is None or not self._tails.is_current(self._tail):
                self._tail = await self._tails.read()
            tail = self._tail
            judged = self._judge(members, tail)
            members = judged.left
            if not members:
                return
            if judged.is_doubtful:
                self._tail = await self._tails.caught_up(tail)
            elif not tail.record.log:
                await self._states.begin_log(self._name)
                self._tail = None
            else:
                try:
                    await self._write(members, tail)
                except ConflictError:
                    await backoff.wait()
                    self._tail = await self._tails.caught_up(tail)
                else:
                    return

    def _judge(self, members: Sequence[_Member], tail: Tail) -> _Judged:
        """Answer and refuse members by ``tail``; those to be written behind it are left."""
        left: list[_Member] = []
        deferred: list[_Member] = []
        index, now = tail.place.index, asyncio.get_running_loop().time()
        is_doubtful = False
        for member in members:
            try:
                run = _judge_one(member, tail, now)
            except HoldfastError as error:
                self._refuse([member], error)
                continue
            if run is not None:
                self._forget(member)
                member.answer(run)
                continue
            refusal = self._refusal(member, index, tail)
            if refusal is None:
                left.append(member)
                index += len(member.commands)
            elif left:
                deferred.append(member)  # what is before it may fail
            elif tail.since < member.at:
                is_doubtful = True
                left.append(member)
            else:
                self._refuse([member], refusal)
        self._waiting.extendleft(reversed(deferred))
        for member in deferred:
            self._weigh(member, 1)
        return _Judged(left=left, is_doubtful=is_doubtful)

    def _refusal(self, member: _Member, index: int, tail: Tail) -> HoldfastError | None:
        """Why it cannot go behind the command ``index``, if the log does not have it by then."""
        known = _EVERYTHING if member.expected is None else member.expected
        try:
            if member.hlc is not ZERO:
                check_drift(member.hlc, self._sources.clock())
            check_same(member.lineage, tail.record, known + 1)
        except (InvalidError, ConflictError) as error:
            return error
        is_expected = _holds(member.expected, index, tail.record.base)
        return None if is_expected else _lost(member.expected, tail)

    async def _write(self, members: Sequence[_Member], tail: Tail) -> None:
        """Append one group. Raises ConflictError: another was first, and nothing was written."""
        hlc = later(self._sources.clock(), tail.hlc, *(member.hlc for member in members))
        commands = [command for member in members for command in member.commands]
        first = tail.place.index + 1
        ops: list[GroupedOp] = []
        place = 0
        for member in members:
            if member.op_id is not None:
                ops.append(GroupedOp(member.op_id, place, len(member.commands)))
            place += len(member.commands)
        value = encode_group(tail.record.log, first, hlc, commands, ops)
        since = asyncio.get_running_loop().time()
        sequence = await self._publish(value, tail.place.sequence)
        self._states.totals.note_group(len(commands), len(value))
        last = first + len(commands) - 1
        tail.place, tail.since = LogPlace(sequence, last), since
        tail.hlc = hlc.advanced(len(commands) - 1)
        self._tails.acknowledged(tail)
        self._answer(members, tail, first, hlc)

    def _answer(self, members: Sequence[_Member], tail: Tail, first: int, hlc: Hlc) -> None:
        now = self._sources.monotonic()
        place = 0
        for member in members:
            count = len(member.commands)
            begun = hlc.advanced(place)
            last = begun if count == 1 else begun.advanced(count - 1)
            run = AppendedRun(first + place, count, begun, last, tail.record.lineage)
            if member.op_id is not None:
                self._forget(member)
                tail.ops.note(member.op_id, run, now)
            member.answer(run)
            place += count

    async def _publish(self, value: bytes, expected: int) -> int:
        """The sequence of the group ``value``, once it is known what came of it."""
        message_id = self._sources.new_id()
        try:
            return await self._states.logs.append(
                self._key, value, expected=expected, message_id=message_id
            )
        except OutcomeUnknownError:
            self._tail = None
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """Members ``left`` of a group. If it ``is_doubtful`` the log is to be read before."""

    left: list[_Member]
    is_doubtful: bool


def _judge_one(member: _Member, tail: Tail, now: float) -> AppendedRun | None:
    """Its run, if appended before. Raises UnavailableError, ConflictError: it never will."""
    if not member.is_wanted() or now >= member.until:
        raise UnavailableError(_TOO_LATE)
    return tail.ops.find(member.op_id)


def _holds(expected: int | None, index: int, base: int) -> bool:
    """Whether that is expected of a log whose last command has ``index``."""
    return expected is None or expected == index or (expected == 0 and index == base)


def _lost(expected: int | None, tail: Tail) -> HoldfastError:
    if not tail.record.log:
        return NotFoundError(_NO_LOG)
    index = tail.place.index
    msg = f"the last command of the log is {index}, and {expected or 'none'} was expected"
    return ConflictError(msg, index=index)
