"""The end of a program that was told to stop: in order if that can be, and soon in any case.

A thread cannot be ended from outside, and Python waits for most of them on its way out. One that
reads from a silent pipe, or a file system that does not answer, would keep the process for ever.
All of this is done by signals to the main thread: a thread of Python's that is to end the process
might wait itself.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from holdfast.cli.base import exit_codes
from holdfast.cli.base.exit_codes import exit_code_of
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any, Never

END_SECONDS: Final = 60.0
"""Time for what a program does on its way out: it may stop servers and remove many files."""

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)


class _Overdue:
    """What SIGALRM does: it ends the process with ``status``."""

    def __init__(self, status: int) -> None:
        self._status = status

    def __call__(self, *_: object) -> Never:
        os._exit(self._status)


class _Cancel:
    """What SIGINT and SIGTERM do while an event loop runs: they have it cancel ``task``.

    An exception amid whatever runs would leave a loop or a library with half a step done. The
    process ends soon with ``status``, and at once at the next signal.
    """

    def __init__(self, task: Task[Any], status: int) -> None:
        self.was_called = False
        self._task = task
        self._status = status

    def __call__(self, *_: object) -> None:
        self.was_called = True
        _end_at_once_next(self._status)
        end_soon(self._status)
        loop = self._task.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._task.cancel)


def take_signals(*, is_serving: bool) -> None:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt; the second of them ends the process at once.

    While a command runs in an event loop they cancel it instead: see `run_in_loop`. SIGINT stays
    ignored where it is, as a shell has it for what runs in the background, unless this
    ``is_serving``. For the main thread of a program.
    """
    signal.signal(signal.SIGALRM, _Overdue(exit_codes.INTERRUPTED))
    signal.signal(signal.SIGTERM, _interrupt)
    if is_serving or signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def end_soon(status: int, *, seconds: float | None = None) -> None:
    """Have this process end with ``status`` in ``seconds``, ``END_SECONDS`` by default, at most.

    Said again it is anew. Does nothing unless ``take_signals`` was called: it is not our process.
    """
    if _is_ours():
        signal.signal(signal.SIGALRM, _Overdue(status))
        signal.setitimer(signal.ITIMER_REAL, END_SECONDS if seconds is None else seconds)


def run_in_loop[T](
    command: Callable[[], Coroutine[Any, Any, T]],
    *,
    loop_factory: Callable[[], AbstractEventLoop] | None = None,
) -> T:
    """What ``command`` gives, run in an event loop of its own. Raises what it raises.

    SIGINT and SIGTERM cancel it, which raises KeyboardInterrupt here, and the process ends soon.
    Where the process is not ours, SIGINT alone does so.
    """
    import asyncio  # noqa: PLC0415 - a version and help need no event loop

    async def result() -> T:
        return await task

    runner = asyncio.Runner(loop_factory=loop_factory)
    task = runner.get_loop().create_task(command())
    with _cancelled_by_signals(task, exit_codes.INTERRUPTED) as cancel, runner:
        try:
            return runner.run(result())
        except asyncio.CancelledError:
            if cancel.was_called:
                raise KeyboardInterrupt from None
            raise


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``, in a command, until it ends or SIGINT or SIGTERM. Raises what it raises.

    The process then ends soon with ``exit_codes.OK``: nobody may read what is being printed. SIGINT
    is taken where it was ignored, too: there is no other end.
    """
    import asyncio  # noqa: PLC0415 - as above

    task = asyncio.create_task(work)
    if _is_ours() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    with _cancelled_by_signals(task, exit_codes.OK):
        await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        task.result()


async def ending_soon(work: Coroutine[Any, Any, int], *, seconds: float | None = None) -> int:
    """The status that ``work`` gives; the process ends soon once it has come to an end.

    In ``seconds``, see `end_soon`; at once if it is told to stop then: what the event loop does at
    a signal is over.
    """
    import asyncio  # noqa: PLC0415 - as above

    status = exit_codes.FAILURE
    try:
        status = await work
    except HoldfastError as error:
        status = exit_code_of(error)
        raise
    finally:
        if _is_ours():
            for number in _STOPPING:
                asyncio.get_running_loop().remove_signal_handler(number)
            _end_at_once_next(status)
        end_soon(status, seconds=seconds)
    return status


def _is_ours() -> bool:
    return isinstance(signal.getsignal(signal.SIGALRM), _Overdue)


@contextmanager
def _cancelled_by_signals(task: Task[Any], status: int) -> Iterator[_Cancel]:
    """Have signals that are ours cancel ``task``, and do afterwards what they did before."""
    cancel = _Cancel(task, status)
    former = {number: signal.signal(number, cancel) for number in _STOPPING if _is_taken(number)}
    try:
        yield cancel
    finally:
        for number, handler in former.items():
            if signal.getsignal(number) is cancel:  # else one has come: the next is the second
                signal.signal(number, handler)


def _is_taken(number: signal.Signals) -> bool:
    handler = signal.getsignal(number)
    return handler is _interrupt or isinstance(handler, _Cancel)


def _end_at_once_next(status: int) -> None:
    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _Overdue(status))


def _interrupt(*_: object) -> Never:
    _end_at_once_next(exit_codes.INTERRUPTED)
    end_soon(exit_codes.INTERRUPTED)
    raise KeyboardInterrupt
