"""``holdfast state``: logs of commands and saves of states, one command per verb.

Results go to standard output, a line each (or JSON with ``--json``); the exit status tells what
went wrong (``exit_codes``): 4 where another writer was first. ``-`` is standard input or output.
"""

from __future__ import annotations

import base64
import sys
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import App, Parameter

from holdfast.cli.base import exit_codes
from holdfast.cli.base.arguments import (
    DASH,
    STANDARD,
    Flag,
    Json,
    input_of,
    output_of,
    parse_duration,
    standard_input,
)
from holdfast.cli.base.connection import connect
from holdfast.cli.base.ending import until_stopped
from holdfast.cli.base.output import print_fields, print_json, print_line, print_result, say
from holdfast.cli.base.settings import ClientFlags
from holdfast.client.states.appending import MOST_BYTES_TOGETHER
from holdfast.domain.canonical import canonical
from holdfast.domain.digest import digest_of, parse_digest
from holdfast.domain.limits import MAX_COMMANDS
from holdfast.errors import ConflictError, InvalidError, NotFoundError
from holdfast.protocol.times import parse_zoned_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator
    from datetime import datetime

    from holdfast.client.states.values import LogCommand, LogPosition
    from holdfast.protocol.states import ExpectedIndex, Saved, StateEntry

app = App(name="state", help_format="plaintext")

Bytes = Annotated[
    bool, Flag, Parameter(name="--bytes", help="FILE is bytes as they are, and not JSON.")
]
Index = Annotated[
    int | None, Parameter(help="The newest save that goes up to this command at most.")
]
Time = Annotated[
    str | None, Parameter(help="The newest save of that time or before: 2027-01-31T12:00:00Z.")
]
JsonFile = Annotated[str, DASH, Parameter(help="A file with JSON; - is standard input.")]
Hash = Annotated[str | None, Parameter(name="--hash", help="The save with this hash.")]
OfLineage = Annotated[str | None, Parameter(help="Be about the log that has this lineage alone.")]

_NO_HASH: Final = "-"


@app.command
async def append(
    name: str,
    commands: Annotated[list[str], DASH],
    /,
    *,
    expected_index: Annotated[
        str, Parameter(help="Only if the last command is this one: any, none, or a number.")
    ] = "any",
    lineage: OfLineage = None,
    hlc: Annotated[str | None, Parameter(help="Give them times after this one.")] = None,
    as_bytes: Annotated[
        bool, Flag, Parameter(name="--bytes", help="COMMANDS are files, each of them a command.")
    ] = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Append commands to the log of a state, and print the index and the time of each.

    Commands that are given as arguments are appended together, or not at all.

    Parameters
    ----------
    commands
        JSON; - reads one a line from standard input, which are appended up to 1,000 at a time.
    """
    expected = _expected(expected_index)
    is_input = commands == [STANDARD] and not as_bytes
    if is_input and expected != "any":
        raise InvalidError("--expected-index is for commands that are arguments")
    if as_bytes and len(commands) != 1:
        raise InvalidError("--bytes is for one command")
    async with await connect(flags) as connection:
        states = connection.states
        if as_bytes:
            data = _read(commands[0])
            found = await states.append(
                name, data, expected_index=expected, lineage=lineage, hlc=hlc
            )
            _print_positions([found], json=json)
            return
        batches: Iterable[list[object]] = (
            _lines() if is_input else [[_parsed(text) for text in commands]]
        )
        for batch in batches:
            positions = await states.append_many(
                name, batch, expected_index=expected, lineage=lineage, hlc=hlc
            )
            _print_positions(positions, json=json)


def _expected(text: str) -> ExpectedIndex:
    if text == "any":
        return "any"
    if text == "none":
        return "none"
    if not (text.isascii() and text.isdigit()):
        raise InvalidError(f"{text!r} is not an index: any, none, or a number")
    return int(text[:20])


def _parsed(text: str) -> object:
    try:
        found: object = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidError(f"{text[:80]!r} is not JSON: {error}") from error
    return found


def _lines() -> Iterator[list[object]]:
    """The commands of standard input, as many at a time as one append may have."""
    batch: list[object] = []
    size = 0
    for line in filter(None, map(str.strip, sys.stdin)):
        length = len(line.encode(errors="replace")) + 1
        if batch and (len(batch) == MAX_COMMANDS or size + length > MOST_BYTES_TOGETHER):
            yield batch
            batch, size = [], 0
        batch.append(_parsed(line))
        size += length
    if batch:
        yield batch


def _read(file: str) -> bytes:
    """Raises OSError."""
    if file != STANDARD:
        return Path(file).read_bytes()
    source = standard_input()
    return b"".join(iter(lambda: source.read(1 << 20) or b"", b""))


def _print_positions(positions: Iterable[LogPosition], *, json: bool) -> None:
    for one in positions:
        found = {"index": one.index, "hlc": one.hlc, "lineage": one.lineage}
        print_result(found, f"{one.index:>12}", one.hlc, json=json)


@app.command
async def save(
    name: str,
    file: JsonFile,
    /,
    *,
    index: Annotated[int, Parameter(help="The last command that the state includes.")],
    lineage: OfLineage = None,
    hlc: Annotated[str, Parameter(help="The time of that command.")] = "",
    as_bytes: Bytes = False,
    force: Annotated[
        bool, Flag, Parameter(help="Save it even if it is older than the newest save.")
    ] = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Save a state, and print its hash, the index and the number of the save."""
    text = b"" if as_bytes else _read(file)
    async with await connect(flags) as connection:
        states = connection.states
        if as_bytes:
            saved = await states.save_from(
                name,
                input_of(file),
                last_applied_index=index,
                last_applied_hlc=hlc,
                lineage=lineage,
                force=force,
            )
        else:
            saved = await states.save_json(
                name,
                text,
                last_applied_index=index,
                last_applied_hlc=hlc,
                lineage=lineage,
                force=force,
            )
    columns = (saved.state_hash, f"{saved.last_applied_index:>12}", f"{saved.number:>6}")
    print_result(saved, *columns, json=json)


@app.command
async def show(
    name: str,
    /,
    *,
    index: Index = None,
    time: Time = None,
    hash: Hash = None,  # noqa: A002 - the flag's name
    output: Annotated[
        str | None,
        DASH,
        Parameter(name=("--output", "-o"), help="Write the state to a file; - is standard output."),
    ] = None,
    every: Annotated[
        bool, Flag, Parameter(name="--all", help="Every save that is kept, a line each.")
    ] = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Print what is recorded of the newest save, or an earlier one; or write its state.

    The file appears when every byte is there and has been checked, or not at all.
    """
    at = _time(time)
    known = None if hash is None else parse_digest(hash.strip())
    if every and (output, index, at, known) != (None, None, None, None):
        raise InvalidError("--all cannot go with a choice of one save")
    async with await connect(flags) as connection:
        states = connection.states
        if every:
            async for record in states.saves(name):
                print_result(record, *_row(record), json=json)
        elif output is not None:
            await states.read_to(name, output_of(output), index=index, time=at, hash=known)
            sys.stdout.buffer.flush()
        else:
            found = await states.record(name, index=index, time=at, hash=known)
            print_fields(found, json=json, width=20)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    at = parse_zoned_time(text)
    if at is None:
        raise InvalidError(f"{text!r} is not a time: 2027-01-31T12:00:00Z")
    return at


def _row(record: Saved) -> tuple[str, ...]:
    return (
        f"{record.number:>6}",
        f"{record.last_applied_index:>12}",
        f"{record.size:>12}",
        record.at.ljust(27),
        record.state_hash,
    )


@app.command
async def log(
    name: str,
    /,
    *,
    from_index: Annotated[
        int | None, Parameter(name="--from", help="The first command; by default the oldest.")
    ] = None,
    follow: Annotated[
        bool,
        Flag,
        Parameter(name=("--follow", "-f"), help="Go on with further commands, until SIGINT."),
    ] = False,
    lineage: OfLineage = None,
    flags: ClientFlags | None = None,
) -> int:
    """Print the commands of a log, each with its index, its time and the lineage of the log.

    They are lines of JSON. Bytes are in base64.
    """
    async with await connect(flags) as connection:
        states = connection.states
        first = await states.first_index(name) if from_index is None else from_index
        if not follow:
            await _print_commands(states.replay(name, first, lineage=lineage))
            return exit_codes.OK
        await until_stopped(_print_commands(states.follow(name, first, lineage=lineage)))
    return exit_codes.OK


async def _print_commands(commands: AsyncGenerator[LogCommand]) -> None:
    async with aclosing(commands) as incoming:
        async for one in incoming:
            print_json(_shown(one))
            sys.stdout.flush()


def _shown(one: LogCommand) -> dict[str, object]:
    """A command as the wire has it: bytes are base64."""
    shown = {"index": one.index, "hlc": one.hlc, "lineage": one.lineage}
    if isinstance(one.command, bytes):
        return shown | {"bytes": base64.b64encode(one.command).decode()}
    return shown | {"command": one.command}


@app.command
async def replay(
    name: str, /, *, lineage: OfLineage = None, flags: ClientFlags | None = None
) -> None:
    """Print what a service loads: the newest save, if any, and the commands behind it.

    They are lines of JSON. A save is as `show --json` has it, with its state, or that in base64 as
    `bytes`.
    """
    async with await connect(flags) as connection:
        states = connection.states
        index = 0
        with suppress(NotFoundError):
            found = await states.latest(name)
            if found is not None:
                _check_log(lineage, found.lineage)
                index, lineage = found.record.last_applied_index, lineage or found.lineage
                print_json(msgspec.to_builtins(found.record) | _state(found.state))
        await _print_commands(states.replay(name, index + 1, lineage=lineage))


def _check_log(asked: str | None, found: str | None) -> None:
    if asked is not None and found not in (None, asked):
        raise ConflictError("the newest save is of another log")


def _state(state: object) -> dict[str, object]:
    if isinstance(state, bytes):
        return {"bytes": base64.b64encode(state).decode()}
    return {"state": state}


@app.command
async def trim(
    name: str, through_index: int, /, *, json: Json = False, flags: ClientFlags | None = None
) -> None:
    """Forget the commands up to and with an index, and print the first one that is left.

    It goes at most as far as the save before the newest.
    """
    async with await connect(flags) as connection:
        trimmed = await connection.states.trim(name, through_index)
    print_result(trimmed, f"first command {trimmed.first_index}", json=json)


@app.command
def hash(  # noqa: A001 - the command's name
    file: JsonFile, /, *, as_bytes: Bytes = False, json: Json = False
) -> None:
    """Print the hash that a state would have, without asking anybody: of a genesis file, say."""
    data = _read(file)
    found = digest_of(data if as_bytes else canonical(data))
    print_result({"state_hash": found}, found, json=json)


@app.command
async def verify(name: str, /, *, json: Json = False, flags: ClientFlags | None = None) -> int:
    """Read back all saves, and the log behind the oldest of them. Exits with 5 on damage."""
    async with await connect(flags) as connection:
        found = await connection.states.verify(name)
    if json:
        print_json(found)
    else:
        for damage in found.damaged:
            print_line(damage)
        say(f"saves: {found.saves}, commands: {found.commands}, damaged: {len(found.damaged)}")
    return exit_codes.CORRUPT if found.damaged else exit_codes.OK


@app.command
async def ls(
    prefix: Annotated[str, Parameter(help="Prefix of the names.")] = "",
    /,
    *,
    long: Annotated[
        bool,
        Flag,
        Parameter(name=("--long", "-l"), help="Also saves, last saved index, time and hash."),
    ] = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """List states."""
    async with await connect(flags) as connection:
        async for entry in connection.states.list(prefix):
            columns = _long_row(entry) if long else [entry.name]
            print_result(entry, *columns, json=json)


def _long_row(entry: StateEntry) -> tuple[str, ...]:
    return (
        f"{entry.saves:>6}",
        f"{entry.last_applied_index:>12}",
        (entry.saved_at or _NO_HASH).ljust(27),
        (entry.state_hash or _NO_HASH).ljust(64),
        entry.name,
    )


@app.command
async def rm(names: list[str], /, *, json: Json = False, flags: ClientFlags | None = None) -> None:
    """Remove states, their saves and their logs. One that is not there counts as removed."""
    async with await connect(flags) as connection:
        for name in names:
            removed = await connection.states.remove(name)
            outcome = "removed" if removed else "was not there"
            print_result({"name": name, "removed": removed}, name, outcome, json=json)


@app.command
async def repair(
    name: str, from_index: int, /, *, json: Json = False, flags: ClientFlags | None = None
) -> None:
    """Go on with a damaged log: the next command gets this index, what lies behind is lost."""
    async with await connect(flags) as connection:
        found = await connection.states.repair(name, from_index)
    print_result(found, f"commands {found.first_index} to {found.last_index}", json=json)


@app.command
async def policy(
    name: str,
    /,
    *,
    save_every: Annotated[
        int | None, Parameter(help="Commands after which its writers save it.")
    ] = None,
    keep: Annotated[int | None, Parameter(help="Saves that are kept in any case.")] = None,
    keep_for: Annotated[
        str | None, Parameter(help="Saves that are not older are kept too: 30d.")
    ] = None,
    trim: Annotated[bool | None, Parameter(help="Trim the log to the oldest save.")] = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Print what is kept of a state, or change it."""
    seconds = _seconds(keep_for)
    async with await connect(flags) as connection:
        found = await connection.states.set_policy(
            name, save_every=save_every, keep=keep, keep_seconds=seconds, trim=trim
        )
    print_fields(found, json=json)


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    duration = parse_duration(text)
    if duration is None:
        raise InvalidError(f"{text!r} is not a duration: 90m, 12h, 30d")
    return int(duration.total_seconds())
