"""A deployment with apps, asked by plain requests as a service in any language would."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from tests.deployment import code_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from tests.deployment import Deployment

NODE: Final = "one"
ENDED_SECONDS: Final = 60.0
_REQUEST_SECONDS: Final = 30.0
_WAIT_SECONDS: Final = 10
_POLL_SECONDS: Final = 0.05
_COMMAND_SECONDS: Final = 60.0

type Record = dict[str, Any]


class RefusedError(Exception):
    """An answer that is a failure: its ``code`` and what it says."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class Site:
    """Workers and their apps."""

    def __init__(
        self,
        deployment: Deployment,
        apps: Path,
        client: Client | None = None,
        *,
        request_seconds: float = _REQUEST_SECONDS,
    ) -> None:
        self.deployment = deployment
        self.apps = apps
        self._client = client
        self._request_seconds = request_seconds

    def over(self, client: Client) -> Site:
        """The same, asked over ``client``."""
        return Site(self.deployment, self.apps, client)

    @property
    def client(self) -> Client:
        """The connection."""
        assert self._client is not None
        return self._client

    async def message(self, operation: str, request: Record) -> Msg:
        """The answer as it comes."""
        return await self.client.request(
            self.deployment.subject(operation),
            json.dumps(request).encode(),
            timeout=self._request_seconds,
        )

    async def ask(self, operation: str, **request: Any) -> Record:
        """The body of the answer. Raises RefusedError."""
        message = await self.message(operation, request)
        if (code := code_of(message)) != "ok":
            raise RefusedError(code, str(json.loads(message.data)["detail"]))
        decoded: Record = json.loads(message.data)
        return decoded

    async def create(self, app: str, **request: Any) -> Record:
        """The record of a new snapshot of ``app``, once it has ended."""
        record = await self._taken("snapshot.create", app=app, **request)
        return await self.ended(record)

    async def restore(self, key: str, **request: Any) -> Record:
        """The record of a restore of ``key``, once it has ended."""
        record = await self._taken("snapshot.restore", key=key, **request)
        return await self.ended(record)

    async def _taken(self, operation: str, **request: Any) -> Record:
        """The record, by the node that it is for: on a busy machine others may not find that."""
        async with asyncio.timeout(ENDED_SECONDS):
            while True:
                try:
                    return await self.ask(operation, wait_seconds=_WAIT_SECONDS, **request)
                except RefusedError as refused:
                    if refused.code != "unavailable":
                        raise
                await asyncio.sleep(_POLL_SECONDS)

    async def get(self, record: Record) -> Record:
        """The record as it is now."""
        if "restore" in record:
            return await self.ask("snapshot.restored", restore=record["restore"])
        return await self.ask("snapshot.get", key=record["key"])

    async def ended(self, record: Record, seconds: float = ENDED_SECONDS) -> Record:
        """The record, once it is not pending any more."""
        async with asyncio.timeout(seconds):
            while record["state"] == "pending":
                await asyncio.sleep(_POLL_SECONDS)
                record = await self.get(record)
        return record

    async def snapshots(self, **request: Any) -> list[Record]:
        """All snapshots that match, newest first."""
        found: list[Record] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.ask("snapshot.list", **request, **cursor)
            found += page["snapshots"]
            if "cursor" not in page:
                return found
            cursor = {"cursor": page["cursor"]}

    async def verified(self, key: str) -> Record:
        """The result of reading all of ``key`` back, over all pages of the answer."""
        total: Record = {"packs": 0, "frames": 0, "bytes": 0, "damaged": []}
        cursor: dict[str, str] = {}
        while True:
            page = await self.ask("snapshot.verify", key=key, **cursor)
            for name in ("packs", "frames", "bytes"):
                total[name] += page[name]
            total["damaged"] += page.get("damaged", [])
            if "cursor" not in page:
                return total
            cursor = {"cursor": page["cursor"]}

    async def content(self, operation: str, **request: Any) -> bytes:
        """All the bytes of ``snapshot.read`` or ``snapshot.export``, window by window."""
        data = b""
        cursor: dict[str, str] = {}
        while True:
            head, window = await self.window(operation, **request, **cursor)
            assert int(head["Blob-Length"]) == len(window)
            data += window
            if "Blob-Cursor" not in head:
                return data
            cursor = {"cursor": head["Blob-Cursor"]}

    async def window(self, operation: str, **request: Any) -> tuple[dict[str, str], bytes]:
        """One answer with bytes: its headers, and the bytes of its message or of its parts.

        Parts that JetStream sends come in order, and may overtake the head.
        """
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        subject = self.deployment.subject(operation)
        await self.client.publish(subject, json.dumps(request).encode(), reply=inbox)
        head: dict[str, str] | None = None
        parts: list[bytes] = []
        try:
            while head is None or len(parts) < int(head.get("Blob-Parts", 0)):
                message = await subscription.next_msg(_REQUEST_SECONDS)
                headers = message.headers or {}
                if (code := code_of(message)) != "ok":
                    raise RefusedError(code, str(json.loads(message.data)["detail"]))
                if "Blob-Length" in headers and "Blob-Size" in headers and head is None:
                    head = headers
                    if "Blob-Parts" not in headers:
                        return head, message.data
                elif message.data:
                    parts.append(message.data)
        finally:
            await subscription.unsubscribe()
        skip = int(head.get("Blob-Skip", 0))
        return head, b"".join(parts)[skip : skip + int(head["Blob-Length"])]

    async def stored_bytes(self) -> int:
        """The bytes in the streams with packs and records."""
        streams = await self.client.jetstream().streams_info()
        prefix = self.deployment.prefix
        return sum(stream.state.bytes for stream in streams if prefix in (stream.config.name or ""))

    def command(self, *words: str | Path) -> list[str]:
        """The ``holdfast`` command with ``words``; see ``environment``."""
        return [sys.executable, "-m", "holdfast", *map(str, words)]

    def environment(self) -> dict[str, str]:
        """The environment in which a command reaches the workers."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NATS_", "HOLDFAST_"))
        }
        return kept | {"NATS_URL": self.deployment.url, "HOLDFAST_PREFIX": self.deployment.prefix}

    def run(self, *words: str | Path, stdin: bytes | None = None) -> bytes:
        """Run the command; its output. Raises AssertionError when it fails."""
        done = subprocess.run(
            self.command(*words),
            env=self.environment(),
            input=stdin,
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr.decode(errors="replace")[-2000:])
        return done.stdout

    def pipe(self, words: Sequence[str | Path], into: Sequence[str | Path], cwd: Path) -> None:
        """Run the command ``words``, and have ``into`` read its output. Both must succeed."""
        with subprocess.Popen(
            self.command(*words), env=self.environment(), stdout=subprocess.PIPE
        ) as saying:
            subprocess.run(into, stdin=saying.stdout, cwd=cwd, check=True, timeout=_COMMAND_SECONDS)
        assert saying.returncode == 0
