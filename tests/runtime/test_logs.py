"""The log: its events, and what may not be in it."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from holdfast.runtime.logs import LogFormat, configure_logging
from holdfast.tracing import TRACE, TraceStep

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def logged(log_format: LogFormat, event: str, /, **values: object) -> str:
    stream = io.StringIO()
    configure_logging(log_format, "info", stream)
    structlog.get_logger().info(event, **values)
    return stream.getvalue()


FORMATS: list[LogFormat] = ["console", "json"]


@pytest.mark.parametrize("log_format", FORMATS)
def test_nobody_can_forge_a_line_or_move_the_cursor(log_format: LogFormat) -> None:
    text = logged(log_format, "a\nb", subject="c\r\n\x1b[2Jd\u2028\u202e", names=["e\nf"])

    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert not any(mark in text[:-1] for mark in "\r\x1b\u2028\u202e")


@pytest.mark.parametrize("log_format", FORMATS)
def test_secrets_are_masked(log_format: LogFormat) -> None:
    text = logged(log_format, "connected", url="nats://u:hunter2@host", password="hunter3")

    assert "hunter" not in text
    assert "host" in text


def test_json_has_the_event_its_level_and_the_time() -> None:
    line = json.loads(logged("auto", "started", worker="w"))

    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "started", "level": "info", "worker": "w"}


@pytest.mark.parametrize("log_format", FORMATS)
async def test_a_line_says_which_trace_it_belongs_to(log_format: LogFormat) -> None:
    assert "trace_id" not in logged(log_format, "event")
    step = TraceStep.first()
    TRACE.set(step)

    line = logged(log_format, "event")

    assert step.trace_id in line
    assert step.span_id in line


def test_other_libraries_log_the_same_way() -> None:
    stream = io.StringIO()
    configure_logging("json", "warning", stream)

    logging.getLogger("nats").error("failed: %s", "x\ny")
    logging.getLogger("nats").info("not this")

    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"]) == ("failed: x\ny", "error")


def test_a_traceback_cannot_be_mistaken_for_events() -> None:
    stream = io.StringIO()
    configure_logging("console", "info", stream)
    try:
        _fail("bad\n2026-01-01 [info] forged")
    except ValueError:
        structlog.get_logger().exception("failed")

    first, *rest = stream.getvalue().splitlines()
    assert "failed" in first
    assert any("forged" in line for line in rest)
    assert all(line.startswith("    ") for line in rest)


def _fail(text: str) -> None:
    raise ValueError(text)
