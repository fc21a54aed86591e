"""The log of a process: one event per line, on standard error.

Log lines carry text that other people chose (subjects, names, error details). Control characters
in it are escaped, so that nobody can forge a line or move the reader's cursor, and what looks like
a secret is masked. A traceback follows its event, every line of it indented.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import structlog

from holdfast.runtime.escapes import escape_control
from holdfast.tracing import TRACE
from holdfast.transport.options import MASK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from structlog.typing import EventDict, Processor, WrappedLogger

QUIET_SECONDS: Final = 30.0
_MAX_ERRORS_KEPT: Final = 256
log = structlog.get_logger(__name__)

LogFormat = Literal["auto", "console", "json"]

_SECRET_KEYS: Final = frozenset({"password", "token", "creds", "nkey", "seed", "jwt"})
_USER_INFO_RE: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def configure_logging(log_format: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Send structlog's events, and those of the standard library's loggers, to ``stream``.

    ``auto`` is the console format on a terminal, and JSON elsewhere. ``stream`` is standard error
    by default. Replaces what was configured before.
    """
    target = sys.stderr if stream is None else stream
    console = log_format == "console" or (log_format == "auto" and target.isatty())
    least = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _mask_secrets,
    ]
    renderers: list[Processor] = (
        [_escape, structlog.dev.ConsoleRenderer(colors=target.isatty())]
        if console
        else [structlog.processors.JSONRenderer(json.dumps, default=str)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the ids of the line's trace, if it has one."""
    step = TRACE.get()
    if step is not None:
        event.update(trace_id=step.trace_id, span_id=step.span_id)
    return event


def _mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _masked(key, value) for key, value in event.items()}


def _masked(key: str, value: Any) -> Any:
    if key in _SECRET_KEYS and value:
        return MASK
    if isinstance(value, str):
        return _USER_INFO_RE.sub(MASK, value)
    return value


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> Mapping[str, Any]:
    """Console only; JSON escapes all of this, and everything else that is not ASCII, by itself."""
    return {key: _escaped(key, value) for key, value in event.items()}


def _escaped(key: str, value: Any) -> Any:
    if key in {"exception", "stack"} and isinstance(value, str):
        return "\n".join(f"    {escape_control(line)}" for line in value.split("\n"))
    if isinstance(value, int | float | None):
        return value
    return escape_control(value if isinstance(value, str) else repr(value))


class ErrorLog:
    """Logs what NATS reports, and one and the same error not all the time.

    While servers are down each attempt to connect fails, several a second. ``monotonic`` gives
    seconds that only rise.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._logged_at: dict[str, float] = {}

    def __call__(self, error: Exception) -> None:
        """Log it, unless it was logged within the last ``QUIET_SECONDS``."""
        text = str(error) or type(error).__name__
        now = self._monotonic()
        if now - self._logged_at.get(text, -math.inf) < QUIET_SECONDS:
            return
        if len(self._logged_at) >= _MAX_ERRORS_KEPT:
            self._logged_at.clear()
        self._logged_at[text] = now
        log.error("nats_error", error=text)
