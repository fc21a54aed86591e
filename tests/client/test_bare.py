"""``blob.get`` with ``bare``: the store sends a small blob by itself, and its digest tells."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.contracts.blob_store import some_bytes

from holdfast.client import bare
from holdfast.client import connect as connect_client
from holdfast.client.bare import whole_blob
from holdfast.domain.digest import digest_of
from holdfast.errors import (
    ForbiddenError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from holdfast.protocol import codec
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.message import Message, format_headers
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.deployment import Deployment

    from holdfast.client import Client
    from holdfast.transport.connection import Connection

DATA = some_bytes(3000)
DIGEST = digest_of(DATA)
HEAD = {
    "Blob-Digest": DIGEST,
    "Blob-Size": "3000",
    "Blob-Offset": "0",
    "Blob-Length": "3000",
    "Blob-Type": "text/plain",
}
STORED = {"Nats-Stream": "OBJ_blobs", "Nats-Sequence": "7", "Blob-Part": "0"}


def answer(data: bytes, headers: Mapping[str, str]) -> Message:
    return Message("_INBOX.a.0", "", data, format_headers(headers))


def failure(error: HoldfastError) -> Message:
    headers, body = codec.encode_error(error, codec.Encoding.JSON)
    return answer(body, headers)


@pytest.mark.parametrize("headers", [HEAD, STORED, {}], ids=["worker", "store", "none"])
def test_the_right_bytes_are_the_blob_whoever_sends_them(headers: Mapping[str, str]) -> None:
    assert whole_blob(answer(DATA, headers), DIGEST) == DATA


@pytest.mark.parametrize(
    "odd",
    [
        answer(DATA[:-1], STORED),
        answer(b'{"name":"a record"}', STORED),
        answer(b"", {**HEAD, "Blob-Parts": "1"}),
        Message("_INBOX.a.0", "", b"", b"NATS/1.0 404 Message Not Found\r\n\r\n"),
        Message("_INBOX.a.0", "", b"", b"NATS/1.0 503\r\n\r\n"),
        failure(InvalidError("unknown field")),
    ],
    ids=["cut off", "another message", "window", "nothing there", "nobody", "old worker"],
)
def test_whatever_else_comes_is_asked_for_again(odd: Message) -> None:
    assert whole_blob(odd, DIGEST) is None


def test_the_empty_blob_is_told_from_a_status() -> None:
    empty = digest_of(b"")
    assert whole_blob(answer(b"", {**HEAD, "Blob-Size": "0", "Blob-Length": "0"}), empty) == b""
    status = Message("_INBOX.a.0", "", b"", b"NATS/1.0 404 Message Not Found\r\n\r\n")
    assert whole_blob(status, empty) is None


def test_what_a_worker_answers_is_raised() -> None:
    with pytest.raises(NotFoundError):
        whole_blob(failure(NotFoundError("no such blob")), DIGEST)
    with pytest.raises(ForbiddenError):
        whole_blob(failure(ForbiddenError("no")), DIGEST)


@pytest.mark.nats
class TestLive:
    """Asked of two workers."""

    async def ask(self, deployment: Deployment, **request: object) -> Message:
        connection = await connect(NatsOptions(servers=(deployment.url,)))
        try:
            subject = f"{deployment.prefix}.blob.get"
            body = msgspec.json.encode({**request, "bare": True})
            return await Inbox(connection).request(subject, body, timeout_seconds=30)
        finally:
            await connection.close()

    async def test_a_small_blob_comes_from_the_store_in_one_message(
        self, deployment: Deployment, holdfast: Client
    ) -> None:
        await holdfast.put(DATA)

        for _ in range(4):
            message = await self.ask(deployment, digest=DIGEST)

            assert whole_blob(message, DIGEST) == DATA
            assert "Nats-Sequence" in message.headers
            assert "Blob-Size" not in message.headers

    async def test_a_range_an_empty_blob_and_a_large_one_come_as_ever(
        self, deployment: Deployment, holdfast: Client
    ) -> None:
        large = some_bytes(2 * 1024 * 1024)
        for data in (DATA, b"", large):
            await holdfast.put(data)

        part = await self.ask(deployment, digest=DIGEST, offset=10, length=20)
        head = await self.ask(deployment, digest=DIGEST, length=20)
        empty = await self.ask(deployment, digest=digest_of(b""))
        window = await self.ask(deployment, digest=digest_of(large))
        relayed = await self.ask(deployment, digest=DIGEST, proxy=True)

        assert (part.data, head.data) == (DATA[10:30], DATA[:20])
        assert whole_blob(empty, digest_of(b"")) == b""
        assert whole_blob(window, digest_of(large)) is None
        assert relayed.headers["Blob-Size"] == "3000"

    async def test_what_is_not_there_is_not_found(self, deployment: Deployment) -> None:
        message = await self.ask(deployment, digest="0" * 64)

        with pytest.raises(NotFoundError):
            whole_blob(message, "0" * 64)

    async def test_after_a_deletion_by_any_worker_the_bytes_are_not_sent(
        self, deployment: Deployment, holdfast: Client
    ) -> None:
        data = some_bytes(700, seed=9)
        await holdfast.put(data)
        await asyncio.gather(*(self.ask(deployment, digest=digest_of(data)) for _ in range(8)))
        await holdfast.delete(digest_of(data))

        for _ in range(8):
            message = await self.ask(deployment, digest=digest_of(data))
            with suppress(NotFoundError):
                assert whole_blob(message, digest_of(data)) is None

    async def test_only_inboxes_are_sent_to(self, deployment: Deployment, holdfast: Client) -> None:
        await holdfast.put(DATA)
        async with asyncio.timeout(30):
            connection = await connect(NatsOptions(servers=(deployment.url,)))
            arrived: list[Message] = []
            connection.route("elsewhere.a", arrived.append)
            body = msgspec.json.encode({"digest": DIGEST, "bare": True})
            for _ in range(4):
                connection.send(f"{deployment.prefix}.blob.get", body, reply="elsewhere.a")
            await connection.wait_flushed(30)
            for _ in range(4):  # behind those, by the same workers
                await self.ask(deployment, digest=DIGEST)
            await connection.close()
        assert arrived == []


async def tried(client: Client) -> bool:
    """Whether a bare read has arrived, once that is known."""
    trying = client.requester.bare._trying
    assert trying is not None
    await trying
    return client.requester.bare.is_on


@pytest.mark.nats
class TestClient:
    """A client that gets small blobs."""

    @pytest.fixture(autouse=True)
    def patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Silence is that of a busy machine."""
        monkeypatch.setattr(bare, "SILENCE_SECONDS", 30.0)

    async def test_once_one_has_arrived_bare_all_are_read_so(
        self, holdfast: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blobs = [some_bytes(100 + number, seed=number) for number in range(8)]
        for data in blobs:
            await holdfast.put(data)
        assert await holdfast.get(digest_of(blobs[0])) == blobs[0]
        assert await tried(holdfast)

        monkeypatch.delattr(type(holdfast.requester), "ask_for_bytes")
        told: list[tuple[int, int | None]] = []

        for data in blobs:
            assert await holdfast.get(digest_of(data), progress=lambda *of: told.append(of)) == data
        assert told == [(len(data), len(data)) for data in blobs]

    async def test_whatever_is_no_small_blob_is_read_as_ever(self, holdfast: Client) -> None:
        large = some_bytes(5 * 2**20 + 1)
        for data in (DATA, b"", large):
            await holdfast.put(data)
        await holdfast.get(DIGEST)
        assert await tried(holdfast)

        assert await holdfast.get(digest_of(large)) == large
        assert await holdfast.get(digest_of(b"")) == b""
        assert await holdfast.get(DIGEST, offset=5) == DATA[5:]
        assert await holdfast.get(DIGEST, length=5) == DATA[:5]
        await holdfast.delete(DIGEST)
        with pytest.raises(NotFoundError):
            await holdfast.get(DIGEST)
        await holdfast.put(DATA)
        assert await holdfast.get(DIGEST) == DATA

    async def test_an_empty_blob_tells_nothing_of_the_way(self, holdfast: Client) -> None:
        await holdfast.put(b"")
        await holdfast.get(digest_of(b""))

        assert not await tried(holdfast)


class Answerer:
    """Stands for a worker that answers ``blob.get``, the bare ones in its own manner."""

    def __init__(self, connection: Connection, prefix: str, bare_answer: Message | None) -> None:
        self.asked: list[bool] = []
        self._connection = connection
        self._bare_answer = bare_answer
        connection.route(f"{prefix}.blob.get", self._receive)

    def _receive(self, message: Message) -> None:
        is_bare = b'"bare":true' in bytes(message.data)
        self.asked.append(is_bare)
        told = self._bare_answer if is_bare else answer(DATA, HEAD)
        if told is not None:
            self._connection.send(message.reply, told.data, headers=told.headers)


@pytest.mark.nats
class TestNotBare:
    """A client whose bare reads come to nothing."""

    @pytest.mark.parametrize(
        ("odd", "is_on"),
        [
            (failure(InvalidError("unknown field")), False),
            (failure(UnavailableError("no leader")), True),
            (answer(DATA[:-1], STORED), True),
            (None, False),
        ],
        ids=["old worker", "store away", "another message", "silence"],
    )
    async def test_is_answered_all_the_same(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch, odd: Message | None, is_on: bool
    ) -> None:
        monkeypatch.setattr(bare, "SILENCE_SECONDS", 0.05 if odd is None else 30.0)
        connection = await connect(NatsOptions(servers=(nats_url,)))
        try:
            worker = Answerer(connection, "odd", odd)
            await connection.wait_flushed(30)
            async with await connect_client(servers=nats_url, prefix="odd") as client:
                client.requester.bare.is_on = True

                assert await client.get(DIGEST) == DATA
                assert worker.asked == [True, False]
                assert client.requester.bare.is_on is is_on
        finally:
            await connection.close()

    @pytest.mark.parametrize(
        "odd",
        [failure(InvalidError("unknown field")), answer(DATA, HEAD), None],
        ids=["old worker", "the worker sends it", "silence"],
    )
    async def test_is_tried_once_and_nobody_waits_for_it(
        self, nats_url: str, monkeypatch: pytest.MonkeyPatch, odd: Message | None
    ) -> None:
        monkeypatch.setattr(bare, "SILENCE_SECONDS", 0.05 if odd is None else 30.0)
        connection = await connect(NatsOptions(servers=(nats_url,)))
        try:
            worker = Answerer(connection, "vain", odd)
            await connection.wait_flushed(30)
            async with await connect_client(servers=nats_url, prefix="vain") as client:
                for _ in range(4):
                    assert await client.get(DIGEST) == DATA
                assert not await tried(client)
                assert await client.get(DIGEST) == DATA
                assert sum(worker.asked) == 1
        finally:
            await connection.close()
