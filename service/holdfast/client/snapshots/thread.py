"""Archiving and unpacking in a thread of its own, while the event loop carries packs.

The thread is a daemon: one that reads from a silent pipe cannot be stopped, and a program that ends
does not wait for it.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from holdfast.client.from_thread import STOP_SECONDS, settle
from holdfast.deadline import look_at
from holdfast.protocol.snapshots import SnapshotProgress

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.archive.ports import Progress, Stop
    from holdfast.client.snapshots.wait import OnProgress

T = TypeVar("T")

PROGRESS_SECONDS: Final = 0.1


async def in_thread(
    work: Callable[[Stop], T],
    *,
    on_stop: Callable[[], None] | None = None,
    stop_seconds: float = STOP_SECONDS,
) -> T:
    """The result of ``work``, which is told by its argument when to give up.

    When the caller is cancelled, ``on_stop`` ends what the thread may be waiting for. It is then
    waited for, ``stop_seconds`` at most, so that nothing goes on behind the caller's back.
    """
    ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    stopped = threading.Event()
    run = partial(settle, ended, partial(work, stopped.is_set))
    threading.Thread(target=run, name="holdfast-snapshot", daemon=True).start()
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        stopped.set()
        if on_stop is not None:
            on_stop()
        await asyncio.wait([ended], timeout=stop_seconds)
        if not ended.cancel():
            look_at(ended)  # it is Cancelled, or of no interest any more
        raise


class ProgressRelay:
    """Hands a thread's progress to a callback in the event loop, a few times a second."""

    def __init__(self, key: str, on_progress: OnProgress | None) -> None:
        """``key`` is the snapshot's."""
        self._key = key
        self._on_progress = on_progress
        self._loop = asyncio.get_running_loop()
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        """For the thread."""
        if self._on_progress is None:
            return
        now = self._loop.time()
        if now - self._last < PROGRESS_SECONDS and progress.phase != "done":
            return
        self._last = now
        told = SnapshotProgress(
            key=self._key,
            state="pending",
            phase=progress.phase,
            entries=progress.entries,
            bytes=progress.bytes,
            added=progress.stored_bytes,
        )
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._on_progress, told)
