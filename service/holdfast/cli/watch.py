"""``holdfast watch``: changes as they happen, a line of JSON each, until it is stopped."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, get_args

from cyclopts import Parameter

from holdfast.cli.base import exit_codes
from holdfast.cli.base.connection import connect
from holdfast.cli.base.ending import until_stopped
from holdfast.cli.base.output import print_json
from holdfast.cli.base.settings import ClientFlags
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
    await until_stopped(_print_all(flags, chosen, only, since))
    return exit_codes.OK


async def _print_all(
    flags: ClientFlags | None, kinds: list[WatchKind], prefix: str, since: int | None
) -> None:
    async with await connect(flags) as connection:
        tasks = [
            asyncio.create_task(_print_kind(connection, kind, prefix, since)) for kind in kinds
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _print_kind(connection: Client, kind: WatchKind, prefix: str, since: int | None) -> None:
    async with aclosing(connection.watch(kind, prefix=prefix, since=since)) as events:
        async for event in events:
            print_json(event)
            sys.stdout.flush()
