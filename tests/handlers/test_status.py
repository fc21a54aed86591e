"""``blob.status``: what was seen of the store, as a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.store_state import BucketState, Layout, Peer, ServerState, StoreState
from holdfast.handlers.status import StatusHandlers
from holdfast.repository.names.index.follower import IndexState
from holdfast.runtime.dispatch import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

STATE = StoreState(
    durability="synced",
    servers=(ServerState(name="nats-1", version="2.15.0", durability="synced"),),
    buckets=(
        BucketState(
            bucket="blobs",
            stream="OBJ_blobs",
            kind="objects",
            leader="nats-1",
            peers=(
                Peer(name="nats-1", current=True),
                Peer(name="nats-2", current=False, offline=True, lag=3),
            ),
            replicas=2,
            messages=7,
            bytes=70,
            max_bytes=-1,
        ),
    ),
    layout=Layout(replicas=3),
    problems=("one", "two"),
    advice=("three",),
)
INDEX = IndexState(is_ready=True, names=3, position=7, last=9, rebuilt=1)


async def ask(
    state: StoreState, body: bytes = b"", *, advice: Sequence[str] = ()
) -> dict[str, object]:
    async def read() -> StoreState:
        return state

    (endpoint,) = StatusHandlers(read, lambda: INDEX, lambda: advice).endpoints()
    dispatcher = Dispatcher(SOURCES, timeout_seconds=5)
    answer = await dispatcher.answer(endpoint, "blob.status", {}, body)
    decoded: dict[str, object] = msgspec.json.decode(answer.body)
    return decoded


async def test_what_there_is_to_say_of_the_worker_is_advice() -> None:
    told = await ask(STATE, advice=["its clock is off"])

    assert told["advice"] == [*STATE.advice, "its clock is off"]


async def test_everything_that_was_seen_is_told() -> None:
    told = await ask(STATE)

    assert told == {
        "durability": "synced",
        "servers": [
            {
                "name": "nats-1",
                "version": "2.15.0",
                "cluster": "",
                "durability": "synced",
                "max_payload": None,
            }
        ],
        "buckets": [
            {
                "bucket": "blobs",
                "stream": "OBJ_blobs",
                "kind": "objects",
                "storage": "file",
                "replicas": 2,
                "wanted": 3,
                "leader": "nats-1",
                "peers": [
                    {"name": "nats-1", "current": True, "offline": False, "lag": 0},
                    {"name": "nats-2", "current": False, "offline": True, "lag": 3},
                ],
                "messages": 7,
                "bytes": 70,
                "max_bytes": None,
            }
        ],
        "problems": ["one", "two"],
        "advice": ["three"],
        "index": {"ready": True, "names": 3, "lag": 2, "rebuilt": 1},
    }


async def test_a_store_without_buckets_has_none_and_no_problems() -> None:
    assert await ask(StoreState(), b"{}") == {
        "durability": "unknown",
        "servers": [],
        "buckets": [],
        "problems": [],
        "advice": [],
        "index": {"ready": True, "names": 3, "lag": 2, "rebuilt": 1},
    }


async def test_there_is_nothing_to_be_asked_for() -> None:
    assert (await ask(STATE, b'{"bucket": "blobs"}'))["code"] == "invalid"
