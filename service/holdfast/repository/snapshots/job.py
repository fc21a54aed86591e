"""One piece of work that has a pending record, as its worker and its watchers see it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic

from holdfast.archive.ports import Progress
from holdfast.repository.snapshots.record import StoredT

if TYPE_CHECKING:
    from holdfast.errors import ConflictError
    from holdfast.repository.ledger.lease import Carried

STALL_SECONDS: Final = 1800.0
"""A job that shows no sign of life for so long is stopped. The largest sync of a slow disk ends."""

QUIET_STALL_SECONDS: Final = 6 * 3600.0
"""The same while a tree of any size is removed, which tells nothing and comes after success."""

QUIET_PHASES: Final = frozenset({"remove"})


@dataclass(slots=True, eq=False)
class Job(Generic[StoredT]):
    """One piece of work, and its record, which is changed only with the ``turn``."""

    carried: Carried[StoredT]
    progress: Progress = field(default_factory=lambda: Progress(phase="waiting"))
    task: asyncio.Task[None] | None = None
    lost: ConflictError | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_working: bool = False
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    _signs: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def record(self) -> StoredT:
        """Its record as it was last written."""
        return self.carried.record

    @property
    def sign_of_life(self) -> tuple[Progress, int]:
        """A value that differs now and then while the work goes on."""
        return self.progress, self._signs

    def should_stop(self) -> bool:
        """For threads: whether to give up."""
        return self._stop.is_set()

    def should_stop_working(self) -> bool:
        """The same for those who ask only when they have got on: it counts as a sign of life."""
        self.show_life()
        return self.should_stop()

    def show_life(self) -> None:
        """For any thread: the work goes on, though that shows in no count yet."""
        self._signs += 1

    def stop(self) -> None:
        """Have it end soon. May be repeated."""
        self._stop.set()
        self._stopped.set()

    async def wait_stopped(self) -> None:
        """Until it was told to stop."""
        await self._stopped.wait()

    def report(self, progress: Progress) -> None:
        """For threads: how far it is."""
        self.progress = progress


class Stillness:
    """Seconds a job has shown no sign of life.

    It is looked at every ``interval_seconds``, and each look counts for so much: time in which
    the whole process was stopped does not.
    """

    def __init__(self, interval_seconds: float, limit_seconds: float) -> None:
        """A job may be still for ``limit_seconds``, but in ``QUIET_PHASES``."""
        self._interval_seconds = interval_seconds
        self._limit_seconds = limit_seconds
        self._seconds = 0.0
        self._sign: tuple[Progress, int] | None = None

    def is_too_long(self, job: Job[StoredT]) -> bool:
        """Look at ``job``. One that waits for a place may."""
        sign = job.sign_of_life
        if not job.is_working or sign != self._sign:
            self._sign = sign
            self._seconds = 0.0
            return False
        self._seconds += self._interval_seconds
        if job.progress.phase in QUIET_PHASES:
            return self._seconds >= max(self._limit_seconds, QUIET_STALL_SECONDS)
        return self._seconds >= self._limit_seconds
