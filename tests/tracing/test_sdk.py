"""Spans that are sent to a collector, when that does not answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

_PROGRAM = """
from holdfast.tracing import sdk

sdk.LAST_SECONDS = 0.01
with sdk.exporting("test") as tracer:
    with tracer.answering("blob.get"):
        pass
"""


def test_a_process_that_ends_does_not_wait_for_a_collector_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",
        }
        # By itself it would wait for half a minute.
        command = [sys.executable, "-c", _PROGRAM]
        subprocess.run(command, env=os.environ | asking, timeout=25, check=True)
