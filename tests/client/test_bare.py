"""``blob.get`` with ``bare``: the store sends a small blob by itself, and its digest tells."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.contracts.blob_store import some_bytes

from holdfast.client.bare import whole_blob
from holdfast.domain.digest import digest_of
from holdfast.errors import ForbiddenError, HoldfastError, InvalidError, NotFoundError
from holdfast.protocol import codec
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.message import Message, format_headers
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.deployment import Deployment

    from holdfast.client import Client

DATA = some_bytes(3000)
DIGEST = digest_of(DATA)
HEAD = {"Blob-Digest": DIGEST, "Blob-Size": "3000", "Blob-Offset": "0", "Blob-Length": "3000"}
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
            return await Inbox(connection).request(subject, body, timeout_seconds=10)
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
        async with asyncio.timeout(10):
            connection = await connect(NatsOptions(servers=(deployment.url,)))
            arrived: list[Message] = []
            connection.route("elsewhere.a", arrived.append)
            body = msgspec.json.encode({"digest": DIGEST, "bare": True})
            for _ in range(4):
                connection.send(f"{deployment.prefix}.blob.get", body, reply="elsewhere.a")
            await connection.flush()
            for _ in range(4):  # behind those, by the same workers
                await self.ask(deployment, digest=DIGEST)
            await connection.close()
        assert arrived == []
