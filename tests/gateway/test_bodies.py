"""Bodies of requests take turns, so that together they hold no more memory than they may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request

from holdfast.domain.limits import MIB
from holdfast.gateway.bodies import Bodies
from holdfast.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from starlette.types import Message


def request_of(size: int) -> Request:
    """A request that says it has so many bytes, and has none."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"content-length", str(size).encode())]
    return Request({"type": "http", "headers": headers}, receive)


async def test_what_is_in_memory_whole_is_given_room_when_others_have_left() -> None:
    bodies = Bodies(GatewaySettings(memory_bytes=32 * MIB))
    entered: list[str] = []

    async def other() -> None:
        async with bodies.whole(request_of(20 * MIB), 64 * MIB):
            entered.append("other")

    async with bodies.whole(request_of(20 * MIB), 64 * MIB):
        async with bodies.whole(request_of(10 * MIB), 64 * MIB):
            entered.append("first, and one that fits beside it")
        waiting = asyncio.create_task(other())
        for _ in range(10):
            await asyncio.sleep(0)
        assert entered == ["first, and one that fits beside it"]
    await waiting

    assert entered[1:] == ["other"]
