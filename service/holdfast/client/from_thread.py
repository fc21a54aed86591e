"""Work of a thread that is not the event loop's, told to those who wait for it there."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


def settle[T](future: asyncio.Future[T], work: Callable[[], T]) -> None:
    """Do ``work`` here; ``future`` gets its result, or what it raises, unless it has one."""
    try:
        tell = partial(future.set_result, work())
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        tell = partial(future.set_exception, error)

    def settle_soon() -> None:
        if not future.done():
            tell()

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(settle_soon)
