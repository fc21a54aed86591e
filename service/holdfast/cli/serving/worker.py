"""``holdfast worker``: the process of the pool."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import Final

import uvloop

from holdfast.bootstrap.worker import run_worker
from holdfast.cli.base import exit_codes
from holdfast.cli.base.ending import end_soon, ending_soon
from holdfast.cli.base.exit_codes import exit_code_of
from holdfast.cli.base.settings import WorkerFlags
from holdfast.errors import HoldfastError
from holdfast.runtime.logs import configure_logging
from holdfast.runtime.spans import kept_spans

_ALLOCATIONS_PER_COLLECTION: Final = 20_000
"""Ten times Python's own: a request leaves hardly any cycles behind."""

_LAST_SECONDS: Final = 10.0
"""After its work: nothing that matters is left to be done."""

_STUCK_SECONDS: Final = 60.0
"""After the drain: a worker that has not ended by then never will."""


def worker(*, flags: WorkerFlags | None = None) -> int:
    """Serve requests until SIGTERM or Ctrl-C, then finish those in flight and exit with 0.

    Exits with 1 if the connection to NATS is closed for good, and with the status of the error
    if a check at the start fails. If the server refuses a later login, the worker tries again with
    the credentials of that time.
    """
    given = flags or WorkerFlags()
    config = given.load().config
    configure_logging(config.log_format, config.log_level)
    with kept_spans("holdfast-worker") as tracer:
        # Objects loaded by now stay. To look at all of them again, as the collector does from
        # time to time, keeps the event loop for 10 to 40 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
        try:
            running = run_worker(
                config,
                renew=lambda: given.load().config.nats,
                tracer=tracer,
                on_stop=partial(
                    end_soon, exit_codes.FAILURE, seconds=config.drain_seconds + _STUCK_SECONDS
                ),
            )
            return asyncio.run(
                ending_soon(running, seconds=_LAST_SECONDS),
                loop_factory=uvloop.new_event_loop,
            )
        except HoldfastError as error:  # it has been logged
            return exit_code_of(error)
