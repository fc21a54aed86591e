"""Calls without ``await``, derived from those with it, with all their arguments and words.

Why: docs/decisions.md, "The client without ``await`` is derived".
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Concatenate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

    from holdfast.client.loop_thread import LoopThread


class Blocking[C]:
    """Has the methods of ``wrapped``, which run in ``thread``."""

    def __init__(self, wrapped: C, thread: LoopThread) -> None:
        """Made by ``connect_sync``."""
        self._wrapped = wrapped
        self._thread = thread


def blocking[C, **P, T](
    method: Callable[Concatenate[C, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Blocking[C], P], T]:
    """``method``, whose result is waited for."""

    @functools.wraps(method)
    def call(self: Blocking[C], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.run(method(self._wrapped, *args, **kwargs))

    return call


def iterating[C, **P, T](
    method: Callable[Concatenate[C, P], AsyncGenerator[T]],
) -> Callable[Concatenate[Blocking[C], P], Generator[T]]:
    """``method``, each of whose results is waited for. Stopping early closes it."""

    @functools.wraps(method)
    def call(self: Blocking[C], /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        return self._thread.iterate(method(self._wrapped, *args, **kwargs))

    return describe(call, method, str(inspect.signature(method).return_annotation)[len("Async") :])


def describe[F: Callable[..., object]](call: F, original: Callable[..., object], result: str) -> F:
    """``call``, with the docstring of ``original``, and its signature but for the ``result``."""
    call.__doc__ = original.__doc__
    signature = inspect.signature(original).replace(return_annotation=result)
    vars(call)["__signature__"] = signature
    return call
