"""A worker's replies of many messages: they outlive their request's deadline, in a lane apart."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from nats.aio.client import Client
from tests.runtime.test_worker import Gate, make_worker

from holdfast.errors import UnavailableError
from holdfast.handlers.endpoint import BytesReply, Call, Endpoint, Messages
from holdfast.protocol.watch import WATCH, WatchChanges, WatchHead
from holdfast.transport.connection import connect
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

pytestmark = pytest.mark.nats
SECONDS = 10.0


class Teller:
    """A worker that tells a message each time that the test lets it, and what was heard of it."""

    def __init__(self) -> None:
        self.turns: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self.told = 0
        self.ended = asyncio.Event()
        self.client = Client()
        self.subject = ""

    async def watch(self, _: WatchChanges, __: Call) -> Messages[WatchHead]:
        """One message for each turn."""
        return Messages("text/plain", self._messages())

    async def _messages(self) -> AsyncGenerator[BytesReply[WatchHead]]:
        try:
            while True:
                turn = await self.turns.get()
                if turn is not None:
                    raise turn
                self.told += 1
                yield BytesReply(
                    head=WatchHead(part=self.told, position=self.told, cursor=f"c{self.told}"),
                    data=b"told",
                )
        finally:
            self.ended.set()

    async def ask(self, seconds: float = SECONDS) -> Subscription:
        """Where the messages come."""
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        await self.client.publish(
            self.subject, b'{"kind":"names"}', reply=inbox, headers={"Timeout": str(seconds)}
        )
        return subscription


@pytest_asyncio.fixture
async def teller(nats_url: str) -> AsyncIterator[Teller]:
    """It serves."""
    prefix, teller = f"w{secrets.token_hex(4)}", Teller()
    async with AsyncExitStack() as stack:
        connection = await connect(NatsOptions(servers=(nats_url,)))
        stack.push_async_callback(connection.close)
        endpoint = Endpoint(WATCH, teller.watch, lane="watches")
        worker = make_worker(connection, Gate(), prefix, more=(endpoint,))
        worker.start()
        stack.push_async_callback(worker.drain, 0)
        await connection.wait_flushed(30)
        await teller.client.connect(nats_url)
        stack.push_async_callback(teller.client.close)
        teller.subject = f"{prefix}.blob.watch"
        yield teller


async def test_messages_come_as_they_are_told_also_after_the_deadline(teller: Teller) -> None:
    subscription = await teller.ask(seconds=0.001)
    had: list[Msg] = []
    for _ in range(3):
        teller.turns.put_nowait(None)
        had.append(await subscription.next_msg(SECONDS))

    assert [message.data for message in had] == [b"told"] * 3
    assert [(message.headers or {})["Blob-Position"] for message in had] == ["1", "2", "3"]
    assert {(message.headers or {})["Content-Type"] for message in had} == {"text/plain"}


async def test_what_is_raised_among_messages_is_the_last_of_them(teller: Teller) -> None:
    subscription = await teller.ask()
    teller.turns.put_nowait(None)
    await subscription.next_msg(SECONDS)

    teller.turns.put_nowait(UnavailableError("the store is away"))

    last = await subscription.next_msg(SECONDS)
    assert (last.headers or {})["Nats-Service-Error"] == "the store is away"
    await asyncio.wait_for(teller.ended.wait(), SECONDS)


async def test_a_bug_among_messages_is_told_without_what_it_is(teller: Teller) -> None:
    subscription = await teller.ask()

    teller.turns.put_nowait(RuntimeError("secret"))

    last = await subscription.next_msg(SECONDS)
    assert (last.headers or {})["Nats-Service-Error-Code"] == "500"
    assert b"secret" not in last.data
