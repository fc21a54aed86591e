"""Windows of files that come in odd ways, from a worker that the test plays."""

from __future__ import annotations

import json
import secrets
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from nats.aio.client import Client as NatsClient
from tests.contracts.blob_store import some_bytes

from holdfast.client import Client, connect
from holdfast.errors import CorruptError, NotFoundError
from holdfast.protocol import codec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats.aio.msg import Msg

pytestmark = pytest.mark.nats

KEY = "blog:01935f9e-7b1c-7000-8000-000000000000"
WINDOW = 4000
PIECE = 1500
DATA = some_bytes(30_123, seed=1)


class FakeWorker:
    """Answers ``snapshot.read`` with ``DATA``, a few windows of it at a time.

    ``oddities`` say by number what is wrong with an answer; they are used up.
    """

    def __init__(self, client: NatsClient) -> None:
        self.client = client
        self.oddities: dict[int, str] = {}
        self.asked: list[dict[str, Any]] = []

    async def answer(self, message: Msg) -> None:
        request = json.loads(message.data)
        number = len(self.asked)
        self.asked.append(request)
        start, stop = min(request.get("offset", 0), len(DATA)), len(DATA)
        if "cursor" in request:
            start, stop = map(int, request["cursor"].split("-"))
        elif "length" in request:
            stop = min(stop, start + request["length"])
        await self.send(message.reply, start, stop, self.oddities.pop(number, ""))

    async def send(self, reply: str, start: int, stop: int, oddity: str) -> None:
        end = min(start + WINDOW, stop)
        pieces = [DATA[at : min(at + PIECE, end)] for at in range(start, end, PIECE)]
        head = {
            "Blob-Size": str(len(DATA)),
            "Blob-Offset": str(start + (1 if oddity == "shifted" else 0)),
            "Blob-Length": str(end - start),
            "Blob-Type": "application/octet-stream",
            "Blob-Parts": str(len(pieces)),
            "Blob-Skip": "0",
        }
        if end < stop:
            head["Blob-Cursor"] = f"{end}-{stop}"
        if oddity == "end too soon":
            head.pop("Blob-Cursor", None)
        if oddity == "refused":
            headers, body = codec.encode_error(NotFoundError("gone"), codec.Encoding.JSON)
            await self.client.publish(reply, body, headers=headers)
            return
        messages = [
            (piece, {"Blob-Part": str(number)})
            for number, piece in enumerate(pieces)
            if not (oddity == "gap" and number == 1)
        ]
        if oddity == "short":
            messages[-1] = (messages[-1][0][:-1], messages[-1][1])
        if oddity == "gap":
            messages.append((b"", {"Blob-Part": str(len(pieces))}))
        place = len(messages) if oddity == "head last" else 0
        messages.insert(place, (b"", head))
        if oddity == "no head":
            messages = [(b"", {"Status": "408"})]
        for body, headers in messages:
            await self.client.publish(reply, body, headers=headers)


@asynccontextmanager
async def played(url: str) -> AsyncIterator[tuple[FakeWorker, Client]]:
    prefix = f"fake{secrets.token_hex(4)}"
    nats = NatsClient()
    await nats.connect(url)
    worker = FakeWorker(nats)
    await nats.subscribe(f"{prefix}.snapshot.read", cb=worker.answer)
    await nats.flush()
    try:
        async with await connect(servers=url, prefix=prefix) as client:
            yield worker, client
    finally:
        await nats.close()


async def content(client: Client, offset: int = 0, length: int | None = None) -> bytes:
    pieces: Any = client.snapshots.stream(KEY, "file", offset=offset, length=length)
    async with aclosing(pieces) as incoming:
        return b"".join([piece async for piece in incoming])


async def test_windows_are_put_together(nats_url: str) -> None:
    async with played(nats_url) as (worker, client):
        assert await content(client) == DATA
        assert len(worker.asked) == -(-len(DATA) // WINDOW)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (1, 9000), (12_345, 1), (30_000, 1000), (30_123, 5), (40_000, 1)]
)
async def test_a_range_is_the_slice(nats_url: str, offset: int, length: int) -> None:
    async with played(nats_url) as (_, client):
        assert await content(client, offset=offset, length=length) == DATA[offset:][:length]


@pytest.mark.parametrize("oddity", ["head last", "gap", "short", "no head"])
@pytest.mark.parametrize("number", [0, 3])
async def test_whatever_is_odd_about_a_window_every_byte_comes(
    nats_url: str, oddity: str, number: int
) -> None:
    async with played(nats_url) as (worker, client):
        worker.oddities[number] = oddity

        assert await content(client) == DATA


async def test_a_window_of_other_bytes_is_not_taken(nats_url: str) -> None:
    async with played(nats_url) as (worker, client):
        worker.oddities[2] = "shifted"

        with pytest.raises(CorruptError):
            await content(client)


async def test_an_end_before_the_end_is_not_taken_for_all(nats_url: str) -> None:
    async with played(nats_url) as (worker, client):
        worker.oddities[2] = "end too soon"

        with pytest.raises(CorruptError):
            await content(client)


async def test_what_the_worker_says_is_raised_even_amid_the_windows(nats_url: str) -> None:
    async with played(nats_url) as (worker, client):
        worker.oddities[1] = "refused"

        with pytest.raises(NotFoundError):
            await content(client)


async def test_progress_ends_at_the_size(nats_url: str) -> None:
    told: list[tuple[int, int | None]] = []

    async with played(nats_url) as (_, client):
        pieces = client.snapshots.stream(
            KEY, "file", offset=1000, progress=lambda done, total: told.append((done, total))
        )
        count = sum([len(piece) async for piece in pieces])

    assert told[-1] == (count, count) == (len(DATA) - 1000, len(DATA) - 1000)
