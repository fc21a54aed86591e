"""Child processes that do not outlive this one, and their logs.

A killed parent runs no clean-up, so the kernel is asked to (``PR_SET_PDEATHSIG``, Linux). The
request is made by a shim that then becomes the program, not between fork and exec, where a process
with threads may not run Python. The signal is sent when the *thread* that started the child ends:
start children from the main thread.

Children get a session of their own, so that Ctrl-C reaches the parent alone and it decides the
order in which they stop.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LOG_TAIL_LINES: Final = 12
_LOG_TAIL_BYTES: Final = 64 * 1024

# A parent that died before prctl() would never be noticed, hence the comparison. Elsewhere than on
# Linux there is no such call, and an orphan has to be stopped by hand.
_SHIM: Final = """\
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None, use_errno=True).prctl(1, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def dies_with_this_process(command: Sequence[str]) -> list[str]:
    """``command`` (its program an absolute path), wrapped to get SIGTERM when this process ends.

    The child's process id is that of the program. Give the result to ``Popen`` or to
    ``create_subprocess_exec`` with ``start_new_session=True``.
    """
    return [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), *command]


def log_tail(log_file: Path, start: int = 0) -> str:
    """The last lines of a child's log, of those behind its byte ``start``."""
    try:
        with log_file.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(start if start <= size else 0, size - _LOG_TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:]) or "(nothing was logged)"
