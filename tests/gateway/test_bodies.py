"""Bodies of requests take turns, so that together they hold no more memory than they may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from starlette.requests import Request

from holdfast.domain.limits import MIB
from holdfast.errors import RateLimitedError
from holdfast.gateway.content.bodies import Bodies
from holdfast.gateway.problems import HttpError
from holdfast.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def request_in(chunks: Iterable[bytes], end: asyncio.Event) -> Request:
    """A request that does not say its length, and whose last chunk waits for ``end``."""
    coming = iter(chunks)

    async def receive() -> Message:
        chunk = next(coming, None)
        if chunk is None:
            await end.wait()
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    return Request({"type": "http", "headers": []}, receive)


async def test_what_does_not_say_its_length_holds_memory_for_what_has_come() -> None:
    bodies = Bodies(GatewaySettings(memory_bytes=32 * MIB))
    end = asyncio.Event()

    async def slow() -> int:
        async with bodies.whole(request_in([bytes(MIB)] * 20, end), 64 * MIB) as data:
            return len(data)

    coming = asyncio.create_task(slow())
    for _ in range(10):
        await asyncio.sleep(0)

    async with bodies.whole(request_of(11 * MIB), 64 * MIB):
        with pytest.raises(RateLimitedError):
            async with bodies.whole(request_in([bytes(MIB + 1)], end), 64 * MIB):
                pass
    end.set()
    assert await coming == 20 * MIB
    async with bodies.whole(request_in([bytes(20 * MIB)] * 2, end), 64 * MIB) as data:
        assert len(data) == 40 * MIB


async def test_what_is_in_memory_whole_comes_faster_than_what_passes_through() -> None:
    bodies = Bodies(GatewaySettings(body_seconds=0.2))

    async def receive() -> Message:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": bytes(1024), "more_body": True}

    request = Request({"type": "http", "headers": []}, receive)
    with pytest.raises(HttpError) as refused:
        async with bodies.whole(request, MIB):
            pass

    assert refused.value.status == 408
