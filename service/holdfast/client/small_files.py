"""Small files, several read by one thread: to hand over each takes longer than to read it.

Those that are asked for while threads are busy are read together next.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from holdfast.deadline import Gathering

if TYPE_CHECKING:
    import os
    from collections.abc import Coroutine, Sequence

    Wanted = tuple[str | os.PathLike[str], int, asyncio.Future[bytes]]

_THREADS: Final = 4
"""A file that hangs, on a file system that is gone, keeps up those that are read with it, and its
thread: the others have these."""

_FILES_PER_THREAD: Final = 16


class SmallFiles:
    """Reads files for one event loop."""

    def __init__(self) -> None:
        """Nothing is begun before something is asked for."""
        self._waiting: list[Wanted] = []
        self._gathering = Gathering(self._take, _THREADS)

    async def read(self, path: str | os.PathLike[str], most_bytes: int) -> bytes:
        """Up to ``most_bytes`` of the file. Raises OSError."""
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((path, most_bytes, done))
        self._gathering.schedule()
        return await done

    def _take(self) -> Coroutine[Any, Any, None] | None:
        some = self._waiting[:_FILES_PER_THREAD]
        del self._waiting[:_FILES_PER_THREAD]
        return self._read(some) if some else None

    async def _read(self, wanted: Sequence[Wanted]) -> None:
        found: Sequence[bytes | Exception] = ()
        try:
            found = await asyncio.to_thread(_read_all, wanted)
        finally:
            for number, (_, _, done) in enumerate(wanted):
                result = found[number] if number < len(found) else None
                if done.done():
                    continue
                if isinstance(result, bytes):
                    done.set_result(result)
                elif result is None:  # the loop is ending
                    done.cancel()
                else:
                    done.set_exception(result)


def _read_all(wanted: Sequence[Wanted]) -> list[bytes | Exception]:
    """The bytes of each file, or why they cannot be had."""
    found: list[bytes | Exception] = []
    for path, most_bytes, done in wanted:
        try:
            found.append(b"" if done.cancelled() else _read_up_to(path, most_bytes))
        except Exception as error:  # noqa: BLE001  (whoever asked for this file handles it)
            found.append(error)
    return found


def _read_up_to(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(most_bytes)
