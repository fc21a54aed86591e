"""The end of a program that was told to stop: in order if that can be, and soon in any case.

A thread cannot be ended from outside, and Python waits for most of them on its way out. One that
reads from a silent pipe, or a file system that does not answer, would keep the process for ever.
All of this is done by signals to the main thread: a thread of Python's that is to end the process
might wait itself.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

from holdfast.cli.base import exit_codes
from holdfast.cli.base.exit_codes import exit_code_of
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, Never

END_SECONDS: Final = 10.0
"""Time for what a program does on its way out."""

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)


class _Overdue:
    """What SIGALRM does: it ends the process with ``status``."""

    def __init__(self, status: int) -> None:
        self._status = status

    def __call__(self, *_: object) -> Never:
        os._exit(self._status)


def take_signals(*, is_serving: bool) -> None:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt; the second of them ends the process at once.

    SIGINT stays ignored where it is, as a shell has it for what runs in the background, unless
    this ``is_serving``. For the main thread of a program.
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


def stop_once(stop: Callable[[], object], status: int) -> None:
    """Have the next SIGINT or SIGTERM call ``stop``, and the process end soon with ``status``.

    The one after that ends it at once. ``stop`` is called in the main thread, between any two
    steps that it makes.
    """

    def stop_now(*_: object) -> None:
        _end_at_once_next(status)
        end_soon(status)
        stop()

    for number in _STOPPING:
        signal.signal(number, stop_now)


async def until_stopped(work: Coroutine[Any, Any, None], status: int = exit_codes.OK) -> bool:
    """Do ``work`` until SIGINT or SIGTERM; whether it came to its end. Raises what it raises.

    Else the process ends soon with ``status``: nobody may read what is being printed.
    """
    import asyncio  # noqa: PLC0415 - as below

    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
    stop_once(lambda: loop.call_soon_threadsafe(task.cancel), status)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return not task.cancelled()


async def ending_soon(work: Coroutine[Any, Any, int]) -> int:
    """The status that ``work`` gives; the process ends soon once it has come to an end.

    At once if it is told to stop then: what the event loop does at a signal is over.
    """
    import asyncio  # noqa: PLC0415 - a version and help need no event loop

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
        end_soon(status)
    return status


def _is_ours() -> bool:
    return isinstance(signal.getsignal(signal.SIGALRM), _Overdue)


def _end_at_once_next(status: int) -> None:
    for number in _STOPPING:
        signal.signal(number, _Overdue(status))


def _interrupt(*_: object) -> Never:
    _end_at_once_next(exit_codes.INTERRUPTED)
    end_soon(exit_codes.INTERRUPTED)
    raise KeyboardInterrupt
