"""``holdfast watch``: changes as they happen, a line of JSON each, until it is stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, get_args

from cyclopts import Parameter

from holdfast.cli import exit_codes
from holdfast.cli.connection import connect
from holdfast.cli.output import print_json
from holdfast.cli.settings import ClientFlags
from holdfast.errors import InvalidError
from holdfast.protocol.watch import WatchKind

if TYPE_CHECKING:
    from holdfast.client import Client


async def watch(
    kinds: Annotated[list[WatchKind] | None, Parameter(negative="")] = None,
    /,
    *,
    only: Annotated[
        str, Parameter(help="Watch those whose name, digest or key starts with this.", negative="")
    ] = "",
    since: Annotated[
        int | None, Parameter(help="Begin behind this: the position of a line before.")
    ] = None,
    flags: ClientFlags | None = None,
) -> int:
    """Print what becomes of names, blobs and snapshots, as CloudEvents in lines of JSON.

    Goes on until SIGINT or SIGTERM, and exits with 0 then.

    Parameters
    ----------
    kinds
        What is watched; by default all three.
    """
    chosen: list[WatchKind] = list(dict.fromkeys(kinds or get_args(WatchKind)))
    if since is not None and len(chosen) != 1:
        raise InvalidError("--since is for one kind: each has positions of its own")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await connect(flags) as connection:
        tasks = [asyncio.create_task(_print_all(connection, kind, only, since)) for kind in chosen]
        await _until_first(stop, tasks)
    return exit_codes.OK


async def _print_all(connection: Client, kind: WatchKind, prefix: str, since: int | None) -> None:
    async with aclosing(connection.watch(kind, prefix=prefix, since=since)) as events:
        async for event in events:
            print_json(event)
            sys.stdout.flush()


async def _until_first(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Until ``stop`` is set, or one of ``tasks`` fails; that failure is raised."""
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for other in (stopping, *tasks):
            other.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)
