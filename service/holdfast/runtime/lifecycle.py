"""A worker from its first request to its last: background chores, the signal to stop, the drain."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast.runtime.worker import Worker

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to be done every ``seconds`` while the worker serves.

    For the first time after ``first_seconds``, if given.
    """

    name: str
    seconds: float
    run: Callable[[], Awaitable[object]]
    first_seconds: float | None = None


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
    running = [asyncio.create_task(_repeat(chore)) for chore in chores]
    waits = [asyncio.create_task(event.wait()) for event in (stop, lost)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*waits, *running):
            task.cancel()
        await asyncio.gather(*waits, *running, return_exceptions=True)
    if lost.is_set():
        log.error("connection_closed", worker=worker.id)
        return 1
    log.info("worker_draining", worker=worker.id, in_flight=worker.in_flight)
    await asyncio.gather(
        worker.drain(drain_seconds), *(drain(drain_seconds) for drain in drain_too)
    )
    log.info("worker_stopped", worker=worker.id)
    return 0


async def _repeat(chore: Chore) -> None:
    """Do it again and again: a failure is logged and the next round tries anew."""
    wait = chore.seconds if chore.first_seconds is None else chore.first_seconds
    while True:
        await asyncio.sleep(wait)
        wait = chore.seconds
        try:
            await chore.run()
        except HoldfastError as error:
            log.warning("chore_failed", chore=chore.name, code=error.code, detail=error.detail)
        except Exception:
            log.exception("chore_failed", chore=chore.name)
