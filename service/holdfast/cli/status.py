"""``holdfast status``: the pool, as its workers answer on ``$SRV``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from holdfast.cli import exit_codes
from holdfast.cli.connection import connect
from holdfast.cli.output import print_json, say_error
from holdfast.cli.settings import ClientFlags
from holdfast.runtime.logs import escape_control

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.client import WorkerInfo


async def status(
    *,
    json: bool = False,
    flags: ClientFlags | None = None,
) -> int:
    """Print the workers that answer. Ends with 6 when there is none.

    Parameters
    ----------
    json
        A list of objects.
    """
    async with await connect(flags) as connection:
        workers = await connection.workers()
    if json:
        print_json(workers)
    elif workers:
        # In a file or a pipe nothing is cut to the width of a terminal that is not there.
        width = None if sys.stdout.isatty() else 512
        Console(width=width).print(_table(workers))
    if not workers:
        say_error("unavailable", "no worker answers: start one with holdfast worker")
        return exit_codes.UNAVAILABLE
    return exit_codes.OK


def _table(workers: Sequence[WorkerInfo]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("node", "id", "version", "durability", "started"):
        table.add_column(heading)
    for heading in ("requests", "errors"):
        table.add_column(heading, justify="right")
    for worker in workers:
        cells = (
            worker.metadata.get("node", ""),
            worker.id,
            worker.version,
            worker.metadata.get("durability", ""),
            str(worker.started),
            str(worker.requests),
            str(worker.errors),
        )
        table.add_row(*(escape_control(cell) for cell in cells))
    return table
