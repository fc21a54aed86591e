"""A worker as plain nats-py sees it: every operation by raw requests, without our client."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from nats.errors import NoRespondersError
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats
from tests.contracts.blob_store import some_bytes
from tests.deployment import Asker, Deployment, code_of

from holdfast.domain.limits import part_bytes

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

pytestmark = pytest.mark.nats

ABSENT = "0" * 64
PART_BYTES = part_bytes(1024 * 1024)
MSGPACK = "application/msgpack"


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def upload(ask: Asker, data: bytes) -> str:
    """Upload ``data`` in parts, one after the other; its digest."""
    opened = await ask.json("blob.open")
    parts = [data[at : at + opened["part_size"]] for at in range(0, len(data), opened["part_size"])]
    for number, part in enumerate(parts):
        answer = await ask.to(opened["part_subject"], part, Blob_Part=str(number))
        assert json.loads(answer.data) == {"part": number}
    final = await ask.to(opened["part_subject"], Blob_Final=str(len(parts)))
    return str(json.loads(final.data)["digest"])


async def window(
    client: Client, subject: str, request: dict[str, Any]
) -> tuple[dict[str, str], list[Msg]]:
    """The head of a window, and its chunks, which may overtake it."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    await client.publish(subject, json.dumps(request).encode(), reply=inbox)
    head: dict[str, str] = {}
    chunks: list[Msg] = []
    while not head or len(chunks) < int(head["Blob-Parts"]):
        message = await subscription.next_msg(30)
        headers = message.headers or {}
        if "Blob-Digest" in headers:
            assert message.data == b""
            head = headers
        elif message.data:
            chunks.append(message)
    await subscription.unsubscribe()
    return head, chunks


async def test_what_is_put_can_be_got_statted_listed_and_deleted(ask: Asker) -> None:
    data = b"put by a plain request"
    digest = digest_of(data)

    assert await ask.json("blob.put", data) == {
        "digest": digest,
        "size": len(data),
        "created": True,
    }
    assert (await ask("blob.get", digest.encode())).data == data
    assert (await ask("blob.get", {"digest": digest, "offset": 4, "length": 2})).data == b"by"
    assert (await ask.json("blob.stat", {"digest": digest}))["size"] == len(data)
    assert await ask.json("blob.has", {"digests": [ABSENT, digest]}) == {"missing": [ABSENT]}
    listed = await ask.json("blob.list", {"prefix": digest[:10]})
    assert [blob["digest"] for blob in listed["blobs"]] == [digest]
    assert await ask.json("blob.verify", {"digest": digest}) == {"checked": 1, "bytes": len(data)}
    assert await ask.json("blob.delete", {"digest": digest}) == {"deleted": True}
    assert await ask.json("blob.delete", {"digest": digest}) == {"deleted": False}
    assert code_of(await ask("blob.get", digest.encode())) == "not_found"


async def test_the_same_in_msgpack(ask: Asker) -> None:
    data = b"put by a plain request in msgpack"
    digest = digest_of(data)

    async def packed(operation: str, **request: Any) -> Any:
        body = msgspec.msgpack.encode(request)
        answer = await ask(operation, body, Content_Type=MSGPACK)
        return msgspec.msgpack.decode(answer.data)

    put = await ask("blob.put", data, Content_Type=MSGPACK)
    assert msgspec.msgpack.decode(put.data)["digest"] == digest
    assert (await packed("blob.stat", digest=digest))["size"] == len(data)
    assert (await packed("blob.has", digests=[ABSENT]))["missing"] == [ABSENT]
    assert (await packed("blob.list", limit=1))["blobs"]
    assert (await packed("blob.verify", digest=digest))["checked"] == 1
    assert (await packed("blob.stat", digest=ABSENT))["code"] == "not_found"
    opened = await packed("blob.open", size=3)
    assert (await packed("blob.resume", upload=opened["upload"]))["next_part"] == 0
    assert await packed("blob.abort", upload=opened["upload"]) == {"aborted": True}
    assert await packed("blob.delete", digest=digest) == {"deleted": True}


async def test_an_upload_by_plain_requests(ask: Asker) -> None:
    data = some_bytes(5 * PART_BYTES + 17)

    assert await upload(ask, data) == digest_of(data)

    stat = await ask.json("blob.stat", {"digest": digest_of(data)})
    assert (stat["size"], stat["chunks"]) == (len(data), 6)
    await ask.wait_no_orphans()


async def test_an_aborted_upload_leaves_nothing_in_the_bucket(ask: Asker) -> None:
    opened = await ask.json("blob.open")
    await ask.to(opened["part_subject"], bytes(PART_BYTES), Blob_Part="0")

    assert await ask.json("blob.abort", {"upload": opened["upload"]}) == {"aborted": True}

    await ask.wait_no_orphans()
    refused = await ask.to(opened["part_subject"], b"more", Blob_Part="1")
    assert code_of(refused) == "conflict"


@pytest.mark.fault("P20")
async def test_an_upload_that_is_not_what_was_announced_leaves_nothing(ask: Asker) -> None:
    opened = await ask.json("blob.open", {"digest": ABSENT})
    await ask.to(opened["part_subject"], b"other bytes", Blob_Part="0")

    assert code_of(await ask.to(opened["part_subject"], Blob_Final="1")) == "invalid"

    assert code_of(await ask("blob.get", digest_of(b"other bytes").encode())) == "not_found"
    await ask.wait_no_orphans()


@pytest.mark.parametrize("proxy", [False, True], ids=["by the server", "by the worker"])
@pytest.mark.parametrize("offset", [0, 1, PART_BYTES, 3 * PART_BYTES + 5])
async def test_a_large_blob_comes_in_windows_on_the_same_reply_subject(
    ask: Asker, client: Client, deployment: Deployment, proxy: bool, offset: int
) -> None:
    data = some_bytes(9 * 1024 * 1024 + 3, seed=9)
    digest = digest_of(data)
    if code_of(await ask("blob.stat", {"digest": digest})) != "ok":
        await upload(ask, data)
    request: dict[str, Any] = {"digest": digest, "offset": offset, "proxy": proxy}
    found, windows = bytearray(), 0

    while True:
        head, chunks = await window(client, deployment.subject("blob.get"), request)
        assert int(head["Blob-Offset"]) == offset + len(found)
        numbers = [int((chunk.headers or {})["Blob-Part"]) for chunk in chunks]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        skip, length = int(head["Blob-Skip"]), int(head["Blob-Length"])
        found += b"".join(chunk.data for chunk in chunks)[skip : skip + length]
        windows += 1
        if "Blob-Cursor" not in head:
            break
        cursor = head["Blob-Cursor"]
        request = {"digest": digest, "cursor": cursor, "proxy": proxy}

    assert bytes(found) == data[offset:]
    assert windows >= 2


async def test_ranges_of_one_message_each_need_no_windows(ask: Asker) -> None:
    data = some_bytes(3 * PART_BYTES + 3, seed=3)
    await upload(ask, data)
    found = bytearray()

    while len(found) < len(data):
        request = {"digest": digest_of(data), "offset": len(found), "length": 500_000}
        found += (await ask("blob.get", request)).data

    assert bytes(found) == data


@pytest.mark.fault("P04")
async def test_a_put_repeated_with_its_op_id_is_answered_as_before(ask: Asker) -> None:
    first = await ask.json("blob.put", b"with an op id", Op_Id="op-1")
    again = await ask.json("blob.put", b"with an op id", Op_Id="op-1")

    assert first["created"]
    assert again == first
    assert not (await ask.json("blob.put", b"with an op id"))["created"]


@pytest.mark.fault("P07")
@pytest.mark.fault("P08")
async def test_of_racing_puts_of_the_same_bytes_one_creates_the_blob(ask: Asker) -> None:
    answers = await asyncio.gather(*(ask.json("blob.put", b"raced for") for _ in range(16)))

    assert sum(answer["created"] for answer in answers) == 1
    await ask.wait_no_orphans()


async def test_discovery_is_understood_by_the_standard_client(
    client: Client, deployment: Deployment
) -> None:
    identity = (await deployment.told(client, "INFO"))["one"]["id"]

    ping = ServicePing.from_dict(await one_of(client, f"$SRV.PING.holdfast.{identity}"))
    info = ServiceInfo.from_dict(await one_of(client, f"$SRV.INFO.holdfast.{identity}"))
    stats = ServiceStats.from_dict(await one_of(client, f"$SRV.STATS.holdfast.{identity}"))

    assert {ping.id, info.id, stats.id} == {identity}
    assert {ping.name, info.name, stats.name} == {"holdfast"}
    put = next(e for e in info.endpoints if e.name == "blob-put")
    assert (put.subject, put.queue_group) == (deployment.subject("blob.put"), "q")
    assert "urn:holdfast:wire:1:blob.put:request" in put.metadata.values()
    assert info.metadata["wire"] == "1"
    counted = {endpoint.name: endpoint for endpoint in stats.endpoints}
    assert counted["blob-put"].num_requests >= 0
    assert set(counted) == {endpoint.name for endpoint in info.endpoints}


async def one_of(client: Client, subject: str) -> dict[str, Any]:
    """The answer."""
    answer: dict[str, Any] = json.loads((await client.request(subject, timeout=30)).data)
    return answer


@pytest.mark.fault("A01")
@pytest.mark.parametrize("attack", ["$KV", "$O", "$JS"])
async def test_a_foreign_reply_subject_does_not_make_the_worker_a_deputy(
    ask: Asker, client: Client, deployment: Deployment, attack: str
) -> None:
    digest = (await ask.json("blob.put", b"bait"))["digest"]
    js = client.jetstream()
    streams = (f"OBJ_{deployment.bucket}", f"KV_{deployment.prefix}_holdfast")
    before = [(await js.stream_info(stream)).state for stream in streams]
    reply = {
        "$KV": f"$KV.{deployment.prefix}_holdfast.u.evil",
        "$O": f"$O.{deployment.bucket}.C.evil",
        "$JS": f"$JS.API.STREAM.PURGE.OBJ_{deployment.bucket}",
    }[attack]

    for operation in ("blob.get", "blob.stat", "blob.list", "blob.put", "blob.open"):
        body = b"bait" if operation == "blob.put" else json.dumps({"digest": digest}).encode()
        await client.publish(deployment.subject(operation), body, reply=reply)
    assert (await ask("blob.get", digest.encode())).data == b"bait"

    after = [(await js.stream_info(stream)).state for stream in streams]
    assert [s.last_seq for s in after] == [s.last_seq for s in before]
    assert [s.messages for s in after] == [s.messages for s in before]


@pytest.mark.fault("I13")
async def test_the_headers_of_a_client_never_reach_the_bucket(
    ask: Asker, client: Client, deployment: Deployment
) -> None:
    await ask.json("blob.put", b"was there before")
    before = await ask.messages_in_bucket()
    hostile = {
        "Nats-Rollup": "all",
        "Nats-Msg-Id": "same",
        "Nats-Expected-Last-Sequence": "1",
        "Nats-Expected-Stream": "other",
        "Nats-TTL": "1s",
        "X-Private": "canary",
    }

    for data in (b"first with headers", b"second with headers"):
        answer = await client.request(
            deployment.subject("blob.put"), data, timeout=30, headers=dict(hostile)
        )
        assert json.loads(answer.data)["created"] is True

    assert await ask.messages_in_bucket() == before + 4
    js = client.jetstream()
    stream = f"OBJ_{deployment.bucket}"
    last = (await js.stream_info(stream)).state.last_seq
    for sequence in range(last - 3, last + 1):
        headers = (await js.get_msg(stream, sequence)).headers or {}
        assert "X-Private" not in headers
        assert headers.get("Nats-Rollup") in {None, "sub"}
        assert headers.get("Nats-Msg-Id") != "same"
        assert "Nats-TTL" not in headers


@pytest.mark.fault("I13")
async def test_a_megabyte_of_headers_is_refused_by_code_and_the_worker_goes_on(ask: Asker) -> None:
    answer = await ask("blob.put", b"x", Blob_Type="a" * 60_000)
    repeated = await ask("blob.put", b"x", **{f"X_{n}": "v" * 100 for n in range(500)})

    assert code_of(answer) == "invalid"
    assert code_of(repeated) == "ok"


@pytest.mark.fault("I09")
async def test_a_part_subject_that_is_too_deep_or_too_long_is_refused(
    ask: Asker, client: Client, deployment: Deployment
) -> None:
    identity = (await deployment.told(client, "INFO"))["one"]["id"]
    head = deployment.subject(f"blob.part.{identity}")

    for target in ("x" * 1500, "a.b.c", "u", "$JS", "é"):
        answer = await ask.to(f"{head}.{target}", b"bytes", Blob_Part="0")
        assert code_of(answer) in {"invalid", "not_found"}


async def test_nobody_answers_without_the_prefix(client: Client) -> None:
    with pytest.raises(NoRespondersError):
        await client.request("blob.list", b"", timeout=30)


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 20 * 1024 * 1024])
async def test_the_stock_object_store_reads_what_was_put_through_a_worker(
    ask: Asker, client: Client, deployment: Deployment, size: int
) -> None:
    data = some_bytes(size, seed=size)
    if size < 1000:
        await ask("blob.put", data)
    else:
        await upload(ask, data)
    stock = await client.jetstream().object_store(deployment.bucket)

    info = await stock.get_info(digest_of(data))
    assert (await stock.get(digest_of(data))).data == data

    assert info.size == size
    listed = {entry.name for entry in await stock.list() if not entry.deleted}
    ours = await ask.json("blob.list", {"limit": 1000})
    assert listed == {blob["digest"] for blob in ours["blobs"]}


async def test_what_another_program_stored_is_listed_as_foreign_and_never_served(
    ask: Asker, client: Client, deployment: Deployment
) -> None:
    stock = await client.jetstream().object_store(deployment.bucket)
    name = digest_of(b"not ours")
    await stock.put(name, b"not ours")

    listed = await ask.json("blob.list", {"limit": 1000})
    foreign = [blob for blob in listed["blobs"] if blob.get("foreign")]

    assert [blob["name"] for blob in foreign] == [name]
    assert code_of(await ask("blob.get", name.encode())) == "not_found"
    assert await ask.json("blob.delete", {"digest": name}) == {"deleted": False}
    assert (await stock.get(name)).data == b"not ours"
    await stock.delete(name)
