"""``python -m tests.bench``: what to measure of blobs and of snapshots, from the command line."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from tests.bench.promises import SMALL_BYTES, judge
from tests.bench.report import print_report
from tests.bench.run import BlobRun, run_blob_bench
from tests.bench.snapshot_promises import judge_snapshots
from tests.bench.snapshot_report import print_snapshot_report
from tests.bench.snapshot_run import SnapshotRun, run_snapshot_bench

from holdfast.domain.limits import MIB
from holdfast.errors import InvalidError

app = App(name="bench", help="Measure, beside other clients.", help_format="plaintext")

_SIZE_RE: Final = re.compile(r"(\d{1,15})\s*(|[kmg])(?:i?b)?", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "k": 1024, "m": MIB, "g": 1024 * MIB}
_SYNCS: Final[dict[str, tuple[Literal["default", "always"], ...]]] = {
    "default": ("default",),
    "always": ("always",),
    "both": ("default", "always"),
}


@app.command
async def blob(
    *,
    size: str = "256MiB",
    rounds: int = 5,
    sync: Literal["default", "always", "both"] = "default",
    requests: int = 2000,
    blobs: int = 10_000,
    memory: Annotated[bool, Parameter(negative="")] = False,
    memory_size: str = "1GiB",
    client_size: str = "4GiB",
    workers: int = 2,
    node_modules: Path | None = None,
    directory: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Put and get blobs through workers, beside other clients on the same nats-server.

    Starts a server, workers and clients of its own, in a directory of its own, and removes
    everything afterwards. The status is 0 however fast or slow this machine is.

    Parameters
    ----------
    size
        Size of the large blob.
    rounds
        Puts and gets of it by each client; 0 leaves them out.
    sync
        How the server syncs: as it comes (every two minutes), always, or both in turn.
    requests
        Small requests of each kind; 0 leaves them out.
    blobs
        Blobs in the store when `has` is measured; 0 leaves it out.
    memory
        Measure memory too. It streams many GiB.
    memory_size
        What each of 8 clients streams through one worker.
    client_size
        What the one client streams whose memory is measured.
    workers
        Workers in the pool.
    node_modules
        A directory with @nats-io/transport-node and @nats-io/obj: measure nats.js too.
    directory
        Where to keep the run's files; the system's place for temporary files.
    json
        All figures as one JSON object, instead of tables.
    """
    run = BlobRun(
        syncs=_SYNCS[sync],
        size=parse_size(size),
        rounds=_at_least("--rounds", rounds, 0),
        small_size=SMALL_BYTES,
        requests=_at_least("--requests", requests, 0),
        in_flight=64,
        blobs=_at_least("--blobs", blobs, 0),
        has_requests=40,
        workers=_at_least("--workers", workers, 1),
        memory_size=parse_size(memory_size) if memory else 0,
        client_size=parse_size(client_size) if memory else 0,
        node_modules=node_modules,
        directory=directory,
    )
    progress = Console(stderr=True)
    with progress.status("starting") as status:
        report = await run_blob_bench(run, status.update)
    verdicts = judge(report)
    if json:
        figures = msgspec.to_builtins(report) | {"verdicts": msgspec.to_builtins(verdicts)}
        sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
    else:
        print_report(Console(), report, verdicts)


@app.command
async def snapshot(
    path: Path,
    /,
    *,
    rounds: int = 3,
    sync: Literal["default", "always", "both"] = "default",
    large_file: str | None = None,
    seed: int = 1,
    directory: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Take, restore and read snapshots of a tree, beside restic, borg and tar.

    Copies the tree, starts a server and a worker of its own, and removes everything afterwards.
    Tools that are not installed are left out. The status is 0 however fast this machine is.

    Parameters
    ----------
    path
        The directory to take snapshots of. It is read once and never changed.
    rounds
        How often everything is done, on fresh repositories each time; 0 leaves it out.
    sync
        How the server syncs: as it comes (every two minutes), always, or both in turn.
    large_file
        Also measure one file of this size (2GiB), of which scattered blocks change.
    seed
        Draws what is changed.
    directory
        Where to keep the run's files; the system's place for temporary files.
    json
        All figures as one JSON object, instead of tables.
    """
    run = SnapshotRun(
        source=path,
        syncs=_SYNCS[sync],
        rounds=_at_least("--rounds", rounds, 0),
        large_file_size=0 if large_file is None else parse_size(large_file),
        seed=seed,
        directory=directory,
    )
    with Console(stderr=True).status("starting") as status:
        report = await run_snapshot_bench(run, status.update)
    verdicts = judge_snapshots(report)
    if json:
        figures = msgspec.to_builtins(report) | {"verdicts": msgspec.to_builtins(verdicts)}
        sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
    else:
        print_snapshot_report(Console(), report, verdicts)


def parse_size(text: str) -> int:
    """``64KiB``, ``256MiB``, ``1g`` or plain bytes. Raises InvalidError; at least one byte."""
    match = _SIZE_RE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise InvalidError(f"{text!r} is not a size: 256MiB, 1GiB, or a number of bytes")
    return int(match[1]) * _UNITS[match[2].lower()]


def _at_least(flag: str, value: int, least: int) -> int:
    if value < least:
        raise InvalidError(f"{flag} is at least {least}")
    return value


if __name__ == "__main__":
    app()
