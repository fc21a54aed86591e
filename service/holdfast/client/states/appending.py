"""Appends to logs: what is called while a request is under way goes together in the next one.

Of one name one request is under way at a time, so commands are in the log in the order in which
they were appended, also where a request is repeated. The more wait, the larger a request gets; a
command that is alone does not wait.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw, Struct, field

from holdfast.deadline import Gathering, Timers
from holdfast.domain.blob_names import quote_text
from holdfast.domain.limits import KIB, MAX_COMMANDS
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InternalError,
    InvalidError,
    OutcomeUnknownError,
    TooLargeError,
    UnavailableError,
)
from holdfast.protocol.states import (
    APPEND_BYTES,
    APPEND_COMMANDS,
    AppendBytes,
    AppendCommands,
    Appended,
)
from holdfast.tracing import TRACE

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from holdfast.client.requests import Requester
    from holdfast.protocol.states import ExpectedIndex
    from holdfast.tracing import TraceStep

MOST_SECONDS: Final = 60.0
"""For an append, however long other answers are waited for: workers know an ``Op-Id`` of a log for
two minutes, and a repeat must not come later."""

MOST_BYTES_TOGETHER: Final = 448 * KIB
"""Of the commands of several callers in one request: a group of a log holds 512 KiB."""

MOST_HINTS: Final = 16_384
SHORTEST_SECONDS: Final = 0.001


class Fence:
    """The last command known to a writer that means to be the only one."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        """Behind ``index``, 0 where there is none, nobody else may have appended."""
        self.index = index


class ToAppend(Struct, eq=False):
    """The commands of one caller: JSON ``commands``, or one that is ``data``.

    With a ``lineage`` it is for the log that has it. ``answer`` is the worker's, with how many
    commands of others come before in the same request. ``trace`` is that of the caller.
    """

    commands: Sequence[bytes]
    data: bytes | None = None
    expected_index: ExpectedIndex = "any"
    lineage: str | None = None
    fence: Fence | None = None
    hlc: str | None = None
    sent: bool = False
    trace: TraceStep | None = field(default_factory=TRACE.get)
    answer: asyncio.Future[tuple[Appended, int]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def goes_with(self, other: ToAppend) -> bool:
        """Whether both may be in one request."""
        is_json = self.data is None and other.data is None
        is_any = self.expected_index == other.expected_index == "any"
        is_same = self.fence is other.fence and self.lineage == other.lineage
        return is_json and is_any and is_same

    @property
    def size(self) -> int:
        """In bytes, with what separates commands."""
        return sum(map(len, self.commands)) + len(self.commands)

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` where the answer is waited for."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def expire(self) -> None:
        """Nobody has answered in time."""
        if self.sent:
            self.fail(OutcomeUnknownError("no worker said whether it was appended"))
        else:
            self.fail(UnavailableError("no worker answered in time"))


class Appends:
    """The appends of one client."""

    def __init__(self, requester: Requester) -> None:
        """``requester`` asks the pool."""
        self._requester = requester
        self._queues: dict[str, _Queue] = {}
        self._timers = Timers()
        self._hints: OrderedDict[tuple[str, bool], str] = OrderedDict()

    async def append(self, name: str, one: ToAppend, *, ordered: bool) -> tuple[Appended, int]:
        """The answer. ``ordered``: after everything of that name that was appended before.

        Raises as ``Requester.ask``.
        """
        self._requester.check_usable()
        until = asyncio.get_running_loop().time() + self._seconds()
        if not ordered:
            await self.send(name, [one], until)
            return one.answer.result()
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(self, name)
        queue.add(one, until)
        self._timers.start(one, until, one.expire)
        try:
            return await one.answer
        finally:
            self._timers.stop(one)

    def forget(self, name: str) -> None:
        """Nothing of ``name`` waits any more."""
        self._queues.pop(name, None)

    async def send(self, name: str, together: Sequence[ToAppend], until: float) -> None:
        """Append all of ``together`` by one request. All of them have an answer then.

        It belongs to the trace of the first.
        """
        TRACE.set(together[0].trace)
        try:
            await self._settle(name, together, until)
        except (InvalidError, TooLargeError) as error:
            if len(together) == 1:
                together[0].fail(error)
            else:  # one of them is to blame
                for one in together:
                    await self.send(name, [one], until)
        except HoldfastError as error:
            for one in together:
                one.fail(error)
        finally:
            for one in together:
                one.answer.cancel()  # the loop is ending

    async def _settle(self, name: str, together: Sequence[ToAppend], until: float) -> None:
        log = name, together[0].data is None
        hint = self._hints.get(log)
        commands: list[Raw] = []
        for one in together:
            one.sent = True
            commands.extend(map(Raw, one.commands))
        reply = await self._ask(name, together, commands, until, hint)
        count = len(commands) or 1
        if reply.count != count:
            msg = f"of {count} commands {reply.count} were appended"
            raise InternalError(msg)
        if self._hints.get(log) == hint:  # else another's answer came first: go where that goes
            self._remember(log, reply.append_subject)
        fence = together[0].fence
        if fence is not None:
            fence.index = reply.index + count - 1
        before = 0
        for one in together:
            if not one.answer.done():
                one.answer.set_result((reply, before))
            before += len(one.commands) or 1

    async def _ask(
        self,
        name: str,
        together: Sequence[ToAppend],
        commands: list[Raw],
        until: float,
        hint: str | None,
    ) -> Appended:
        first = together[0]
        seconds = max(until - asyncio.get_running_loop().time(), SHORTEST_SECONDS)
        expected = _expected(first)
        hlc = max([one.hlc for one in together if one.hlc is not None], default=None)
        if first.data is not None:
            header = AppendBytes(
                quoted_name=quote_text(name),
                expected_index=str(expected),
                lineage=first.lineage,
                hlc=hlc,
            )
            return await self._requester.ask(
                APPEND_BYTES, header, first.data, timeout_seconds=seconds, first_subject=hint
            )
        request = AppendCommands(
            name=name, commands=commands, expected_index=expected, lineage=first.lineage, hlc=hlc
        )
        return await self._requester.ask(
            APPEND_COMMANDS, request, timeout_seconds=seconds, first_subject=hint
        )

    def _remember(self, log: tuple[str, bool], subject: str) -> None:
        self._hints[log] = subject
        self._hints.move_to_end(log)
        if len(self._hints) > MOST_HINTS:
            self._hints.popitem(last=False)

    def _seconds(self) -> float:
        return min(self._requester.timeout_seconds, MOST_SECONDS)


def _expected(one: ToAppend) -> ExpectedIndex:
    """The index that the log is to end with. Raises ConflictError where two differ."""
    if one.fence is None:
        return one.expected_index
    said = 0 if one.expected_index == "none" else one.expected_index
    index = one.fence.index
    if said not in ("any", index):
        msg = f"the last command here is {index}, and {one.expected_index} was expected"
        raise ConflictError(msg, index=index)
    return index


class _Queue:
    """The appends to one name, in order."""

    def __init__(self, appends: Appends, name: str) -> None:
        self._appends = appends
        self._name = name
        self._waiting: deque[tuple[ToAppend, float]] = deque()
        self._gathering = Gathering(self._take, at_once=1)

    def add(self, one: ToAppend, until: float) -> None:
        self._waiting.append((one, until))
        self._gathering.schedule()

    def _take(self) -> Coroutine[Any, Any, None] | None:
        """A request with those that have waited longest, as many as go together."""
        taken: list[ToAppend] = []
        last_until, count, size = 0.0, 0, 0
        while self._waiting:
            one, until = self._waiting[0]
            if not one.answer.done():
                count += len(one.commands)
                size += one.size
                fits = count <= MAX_COMMANDS and size <= MOST_BYTES_TOGETHER
                if taken and not (fits and taken[0].goes_with(one)):
                    break
                taken.append(one)
                last_until = until
            self._waiting.popleft()
        if not taken:
            self._appends.forget(self._name)
            return None
        return self._appends.send(self._name, taken, last_until)
