"""A client's upload against a worker that plays a script: what no real one can be made to do."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from nats.aio.client import Client as NatsClient

from holdfast.client import connect
from holdfast.client.puts import upload as upload_module
from holdfast.client.requests import ATTEMPT_SECONDS, worker_seconds
from holdfast.errors import ConflictError, UnavailableError
from holdfast.protocol import codec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats.aio.msg import Msg

    from holdfast.errors import HoldfastError

pytestmark = pytest.mark.nats

PART = 128 * 1024
SIZE = 9 * PART


class ScriptedWorker:
    """Takes every part, and refuses commits with a conflict; ``refusals`` says how many.

    One that ``is_silent`` answers no renewal, and one that ``is_deaf`` takes nothing over.
    """

    def __init__(self, client: NatsClient) -> None:
        self.prefix = f"s{secrets.token_hex(4)}"
        self.refusals = 10**6
        self.attempts: list[float] = []
        self.lease_seconds: float | None = None
        self.renewals = 0
        self.renewed = asyncio.Event()
        self.is_gone = False
        self.is_silent = False
        self.is_deaf = False
        self._client = client
        self._parts = 0
        self._part_subject = f"{self.prefix}.blob.part.w.u"

    async def serve(self) -> None:
        """Subscribe."""
        answers = {
            f"{self.prefix}.blob.open": self._open,
            f"{self.prefix}.blob.resume": self._resume,
            f"{self.prefix}.blob.abort": self._abort,
            self._part_subject: self._part,
        }
        for subject, answer in answers.items():
            await self._client.subscribe(subject, cb=answer)
        await self._client.flush()

    async def _open(self, message: Msg) -> None:
        await message.respond(self._state())

    async def _resume(self, message: Msg) -> None:
        self.attempts.append(float((message.headers or {})["Timeout"]))
        if not self.is_deaf:
            await message.respond(self._state())

    async def _abort(self, message: Msg) -> None:
        await message.respond(json.dumps({"aborted": True}).encode())

    async def _part(self, message: Msg) -> None:
        headers = message.headers or {}
        if headers.get("Blob-Keep") == "true":
            self.renewals += 1
            self.renewed.set()
            if self.is_silent:
                return
            if self.is_gone:
                self._part_subject += "x"  # the next owner's, of which a resume tells
                await self._client.subscribe(self._part_subject, cb=self._part)
                error = ConflictError("another worker has it")
                refused, body = codec.encode_error(error, codec.Encoding.JSON)
                await self._client.publish(message.reply, body, headers=refused)
                self.is_gone = False
                return
            await message.respond(b"{}")
            return
        if "Blob-Final" in headers:
            await self._commit(message, headers["Blob-Digest"])
            return
        self._parts += 1
        await message.respond(json.dumps({"part": int(headers["Blob-Part"])}).encode())

    async def _commit(self, message: Msg, digest: str) -> None:
        if self.refusals:
            self.refusals -= 1
            error = ConflictError("another worker has it")
            headers, body = codec.encode_error(error, codec.Encoding.JSON)
            await self._client.publish(message.reply, body, headers=headers)
            return
        stored = {"digest": digest, "size": SIZE, "created": True}
        await message.respond(json.dumps(stored).encode())

    def _state(self) -> bytes:
        state: dict[str, Any] = {
            "upload": "u" * 22,
            "part_subject": self._part_subject,
            "part_size": PART,
            "window": 4 * PART,
            "next_part": self._parts,
        }
        if self.lease_seconds is not None:
            state["lease_seconds"] = self.lease_seconds
        return json.dumps(state).encode()


@pytest_asyncio.fixture
async def worker(nats_url: str) -> AsyncIterator[ScriptedWorker]:
    """A pool of one that plays its script."""
    client = NatsClient()
    await client.connect(nats_url)
    worker = ScriptedWorker(client)
    await worker.serve()
    yield worker
    await client.close()


@pytest.mark.parametrize("is_gone", [False, True], ids=["its owner stays", "its owner is gone"])
async def test_a_source_that_pauses_keeps_its_upload_alive(
    worker: ScriptedWorker, nats_url: str, *, is_gone: bool
) -> None:
    worker.refusals = 0
    worker.lease_seconds = 0.2
    worker.is_gone = is_gone

    async def source() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(PART)
        for _ in range(3):
            worker.renewed.clear()
            await worker.renewed.wait()
        yield bytes(PART)

    async with await connect(servers=nats_url, prefix=worker.prefix) as holdfast:
        stored = await holdfast.put(source())

    assert stored.size == SIZE
    assert worker.renewals >= 3
    assert len(worker.attempts) == is_gone, "who took over was asked for once"


@pytest.mark.parametrize("is_deaf", [False, True], ids=["it may be resumed", "nobody resumes it"])
async def test_a_put_whose_owner_falls_silent_before_the_end_is_surely_not_done(
    worker: ScriptedWorker, nats_url: str, monkeypatch: pytest.MonkeyPatch, *, is_deaf: bool
) -> None:
    monkeypatch.setattr(upload_module, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(upload_module, "RESUME_TIMEOUTS", 0.02)
    worker.lease_seconds = 0.2
    worker.is_silent, worker.is_deaf = True, is_deaf
    given_up = asyncio.Event()
    fail = upload_module.Upload._fail

    def note(upload: upload_module.Upload, error: HoldfastError) -> None:
        fail(upload, error)
        given_up.set()

    monkeypatch.setattr(upload_module.Upload, "_fail", note)

    async def source() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(PART)
        await given_up.wait()
        yield bytes(PART)

    async with await connect(servers=nats_url, prefix=worker.prefix) as holdfast:
        with pytest.raises((UnavailableError, ConflictError)):  # refused, if it got to its end
            await holdfast.put(source())


async def test_commits_refused_for_ever_are_asked_for_ever_more_rarely_and_then_given_up(
    worker: ScriptedWorker, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "RESUME_TIMEOUTS", 0.04)

    async with await connect(servers=nats_url, prefix=worker.prefix) as holdfast:
        with pytest.raises(ConflictError, match="another worker has it"):
            await holdfast.put(bytes(SIZE))

    assert 2 <= len(worker.attempts) <= 7, "at once, then after 50, 100, 200, 400 and 800 ms"


async def test_a_new_owner_has_longer_for_one_attempt_the_more_it_has_to_copy(
    worker: ScriptedWorker, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "COPY_BYTES_PER_SECOND", SIZE / 100)
    worker.refusals = 1

    async with await connect(servers=nats_url, prefix=worker.prefix) as holdfast:
        stored = await holdfast.put(bytes(SIZE))

    assert stored.size == SIZE
    assert worker.attempts == [float(worker_seconds(ATTEMPT_SECONDS + 100))]
