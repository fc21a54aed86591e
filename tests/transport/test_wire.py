"""The socket of a connection that ends while somebody writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import pytest
import uvloop

from holdfast.transport.parser import Parser
from holdfast.transport.wire import Disconnected, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.transport.wire import ControlLine


async def written_when_closed() -> ControlLine:
    """The line of a wire that is written to while it closes and after that."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    events: asyncio.Queue[ControlLine] = asyncio.Queue()
    wire = Wire(Parser(lambda *_: None, lambda _: None), events)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await wire.connect(urlparse(f"nats://127.0.0.1:{port}"), 0, 5)
        wire.abort()
        for _ in range(2):
            wire.write(b"PING\r\n")
            wire.writelines([b"PING\r\n"])
            await wire.wait_closed()
    return await events.get()


@pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_a_write_to_a_socket_that_is_gone_does_nothing(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert isinstance(runner.run(written_when_closed()), Disconnected)
