"""``holdfast admin``: what is done once, by hand. Workers never create or change a store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from holdfast.bootstrap.admin import accept_loss, init_store, upgrade_store, watch_store
from holdfast.cli.base.output import print_json, print_line, say, status_line
from holdfast.cli.base.settings import StoreFlags
from holdfast.cli.base.store_output import print_buckets, print_verdict, progress_of
from holdfast.domain.store_state import MAX_REPLICAS, BucketState
from holdfast.errors import InvalidError
from holdfast.handlers.status import store_status

if TYPE_CHECKING:
    from collections.abc import Callable


app = App(name="admin", help_format="plaintext")


@app.command
async def init(
    *,
    grace_seconds: Annotated[int | None, Parameter(env_var="HOLDFAST_GRACE_SECONDS")] = None,
    wait: float = 0,
    json: bool = False,
    flags: StoreFlags | None = None,
) -> None:
    """Create the store's buckets and records. May be repeated: existing ones are kept.

    The store's URL states replicas, size limit, storage and placement:
    nats://blobs?replicas=3&max_bytes=500GiB&tags=ssd. A different size limit is set. Different
    replicas or placement are only reported: `holdfast admin replicas` changes them.

    Parameters
    ----------
    grace_seconds
        Seconds for which a collection leaves alone what nothing refers to; by default a day. It
        never changes in a store that exists.
    wait
        Seconds to wait for a cluster that is starting: for a connection, JetStream, and enough
        servers for the replicas.
    json
        Print a list of what was created or found.
    """
    _check_wait(wait)
    config = (flags or StoreFlags()).load().config
    lines = await init_store(
        config, grace_seconds=grace_seconds, wait_seconds=wait, waiting=_say_why
    )
    _print_lines(lines, json=json)


@app.command
async def upgrade(*, wait: float = 0, json: bool = False, flags: StoreFlags | None = None) -> None:
    """Add to a store of an older version what this version needs. Existing data is kept.

    Do it before workers of this version start; those of the older version may go on meanwhile.
    Where there is no store it makes none: `holdfast admin init` does. Do it again once no worker of
    the older version is left: from then on, after a grace time, what nothing needs is collected.

    Parameters
    ----------
    wait
        Seconds to wait for a cluster that is starting.
    json
        Print a list of what was created or found.
    """
    _check_wait(wait)
    config = (flags or StoreFlags()).load().config
    _print_lines(await upgrade_store(config, wait_seconds=wait, waiting=_say_why), json=json)


@app.command(name="accept-loss")
async def accept_loss_(*, json: bool = False, flags: StoreFlags | None = None) -> None:
    """Let collection go on after it reported lost records. Their content may go then.

    Before that, bring the records back if you can: from a mirror or a copy of the server's files.

    Parameters
    ----------
    json
        Print a list of the stores of which records were noted.
    """
    config = (flags or StoreFlags()).load().config
    stores = await accept_loss(config)
    if json:
        print_json(stores)
        return
    for store in stores:
        print_line(store, "counts with the records that are there")


def _check_wait(wait: float) -> None:
    if wait < 0:
        raise InvalidError("--wait is a number of seconds")


def _say_why(why: str) -> None:
    say(f"Waiting: {why}")


def _print_lines(lines: list[str], *, json: bool) -> None:
    if json:
        print_json(lines)
        return
    for line in lines:
        print_line(line)


@app.command
async def replicas(
    n: Annotated[int, Parameter(help="Number of copies of each bucket: 1 to 5.")],
    /,
    *,
    json: bool = False,
    flags: StoreFlags | None = None,
) -> None:
    """Keep N copies of every bucket, on different servers, where the store's URL says.

    Changes one bucket after the other, while they are in use, and exits when every copy is up to
    date. If it is interrupted, run it again. With too few servers it changes nothing.

    Parameters
    ----------
    json
        Print a list of objects: stream, replicas, changed.
    """
    if not 1 <= n <= MAX_REPLICAS:
        raise InvalidError(f"replicas is 1 to {MAX_REPLICAS}")
    config = (flags or StoreFlags()).load().config
    done: list[dict[str, object]] = []
    async with watch_store(config) as store:
        with status_line(f"Asking for {n} replica(s)") as show:
            async for kept in store.keep_replicas(n, _Teller(show)):
                stream, peers = kept.state.stream, [peer.name for peer in kept.state.peers]
                done.append({"stream": stream, "replicas": n, "changed": kept.changed})
                if not json:
                    print_line(f"{stream} has {n} replica(s)", *peers)
    if json:
        print_json(done)
    if store.layout.replicas != n:
        say(f"Let the store's URL of the workers say replicas={n} (--store, HOLDFAST_STORE)")


class _Teller:
    """Tells how a bucket's copies come along: on a terminal in one line, else in lines."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._told = ""

    def __call__(self, state: BucketState) -> None:
        text = progress_of(state)
        self._show(text)
        if text != self._told and not sys.stderr.isatty():
            say(text)
        self._told = text


@app.command
async def layout(*, json: bool = False, flags: StoreFlags | None = None) -> None:
    """Print the buckets: replicas, leaders, how far each copy is, and all problems.

    Parameters
    ----------
    json
        Print one object: the answer of `blob.status`.
    """
    config = (flags or StoreFlags()).load().config
    async with watch_store(config) as store:
        found = store_status(await store.read())
    if json:
        print_json(found)
        return
    print_buckets(found.buckets)
    print_line("")
    print_verdict(found)
