"""The process whose memory is measured: ``python -m … BYTES URL`` streams a blob up and down.

It says on stdout, as one JSON object, how long either took and how much memory it ever had. No
file or memory holds the blob.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from typing import TYPE_CHECKING, Final

from holdfast.cli.bench.machine import peak_resident_bytes
from holdfast.client import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_BLOCK: Final = bytes(256 * 1024)


async def _generated(size: int) -> AsyncIterator[bytes]:
    salt = secrets.token_bytes(16)
    for start in range(0, size, len(_BLOCK)):
        block = b"%s:%d:" % (salt, start) + _BLOCK
        yield block[: min(len(_BLOCK), size - start)]


async def main(size: int, url: str) -> None:
    """Put ``size`` bytes, read them back (the client checks their digest), and tell."""
    async with await connect(servers=url, timeout_seconds=60) as client:
        start = time.perf_counter()
        stored = await client.put(_generated(size))
        put = time.perf_counter()
        async for _ in client.stream(stored.digest):
            pass
        got = time.perf_counter()
    figures = {"up": put - start, "down": got - put, "peak_bytes": peak_resident_bytes()}
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
