"""Reads of many bytes: a range is right or an error, and the way back to a reader may be narrow."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final
from zlib import crc32

import pytest
from tests.contracts.blob_store import some_bytes
from tests.deployment import Asker, Deployment, deployed

from holdfast.archive.bridge import checked
from holdfast.client import Client, connect
from holdfast.client.bare import BareReads
from holdfast.client.requests import BYTES_AT_ONCE, Way
from holdfast.client.snapshots.packs import PackTransport
from holdfast.domain.digest import digest_of
from holdfast.domain.limits import PART_BYTES, max_inline_bytes
from holdfast.errors import CorruptError, UnavailableError
from holdfast.form.packing import PACK_BYTES
from holdfast.protocol import codec
from holdfast.protocol.blobs import GET_BLOB, BlobHead
from holdfast.transport import connection as transport
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.conftest import StartServer

    from holdfast.transport.message import Message

    Damage = Callable[[Asker, str, int], Awaitable[None]]

pytestmark = pytest.mark.nats

PARTS: Final = 12
RANGES: Final = 30


def some_parts(name: str) -> bytes:
    """Bytes that make ``PARTS`` chunks, all different."""
    return b"".join(some_bytes(PART_BYTES, seed=crc32(f"{name}{n}".encode())) for n in range(PARTS))


async def chunks_of(ask: Asker, digest: str) -> tuple[str, list[int]]:
    """The subject of a blob's chunks and their sequences."""
    bucket = ask.deployment.bucket
    js = ask.client.jetstream()
    nuid = (await js.object_store(bucket)).get_info(digest)
    subject = f"$O.{bucket}.C.{(await nuid).nuid}"
    found, sequence = [], 0
    for _ in range(PARTS):
        message = await js.get_msg(f"OBJ_{bucket}", seq=sequence + 1, subject=subject, next=True)
        assert message.seq is not None
        sequence = message.seq
        found.append(sequence)
    return subject, found


async def lose(ask: Asker, digest: str, part: int) -> None:
    """One chunk is gone."""
    _, sequences = await chunks_of(ask, digest)
    js = ask.client.jetstream()
    await js.delete_msg(f"OBJ_{ask.deployment.bucket}", sequences[part])


async def move(ask: Asker, digest: str, part: int) -> None:
    """The bucket was copied: all chunks from ``part`` on have other sequences than they had."""
    subject, sequences = await chunks_of(ask, digest)
    js = ask.client.jetstream()
    stream = f"OBJ_{ask.deployment.bucket}"
    for sequence in sequences[part:]:
        message = await js.get_msg(stream, seq=sequence)
        assert message.headers is not None
        headers = {"Blob-Part": message.headers["Blob-Part"]}
        await js.publish(subject, message.data or b"", headers=headers)
        await js.delete_msg(stream, sequence)


@pytest.mark.parametrize("damage", [lose, move])
async def test_a_range_over_chunks_that_are_lost_or_elsewhere_is_right_or_an_error(
    holdfast: Client, ask: Asker, damage: Damage
) -> None:
    chance = random.Random(damage.__name__)  # noqa: S311  (the same ranges every time)
    part = chance.randrange(2, PARTS - 1)
    data = some_parts(damage.__name__)
    digest = (await holdfast.put(data)).digest
    await damage(ask, digest, part)
    at = part * PART_BYTES
    ranges = [(at, 4 * PART_BYTES), (at + 100, 3 * PART_BYTES), (at, PART_BYTES), (0, len(data))]
    ranges += [
        (chance.randrange(len(data)), chance.randrange(1, 6 * PART_BYTES)) for _ in range(RANGES)
    ]

    for offset, length in ranges:
        if offset + length <= at:
            assert (
                await holdfast.get(digest, offset=offset, length=length)
                == (data[offset : offset + length])
            ), "what lies before the damage can be read"
            continue
        with suppress(CorruptError, UnavailableError):
            found = await holdfast.get(digest, offset=offset, length=length)
            assert found == data[offset : offset + length]


async def test_windows_that_begin_elsewhere_than_their_heads_say_are_not_taken(
    deployment: Deployment, holdfast: Client, ask: Asker
) -> None:
    """Any client can see it: the head names the number of the first message."""
    data = some_parts("whole")
    digest = (await holdfast.put(data)).digest
    inbox = ask.client.new_inbox()
    subscription = await ask.client.subscribe(inbox)

    request = {"digest": digest, "offset": 5 * PART_BYTES + 7, "length": 2 * PART_BYTES}
    await ask.client.publish(
        deployment.subject("blob.get"), json.dumps(request).encode(), reply=inbox
    )
    messages = [await subscription.next_msg(30) for _ in range(4)]

    heads = [m for m in messages if "Blob-First" in (m.headers or {})]
    numbers = [part for m in messages if (part := (m.headers or {}).get("Blob-Part"))]
    assert [(h.headers or {})["Blob-First"] for h in heads] == ["5"]
    assert numbers == ["5", "6", "7"]


# --- how much is on its way ---


async def test_small_gets_are_under_way_together_however_large_a_window_may_be(
    nats_url: str,
) -> None:
    """All are asked for before the first is answered."""
    fresh_prefix = f"w{secrets.token_hex(4)}"
    count = BYTES_AT_ONCE // max_inline_bytes(2**20)
    answering = await transport.connect(NatsOptions(servers=(nats_url,)))
    data = b"small"
    digest = digest_of(data)
    waiting: list[Message] = []
    head = codec.encode_headers(
        BlobHead(digest=digest, size=len(data), offset=0, length=len(data), type="a/b")
    )

    def receive(message: Message) -> None:
        waiting.append(message)
        if len(waiting) == count:
            for each in waiting:
                answering.send(each.reply, data, headers=head)

    answering.route(f"{fresh_prefix}.{GET_BLOB.subject}", receive)
    await answering.wait_flushed(30)
    async with await connect(servers=nats_url, prefix=fresh_prefix) as client:
        found = await asyncio.gather(*(client.get(digest) for _ in range(count)))

    await answering.close()
    assert count > 48
    assert found == [data] * count
    assert sum(b'"bare"' not in bytes(message.data) for message in waiting) == count


# --- readers in another account ---

ACCOUNTS: Final = """
accounts {{
  STORE: {{
    jetstream: enabled
    users: [{{user: w, password: w}}]
    exports: [{{service: "*.blob.>"{response}}}]
  }}
  APP: {{
    users: [{{user: a, password: a}}]
    imports: [{{service: {{account: STORE, subject: "*.blob.>"}}}}]
  }}
}}
no_auth_user: w
"""


@pytest.fixture(
    params=[("", Way.SINGLE), (', response_type: "Stream"', Way.RELAYED)],
    ids=["one answer", "stream"],
)
def imported(
    request: pytest.FixtureRequest, start_server: StartServer
) -> Iterator[tuple[Deployment, Way]]:
    """A worker whose service another account imports; and how reads get through there."""
    response, way = request.param
    server = start_server(extra_configuration=ACCOUNTS.format(response=response))
    with deployed(server.url, "one") as deployment:
        yield deployment, way


@pytest.mark.slow
async def test_a_reader_in_another_account_gets_everything_and_waits_in_vain_once(
    imported: tuple[Deployment, Way],
) -> None:
    deployment, way = imported
    data = some_bytes(11 * 2**20 + 5, seed=3)
    options = NatsOptions(servers=(deployment.url,), user="a", password="a")
    async with await connect(options, prefix=deployment.prefix) as client:
        digest = (await client.put(data)).digest

        assert await client.get(digest) == data
        assert client.requester.way is way, "so that no other read waits"
        assert await client.get(digest, offset=7, length=9 * 2**20) == data[7 : 7 + 9 * 2**20]
        streamed = b"".join([bytes(piece) async for piece in client.stream(digest)])

        assert streamed == data
        packs, pack = PackTransport(client.requester), data[:PACK_BYTES]
        assert await packs.put(digest_of(pack), pack)
        assert checked(await packs.get(digest_of(pack))) == pack
        assert client.requester.way is way


@pytest.mark.slow
async def test_a_reader_in_another_account_does_not_wait_for_bare_blobs(
    imported: tuple[Deployment, Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, _ = imported
    monkeypatch.delattr(BareReads, "ask")
    options = NatsOptions(servers=(deployment.url,), user="a", password="a")
    async with await connect(options, prefix=deployment.prefix) as client:
        for data in (some_bytes(100, seed=1), b"", some_bytes(100, seed=2)):
            stored = await client.put(data)
            for _ in range(3):
                assert await client.get(stored.digest) == data
            trying = client.requester.bare._trying
            assert trying is not None
            await trying
            assert not client.requester.bare.is_on
            assert await client.get(stored.digest) == data


@pytest.mark.slow
@pytest.mark.parametrize("imported", [("", Way.SINGLE)], ids=["one answer"], indirect=True)
async def test_a_reader_in_another_account_gets_all_that_a_name_has_though_its_digest_is_deleted(
    imported: tuple[Deployment, Way],
) -> None:
    deployment, _ = imported
    data = some_bytes(5 * 2**20 + 5, seed=3)
    theirs = NatsOptions(servers=(deployment.url,), user="w", password="w")
    ours = NatsOptions(servers=(deployment.url,), user="a", password="a")
    async with (
        await connect(theirs, prefix=deployment.prefix) as writer,
        await connect(ours, prefix=deployment.prefix) as reader,
    ):
        await writer.names.put("name", data)
        read = b""
        async with aclosing(reader.names.stream("name")) as pieces:
            async for piece in pieces:
                if not read:
                    assert await writer.delete(digest_of(data))
                read += piece

    assert read == data
