"""Clients that are closed, forked, or taken to another event loop: an error at once, no wait."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from nats.aio.client import Client as NatsClient

from holdfast.client import connect, connect_sync
from holdfast.errors import HoldfastError, InvalidError, OutcomeUnknownError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from holdfast.client import Client, SyncClient

pytestmark = pytest.mark.nats

DIGEST = "0" * 64
LONG_SECONDS = 3600.0
LIMIT_SECONDS = 20.0


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e30, 0.0, -1.0], ids=str)
def test_an_impossible_time_to_wait_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidError, match="seconds"):
        connect_sync(servers="nats://127.0.0.1:1", timeout_seconds=seconds)


class Silent:
    """A pool that takes every request and never answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"m{secrets.token_hex(4)}"
        self.asked = asyncio.Event()
        self.client = NatsClient()

    async def serve(self) -> None:
        """Subscribe."""

        async def take(_message: object) -> None:
            self.asked.set()

        await self.client.connect(self.url)
        await self.client.subscribe(f"{self.prefix}.>", cb=take)
        await self.client.flush()

    async def connect(self) -> Client:
        """A client of it, with all the patience in the world."""
        return await connect(servers=self.url, prefix=self.prefix, timeout_seconds=LONG_SECONDS)


@pytest_asyncio.fixture
async def silent(nats_url: str) -> AsyncIterator[Silent]:
    """A pool without answers."""
    pool = Silent(nats_url)
    await pool.serve()
    yield pool
    await pool.client.close()


async def listed(iterator: Any) -> list[object]:
    return [one async for one in iterator]


CALLS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "stat": lambda hf: hf.stat(DIGEST),
    "get": lambda hf: hf.get(DIGEST),
    "has": lambda hf: hf.has([DIGEST]),
    "put": lambda hf: hf.put(b"x"),
    "put in parts": lambda hf: hf.put(bytes(3_000_000)),
    "delete": lambda hf: hf.delete(DIGEST),
    "list": lambda hf: listed(hf.list()),
    "verify": lambda hf: listed(hf.verify()),
    "workers": lambda hf: hf.workers(),
    "status": lambda hf: hf.store_status(),
    "snapshot": lambda hf: hf.snapshots.create("app"),
    "snapshots": lambda hf: listed(hf.snapshots.list()),
}
CHANGES = {"put", "put in parts", "delete", "snapshot"}


@pytest.mark.parametrize("name", CALLS)
async def test_use_after_close_is_an_error_at_once(name: str, silent: Silent) -> None:
    client = await silent.connect()
    await client.aclose()
    await client.aclose()

    async with asyncio.timeout(LIMIT_SECONDS):
        with pytest.raises(UnavailableError, match="the client is closed"):
            await CALLS[name](client)


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"workers"}))
async def test_what_is_under_way_at_close_ends_with_it(name: str, silent: Silent) -> None:
    client = await silent.connect()
    under_way = asyncio.ensure_future(CALLS[name](client))
    await silent.asked.wait()

    async with asyncio.timeout(LIMIT_SECONDS):
        await client.aclose()
        with pytest.raises(OutcomeUnknownError if name in CHANGES else UnavailableError):
            await under_way


@pytest.mark.parametrize("name", CALLS)
def test_use_from_another_event_loop_is_an_error_at_once(name: str, nats_url: str) -> None:
    with asyncio.Runner() as first, asyncio.Runner() as second:
        client = first.run(connect(servers=nats_url, prefix="nobody"))

        async def use() -> None:
            async with asyncio.timeout(LIMIT_SECONDS):
                await CALLS[name](client)

        with pytest.raises(InvalidError, match="another event loop"):
            second.run(use())
        with pytest.raises(InvalidError, match="another event loop"):
            second.run(client.aclose())
        first.run(client.aclose())


SYNC_CALLS: dict[str, Callable[[SyncClient], object]] = {
    "stat": lambda hf: hf.stat(DIGEST),
    "put": lambda hf: hf.put(b"x"),
    "list": lambda hf: list(hf.list()),
    "snapshots": lambda hf: list(hf.snapshots.list()),
    "workers": lambda hf: hf.workers(),
}


def outcome_in_child(call: Callable[[], object]) -> str:
    """The error of ``call`` in a process that is forked now; "" if there is none, or it hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            call()
        except HoldfastError as error:
            os.write(writing, f"{error.code}: {error.detail}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    watchdog = threading.Timer(LIMIT_SECONDS, os.kill, (child, 9))
    watchdog.start()
    os.waitpid(child, 0)
    watchdog.cancel()
    with os.fdopen(reading, "rb") as answer:
        return answer.read().decode()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_is_told_at_once_that_the_client_is_its_parents(nats_url: str) -> None:
    with connect_sync(servers=nats_url, prefix="nobody") as client:
        told = {outcome_in_child(partial(call, client)) for call in SYNC_CALLS.values()}
        closed = outcome_in_child(client.close)

        assert told == {
            "invalid: this client belongs to the process that was forked: connect anew in this one"
        }
        assert closed == ""
        assert client.workers() == [], "the parent's works on"


@pytest.mark.parametrize("name", SYNC_CALLS)
def test_a_synchronous_client_that_is_closed_says_so_at_once(name: str, nats_url: str) -> None:
    client = connect_sync(servers=nats_url, prefix="nobody")
    client.close()
    client.close()

    with pytest.raises(UnavailableError, match="the client is closed"):
        SYNC_CALLS[name](client)


async def test_closing_a_synchronous_client_ends_what_other_threads_wait_for(
    silent: Silent,
) -> None:
    client = await asyncio.to_thread(
        connect_sync, servers=silent.url, prefix=silent.prefix, timeout_seconds=LONG_SECONDS
    )
    waiting = asyncio.create_task(asyncio.to_thread(client.stat, DIGEST))
    await silent.asked.wait()

    async with asyncio.timeout(LIMIT_SECONDS):
        await asyncio.to_thread(client.close)
        with pytest.raises(UnavailableError, match="the client is closed"):
            await waiting
