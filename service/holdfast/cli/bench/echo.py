"""The bare NATS service beside which a worker is measured: ``python echo.py BYTES URL``.

It does nothing with a request but answer it, from nats-py's own subscription callback: the least
that a Python service on NATS costs. Says ``{"ready": true}`` on stdout, and ends when stdin does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

import nats

if TYPE_CHECKING:
    from nats.aio.msg import Msg

LIKE_GET: Final = "bench.like_get"
"""A small request, answered with ``BYTES`` bytes."""

LIKE_PUT: Final = "bench.like_put"
"""A request of any size, answered with about as many bytes as a stored blob's digest takes."""


async def main(size: str, url: str) -> None:
    """Answer until stdin ends."""
    connection = await nats.connect(url)
    for subject, payload in ((LIKE_GET, bytes(int(size))), (LIKE_PUT, bytes(100))):

        async def answer(message: Msg, payload: bytes = payload) -> None:
            await connection.publish(message.reply, payload)

        await connection.subscribe(subject, cb=answer)
    await connection.flush()
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
