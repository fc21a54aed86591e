"""``holdfast snapshot``: archive directories, look into archives, put files back.

Results go to standard output, a line each (or JSON with ``--json``); summaries and warnings go to
standard error. A snapshot with warnings is a snapshot: the exit status is 0 (``exit_codes``).
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from holdfast.cli.base import exit_codes
from holdfast.cli.base.arguments import (
    DASH,
    STANDARD,
    Flag,
    Json,
    Label,
    Length,
    Many,
    Offset,
    OnlyLabel,
    Output,
    first_words,
    output_of,
    parse_labels,
)
from holdfast.cli.base.connection import connect
from holdfast.cli.base.output import (
    as_total,
    human_bytes,
    is_agreed,
    print_json,
    print_line,
    print_result,
    progress_bar,
    say,
    write_range,
)
from holdfast.cli.base.settings import ClientFlags
from holdfast.cli.base.snapshot_arguments import (
    AppSource,
    Key,
    LocalSource,
    parse_time,
    read_patterns,
    resolve_key,
    source_of,
)
from holdfast.cli.base.snapshot_output import (
    name_of,
    print_change,
    print_file,
    print_record,
    print_row,
    progress_of,
    say_created,
    say_more,
    say_restored,
    say_warnings,
)
from holdfast.cli.link import link_snapshot
from holdfast.cli.snapshot_retention import hold, policy, prune, release
from holdfast.domain.names import SnapshotKey, check_app
from holdfast.errors import InvalidError, NotFoundError
from holdfast.sources import utc_now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from holdfast.client import Client
    from holdfast.protocol.files import DamagedPack
    from holdfast.protocol.snapshots import RestoreRecord, SnapshotRecord

app = App(name="snapshot", help_format="plaintext")
for command in (prune, hold, release, policy):
    app.command(command)
app.command(link_snapshot, name="link")

Node = Annotated[str | None, Parameter(help="Node that does it.")]
NoWait = Annotated[bool, Flag, Parameter(help="Exit at once, while a worker goes on.")]
Yes = Annotated[bool, Flag, Parameter(help="Do not ask.")]


@app.command
async def create(
    source: Annotated[
        str,
        DASH,
        Parameter(
            help="An app, which a worker archives; or, with a slash (./blog), a directory of this "
            "machine; or a .tar, .tar.gz, .tar.zst … file; or - for such an archive on standard "
            "input."
        ),
    ],
    /,
    *,
    app: Annotated[
        str | None, Parameter(help="App of the snapshot; by default the directory's name.")
    ] = None,
    label: Label = (),
    exclude: Annotated[
        tuple[str, ...], Many, Parameter(help="Pattern of files to leave out, as in a .gitignore.")
    ] = (),
    exclude_from: Annotated[
        tuple[Path, ...], Many, Parameter(help="File with such patterns, one per line.")
    ] = (),
    exclude_caches: Annotated[
        bool, Flag, Parameter(help="Leave out directories with a CACHEDIR.TAG.")
    ] = False,
    one_file_system: Annotated[bool, Flag, Parameter(help="Stay on one file system.")] = False,
    skip_unreadable: Annotated[
        bool, Flag, Parameter(help="Warn of files that may not be read, instead of failing.")
    ] = False,
    read_all: Annotated[
        bool, Flag, Parameter(help="Read every file, and check everything that is already stored.")
    ] = False,
    node: Node = None,
    no_wait: NoWait = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Archive a directory, and print the key of the snapshot.

    Data that is already stored is neither sent nor stored again.
    """
    labels = parse_labels(label)
    wanted = source_of(source, app)
    patterns = read_patterns(exclude, exclude_from)
    began = time.monotonic()
    if isinstance(wanted, LocalSource) and (node is not None or no_wait):
        raise InvalidError("--node and --no-wait are for an app that a worker archives")
    async with await connect(flags) as connection:
        snapshots = connection.snapshots
        make: Callable[..., Awaitable[SnapshotRecord]]
        if isinstance(wanted, AppSource):
            make = partial(snapshots.create, wanted.app, node=node, wait=not no_wait)
        else:
            make = partial(snapshots.create_from, wanted.files, app=wanted.app)
        with progress_of(f"archiving {source}", time.monotonic) as on_progress:
            record = await make(
                labels=labels,
                exclude=patterns,
                exclude_caches=exclude_caches,
                one_file_system=one_file_system,
                skip_unreadable=skip_unreadable,
                read_all=read_all,
                on_progress=on_progress,
            )
    seconds = time.monotonic() - began
    if json:
        print_json(record)
        say_warnings(record)
        return
    print_line(record.key)
    say_created(record, seconds)


@app.command
async def restore(
    key: Key,
    paths: Annotated[
        tuple[str, ...],
        Parameter(
            help="Paths and globs to restore, with mode new or merge; by default everything.",
            show_default=False,
        ),
    ] = (),
    /,
    *,
    app: Annotated[
        str | None, Parameter(help="App to restore into; by default the snapshot's.")
    ] = None,
    to: Annotated[str | None, Parameter(help="Directory of this machine to restore into.")] = None,
    mode: Annotated[
        Literal["new", "replace", "merge"],
        Parameter(
            help="new: the directory must not exist. replace: exchange it as a whole. merge: write "
            "into it; mounts in it are never removed."
        ),
    ] = "new",
    delete: Annotated[
        bool, Flag, Parameter(help="With merge: remove files that the snapshot lacks.")
    ] = False,
    dry_run: Annotated[bool, Flag, Parameter(help="Only print what would change.")] = False,
    owner: Annotated[
        str, Parameter(help="keep, current (the user who restores), or UID:GID for everything.")
    ] = "keep",
    privileged: Annotated[
        bool,
        Flag,
        Parameter(
            help="Restore set-ID bits, capabilities and trusted attributes even if a client "
            "archived them."
        ),
    ] = False,
    max_expansion: Annotated[
        int | None,
        Parameter(help="Beyond 64 GiB, write at most this many times the stored bytes (1000)."),
    ] = None,
    node: Node = None,
    no_wait: NoWait = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Put the files of a snapshot back, all or some.

    A worker that restores all files leaves out, and removes, a .chowned at the top.
    """
    if to is not None and (app is not None or node is not None or no_wait):
        raise InvalidError("--app, --node and --no-wait are for workers; --to restores here")
    began = time.monotonic()
    async with await connect(flags) as connection:
        snapshots = connection.snapshots
        found = await resolve_key(connection, key)
        put_back: Callable[..., Awaitable[RestoreRecord]]
        if to is None:
            put_back = partial(snapshots.restore, found, app=app, node=node, wait=not no_wait)
        else:
            put_back = partial(snapshots.restore_to, found, to)
        with progress_of(f"restoring {found}", time.monotonic) as on_progress:
            record = await put_back(
                paths=paths,
                mode=mode,
                delete=delete,
                dry_run=dry_run,
                owner=owner,
                privileged=privileged,
                max_expansion=max_expansion,
                on_progress=on_progress,
            )
    if json:
        print_json(record)
        say_warnings(record)
        return
    for change in record.plan:
        print_change(change, json=False)
    say_more(record)
    if no_wait:
        print_line(record.restore)
    where = to if to is not None else f"app {record.app}"
    say_restored(record, where, time.monotonic() - began)


@app.command
async def ls(
    *,
    app: Annotated[
        tuple[str, ...], Many, Parameter(help="Only of this app; may be repeated.")
    ] = (),
    label: OnlyLabel = (),
    state: Annotated[
        Literal["pending", "ok", "failure"] | None, Parameter(help="Only in this state.")
    ] = None,
    since: Annotated[
        str | None, Parameter(help="Only from this time on; 2d: two days ago.")
    ] = None,
    until: Annotated[str | None, Parameter(help="Only before this time; 2d: two days ago.")] = None,
    limit: Annotated[int | None, Parameter(help="Number of snapshots at most.")] = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """List snapshots, newest first: key, time, state, files, size, labels."""
    if limit is not None and limit < 0:
        raise InvalidError("--limit is a number of snapshots, 0 or more")
    labels = parse_labels(label)
    apps = [check_app(name) for name in app]
    now = utc_now()
    oldest, newest = parse_time(since, now), parse_time(until, now)
    async with await connect(flags) as connection:
        listed = connection.snapshots.list(
            apps=apps or None,
            labels=labels,
            state=state,
            since=oldest,
            until=newest,
            on_damaged=lambda key: say(f"{key}: its record is damaged and cannot be shown"),
        )
        if limit == 0:
            return
        shown = 0
        async for record in listed:
            print_row(record, json=json)
            shown += 1
            if shown == limit:
                break


@app.command
async def show(
    key: Annotated[
        str,
        Parameter(
            help="Key of the snapshot, APP or APP:latest for the newest, or the id of a restore."
        ),
    ],
    /,
    *,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """Print what is recorded about a snapshot or a restore."""
    async with await connect(flags) as connection:
        record = await _record_of(connection, key)
    print_record(record, json=json)


async def _record_of(connection: Client, text: str) -> SnapshotRecord | RestoreRecord:
    """A bare UUID is a restore: an app may be called so too, but then ``APP:latest`` tells."""
    try:
        SnapshotKey.parse(f"restore:{text}")
    except InvalidError:
        return await connection.snapshots.get(await resolve_key(connection, text))
    return await connection.snapshots.get_restore(text)


@app.command
async def files(
    key: Key,
    path: Annotated[str, Parameter(help="Only this directory or file.", show_default=False)] = "",
    /,
    *,
    long: Annotated[
        bool, Flag, Parameter(name=("--long", "-l"), help="Show mode, owner, size, time and name.")
    ] = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> None:
    """List the files of a snapshot."""
    async with await connect(flags) as connection:
        found = await resolve_key(connection, key)
        async for entry in connection.snapshots.files(found, path):
            print_file(entry, long=long, json=json)


@app.command
async def diff(a: str, b: str, /, *, json: Json = False, flags: ClientFlags | None = None) -> None:
    """Print what changed from one snapshot to another.

    + added, - removed, M another content or kind, U another mode, owner, time or attribute.
    """
    async with await connect(flags) as connection:
        before, after = await resolve_key(connection, a), await resolve_key(connection, b)
        async for change in connection.snapshots.diff(before, after):
            print_change(change, json=json)


@app.command
async def cat(
    key: Key,
    path: Annotated[str, Parameter(help="Path of the file, relative to the app's directory.")],
    /,
    *,
    output: Output = STANDARD,
    offset: Offset = 0,
    length: Length = None,
    flags: ClientFlags | None = None,
) -> None:
    """Write a file of a snapshot, or a range of it, to standard output or a file."""
    async with await connect(flags) as connection:
        found = await resolve_key(connection, key)
        read_to = partial(connection.snapshots.read_to, found, path)
        await write_range(read_to, "cat", output_of(output), offset, length)


@app.command
async def export(
    key: Key,
    /,
    output: Annotated[
        str, DASH, Parameter(name=("--output", "-o"), help="File to write; - is standard output.")
    ] = STANDARD,
    *,
    flags: ClientFlags | None = None,
) -> None:
    """Write a snapshot as a plain .tar.zst, which tar and zstd read.

    The file appears once it is complete, or not at all.
    """
    if output == STANDARD and sys.stdout.isatty():
        raise InvalidError("an archive is not for a terminal: name a file, or use a pipe")
    async with await connect(flags) as connection:
        found = await resolve_key(connection, key)
        total = (await connection.snapshots.get(found)).archive_size or None
        with progress_bar("export", total) as advance:
            await connection.snapshots.export_to(
                found, output_of(output), progress=as_total(advance)
            )
    sys.stdout.buffer.flush()


@app.command
async def verify(
    keys: Annotated[
        tuple[str, ...],
        Parameter(help="Keys of snapshots; APP or APP:latest is the newest.", show_default=False),
    ] = (),
    /,
    *,
    app: Annotated[str | None, Parameter(help="All snapshots of this app in state ok.")] = None,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> int:
    """Have workers read all data of snapshots back and compare. Exits with 5 on damage."""
    if bool(keys) == (app is not None):
        raise InvalidError("name snapshots, or an app with --app")
    packs = size = damaged = 0
    async with await connect(flags) as connection:
        wanted = [await resolve_key(connection, key) for key in keys]
        if app is not None:
            listed = connection.snapshots.list(app=check_app(app), state="ok")
            wanted = [record.key async for record in listed]
            if not wanted:
                raise NotFoundError(f"app {app} has no snapshot that is ok")
        with progress_bar("verify", None) as advance:
            for key in wanted:
                async for report in connection.snapshots.verify(key):
                    packs += report.packs
                    size += report.bytes
                    damaged += max(report.damaged_count, len(report.damaged))
                    advance(report.bytes)
                    _print_damage(key, report.damaged, json=json)
    if json:
        print_json({"snapshots": len(wanted), "packs": packs, "bytes": size, "damaged": damaged})
    else:
        say(f"{len(wanted)} checked, {packs} packs, {human_bytes(size)}, {damaged} damaged")
    return exit_codes.CORRUPT if damaged else exit_codes.OK


def _print_damage(key: str, damaged: Iterable[DamagedPack], *, json: bool) -> None:
    for pack in damaged:
        paths = " ".join(name_of(path, None) for path in pack.paths)
        print_result(pack, key, pack.digest, pack.code, pack.detail, paths, json=json)


@app.command
async def rm(
    keys: Annotated[
        tuple[str, ...],
        DASH,
        Parameter(
            help="Full keys; - reads them from standard input, the first word of each line.",
            show_default=False,
        ),
    ] = (),
    /,
    *,
    app: Annotated[str | None, Parameter(help="With --all: the app.")] = None,
    all: Annotated[bool, Flag, Parameter(help="All snapshots of the app.")] = False,  # noqa: A002 - the flag's name
    yes: Yes = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> int:
    """Delete snapshots. A missing one counts as deleted. On a terminal, asks first."""
    if bool(keys) == (app is not None) or all != (app is not None):
        raise InvalidError("name snapshots by their full keys, or all of an app: --app NAME --all")
    wanted = list(_parse_keys(keys))
    what = f"all snapshots of {check_app(app)}" if app is not None else _count(len(wanted))
    if not yes and not is_agreed(f"Delete {what}?"):
        say("nothing was deleted")
        return exit_codes.FAILURE
    async with await connect(flags) as connection:
        if app is not None:
            count = await connection.snapshots.purge(app)
            print_result({"app": app, "deleted": count}, app, f"{_count(count)} deleted", json=json)
        for key in wanted:
            deleted = await connection.snapshots.delete(key)
            outcome = "deleted" if deleted else "was not there"
            print_result({"key": key, "deleted": deleted}, key, outcome, json=json)
    return exit_codes.OK


@app.command
async def purge(
    app: Annotated[str, Parameter(help="The app.")],
    /,
    *,
    yes: Yes = False,
    json: Json = False,
    flags: ClientFlags | None = None,
) -> int:
    """Delete all snapshots of an app, pending ones too. On a terminal, asks first."""
    return await rm(app=app, all=True, yes=yes, json=json, flags=flags)


def _parse_keys(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if text == STANDARD:
            yield from (str(SnapshotKey.parse(word)) for word in first_words(sys.stdin))
        else:
            yield str(SnapshotKey.parse(text))


def _count(count: int) -> str:
    return f"{count} snapshot{'' if count == 1 else 's'}"
