"""``holdfast worker``: the process of the pool."""

from __future__ import annotations

import asyncio

from holdfast.bootstrap import run_worker
from holdfast.cli.settings import WorkerFlags
from holdfast.runtime.logs import configure_logging


def worker(*, flags: WorkerFlags | None = None) -> int:
    """Serve requests until SIGTERM or Ctrl-C, then finish those in flight and end."""
    config = (flags or WorkerFlags()).load().config
    configure_logging(config.log_format, config.log_level)
    return asyncio.run(run_worker(config))
