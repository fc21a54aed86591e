"""``blob.put_many``: several blobs in one request, each as ``blob.put`` would have it."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from tests.contracts.blob_store import some_bytes
from tests.handlers.service import MAX_INLINE_BYTES, Service

from holdfast.domain.digest import digest_of
from holdfast.domain.limits import MAX_BLOBS_PER_PUT
from holdfast.errors import InternalError, UnavailableError
from holdfast.stores.memory import MemoryBlobStore

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence

    from tests.handlers.service import Reply

    from holdfast.domain.digest import Digest
    from holdfast.errors import HoldfastError
    from holdfast.stores.ports import Attributes, Stored

BLOBS: Final = [b"one", b"", b"three", some_bytes(100)]
ABSENT: Final = "0" * 64


def to_put(data: bytes, **fields: Any) -> dict[str, Any]:
    return {"data": data, "digest": digest_of(data), **fields}


async def put_many(service: Service, blobs: Sequence[Any], **headers: str) -> Reply:
    body = msgspec.msgpack.encode({"blobs": blobs})
    return await service.ask("blob.put_many", body, Content_Type="application/msgpack", **headers)


def results_of(reply: Reply) -> list[Any]:
    assert reply.code == "ok"
    decoded: dict[str, list[Any]] = msgspec.msgpack.decode(reply.body)
    return decoded["results"]


def stored(data: bytes, *, created: bool = True) -> dict[str, Any]:
    return {"digest": digest_of(data), "size": len(data), "created": created}


class FailingStore(MemoryBlobStore):
    """A store that fails to store one blob."""

    def __init__(self, data: bytes, error: HoldfastError) -> None:
        super().__init__()
        self._digest = digest_of(data)
        self._error = error

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        await asyncio.sleep(0)  # as a store that takes time: the others have begun
        if digest == self._digest:
            raise self._error
        return await super().put(digest, data, attributes)


async def test_each_is_stored_and_answered_in_order_the_empty_one_too(service: Service) -> None:
    await service.put(BLOBS[2])

    reply = await put_many(service, [to_put(data, type="a/b") for data in BLOBS])

    assert results_of(reply) == [
        stored(BLOBS[0]),
        stored(BLOBS[1]),
        stored(BLOBS[2], created=False),
        stored(BLOBS[3]),
    ]
    info = await service.blobs.stat(digest_of(BLOBS[3]))
    assert (info.type, info.pinned) == ("a/b", True)
    for data in BLOBS:
        assert (await service.ask("blob.get", {"digest": digest_of(data)})).body == data


async def test_in_json_the_bytes_are_base64(service: Service) -> None:
    blob = {"data": b64encode(b"in JSON").decode(), "digest": digest_of(b"in JSON")}

    reply = await service.ask("blob.put_many", {"blobs": [blob]})

    assert reply.json == {"results": [stored(b"in JSON")]}


async def test_one_with_a_wrong_digest_fails_alone(service: Service) -> None:
    wrong = {"data": b"other bytes", "digest": ABSENT}

    results = results_of(await put_many(service, [to_put(b"a"), wrong, to_put(b"b")]))

    assert (results[0], results[2]) == (stored(b"a"), stored(b"b"))
    assert results[1].keys() == {"problem"}
    assert results[1]["problem"]["code"] == "invalid"
    assert set(await service.pool.stored()) == {digest_of(b"a"), digest_of(b"b")}


async def test_one_that_the_store_does_not_take_fails_alone() -> None:
    service = Service(FailingStore(b"b", UnavailableError("not now")))

    results = results_of(await put_many(service, [to_put(data) for data in (b"a", b"b")]))

    assert results[0] == stored(b"a")
    assert (results[1]["problem"]["code"], results[1]["problem"]["retryable"]) == (
        "unavailable",
        True,
    )


async def test_a_bug_is_the_answer_to_all_and_says_nothing_of_the_inside() -> None:
    service = Service(FailingStore(b"b", InternalError("a secret")))

    reply = await put_many(service, [to_put(data) for data in (b"a", b"b")])

    assert reply.code == "internal"
    assert b"secret" not in reply.body


async def test_the_same_blob_twice_is_created_once(service: Service) -> None:
    results = results_of(await put_many(service, [to_put(b"a"), to_put(b"a")]))

    assert sorted(result["created"] for result in results) == [False, True]


@pytest.mark.fault("P04")
async def test_repeated_with_its_op_id_each_is_answered_as_before(service: Service) -> None:
    await service.put(b"b")
    blobs = [to_put(data) for data in (b"a", b"b", b"c", b"c")]
    first = results_of(await put_many(service, blobs, Op_Id="op"))

    assert results_of(await put_many(service, blobs, Op_Id="op")) == first
    other = results_of(await put_many(service, blobs, Op_Id="other"))
    assert [result["created"] for result in other] == [False] * 4


async def test_one_of_them_may_be_repeated_by_itself(service: Service) -> None:
    await put_many(service, [to_put(b"a"), to_put(b"b")], Op_Id="op")

    alone = await service.ask("blob.put", b"b", Blob_Digest=digest_of(b"b"), Op_Id="op.1")
    another = await service.ask("blob.put", b"a", Blob_Digest=digest_of(b"a"), Op_Id="op.1")
    changed = await service.ask("blob.put", b"b", Op_Id="op.1")

    assert alone.json == stored(b"b")
    assert another.json == stored(b"a", created=False)
    assert changed.code == "conflict"


@pytest.mark.parametrize(
    "blobs",
    [
        [],
        [to_put(b"%d" % number) for number in range(MAX_BLOBS_PER_PUT + 1)],
        [to_put(b"a"), {"data": b"b"}],
        [to_put(b"a"), {"data": b"b", "digest": digest_of(b"b").upper()}],
        [to_put(b"a"), {"digest": digest_of(b"")}],
        [to_put(b"a"), to_put(b"b", space="packs")],
        [to_put(b"a"), to_put(b"b", type="a\nb")],
        [to_put(b"a"), to_put(b"b") | {"data": "text"}],
        [to_put(b"a"), None],
        {"data": b"a"},
    ],
    ids=[
        "none",
        "too many",
        "no digest",
        "upper case",
        "no bytes",
        "a space",
        "a line break in the type",
        "text",
        "null",
        "one by itself",
    ],
)
async def test_what_is_no_such_request_stores_nothing(service: Service, blobs: Any) -> None:
    assert (await put_many(service, blobs)).code == "invalid"
    assert await service.pool.stored() == {}


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"some bytes"])
async def test_a_body_of_bytes_is_refused(service: Service, body: bytes) -> None:
    assert (await service.ask("blob.put_many", body)).code == "invalid"


async def test_as_many_as_may_be_go_and_no_more_bytes_than_in_one_put(service: Service) -> None:
    many = [to_put(b"%d" % number) for number in range(MAX_BLOBS_PER_PUT)]
    full = [to_put(bytes(MAX_INLINE_BYTES - 1)), to_put(b"x")]

    assert len(results_of(await put_many(service, many))) == MAX_BLOBS_PER_PUT
    assert len(results_of(await put_many(service, full))) == 2
    before = await service.pool.stored()
    assert (await put_many(service, [*full, to_put(b"one too many")])).code == "too_large"
    assert await service.pool.stored() == before
