"""A worker refuses to start where something does not fit, and says what to change."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.domain.store_state import Layout, ServerState, Silent
from holdfast.errors import UnavailableError
from holdfast.runtime import startup
from holdfast.runtime.monitoring import Servers
from holdfast.runtime.startup import (
    MIN_PAYLOAD_BYTES,
    StoppedError,
    check_server_version,
    check_servers,
    check_stores,
    unless_stopped,
)
from holdfast.stores.jetstream.buckets.readiness import NotReadyError

GOOD = ServerState(
    name="nats-1",
    version="2.15.0",
    durability="synced",
    max_payload=2**20,
    jetstream=True,
    cluster_size=3,
)


def servers(*told: ServerState, silent: int = 0, connected: ServerState = GOOD) -> Servers:
    away = tuple(Silent(f"http://nats-{n}", "away") for n in range(silent))
    return Servers(connected=connected, told=told, silent=away)


def other(**changes: object) -> ServerState:
    fields = {name: getattr(GOOD, name) for name in GOOD.__slots__}
    return ServerState(**(fields | {"name": "nats-2"} | changes))


@pytest.mark.parametrize("version", ["2.14.0", "2.14", "2.15.3-RC.1", "3.0.0", "v2.14.1"])
def test_a_server_that_is_new_enough_is_taken(version: str) -> None:
    check_server_version(version)


@pytest.mark.fault("N18")
@pytest.mark.parametrize("version", ["2.13.9", "2.9.25", "1.14.1", "0", ""])
def test_an_older_server_is_refused_and_the_sentence_says_what_is_needed(version: str) -> None:
    with pytest.raises(UnavailableError, match=r"upgrade it to 2\.14 or newer"):
        check_server_version(version)


@pytest.mark.fault("N18")
@pytest.mark.parametrize(
    ("found", "layout", "require_sync", "sentence"),
    [
        (servers(other(version="2.10.1")), Layout(), False, "nats-2 is nats-server 2.10.1, which"),
        (
            servers(connected=other(max_payload=MIN_PAYLOAD_BYTES - 1)),
            Layout(),
            False,
            "nats-2 has max_payload 16383: set it to 16384 or more",
        ),
        (servers(GOOD, other(max_payload=2**23)), Layout(), False, "is not the same on all"),
        (
            servers(connected=other(cluster_size=1)),
            Layout(replicas=3),
            False,
            "3 replicas cannot be: there is 1 server",
        ),
        (
            servers(GOOD, other(durability="lazy")),
            Layout(),
            True,
            "the writes of nats-2 are lazy: set sync_interval: always",
        ),
        (servers(), Layout(), True, "set monitor_url"),
        (servers(GOOD, silent=2), Layout(), True, "only 1 of 3 monitoring addresses answer"),
    ],
    ids=["old", "tiny messages", "different sizes", "too few", "lazy", "unknown", "mostly silent"],
)
def test_servers_that_will_not_do_are_refused(
    found: Servers, layout: Layout, require_sync: bool, sentence: str
) -> None:
    with pytest.raises(UnavailableError) as refused:
        check_servers(found, layout, require_sync=require_sync)

    assert sentence in refused.value.detail


@pytest.mark.parametrize(
    "found",
    [
        servers(),
        servers(GOOD, other(), silent=1),
        servers(other(durability="lazy")),
        servers(connected=other(max_payload=MIN_PAYLOAD_BYTES)),
        servers(connected=other(cluster_size=None)),
    ],
    ids=["only a greeting", "one away", "lazy", "the smallest messages", "nobody knows how many"],
)
def test_others_are_taken(found: Servers) -> None:
    check_servers(found, Layout(replicas=3), require_sync=False)


async def test_a_store_that_is_not_ready_yet_is_waited_for() -> None:
    asked = 0

    async def check() -> str:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise NotReadyError("no leader")
        return "ready"

    assert await check_stores(check) == "ready"
    assert asked == 3


async def test_one_that_stays_so_is_refused_with_where_to_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(startup, "READY_SECONDS", 0.6)

    async def check() -> None:
        raise NotReadyError("no leader")

    with pytest.raises(UnavailableError, match="no leader, for 1 s: see whether most"):
        await check_stores(check)


async def test_what_will_not_pass_by_itself_is_refused_at_once() -> None:
    asked = 0

    async def check() -> None:
        nonlocal asked
        asked += 1
        raise UnavailableError("wrong")

    with pytest.raises(UnavailableError, match="wrong"):
        await check_stores(check)
    assert asked == 1


async def test_whoever_waits_can_be_stopped() -> None:
    stop = asyncio.Event()
    begun = asyncio.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    waiting = asyncio.create_task(unless_stopped(forever(), stop))
    await begun.wait()
    stop.set()

    with pytest.raises(StoppedError):
        await waiting


async def test_what_is_done_before_counts() -> None:
    async def work() -> str:
        return "done"

    assert await unless_stopped(work(), asyncio.Event()) == "done"
