"""The deadline of a request, for everything that is done on its way.

It goes along with the task that answers the request, so that a wait below, for a leader say, gives
up a moment before and the answer can still tell what is known. Work that outlives the request (an
upload's commit, an archive) is done without.

Why: docs/decisions.md, "A deadline goes along with the request".
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager
    from types import TracebackType

_deadline: Final[contextvars.ContextVar[float | None]] = contextvars.ContextVar(
    "deadline", default=None
)


_SWEEP_SECONDS: Final = 0.01


class Timers:
    """Many short waits, of which hardly any takes too long, over one timer of the event loop.

    A timer for each would cost as much as what is waited for.
    """

    def __init__(self) -> None:
        self._due: dict[object, tuple[float, Callable[[], object]]] = {}
        self._sweep_at = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def start(self, key: object, at: float, expire: Callable[[], object]) -> None:
        """Call ``expire`` at ``at``, by the loop's clock, unless ``key`` is stopped before."""
        self._due[key] = at, expire
        if at < self._sweep_at:
            self._schedule(at)

    def stop(self, key: object) -> None:
        """Forget ``key``. May be repeated."""
        self._due.pop(key, None)

    def _schedule(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._sweep_at = at
        self._handle = asyncio.get_running_loop().call_at(at, self._sweep)

    def _sweep(self) -> None:
        self._handle, self._sweep_at = None, math.inf
        now = asyncio.get_running_loop().time()
        over = [key for key, (at, _) in self._due.items() if at <= now]
        for key in over:
            entry = self._due.pop(key, None)
            if entry is not None:  # else one before it has stopped it
                entry[1]()
        if self._due:
            next_at = min(at for at, _ in self._due.values())
            self._schedule(max(next_at, now + _SWEEP_SECONDS))


class TimeLimit:
    """End the work inside after ``seconds`` with TimeoutError, and tell it of ``told`` before.

    Like ``asyncio.timeout``, over a timer that is shared, and a `deadline`. Entered once, in a
    task.
    """

    __slots__ = ("_cancelling", "_is_over", "_seconds", "_task", "_timers", "_token", "_told")

    def __init__(self, timers: Timers, seconds: float, *, told: float) -> None:
        self._timers = timers
        self._seconds = seconds
        self._told = told
        self._is_over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            msg = "a time limit is for a task"
            raise RuntimeError(msg)
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        now = task.get_loop().time()
        self._token = _begin_deadline(now + self._told)
        self._timers.start(self, now + self._seconds, self._expire)

    def _expire(self) -> None:
        # However late the loop is: an inner wait that gave up before is to be heard first.
        at = asyncio.get_running_loop().time() + _SWEEP_SECONDS
        self._timers.start(self, at, self._end)

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timers.stop(self)
        _deadline.reset(self._token)
        # A cancellation of the task by others meanwhile is kept.
        is_ours = self._is_over and self._task.uncancel() <= self._cancelling
        if is_ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error


def deadline(seconds: float) -> AbstractContextManager[None]:
    """Give the work inside ``seconds``, or the rest of an earlier deadline if that is less.

    It is told, not enforced: see ``seconds_left``.
    """
    return _Deadline(seconds)


class _Deadline:
    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._token = _begin_deadline(asyncio.get_running_loop().time() + self._seconds)

    def __exit__(self, *_: object) -> None:
        _deadline.reset(self._token)


def _begin_deadline(at: float) -> contextvars.Token[float | None]:
    earlier = _deadline.get()
    return _deadline.set(at if earlier is None else min(at, earlier))


def seconds_left(most: float) -> float:
    """Seconds left: ``most``, or less where the deadline is nearer. Not above 0: it is over."""
    at = _deadline.get()
    if at is None:
        return most
    return min(most, at - asyncio.get_running_loop().time())


def outliving_task[T](work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task for what goes on when the request that began it has been answered."""
    context = contextvars.copy_context()
    context.run(_deadline.set, None)
    return asyncio.get_running_loop().create_task(work, context=context)


def shared_task[T](work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """As `outliving_task`, of work that any number wait for; none may be left when it fails."""
    task = outliving_task(work)
    task.add_done_callback(look_at)
    return task


class Gathering:
    """Work on what has gathered: begun once all that comes in this turn of the loop is here.

    It outlives what asked for it. ``take`` gives the next piece of work, None where there is none.
    Work gathers while ``at_once`` pieces are under way, until one has ended: no timer needed.
    """

    def __init__(self, take: Callable[[], Coroutine[Any, Any, None] | None], at_once: int) -> None:
        self._take = take
        self._at_once = at_once
        self._under_way: set[asyncio.Task[None]] = set()
        self._is_scheduled = False

    def schedule(self) -> None:
        """Something has come."""
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._is_scheduled = False
        while len(self._under_way) < self._at_once and (work := self._take()) is not None:
            task = outliving_task(work)
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self.schedule()


async def first_to_end[T](*works: Coroutine[Any, Any, T]) -> T:
    """The outcome of the work that ends first, whose rank decides of several; none goes on."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_being_cancelled() -> bool:
    """Whether the current task is, and not only something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def look_at(ended: asyncio.Future[Any]) -> None:
    """Take note of how it ended: a failure that nobody waits for any more is nobody's."""
    if not ended.cancelled():
        ended.exception()
