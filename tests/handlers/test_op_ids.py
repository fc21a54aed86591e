"""An ``Op-Id`` stands for one request: another one under it is a conflict, and does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
import pytest_asyncio
from tests.handlers.snapshot_service import Shared, Site
from tests.repository.pool import PART_BYTES, parts_of

from holdfast.domain.digest import digest_of
from holdfast.repository.ledger.ops import Ops

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.handlers.service import Reply, Service

DATA: Final = b"some bytes" * PART_BYTES
DIGEST: Final = digest_of(DATA)
OTHER: Final = digest_of(b"other bytes")


def refused(reply: Reply) -> bool:
    return reply.code == "conflict" and b"another request" in reply.body


# --- blobs ---


@pytest.mark.parametrize("is_over", [False, True], ids=["goes on", "committed"])
@pytest.mark.parametrize(
    "other",
    [{"size": 7}, {"digest": OTHER}, {"type": "image/png"}, {"size": len(DATA), "digest": DIGEST}],
)
async def test_an_upload_is_not_opened_by_another_request(
    service: Service, other: dict[str, Any], is_over: bool
) -> None:
    opened = await service.ask("blob.open", {}, Op_Id="x")
    subject = opened.json["part_subject"]
    for number, part in enumerate(parts_of(DATA)):
        await service.ask(subject, part, Blob_Part=str(number))
    if is_over:
        await service.ask(subject, Blob_Final=str(len(parts_of(DATA))))

    reply = await service.ask("blob.open", other, Op_Id="x")

    assert refused(reply)
    again = await service.ask("blob.open", {}, Op_Id="x")
    assert again.code == "ok"
    assert again.json.get("digest") == (DIGEST if is_over else None)


async def test_what_is_stored_is_not_said_to_another_request(service: Service) -> None:
    await service.ask("blob.open", {"size": 5}, Op_Id="x")
    small = await service.put(b"there already")

    assert refused(await service.ask("blob.open", {"digest": small}, Op_Id="x"))


async def test_a_repeat_is_one_in_whatever_encoding_and_with_whatever_time(
    service: Service,
) -> None:
    opened = await service.ask("blob.open", {"type": "a/b", "size": 5}, Op_Id="x", Timeout="3")

    packed = msgspec.msgpack.encode({"size": 5, "type": "a/b", "digest": None})
    again = await service.ask(
        "blob.open", packed, Op_Id="x", Timeout="7", Content_Type="application/msgpack"
    )

    answer = msgspec.msgpack.decode(again.body)
    assert answer["upload"] == opened.json["upload"]


async def test_the_id_of_a_put_is_neither_another_put_nor_a_deletion(service: Service) -> None:
    await service.ask("blob.put", b"bytes", Op_Id="x")

    other_type = await service.ask("blob.put", b"bytes", Op_Id="x", Blob_Type="image/png")
    deletion = await service.ask("blob.delete", {"digest": digest_of(b"bytes")}, Op_Id="x")

    assert refused(other_type)
    assert refused(deletion)
    assert (await service.ask("blob.get", {"digest": digest_of(b"bytes")})).body == b"bytes"
    assert (await service.ask("blob.put", b"bytes", Op_Id="x")).json["created"]


async def test_the_id_of_a_deletion_is_no_put(service: Service) -> None:
    digest = await service.put(b"bytes")
    await service.ask("blob.delete", {"digest": digest}, Op_Id="x")

    assert refused(await service.ask("blob.put", b"bytes", Op_Id="x"))
    assert (await service.ask("blob.has", {"digests": [digest]})).json["missing"] == [digest]
    assert (await service.ask("blob.delete", {"digest": digest}, Op_Id="x")).json["deleted"]


async def test_an_id_that_was_kept_without_its_request_is_compared_as_it_is(
    service: Service,
) -> None:
    opened = await service.ask("blob.open", {})
    await Ops(service.pool.records).claim("of an older version", opened.json["upload"])

    again = await service.ask("blob.open", {}, Op_Id="of an older version".replace(" ", "-"))
    await Ops(service.pool.records).claim("older", opened.json["upload"])
    same = await service.ask("blob.open", {"size": 3}, Op_Id="older")

    assert again.json["upload"] != opened.json["upload"]
    assert same.json["upload"] == opened.json["upload"]


# --- snapshots ---


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A worker with the apps ``shop`` and ``blog``."""
    site = Site(Shared(), tmp_path / "apps")
    site.write("shop/a", b"some content")
    site.write("blog/a", b"other content")
    yield site
    await site.aclose()


@pytest.mark.parametrize("second", range(9))
@pytest.mark.parametrize("first", range(9))
async def test_of_two_requests_under_one_id_the_second_is_refused(
    site: Site, tmp_path: Path, first: int, second: int
) -> None:
    keys = [(await site.create())["key"] for _ in range(3)]
    begun = (await site.ask("snapshot.begin", {"app": "shop"})).json["key"]
    requests: list[tuple[str, dict[str, Any]]] = [
        ("snapshot.create", {"app": "shop"}),
        ("snapshot.create", {"app": "blog"}),
        ("snapshot.create", {"app": "shop", "labels": {"a": "b"}}),
        ("snapshot.begin", {"app": "shop"}),
        ("snapshot.restore", {"key": keys[0], "app": "copy"}),
        ("snapshot.restore", {"key": keys[0], "app": "other"}),
        ("snapshot.delete", {"key": keys[1]}),
        ("snapshot.delete", {"key": keys[2]}),
        ("snapshot.commit", {"key": begun, "digest": OTHER}),
    ]
    asked = await site.ask(*requests[first], op_id="x")
    assert asked.code == "ok"

    reply = await site.ask(*requests[second], op_id="x")

    assert refused(reply) if first != second else reply.code == "ok"
    made = {path.name for path in (tmp_path / "apps").iterdir()} - {"shop", "blog"}
    assert made == {4: {"copy"}, 5: {"other"}}.get(first, set())


async def test_how_long_is_waited_is_no_part_of_a_request(site: Site) -> None:
    first = await site.ask("snapshot.create", {"app": "shop", "wait_seconds": 0}, op_id="x")

    again = await site.ask("snapshot.create", {"app": "shop", "wait_seconds": 5}, op_id="x")

    assert again.json["key"] == first.json["key"]
