"""``holdfast bench``: this installation measured, and what was promised beside it.

Beside holdfast runs the least that could do its work: nats-py, a bare request, tar and zstd. The
repository's ``tests/bench`` compares with other clients and backup tools.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import uvloop
from cyclopts import App, Parameter
from rich.console import Console

from holdfast.cli.base.ending import run_in_loop
from holdfast.cli.base.output import status_line
from holdfast.cli.bench.blobs import OTHER_PROMISES, SPEEDS, BlobRun, run_blob_bench
from holdfast.cli.bench.report import Promise, Report, Sync, judge, write_report
from holdfast.cli.bench.snapshots import PROMISES, SnapshotRun, run_snapshot_bench
from holdfast.cli.bench.states import PROMISES as STATE_PROMISES
from holdfast.cli.bench.states import StateRun, run_state_bench
from holdfast.domain.limits import MIB
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    type Bench = Callable[[Callable[[str], None]], Awaitable[Report]]

app = App(name="bench", help="Measure this installation.", help_format="plaintext")

SyncChoice = Literal["default", "always", "both"]
SyncFlag = Annotated[
    SyncChoice,
    Parameter(
        name="--sync",
        help="How the server syncs: as it comes (every two minutes), always, or both in turn.",
    ),
]
Workers = Annotated[int, Parameter(help="Workers in the pool.")]
Directory = Annotated[
    Path | None,
    Parameter(help="Where to keep the run's files; the system's place for temporary files."),
]
AllFigures = Annotated[
    bool,
    Parameter(
        name="--json", help="All figures as one JSON object, instead of tables.", negative=""
    ),
]
SYNCS: Final[dict[SyncChoice, tuple[Sync, ...]]] = {
    "default": ("default",),
    "always": ("always",),
    "both": ("default", "always"),
}
_SIZE_RE: Final = re.compile(r"(\d{1,15})\s*(|[kmg])(?:i?b)?", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "k": 1024, "m": MIB, "g": 1024 * MIB}


@app.command
async def blob(
    *,
    size: str = "256MiB",
    rounds: int = 5,
    sync: SyncFlag = "default",
    requests: int = 2000,
    blobs: int = 10_000,
    memory: Annotated[bool, Parameter(negative="")] = False,
    memory_size: str = "1GiB",
    client_size: str = "4GiB",
    workers: Workers = 2,
    directory: Directory = None,
    json: AllFigures = False,
) -> None:
    """Put and get blobs through workers, beside nats-py and bare requests on the same nats-server.

    Starts a server and workers of its own, in a directory of its own, and removes everything
    afterwards. The status is 0 however fast or slow this machine is.

    Parameters
    ----------
    size
        Size of the large blob.
    rounds
        Puts and gets of it by each client; 0 leaves them out.
    requests
        Small requests of each kind; 0 leaves them out.
    blobs
        Blobs in the store when `has` is measured; 0 leaves it out.
    memory
        Measure memory too. It streams many GiB.
    memory_size
        Bytes that each of 8 clients streams through one worker.
    client_size
        Bytes that the client streams whose memory is measured.
    """
    run = BlobRun(
        syncs=SYNCS[sync],
        size=parse_size(size),
        rounds=at_least("--rounds", rounds, 0),
        requests=at_least("--requests", requests, 0),
        blobs=at_least("--blobs", blobs, 0),
        workers=at_least("--workers", workers, 1),
        memory_size=parse_size(memory_size) if memory else 0,
        client_size=parse_size(client_size) if memory else 0,
        directory=directory,
    )
    await _tell(partial(run_blob_bench, run), (*SPEEDS, *OTHER_PROMISES), json=json)


@app.command
async def snapshot(
    path: Path,
    /,
    *,
    rounds: int = 3,
    sync: SyncFlag = "default",
    directory: Directory = None,
    json: AllFigures = False,
) -> None:
    """Take, restore and export snapshots of a tree, beside tar and zstd where they are installed.

    Copies the tree, starts a server and a worker of its own, and removes everything afterwards.
    The status is 0 however fast this machine is.

    Parameters
    ----------
    path
        The directory to take snapshots of. It is read once and never changed.
    rounds
        How often everything is done, in a fresh store each time; 0 leaves it out.
    """
    run = SnapshotRun(
        source=path,
        syncs=SYNCS[sync],
        rounds=at_least("--rounds", rounds, 0),
        directory=directory,
    )
    await _tell(partial(run_snapshot_bench, run), PROMISES, json=json)


@app.command
def state(
    *,
    rounds: int = 5,
    commands: int = 4000,
    sync: SyncFlag = "always",
    size: str = "64MiB",
    states: int = 10_000,
    workers: Workers = 2,
    directory: Directory = None,
    json: AllFigures = False,
) -> None:
    """Append commands to states and load them, beside bare publishes and a blob of as many bytes.

    Starts a server and workers of its own, in a directory of its own, and removes everything
    afterwards. Like workers and gateways, all who append or publish run on uvloop. The status is 0
    however fast or slow this machine is.

    Parameters
    ----------
    rounds
        How often commands are appended in each way; 0 leaves it out.
    commands
        Commands of each way in a round.
    size
        Size of the state that is loaded.
    states
        States of ten commands each that there are when one is measured; 0 leaves it out.
    """
    run = StateRun(
        syncs=SYNCS[sync],
        rounds=at_least("--rounds", rounds, 0),
        commands=at_least("--commands", commands, 1),
        size=parse_size(size),
        states=at_least("--states", states, 0),
        workers=at_least("--workers", workers, 1),
        directory=directory,
    )
    telling = partial(_tell, partial(run_state_bench, run), STATE_PROMISES, json=json)
    run_in_loop(telling, loop_factory=uvloop.new_event_loop)


async def _tell(bench: Bench, promises: Iterable[Promise], *, json: bool) -> None:
    """Run ``bench``, and print its report with a verdict on each of ``promises``."""
    with status_line("starting") as say:
        report = await bench(say)
    write_report(Console(), report, judge(report, promises), json=json)


def parse_size(text: str) -> int:
    """``64KiB``, ``256MiB``, ``1g`` or plain bytes. Raises InvalidError; at least one byte."""
    match = _SIZE_RE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise InvalidError(f"{text!r} is not a size: 256MiB, 1GiB, or a number of bytes")
    return int(match[1]) * _UNITS[match[2].lower()]


def at_least(flag: str, value: int, least: int) -> int:
    """``value``. Raises InvalidError when it is less than ``least``."""
    if value < least:
        raise InvalidError(f"{flag} is at least {least}")
    return value
