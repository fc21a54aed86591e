"""The process in which holdfast's client takes, restores and reads snapshots: ``python -m … URL``.

It answers the commands of ``SnapshotCommands`` as ``peers.serve`` has it. Its start and its
connecting stay outside the clock, as they do in a service.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.bench.peers import serve

from holdfast.client import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.client import Client
    from holdfast.protocol.snapshots import RestoreRecord, SnapshotRecord

_TIMEOUT_SECONDS: Final = 60.0


class SnapshotCommands:
    """What the worker is asked for, each with the seconds and the CPU that the call itself took."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create(self, *, app: str) -> dict[str, Any]:
        """A snapshot of ``app``'s directory."""
        taken, record = await _timed(lambda: self._client.snapshots.create(app))
        return taken | {"key": record.key, "added": record.added} | _checked(record)

    async def restore(self, *, key: str, app: str) -> dict[str, Any]:
        """Snapshot ``key`` into ``app``, which has no directory yet."""
        taken, record = await _timed(
            lambda: self._client.snapshots.restore(key, app=app, mode="new")
        )
        return taken | _checked(record)

    async def read(self, *, key: str, path: str, target: str) -> dict[str, Any]:
        """One file into ``target``, whose writing is outside the clock, being our own."""
        taken, data = await _timed(lambda: self._client.snapshots.read(key, path))
        await asyncio.to_thread(Path(target).write_bytes, data)
        return taken

    async def export(self, *, key: str, target: str) -> dict[str, Any]:
        """The whole archive into ``target``."""
        taken, _ = await _timed(lambda: self._client.snapshots.export_to(key, target))
        return taken

    def table(self) -> dict[str, Any]:
        """The commands by name."""
        return {
            "create": self.create,
            "restore": self.restore,
            "read": self.read,
            "export": self.export,
        }


async def _timed[T](call: Callable[[], Awaitable[T]]) -> tuple[dict[str, Any], T]:
    start, start_cpu = time.perf_counter(), time.process_time()
    result = await call()
    taken = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - start_cpu,
    }
    return taken, result


def _checked(record: SnapshotRecord | RestoreRecord) -> dict[str, Any]:
    if record.state != "ok":
        msg = f"{record.key} is {record.state}: {record.reason}"
        raise ValueError(msg)
    return {"warnings": record.warning_count}


async def main(url: str) -> None:
    """Answer until stdin ends."""
    client = await connect(servers=url, timeout_seconds=_TIMEOUT_SECONDS)
    await serve(SnapshotCommands(client).table())
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
