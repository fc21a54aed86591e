"""Until when the answer to a request is of use, for everything that is done on its way.

A request's deadline goes along with the task that answers it, so that whoever waits below, for a
leader to be elected say, gives up a moment before and can still tell what is known. What outlives
the request (an upload's commit, an archive) is done without.
"""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

_deadline: Final[contextvars.ContextVar[float | None]] = contextvars.ContextVar(
    "deadline", default=None
)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """What is done inside has ``seconds``, or what is left of an earlier deadline if that is less.

    It is told, not enforced: see ``seconds_left``.
    """
    at = asyncio.get_running_loop().time() + seconds
    earlier = _deadline.get()
    token = _deadline.set(at if earlier is None else min(at, earlier))
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left(most: float) -> float:
    """How long one may wait: ``most`` seconds, or until the deadline. Not above 0: it is over."""
    at = _deadline.get()
    if at is None:
        return most
    return min(most, at - asyncio.get_running_loop().time())


def outliving_task[T](work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task for what goes on when the request that began it has been answered."""
    context = contextvars.copy_context()
    context.run(_deadline.set, None)
    return asyncio.get_running_loop().create_task(work, context=context)
