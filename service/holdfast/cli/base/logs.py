"""Where a command logs: to standard error, away from its results."""

from __future__ import annotations

import logging
from typing import Final

CLIENTS: Final = frozenset(
    {
        *("blob", "name", "snapshot", "state", "import", "watch", "status"),
        *("config", "doctor", "link-key", "scrub", "token", "usage"),
    }
)
"""The commands that log with the standard library alone, and hardly ever."""


def configure_for(command: str) -> None:
    """Log warnings, as ``command`` does it; a worker says more."""
    if command in CLIENTS:
        logging.getLogger().handlers[:] = [_Unconfigured()]
    else:
        _configure()


def _configure() -> None:
    from holdfast.runtime.logs import configure_logging  # noqa: PLC0415 - a third of a client's start

    configure_logging("auto", "warning")


class _Unconfigured(logging.Handler):
    """Configures logging, and passes on, once there is something to log."""

    def emit(self, record: logging.LogRecord) -> None:
        _configure()
        logging.getLogger().handle(record)
