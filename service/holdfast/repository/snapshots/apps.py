"""The apps of this machine: the directories directly below one root.

An app is a real directory. A symlink in its place would let whoever may write to the root have
any directory archived or written over, so it is refused.

The root may be on a network, and whoever looks at it be kept waiting for ever. So looks have
threads of their own: everything else goes on.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast.domain.names import check_app
from holdfast.errors import InvalidError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_THREADS: Final = 4
MAX_LOOKS: Final = 64
"""Under way or waiting for a thread."""

LOOK_SECONDS: Final = 0.5
"""For whether an app is there, which others wait to hear."""

DIRECTORY_SECONDS: Final = 10.0
"""For the directory of an app that is to be archived or restored."""

MARK_PREFIX: Final = ".holdfast-here-"
"""Begins a file that workers of this node look for. No app's name begins with a dot."""

OLD_MARK_SECONDS: Final = 3600.0
_MARK: Final = re.compile(r"[A-Za-z0-9]{1,64}", re.ASCII)


class Apps:
    """The directory ``root``, whose folders are the apps; None where this worker has none."""

    def __init__(self, root: Path | None) -> None:
        """``root`` may itself be reached through symlinks."""
        self.root = root
        self._threads = ThreadPoolExecutor(LOOK_THREADS, "apps")
        self._looks = 0

    def has(self, app: str) -> bool:
        """Whether there is anything called ``app`` here. Raises InvalidError, UnavailableError."""
        check_app(app)
        return self.root is not None and _mode_of(self.root / app) is not None

    async def look_for(self, app: str) -> bool:
        """The same as `has`, off the event loop, as `look` does it."""
        return await self.look(lambda: self.has(app), seconds=LOOK_SECONDS)

    async def look[T](self, function: Callable[[], T], *, seconds: float) -> T:
        """The result of ``function``, which looks at something below the root, off the event loop.

        Raises UnavailableError after ``seconds``, and at once while too many looks hang.
        """
        if self._looks >= MAX_LOOKS:
            raise UnavailableError(_SILENT)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            self._looks -= 1

        try:
            future = self._threads.submit(function)
        except RuntimeError as error:  # closed
            raise UnavailableError(_SILENT) from error
        self._looks += 1
        future.add_done_callback(lambda _: _in_loop(loop, ended))
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise UnavailableError(_SILENT) from error

    def put_mark(self, mark: str) -> bool:
        """Let those who look at this directory see ``mark``; False: nothing can be written here.

        Marks that a killed worker has left are removed after an hour.
        """
        path = self._mark(mark)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            self._remove_old_marks(os.lstat(path).st_mtime - OLD_MARK_SECONDS)
        except OSError:
            return False
        return True

    def remove_mark(self, mark: str) -> None:
        """Take it away again. May be repeated."""
        with suppress(OSError):
            self._mark(mark).unlink()

    def sees(self, mark: str) -> bool:
        """Whether ``mark`` is there. Raises UnavailableError."""
        return _mode_of(self._mark(mark)) is not None

    def _mark(self, mark: str) -> Path:
        if self.root is None or _MARK.fullmatch(mark) is None:
            raise InvalidError("no mark, or no directory to look for it")
        return self.root / f"{MARK_PREFIX}{mark}"

    def _remove_old_marks(self, before: float) -> None:
        if self.root is not None:
            for path in self.root.glob(f"{MARK_PREFIX}*"):
                with suppress(OSError):
                    if path.lstat().st_mtime < before:
                        path.unlink()

    def close(self) -> None:
        """Begin no more looks. Waits for none."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def directory(self, app: str) -> Path:
        """The directory of ``app``.

        Raises InvalidError (not a name, or not a directory), NotFoundError, UnavailableError.
        """
        target = self.target(app)
        mode = _mode_of(target)
        if mode is None:
            raise NotFoundError(f"there is no app {app!r} here")
        if not stat.S_ISDIR(mode):
            kind = "a symlink" if stat.S_ISLNK(mode) else "no directory"
            msg = f"{app!r} is {kind}: an app is a directory directly below the root of apps"
            raise InvalidError(msg)
        return target

    def target(self, app: str) -> Path:
        """The path ``app`` has or would have. Raises InvalidError, UnavailableError (no root)."""
        check_app(app)
        if self.root is None:
            raise UnavailableError("this worker has no directory of apps")
        return self.root / app


_SILENT: Final = "the directory of apps does not answer"


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call ``function`` in ``loop``, unless that has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)


def _mode_of(path: Path) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnavailableError(f"the directory of apps cannot be read: {error.strerror}") from error
