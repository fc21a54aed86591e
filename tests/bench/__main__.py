"""Measures holdfast beside other clients and backup tools, in one run, against a real nats-server.

    python -m tests.bench blob                            large blobs, small ones, `has`
    python -m tests.bench blob --sync both                the same again with every write synced
    python -m tests.bench blob --memory                   also the memory of a worker and a client
    python -m tests.bench blob --blobs 100000             `has` on as many as the promise names
    python -m tests.bench blob --node-modules DIR         nats.js too, from DIR/@nats-io
    python -m tests.bench blob --json > figures.json      every single figure
    python -m tests.bench snapshot /usr/share             snapshots of a copy of that tree
    python -m tests.bench snapshot DIR --large-file 2GiB  also one large file that changes

Server, workers and each client that stores a large blob are processes of their own. Other clients:
nats-py, natsrpy, natsio, nats.js. Other backup tools, where they are installed: restic, borg, tar
with zstd.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.console import Console
from tests.bench.contenders import find_contenders
from tests.bench.large import measure_large
from tests.bench.promises import BLOB_PROMISES, snapshot_promises
from tests.bench.snapshots import FullRun, run_snapshot_bench

from holdfast.cli.base.output import say_error, status_line
from holdfast.cli.bench import SYNCS, SyncChoice, at_least, parse_size
from holdfast.cli.bench.blobs import BlobRun, run_blob_bench
from holdfast.cli.bench.report import judge, write_report
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.cli.bench.pool import Pool
    from holdfast.cli.bench.report import Figure

app = App(name="tests.bench", help="Measure, beside others.", help_format="plaintext")


@app.command
async def blob(
    *,
    size: str = "256MiB",
    rounds: int = 5,
    sync: SyncChoice = "default",
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

    Options are those of `holdfast bench blob`, and one more.

    Parameters
    ----------
    node_modules
        A directory with @nats-io/transport-node and @nats-io/obj: measure nats.js too.
    """
    contenders = find_contenders(node_modules)

    async def beside_others(
        pool: Pool, size: int, rounds: int, say: Callable[[str], None]
    ) -> tuple[list[Figure], list[str]]:
        return await measure_large(pool, contenders, size=size, rounds=rounds, say=say)

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
    with status_line("starting") as say:
        report = await run_blob_bench(run, say, beside_others)
    write_report(Console(), report, judge(report, BLOB_PROMISES), json=json)


@app.command
async def snapshot(
    path: Path,
    /,
    *,
    rounds: int = 3,
    sync: SyncChoice = "default",
    large_file: str | None = None,
    seed: int = 1,
    directory: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Take, restore and read snapshots of a tree, beside restic, borg and tar.

    Options are those of `holdfast bench snapshot`, and two more; 0 rounds leave the tree out. Tools
    that are not installed are left out.

    Parameters
    ----------
    large_file
        Also measure one file of this size (2GiB), of which scattered blocks change.
    seed
        Draws what is changed.
    """
    run = FullRun(
        source=path,
        syncs=SYNCS[sync],
        rounds=at_least("--rounds", rounds, 0),
        large_file_size=0 if large_file is None else parse_size(large_file),
        seed=seed,
        directory=directory,
    )
    with status_line("starting") as say:
        report = await run_snapshot_bench(run, say)
    verdicts = judge(report, snapshot_promises(run.syncs if run.rounds else ("default",)))
    write_report(Console(), report, verdicts, json=json)


def main() -> int:
    """Run the command line; the exit status."""
    try:
        asyncio.run(app.run_async(result_action="return_value"))
    except HoldfastError as error:
        say_error(error.code, error.detail)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
