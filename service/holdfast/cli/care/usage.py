"""``holdfast usage``: bytes stored by app, prefix or label."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from holdfast.cli.base.arguments import Json
from holdfast.cli.base.connection import connect
from holdfast.cli.base.output import human_bytes, print_json, print_line, status_line
from holdfast.cli.base.settings import ClientFlags
from holdfast.cli.base.store_output import print_table
from holdfast.protocol.care import UsageReply


async def usage(
    below: Annotated[str, Parameter(help="By prefix: only names that begin with it.")] = "",
    /,
    *,
    by: Literal["app", "prefix", "label"] = "app",
    delimiter: Annotated[str, Parameter(help="Separator between the pieces of a name.")] = "/",
    depth: Annotated[int, Parameter(help="Number of pieces of a name that make a group.")] = 1,
    limit: Annotated[int, Parameter(help="Groups to print, of those that take the most.")] = 100,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Print how many bytes each app, prefix of names, or label takes, and how many nothing needs.

    logical: bytes as they are read. stored: bytes of the blobs that are needed, each once. shared:
    of these, those that another group needs, too. alone: what comes back once a group is deleted.

    Parameters
    ----------
    by
        What to put together.
    """
    async with await connect(flags) as connection:
        with status_line("counting"):
            found = await connection.care.usage(
                by, prefix=below, delimiter=delimiter, depth=depth, limit=limit
            )
    if json:
        print_json(found)
    else:
        _print(found, by)


def _print(found: UsageReply, by: str) -> None:
    numbers = ("items", "logical", "stored", "shared", "alone")
    rows = [
        (
            row.group,
            str(row.items),
            human_bytes(row.logical),
            human_bytes(row.stored),
            human_bytes(row.shared),
            human_bytes(row.stored - row.shared),
        )
        for row in found.rows
    ]
    print_table((by, *numbers), rows, numbers=numbers)
    if found.groups > len(rows):
        print_line(f"{found.groups - len(rows)} more take less")
    print_line("")
    for space in found.spaces:
        free = "unknown" if space.reclaimable is None else human_bytes(space.reclaimable)
        print_line(
            f"{space.space:8}",
            f"{space.blobs} stored",
            human_bytes(space.stored),
            f"reclaimable: {free}",
        )
