"""``holdfast name``: blobs under names, one command per verb.

Results go to standard output, a line each (or JSON with ``--json``); the exit status tells what
went wrong (``exit_codes``): 4 where a condition did not hold. ``-`` is standard input or output.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import App, Parameter

from holdfast.cli.base.arguments import (
    DASH,
    STANDARD,
    Flag,
    Json,
    Label,
    Length,
    Offset,
    Output,
    input_of,
    output_of,
    parse_duration,
    parse_labels,
    total_size,
)
from holdfast.cli.base.connection import connect
from holdfast.cli.base.output import (
    as_total,
    print_fields,
    print_result,
    progress_bar,
    say,
    write_range,
)
from holdfast.cli.base.settings import ClientFlags
from holdfast.cli.link import link_name
from holdfast.domain.digest import parse_digest
from holdfast.errors import InvalidError
from holdfast.protocol.blobs import DEFAULT_TYPE
from holdfast.protocol.names import (
    KeptRule,
    NameEntry,
    NameRule,
    NameStored,
    NameTransition,
    NameVersion,
)
from holdfast.protocol.times import parse_zoned_time
from holdfast.sources import utc_now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime


app = App(name="name", help_format="plaintext")
app.command(link_name, name="link")

IfAbsent = Annotated[bool, Flag, Parameter(help="Only if the name has no blob.")]
IfVersion = Annotated[int | None, Parameter(help="Only if the name has this version.")]
IfDigest = Annotated[str | None, Parameter(help="Only if the name has the blob of this digest.")]
Version = Annotated[int | None, Parameter(help="A version that the name had and still keeps.")]

_NO_BLOB = "-"


@app.command
async def put(
    name: str,
    file: Annotated[str, DASH, Parameter(help="A file; - is standard input.")],
    /,
    *,
    type: Annotated[str, Parameter(help="Media type of the blob.")] = DEFAULT_TYPE,  # noqa: A002 - the flag's name
    digest: Annotated[
        str | None, Parameter(help="Expected digest; other content is refused.")
    ] = None,
    label: Label = (),
    expires: Annotated[
        str | None, Parameter(help="When the name ends: 2027-01-31T12:00:00Z, or 30d from now.")
    ] = None,
    create: Annotated[bool, Flag, Parameter(help="Fail if the name has a blob.")] = False,
    replace: Annotated[bool, Flag, Parameter(help="Fail if the name has none.")] = False,
    if_absent: IfAbsent = False,
    if_version: IfVersion = None,
    if_digest: IfDigest = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Store a file under a name, and print the digest, the version and the name.

    The name may have a blob already, unless an option says otherwise; it keeps that until all is
    stored.
    """
    is_new = create or if_absent
    is_there = replace or if_version is not None or if_digest is not None
    if is_new and is_there:
        raise InvalidError("the options say that the name has a blob, and that it has none")
    labels = parse_labels(label)
    expires_at = _expiry(expires)
    async with await connect(flags) as connection:
        names = connection.names
        write: Callable[..., Awaitable[NameStored]] = names.create if is_new else names.put
        if is_there:
            write = partial(names.replace, if_version=if_version, if_digest=_digest(if_digest))
        with progress_bar("put", total_size([file])) as advance:
            stored = await write(
                name,
                input_of(file),
                type=type,
                digest=_digest(digest),
                labels=labels,
                expires_at=expires_at,
                progress=as_total(advance),
            )
    _print_stored(stored, json=json)


def _digest(text: str | None) -> str | None:
    return None if text is None else parse_digest(text.strip())


def _expiry(text: str | None) -> datetime | None:
    """A time, or how long from now. Raises InvalidError."""
    if text is None:
        return None
    duration = parse_duration(text)
    if duration is None:
        at = parse_zoned_time(text)
    else:
        try:
            at = utc_now() + duration
        except OverflowError:
            at = None
    if at is None:
        raise InvalidError(
            f"{text!r} is not a time: 2027-01-31T12:00:00Z, or 30d for 30 days from now"
        )
    return at


def _print_stored(stored: NameStored, *, json: bool) -> None:
    print_result(stored, stored.digest, f"{stored.version:>6}", stored.name, json=json)


@app.command
async def get(
    name: str,
    /,
    *,
    version: Version = None,
    output: Output = STANDARD,
    offset: Offset = 0,
    length: Length = None,
    flags: ClientFlags | None = None,
) -> None:
    """Write what a name has, or a range of it, to standard output or a file.

    The file appears when every byte is there and has been checked, or not at all.
    """
    async with await connect(flags) as connection:
        read_to = partial(connection.names.get_to, name, version=version)
        await write_range(read_to, "get", output_of(output), offset, length)


@app.command
async def ls(
    prefix: Annotated[str, Parameter(help="Prefix of the names.")] = "",
    /,
    *,
    long: Annotated[
        bool,
        Flag,
        Parameter(name=("--long", "-l"), help="Also state, version, size, time and digest."),
    ] = False,
    delimiter: Annotated[
        str,
        Parameter(help="Show names that have this behind the prefix as one: / as directories."),
    ] = "",
    label: Label = (),
    start_after: Annotated[str, Parameter(help="Only names behind this one.")] = "",
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """List names, in the order of their bytes; also those whose first blob is not there yet."""
    labels = parse_labels(label)
    async with await connect(flags) as connection:
        rows = connection.names.list(
            prefix, delimiter=delimiter, labels=labels, start_after=start_after
        )
        async for row in rows:
            told = {"prefix": row} if isinstance(row, str) else row
            columns = _long_row(row) if long else _long_row(row)[-1:]
            print_result(told, *columns, json=json)


def _long_row(row: NameEntry | str) -> tuple[str, ...]:
    if isinstance(row, str):
        return ("prefix ", " " * 6, " " * 12, " " * 27, " " * 64, row)
    return (
        f"{row.state:7}",
        f"{row.version:>6}",
        f"{row.size:>12}",
        row.modified_at.ljust(27),
        (row.digest or _NO_BLOB).ljust(64),
        row.name,
    )


@app.command
async def stat(
    name: str,
    /,
    *,
    version: Version = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Print what is recorded about a name and its blob."""
    async with await connect(flags) as connection:
        answer = await connection.names.stat(name, version=version)
    print_fields(answer, json=json)


@app.command
async def cp(
    source: str,
    name: str,
    /,
    *,
    version: Version = None,
    by_digest: Annotated[bool, Flag, Parameter(help="SOURCE is the digest of a blob.")] = False,
    if_absent: IfAbsent = False,
    if_version: IfVersion = None,
    if_digest: IfDigest = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Give a name the blob of another, and print it. No bytes are moved."""
    async with await connect(flags) as connection:
        stored = await connection.names.copy(
            name,
            source=None if by_digest else source,
            digest=_digest(source) if by_digest else None,
            version=version,
            if_absent=if_absent,
            if_version=if_version,
            if_digest=_digest(if_digest),
        )
    _print_stored(stored, json=json)


@app.command
async def mv(
    source: str,
    name: str,
    /,
    *,
    if_absent: IfAbsent = False,
    if_version: IfVersion = None,
    if_digest: IfDigest = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Give a blob another name, in one step. Conditions are of the name that it gets."""
    async with await connect(flags) as connection:
        stored = await connection.names.rename(
            name,
            source=source,
            if_absent=if_absent,
            if_version=if_version,
            if_digest=_digest(if_digest),
        )
    _print_stored(stored, json=json)


@app.command
async def rm(
    names: list[str],
    /,
    *,
    if_version: IfVersion = None,
    if_digest: IfDigest = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Take the blobs from names. A name that has none counts as deleted."""
    if len(names) != 1 and (if_version, if_digest) != (None, None):
        raise InvalidError("--if-version and --if-digest are for one name")
    digest = _digest(if_digest)
    async with await connect(flags) as connection:
        for name in names:
            deleted = await connection.names.delete(name, if_version=if_version, if_digest=digest)
            outcome = "deleted" if deleted else "was not there"
            print_result({"name": name, "deleted": deleted}, name, outcome, json=json)


@app.command
async def history(name: str, /, *, json: Json = False, flags: ClientFlags | None = None) -> None:
    """Print the last steps of a name, newest first: time, state, version, digest, reason."""
    async with await connect(flags) as connection:
        found = await connection.names.history(name)
    for step in found.transitions:
        print_result(step, *_step(step), json=json)


def _step(step: NameTransition) -> tuple[str, ...]:
    digest = (step.digest or _NO_BLOB).ljust(64)
    return (step.at.ljust(27), f"{step.state:7}", f"{step.version:>6}", digest, step.reason)


@app.command
async def versions(name: str, /, *, json: Json = False, flags: ClientFlags | None = None) -> None:
    """Print the versions that a name has and keeps, newest first: version, size, time, digest."""
    async with await connect(flags) as connection:
        async for version in connection.names.versions(name):
            print_result(version, *_version(version), json=json)


def _version(one: NameVersion) -> tuple[str, ...]:
    return (f"{one.version:>6}", f"{one.size:>12}", one.modified_at.ljust(27), one.digest)


@app.command
async def restore(
    name: str,
    version: int,
    /,
    *,
    if_version: IfVersion = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Give a name the blob of a version that it had, as a new version, and print it."""
    async with await connect(flags) as connection:
        stored = await connection.names.restore(name, version, if_version=if_version)
    _print_stored(stored, json=json)


@app.command
async def rules(
    *,
    replace: Annotated[
        str | None,
        DASH,
        Parameter(
            help="Replace all rules by those of a file, a JSON object a line as --json prints "
            "them; - is standard input."
        ),
    ] = None,
    if_revision: Annotated[
        int | None, Parameter(help="Replace them only if they have this revision.")
    ] = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Print what is kept of names, and for how long; the revision goes to standard error."""
    if replace is None and if_revision is not None:
        raise InvalidError("--if-revision goes with --replace")
    wanted = None if replace is None else _read_rules(replace)
    async with await connect(flags) as connection:
        names = connection.names
        if wanted is None:
            found = await names.rules()
        else:
            found = await names.set_rules(wanted, if_revision=if_revision)
    for rule in found.rules:
        print_result(rule, *_rule(rule), json=json)
    say(f"revision {found.revision}")


def _read_rules(file: str) -> list[NameRule]:
    """Raises InvalidError, OSError."""
    text = sys.stdin.buffer.read() if file == STANDARD else Path(file).read_bytes()
    try:
        return msgspec.json.Decoder(NameRule).decode_lines(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidError(f"the rules are invalid: {error}") from error


def _rule(rule: KeptRule) -> tuple[str, ...]:
    fields = msgspec.to_builtins(rule)
    subject = "prefix" if rule.prefix is not None else "name"
    return (subject, fields.pop(subject), *(f"{key}={value}" for key, value in fields.items()))
