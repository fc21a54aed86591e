"""``holdfast blob``: one command per verb, for people and for scripts.

Results go to standard output, a line each (or JSON with ``--json``); the exit status tells what
went wrong (``exit_codes``). ``-`` is standard input or output.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter

from holdfast.cli.base import exit_codes
from holdfast.cli.base.arguments import (
    DASH,
    STANDARD,
    Json,
    Length,
    Offset,
    Output,
    first_words,
    input_of,
    output_of,
    total_size,
)
from holdfast.cli.base.connection import connect
from holdfast.cli.base.output import (
    as_total,
    human_bytes,
    print_fields,
    print_json,
    print_line,
    print_result,
    progress_bar,
    say,
    say_error,
    write_range,
)
from holdfast.cli.base.settings import ClientFlags
from holdfast.cli.link import link_blob
from holdfast.domain.digest import Digest, parse_digest
from holdfast.domain.limits import MAX_DIGESTS_PER_HAS
from holdfast.errors import InvalidError
from holdfast.protocol.blobs import DEFAULT_TYPE, BlobEntry, BlobStored, CollectionReply

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


app = App(name="blob", help_format="plaintext")
app.command(link_blob, name="link")

Digests = Annotated[
    list[str],
    DASH,
    Parameter(help="Digests; - reads them from standard input, one per line."),
]


@app.command
async def put(
    files: Annotated[list[str], DASH, Parameter(help="Files; - is standard input.")],
    /,
    *,
    type: Annotated[str, Parameter(help="Media type of the blobs.")] = DEFAULT_TYPE,  # noqa: A002 - the flag's name
    digest: Annotated[
        str | None, Parameter(help="Expected digest; other content is refused.")
    ] = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> int:
    """Store files, and print the digest of each. A blob that is already stored is not sent.

    Reports a file that cannot be read, stores the others, and exits with 1.
    """
    from holdfast.client.many import in_order, weight_of  # noqa: PLC0415 - no help needs it

    if digest is not None and len(files) != 1:
        raise InvalidError("--digest is for one file")
    expected = None if digest is None else parse_digest(digest.strip())
    status = exit_codes.OK
    async with await connect(flags) as connection:
        with progress_bar("put", total_size(files)) as advance:
            one_reader = asyncio.Lock()

            async def put_one(name: str) -> BlobStored | OSError:
                async with one_reader if name == STANDARD else nullcontext():
                    try:
                        return await connection.put(
                            input_of(name),
                            type=type,
                            digest=expected,
                            progress=as_total(advance),
                        )
                    except OSError as error:
                        return error

            puts = in_order(files, put_one, lambda name: weight_of(input_of(name)))
            async with aclosing(puts) as results:
                for name in files:
                    stored = await anext(results)
                    if isinstance(stored, OSError):
                        say_error("failed", f"{name}: {stored.strerror or stored}")
                        status = exit_codes.FAILURE
                    else:
                        _print_stored(name, stored, json=json)
    return status


def _print_stored(name: str, stored: BlobStored, *, json: bool) -> None:
    told = msgspec.to_builtins(stored) | {"file": name}
    print_result(told, stored.digest, name, json=json)
    sys.stdout.flush()


@app.command
async def get(
    digest: str,
    /,
    *,
    output: Output = STANDARD,
    offset: Offset = 0,
    length: Length = None,
    flags: ClientFlags | None = None,
) -> None:
    """Write a blob, or a range of it, to standard output or a file.

    The file appears when every byte is there and has been checked, or not at all.
    """
    parsed = parse_digest(digest.strip())
    async with await connect(flags) as connection:
        read_to = partial(connection.get_to, parsed)
        await write_range(read_to, "get", output_of(output), offset, length)


@app.command
async def has(digests: Digests, /, *, json: Json = False, flags: ClientFlags | None = None) -> int:
    """Print the digests that are missing. Exits with 0 if there are none, else with 3."""
    wanted = list(_parse_digests(digests))
    missing: list[Digest] = []
    async with await connect(flags) as connection:
        for start in range(0, len(wanted), MAX_DIGESTS_PER_HAS):
            page = wanted[start : start + MAX_DIGESTS_PER_HAS]
            missing += [Digest(digest) for digest in await connection.has(page)]
    if json:
        print_json({"missing": missing})
    else:
        for digest in missing:
            print_line(digest)
    return exit_codes.NOT_FOUND if missing else exit_codes.OK


def _parse_digests(digests: Iterable[str]) -> Iterator[Digest]:
    for text in digests:
        if text == STANDARD:
            yield from map(parse_digest, first_words(sys.stdin))
        else:
            yield parse_digest(text.strip())


@app.command
async def stat(digest: str, /, *, json: Json = False, flags: ClientFlags | None = None) -> None:
    """Print what is recorded about a blob."""
    parsed = parse_digest(digest.strip())
    async with await connect(flags) as connection:
        answer = await connection.stat(parsed)
    print_fields(answer, json=json)


@app.command
async def ls(
    prefix: Annotated[str, Parameter(help="First digits of the digests to list.")] = "",
    /,
    *,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """List blobs: digest, size in bytes, time, type.

    Objects of other programs are shown by name.
    """
    async with await connect(flags) as connection:
        async for entry in connection.list(prefix):
            print_result(entry, *_row(entry), json=json)


def _row(entry: BlobEntry) -> tuple[str, ...]:
    if entry.foreign:
        return ("foreign".ljust(64), f"{entry.size:>12}", "-", entry.name or "")
    return (entry.digest or "", f"{entry.size:>12}", entry.created_at, entry.type)


@app.command
async def rm(digests: Digests, /, *, json: Json = False, flags: ClientFlags | None = None) -> None:
    """Delete blobs. A missing blob counts as deleted."""
    parsed = list(_parse_digests(digests))
    async with await connect(flags) as connection:
        for digest in parsed:
            deleted = await connection.delete(digest)
            outcome = "deleted" if deleted else "was not there"
            print_result({"digest": digest, "deleted": deleted}, digest, outcome, json=json)


@app.command
async def gc(
    *,
    dry_run: Annotated[bool, Parameter(help="Only print removals.", negative="")] = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> int:
    """Have a worker remove what nothing needs: packs of no snapshot, blobs of no name and no pin.

    Workers do so by themselves now and then. Blobs put or touched within the grace time stay. A
    pack of which snapshots need little is cut down to that. Exits with 1 if something could not
    be read: then nothing was removed.
    """
    async with await connect(flags) as connection:
        report = await connection.collect(dry_run=dry_run)
    if json:
        print_json(report)
    else:
        _print_collected(report)
    failed = report.off is not None or any(space.failure for space in report.spaces)
    return exit_codes.FAILURE if failed else exit_codes.OK


def _print_collected(report: CollectionReply) -> None:
    if report.off is not None:
        say_error("off", report.off)
    for space in report.spaces:
        print_line(
            f"{space.space:8}",
            f"{'would remove' if report.dry_run else 'removed'} {space.removed}",
            human_bytes(space.removed_bytes),
            f"of {space.repacked} packs a part: {human_bytes(space.repacked_bytes)}",
            f"and {space.orphan_chunks} chunks of no blob, {human_bytes(space.orphan_bytes)};",
            f"stay: {space.needed} needed, {space.young} young, {space.pinned} pinned,"
            f" {space.damaged} damaged, {space.refused} changed meanwhile",
        )
        if space.failure is not None:
            say_error("failed", f"{space.space}: {space.failure}")


@app.command
async def verify(
    digest: Annotated[str | None, Parameter(help="The blob; by default all blobs.")] = None,
    /,
    *,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> int:
    """Have workers read one blob or all back and compare every byte. Exits with 5 on damage."""
    parsed = None if digest is None else parse_digest(digest.strip())
    checked = size = damaged = 0
    async with await connect(flags) as connection:
        with progress_bar("verify", None) as advance:
            async for report in connection.verify(parsed):
                checked += report.checked
                size += report.bytes
                damaged += len(report.damaged)
                advance(report.bytes)
                for blob in report.damaged:
                    print_result(blob, blob.digest, blob.code, blob.detail, json=json)
    if json:
        print_json({"checked": checked, "bytes": size, "damaged": damaged})
    else:
        say(f"{checked} checked, {human_bytes(size)}, {damaged} damaged")
    return exit_codes.CORRUPT if damaged else exit_codes.OK
