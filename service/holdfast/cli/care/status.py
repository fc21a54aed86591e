"""``holdfast status``: the pool, as its workers answer on ``$SRV``, and the store, as one tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.cli.base import exit_codes
from holdfast.cli.base.connection import connect
from holdfast.cli.base.output import print_json, print_line, say_error
from holdfast.cli.base.settings import ClientFlags
from holdfast.cli.base.store_output import print_buckets, print_servers, print_table, print_verdict
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.client import Client, WorkerInfo
    from holdfast.protocol.status import IndexStatus, StoreStatus

_STORE_SECONDS: Final = 10.0
"""Time to wait for the store's state: a worker reads it within three."""


async def status(
    *,
    json: bool = False,
    check: bool = False,
    flags: ClientFlags | None = None,
) -> int:
    """Print the workers that answer, the nats-servers, the buckets, and what is wrong with them.

    Exits with 6 if no worker answers.

    Parameters
    ----------
    json
        Print one object: ``workers`` and ``store``.
    check
        Exit with 1 if the store differs from its configuration, and with 6 if no worker can tell.
    """
    async with await connect(flags) as connection:
        workers = await connection.workers()
        store = await _store(connection, (flags or ClientFlags()).timeout) if workers else None
    if json:
        print_json({"workers": workers, "store": store})
    else:
        _print(workers, store)
    if not workers:
        say_error("unavailable", "no worker answers: start one with holdfast worker")
        return exit_codes.UNAVAILABLE
    if not check or (store is not None and not store.problems):
        return exit_codes.OK
    return exit_codes.UNAVAILABLE if store is None else exit_codes.FAILURE


async def _store(connection: Client, timeout_seconds: float) -> StoreStatus | None:
    """None, and a word about it, when no worker tells: an older one does not know how."""
    try:
        return await connection.store_status(timeout_seconds=min(timeout_seconds, _STORE_SECONDS))
    except HoldfastError as error:
        say_error(error.code, f"no worker tells the state of the store: {error.detail}")
        return None


def _print(workers: Sequence[WorkerInfo], store: StoreStatus | None) -> None:
    if workers:
        _print_workers(workers)
    if store is None:
        return
    print_line("")
    print_servers(store.servers)
    if store.buckets:
        print_line("")
        print_buckets(store.buckets)
    print_line("")
    print_line(f"Durability: {store.durability}")
    if store.index is not None:
        print_line(_index_line(store.index))
    print_verdict(store)


def _index_line(index: IndexStatus) -> str:
    if not index.ready:
        return "Index of names: not ready yet at the worker that answers, which lists none"
    return f"Index of names: {index.names} names, {index.lag} changes behind"


def _print_workers(workers: Sequence[WorkerInfo]) -> None:
    rows = [
        (
            worker.metadata.get("node", ""),
            worker.id,
            worker.version,
            worker.metadata.get("durability", ""),
            str(worker.started),
            str(worker.requests),
            str(worker.errors),
        )
        for worker in workers
    ]
    headings = ("node", "id", "version", "durability", "started")
    numbers = ("requests", "errors")
    print_table((*headings, *numbers), rows, numbers=numbers)
