"""``holdfast import``: brings in what the older systems left on disk.

Each thing is checked against what the older system says of it, and may be imported again: what is
there already is passed over. A line is printed for each; what is wrong is told on standard error,
and makes the exit status 1, once all the others are in.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from holdfast.cli.base import exit_codes
from holdfast.cli.base.arguments import Flag, parse_labels
from holdfast.cli.base.connection import connect
from holdfast.cli.base.output import human_bytes, print_line, say, say_error
from holdfast.cli.base.settings import ClientFlags
from holdfast.cli.old_stores import (
    OldBlob,
    OldSave,
    digest_of_file,
    hashed_files,
    metadata_beside,
    named_blobs,
    old_labels,
    old_save,
    told_digest,
)
from holdfast.domain.canonical import canonical
from holdfast.domain.digest import digest_of
from holdfast.domain.names import check_app
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InvalidError,
    NotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from holdfast.client import Client

app = App(name="import", help_format="plaintext")

IMPORTED: Final = "imported"
"""The label of a snapshot that says of which archive it was made: its SHA-256."""

DryRun = Annotated[bool, Flag, Parameter(help="Only check, and say what would be done.")]


class _Tally:
    """The report, in lines as work is done and in a sum at the end."""

    def __init__(self, *, dry_run: bool) -> None:
        self._counts: Counter[str] = Counter()
        self._bytes = 0
        self._dry_run = dry_run

    async def take(self, name: object, about: object, size: int, work: Awaitable[bool]) -> None:
        """Do ``work``, which tells whether ``name`` was not there, and say how that went."""
        try:
            is_new = await work
        except (ConflictError, CorruptError, InvalidError, OSError) as error:
            self.wrong(name, error)
            return
        if is_new:
            self.imported(name, about, size=size)
        else:
            self.present(name, about)

    def imported(self, name: object, *columns: object, size: int) -> None:
        self._counts["imported"] += 1
        self._bytes += size
        print_line("would import" if self._dry_run else "imported", *columns, name)

    def present(self, name: object, *columns: object) -> None:
        self._counts["present"] += 1
        print_line("is there", *columns, name)

    def wrong(self, name: object, error: HoldfastError | OSError) -> None:
        self._counts["wrong"] += 1
        code, detail = "failed", str(error)
        if isinstance(error, HoldfastError):
            code, detail = error.code, error.detail
        say_error(code, f"{name}: {detail}")

    def status(self) -> int:
        verb = "to import" if self._dry_run else "imported"
        say(
            f"{self._counts['imported']} {verb}, {human_bytes(self._bytes)};"
            f" {self._counts['present']} there already, {self._counts['wrong']} wrong"
        )
        return exit_codes.FAILURE if self._counts["wrong"] else exit_codes.OK


@app.command
async def blobs(
    directory: Annotated[Path, Parameter(help="Directory of files named by their SHA-256.")],
    /,
    *,
    dry_run: DryRun = False,
    flags: ClientFlags | None = None,
) -> int:
    """Import files that are named by their SHA-256, at and below a directory, as blobs.

    Reports a file whose bytes do not match its name, as after a crash, and leaves it out.
    """
    tally = _Tally(dry_run=dry_run)
    async with await connect(flags) as connection:
        for blob in hashed_files(directory):
            if isinstance(blob, OSError):
                tally.wrong(blob.filename, blob)
                continue
            work = _import_blob(connection, blob, dry_run=dry_run)
            await tally.take(blob.path, blob.name, blob.size, work)
    return tally.status()


async def _import_blob(connection: Client, blob: OldBlob, *, dry_run: bool) -> bool:
    """Whether it was not pinned. Raises CorruptError, and what ``Client.put`` does."""
    if await _is_pinned(connection, blob.name):
        return False
    found = await asyncio.to_thread(digest_of_file, blob.path)
    if found != blob.name:
        raise CorruptError(f"its bytes have the SHA-256 {found}")
    if not dry_run:
        await connection.put(blob.path, digest=found)
    return True


async def _is_pinned(connection: Client, digest: str) -> bool:
    """Whether the blob stays: one that only a name or nothing keeps may go."""
    try:
        return (await connection.stat(digest)).pinned
    except NotFoundError:
        return False


@app.command
async def store(
    directory: Annotated[Path, Parameter(help="The data directory of the older server.")],
    /,
    *,
    under: Annotated[str, Parameter(help="In front of each name, such as old/.")] = "",
    dry_run: DryRun = False,
    flags: ClientFlags | None = None,
) -> int:
    """Import the blobs of a named blob server: ID/data.raw with a state file beside it.

    Whole blobs come in under their names; a name that has other bytes here is reported, and stays
    as it is. The older server must not run.
    """
    tally = _Tally(dry_run=dry_run)
    async with await connect(flags) as connection:
        for blob in named_blobs(directory):
            if isinstance(blob, CorruptError | OSError):
                tally.wrong(directory, blob)
                continue
            name = under + blob.name
            work = _import_named(connection, name, blob, dry_run=dry_run)
            await tally.take(name, blob.path, blob.size, work)
    return tally.status()


async def _import_named(connection: Client, name: str, blob: OldBlob, *, dry_run: bool) -> bool:
    """Whether it was not there. Raises ConflictError (other bytes are), and as ``Names.create``."""
    digest = await asyncio.to_thread(digest_of_file, blob.path)
    try:
        present = await connection.names.stat(name)
    except NotFoundError:
        if not dry_run:
            await connection.names.create(name, blob.path, digest=digest)
        return True
    if present.digest != digest:
        raise ConflictError(f"the name has other bytes here, as version {present.version}")
    return False


@app.command
async def archive(
    files: Annotated[list[Path], Parameter(help=".tar.zst files, or other tar files.")],
    /,
    *,
    app: Annotated[str, Parameter(help="App that the snapshots are of.")],
    label: Annotated[
        tuple[str, ...], Parameter(negative_iterable="", help="KEY=VALUE; may be repeated.")
    ] = (),
    dry_run: DryRun = False,
    flags: ClientFlags | None = None,
) -> int:
    """Import archives as snapshots of an app, each with a label that names the archive.

    Labels are also taken from _metadata/NAME.json beside an archive, and its SHA-256 is compared.
    Content is stored anew, sharing what it can.
    """
    check_app(app)
    given = parse_labels(label)
    tally = _Tally(dry_run=dry_run)
    async with await connect(flags) as connection:
        for file in files:
            try:
                key = await _import_archive(connection, file, app, given, dry_run=dry_run)
            except (CorruptError, InvalidError, OSError) as error:
                tally.wrong(file, error)
                continue
            if key is None:
                tally.imported(file, size=file.stat().st_size)
            else:
                tally.present(file, key)
    return tally.status()


async def _import_archive(
    connection: Client, file: Path, app: str, given: dict[str, str], *, dry_run: bool
) -> str | None:
    """The key of the snapshot that is there already. Raises CorruptError, as ``create_from``."""
    metadata = metadata_beside(file)
    digest, told = await asyncio.to_thread(digest_of_file, file), told_digest(metadata)
    if told is not None and told != digest:
        raise CorruptError(f"its bytes have the SHA-256 {digest}, and its metadata say {told}")
    labels = {**old_labels(metadata), **given, IMPORTED: digest}
    present = connection.snapshots.list(app=app, labels={IMPORTED: digest}, state="ok")
    async for record in present:
        return record.key
    if not dry_run:
        await connection.snapshots.create_from(file, app=app, labels=labels)
    return None


@app.command
async def state(
    file: Annotated[Path, Parameter(help="A snapshot.json: state, last_applied_index and so on.")],
    /,
    *,
    name: Annotated[str, Parameter(help="Name of the state.")],
    dry_run: DryRun = False,
    flags: ClientFlags | None = None,
) -> int:
    """Import a saved state; its hash is compared where the file has one.

    The name must have no newer save.
    """
    tally = _Tally(dry_run=dry_run)
    saved = old_save(file)
    state_hash = digest_of(canonical(saved.state))
    if saved.state_hash not in {None, state_hash}:
        raise CorruptError(f"{file}: its state has the hash {state_hash}, not {saved.state_hash}")
    async with await connect(flags) as connection:
        if await _has_save(connection, name, saved, state_hash):
            tally.present(name, state_hash)
        else:
            if not dry_run:
                await connection.states.save_json(
                    name,
                    saved.state,
                    last_applied_index=saved.last_applied_index,
                    last_applied_hlc=saved.last_applied_hlc,
                )
            tally.imported(name, state_hash, size=len(saved.state))
    return tally.status()


async def _has_save(connection: Client, name: str, saved: OldSave, state_hash: str) -> bool:
    """Whether the newest save is this one, up to the same command."""
    try:
        newest = await connection.states.record(name)
    except NotFoundError:
        return False
    found = (newest.state_hash, newest.last_applied_index, newest.last_applied_hlc)
    return found == (state_hash, saved.last_applied_index, saved.last_applied_hlc)
