"""A worker from its first request to its last: background chores, the signal to stop, the drain."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never, override

import structlog

from holdfast.deadline import first_to_end, is_being_cancelled
from holdfast.errors import HoldfastError
from holdfast.runtime.logs import ErrorLog
from holdfast.transport.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast.runtime.worker import Worker

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to be done every ``seconds`` while the worker serves.

    For the first time after ``first_seconds``, if given. Each wait is longer or shorter by up to
    ``jitter`` of it, at random, so that the workers of a pool do not do it all at once.
    """

    name: str
    seconds: float
    run: Callable[[], Awaitable[object]]
    first_seconds: float | None = None
    jitter: float = 0.0


class EventThatTells(asyncio.Event):
    """An event that calls ``tell`` when it is set, whoever sets it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        """``tell`` is not called again while it is set."""
        super().__init__()
        self._tell = tell

    @override
    def set(self) -> None:
        if not self.is_set():
            super().set()
            self._tell()


class WorkersConnection(Observer):
    """Logs how a worker's connection fares, and sets ``lost`` once it is closed for good."""

    def __init__(self, lost: asyncio.Event) -> None:
        """For ``connect``."""
        self._lost = lost
        self._log_error = ErrorLog(time.monotonic)

    @override
    def disconnected(self, server: str) -> None:
        log.warning("nats_disconnected", server=server)

    @override
    def reconnected(self, server: str) -> None:
        log.info("nats_reconnected", server=server)

    @override
    def server_left(self, server: str, reason: str) -> None:
        log.warning("nats_server_left", server=server, reason=reason)

    @override
    def failed(self, problem: Exception) -> None:
        self._log_error(problem)

    @override
    def closed(self) -> None:
        self._lost.set()

    @override
    def is_waiting(self) -> bool:
        """Requests may come at any time: a server that went silent is noticed, and left, soon."""
        return True


async def serve_until_stopped(
    worker: Worker,
    chores: Sequence[Chore],
    *,
    stop: asyncio.Event,
    lost: asyncio.Event,
    drain_seconds: float,
    drain_too: Sequence[Callable[[float], Awaitable[object]]] = (),
) -> int:
    """Serve until ``stop`` (then drain: 0) or ``lost`` (the connection is gone for good: 1).

    ``drain_too`` is called together with the worker's own drain, with the same time. Raises
    ForbiddenError when the server denies the worker what it is to listen to.
    """
    worker.start()
    await worker.check_subscribed()
    log.info("worker_started", worker=worker.id)
    await first_to_end(stop.wait(), lost.wait(), *map(_repeat, chores))
    if lost.is_set():
        log.error("connection_closed", worker=worker.id)
        return 1
    log.info("worker_draining", worker=worker.id, in_flight=worker.in_flight)
    await asyncio.gather(
        worker.drain(drain_seconds), *(drain(drain_seconds) for drain in drain_too)
    )
    log.info("worker_stopped", worker=worker.id)
    return 0


async def _repeat(chore: Chore) -> Never:
    """Do it again and again: a failure is logged and the next round tries anew."""
    wait = chore.seconds if chore.first_seconds is None else chore.first_seconds
    while True:
        await asyncio.sleep(wait * random.uniform(1 - chore.jitter, 1 + chore.jitter))  # noqa: S311
        wait = chore.seconds
        try:
            await chore.run()
        except HoldfastError as error:
            log.warning("chore_failed", chore=chore.name, code=error.code, detail=error.detail)
        except (Exception, asyncio.CancelledError) as bug:
            if isinstance(bug, asyncio.CancelledError) and is_being_cancelled():
                raise
            log.exception("chore_failed", chore=chore.name)
        if is_being_cancelled():  # and the chore made something else of it
            raise asyncio.CancelledError
