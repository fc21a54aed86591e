"""``blob.*`` from bytes to bytes: what each operation answers, and each of its refusals."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.contracts.blob_store import some_bytes
from tests.handlers.service import MAX_INLINE_BYTES, PART_SUBJECT, Service
from tests.repository.pool import PART_BYTES, parts_of

from holdfast.domain.digest import digest_of
from holdfast.runtime.dispatch import Dispatcher
from holdfast.stores.ports import Attributes

if TYPE_CHECKING:
    from tests.handlers.service import Reply

ABSENT = "0" * 64
DATA = b"some bytes"
DIGEST = digest_of(DATA)
LARGE = some_bytes(6 * PART_BYTES + 10)


async def put_in_parts(service: Service, data: bytes) -> str:
    """Upload ``data``; its digest."""
    opened = (await service.ask("blob.open")).json
    for number, part in enumerate(parts_of(data)):
        reply = await service.ask(opened["part_subject"], part, Blob_Part=str(number))
        assert reply.json == {"part": number}
    final = await service.ask(opened["part_subject"], Blob_Final=str(len(parts_of(data))))
    return str(final.json["digest"])


async def body_of(reply: Reply) -> bytes:
    """All bytes that an answer and its window carry."""
    if reply.answer.pieces is None:
        return reply.body
    async with aclosing(reply.answer.pieces) as pieces:
        found = [bytes(piece) async for piece in pieces]
    assert len(found) == int(reply.headers["Blob-Parts"])
    return b"".join(found)


# --- put ---


@pytest.mark.parametrize("size", [0, 1, MAX_INLINE_BYTES])
async def test_put_stores_what_one_message_carries(service: Service, size: int) -> None:
    data = some_bytes(size)

    reply = await service.ask("blob.put", data, Blob_Type="image/png")

    assert reply.json == {"digest": digest_of(data), "size": size, "created": True}
    info = await service.blobs.stat(digest_of(data))
    assert (info.type, info.pinned, info.created_at) == (
        "image/png",
        True,
        service.pool.time.clock(),
    )


async def test_put_again_creates_nothing_and_the_first_type_stays(service: Service) -> None:
    await service.ask("blob.put", DATA, Blob_Type="a/first")

    reply = await service.ask("blob.put", DATA, Blob_Type="a/second")

    assert reply.json == {"digest": DIGEST, "size": len(DATA), "created": False}
    assert (await service.ask("blob.stat", {"digest": DIGEST})).json["type"] == "a/first"


@pytest.mark.fault("P04")
@pytest.mark.fault("P13")
async def test_put_repeated_with_its_op_id_is_answered_as_before(service: Service) -> None:
    first = await service.ask("blob.put", DATA, Op_Id="op")

    assert (await service.ask("blob.put", DATA, Op_Id="op")).json == first.json
    assert not (await service.ask("blob.put", DATA, Op_Id="other")).json["created"]


@pytest.mark.fault("P20")
async def test_put_of_other_bytes_than_expected_stores_nothing(service: Service) -> None:
    reply = await service.ask("blob.put", DATA, Blob_Digest=ABSENT)

    assert reply.code == "invalid"
    assert DIGEST in reply.json["detail"]
    assert await service.pool.stored() == {}


async def test_put_beyond_one_message_says_what_to_use(service: Service) -> None:
    reply = await service.ask("blob.put", bytes(MAX_INLINE_BYTES + 1))

    assert reply.code == "too_large"
    assert "blob.open" in reply.json["detail"]
    assert await service.pool.stored() == {}


async def test_packs_lie_apart_from_the_users_blobs_and_are_not_pinned(service: Service) -> None:
    await service.put(DATA, Blob_Space="packs")

    assert (await service.ask("blob.stat", {"digest": DIGEST})).code == "not_found"
    in_packs = await service.ask("blob.stat", {"digest": DIGEST, "space": "packs"})
    assert in_packs.json["pinned"] is False
    assert (await service.ask("blob.list")).json == {"blobs": []}
    assert (await service.ask("blob.delete", {"digest": DIGEST})).json == {"deleted": False}
    got = await service.ask("blob.get", {"digest": DIGEST, "space": "packs"})
    assert got.body == DATA


@pytest.mark.fault("I02")
@pytest.mark.fault("I05")
@pytest.mark.fault("I07")
@pytest.mark.parametrize(
    "headers",
    [
        {"Blob_Digest": DIGEST.upper()},
        {"Blob_Digest": "../" + DIGEST[3:]},
        {"Blob_Digest": DIGEST + "\n"},
        {"Blob_Digest": ""},
        {"Blob_Type": ""},
        {"Blob_Type": "a" * 256},
        {"Blob_Type": "a/b\x00"},
        {"Blob_Type": "ä/b"},
        {"Blob_Space": "elsewhere"},
        {"Blob_Digset": DIGEST},
        {"blob_digest": DIGEST},
        {"Op_Id": ""},
        {"Op_Id": "a" * 65},
        {"Op_Id": "a b"},
        {"Op_Id": "ü"},
        {"Op_Id": "a\n"},
        {"Timeout": "0"},
        {"Timeout": "-1"},
        {"Timeout": "nan"},
        {"Timeout": "1e3"},
        {"Timeout": "3601"},
        {"Timeout": ""},
        {"Timeout": "5s"},
    ],
    ids=repr,
)
async def test_put_with_a_wrong_header_stores_nothing(
    service: Service, headers: dict[str, str]
) -> None:
    assert (await service.ask("blob.put", DATA, **headers)).code == "invalid"

    assert await service.pool.stored() == {}


# --- get ---


@pytest.mark.parametrize("size", [0, 1, MAX_INLINE_BYTES])
async def test_get_answers_what_fits_with_the_bytes_alone(service: Service, size: int) -> None:
    data = some_bytes(size)
    digest = await service.put(data, Blob_Type="a/b")

    for body in ({"digest": digest}, digest.encode()):
        reply = await service.ask("blob.get", body)

        assert reply.body == data
        assert reply.headers == {
            "Blob-Digest": digest,
            "Blob-Size": str(size),
            "Blob-Offset": "0",
            "Blob-Length": str(size),
            "Blob-Type": "a/b",
        }


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 4, DATA[:4]),
        (5, None, DATA[5:]),
        (5, 0, b""),
        (8, 100, DATA[8:]),
        (len(DATA), 1, b""),
        (2**40, 2**40, b""),
    ],
)
async def test_get_clips_a_range_to_the_blob(
    service: Service, offset: int, length: int | None, expected: bytes
) -> None:
    digest = await service.put(DATA)
    request = {"digest": digest, "offset": offset}

    reply = await service.ask(
        "blob.get", request if length is None else request | {"length": length}
    )

    assert reply.body == expected
    assert reply.headers["Blob-Offset"] == str(min(offset, len(DATA)))
    assert reply.headers["Blob-Length"] == str(len(expected))


@pytest.mark.parametrize("offset", [0, 1, PART_BYTES, PART_BYTES + 1])
async def test_get_of_more_answers_a_head_and_a_window(service: Service, offset: int) -> None:
    digest = await put_in_parts(service, LARGE)

    reply = await service.ask("blob.get", {"digest": digest, "offset": offset, "proxy": True})

    assert reply.body == b""
    assert await body_of(reply) == LARGE[offset:]
    assert reply.headers["Blob-Length"] == str(len(LARGE) - offset)
    assert "Blob-Cursor" not in reply.headers


async def test_get_of_bare_bytes_is_answered_as_ever_where_the_store_cannot_send(
    service: Service,
) -> None:
    digest = await service.put(DATA)

    reply = await service.ask("blob.get", {"digest": digest, "bare": True})

    assert not reply.answer.is_sent
    assert (reply.body, reply.headers["Blob-Size"]) == (DATA, str(len(DATA)))


async def test_get_that_asks_the_store_to_send_is_a_window_even_of_little(service: Service) -> None:
    digest = await service.put(DATA)
    request = {"digest": digest, "offset": 3, "direct": True}

    reply = await service.ask("blob.get", request)
    relayed = await service.ask("blob.get", request | {"proxy": True})
    nothing = await service.ask("blob.get", request | {"length": 0})

    assert reply.body == b""
    assert reply.headers["Blob-Parts"] == "1"
    assert reply.headers["Blob-Length"] == str(len(DATA) - 3)
    assert await body_of(reply) == DATA[3:]
    assert relayed.body == DATA[3:]
    assert nothing.body == b""
    for answered in (relayed, nothing):
        assert "Blob-Parts" not in answered.headers


async def test_get_goes_on_with_a_cursor_from_window_to_window(service: Service) -> None:
    data = some_bytes(9 * 1024 * 1024 + 5)
    stored = await service.blobs.put(
        digest_of(data), data, Attributes(type="a/b", created_at=service.pool.time.clock())
    )
    request: dict[str, Any] = {"digest": stored.info.digest}
    found, sizes = b"", []

    while True:
        reply = await service.ask("blob.get", request)
        window = await body_of(reply)
        found += window
        sizes.append(len(window))
        if "Blob-Cursor" not in reply.headers:
            break
        request = {"digest": stored.info.digest, "cursor": reply.headers["Blob-Cursor"]}

    assert found == data
    assert sizes == [4 * 1024 * 1024, 4 * 1024 * 1024, 1024 * 1024 + 5]


async def test_a_range_within_the_blob_fits_in_one_message(service: Service) -> None:
    digest = await put_in_parts(service, LARGE)

    reply = await service.ask("blob.get", {"digest": digest, "offset": 1000, "length": 3000})

    assert reply.answer.pieces is None
    assert reply.body == LARGE[1000:4000]


async def test_get_of_what_is_not_there_is_not_found(service: Service) -> None:
    assert (await service.ask("blob.get", {"digest": ABSENT})).code == "not_found"
    assert (await service.ask("blob.get", ABSENT.encode())).code == "not_found"


@pytest.mark.parametrize(
    "cursor", ["x", "g1.5", "g1.5.4", "g1.0.99999", "../..1.2", "g1.1.2\n", "", "c" * 600]
)
async def test_get_with_a_cursor_of_something_else_is_invalid(
    service: Service, cursor: str
) -> None:
    digest = await service.put(DATA)

    reply = await service.ask("blob.get", {"digest": digest, "cursor": cursor})

    assert reply.code == "invalid"


@pytest.mark.fault("D02")
async def test_bytes_altered_in_the_store_are_corrupt_and_never_served(service: Service) -> None:
    digest = await service.put(DATA)
    service.pool.blobs._blobs[digest_of(DATA)].data = b"SOME bytes"

    reply = await service.ask("blob.get", {"digest": digest})

    assert reply.code == "corrupt"
    assert b"SOME" not in reply.body


@pytest.mark.fault("D02")
async def test_a_range_of_a_blob_that_was_found_damaged_is_corrupt(service: Service) -> None:
    digest = await service.put(DATA)
    blobs = service.pool.blobs
    await blobs.report_damage(await blobs.stat(digest_of(DATA)))

    reply = await service.ask("blob.get", {"digest": digest, "offset": 1, "length": 2})

    assert reply.code == "corrupt"


# --- has, stat, list, delete, verify ---


async def test_has_names_what_is_missing_in_order_and_once(service: Service) -> None:
    await service.put(DATA)
    absent = [digest_of(bytes([n])) for n in range(3)]

    reply = await service.ask("blob.has", {"digests": [absent[2], DIGEST, absent[0], absent[2]]})

    assert reply.json == {"missing": [absent[2], absent[0]]}
    assert (await service.ask("blob.has", {"digests": []})).json == {"missing": []}


@pytest.mark.parametrize(("count", "code"), [(1024, "ok"), (1025, "invalid")])
async def test_has_takes_so_many_digests(service: Service, count: int, code: str) -> None:
    digests = [digest_of(str(n).encode()) for n in range(count)]

    assert (await service.ask("blob.has", {"digests": digests})).code == code


async def test_stat_tells_what_is_recorded(service: Service) -> None:
    digest = await put_in_parts(service, LARGE)

    reply = await service.ask("blob.stat", {"digest": digest})

    assert reply.json == {
        "digest": digest,
        "size": len(LARGE),
        "chunks": 7,
        "type": "application/octet-stream",
        "created_at": "2026-03-01T00:16:40.000000Z",
        "pinned": True,
        "state": "ok",
        "names": [],
    }
    assert (await service.ask("blob.stat", {"digest": ABSENT})).code == "not_found"


@pytest.mark.parametrize(("max_inline_bytes", "fitting"), [(4 * 700 - 1, 3), (300, 1)])
async def test_a_page_of_a_list_fits_into_one_message(max_inline_bytes: int, fitting: int) -> None:
    service = Service(max_inline_bytes=max_inline_bytes)
    for n in range(5):
        await service.put(bytes([n]), Blob_Type="t" * 255)

    page = await service.ask("blob.list")

    assert len(page.json["blobs"]) == fitting
    assert "cursor" in page.json
    assert fitting == 1 or len(page.body) <= max_inline_bytes


async def test_list_gives_pages_that_add_up(service: Service) -> None:
    digests = {await service.put(bytes([n])) for n in range(7)}
    found: list[str] = []
    request: dict[str, Any] = {"limit": 3}

    while True:
        page = (await service.ask("blob.list", request)).json
        assert len(page["blobs"]) <= 3
        found += [entry["digest"] for entry in page["blobs"]]
        if "cursor" not in page:
            break
        request["cursor"] = page["cursor"]

    assert sorted(found) == sorted(digests)
    prefix = found[0][:2]
    narrowed = (await service.ask("blob.list", {"prefix": prefix})).json["blobs"]
    assert {b["digest"] for b in narrowed} == {d for d in digests if d.startswith(prefix)}


@pytest.mark.fault("I03")
@pytest.mark.fault("I08")
@pytest.mark.parametrize(
    "request_",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": -1},
        {"limit": True},
        {"limit": 1.5},
        {"limit": "10"},
        {"limit": 2**70},
        {"prefix": "A"},
        {"prefix": "*"},
        {"prefix": ">"},
        {"prefix": "a.b"},
        {"prefix": "a\n"},
        {"prefix": "a" * 65},
        {"prefix": None},
        {"cursor": "not one"},
        {"cursor": ABSENT + "x"},
        {"limits": 1},
    ],
    ids=repr,
)
async def test_list_with_a_wrong_field_is_invalid(
    service: Service, request_: dict[str, Any]
) -> None:
    assert (await service.ask("blob.list", request_)).code == "invalid"


async def test_delete_forgets_a_blob_once(service: Service) -> None:
    await service.put(DATA)

    assert (await service.ask("blob.delete", {"digest": DIGEST}, Op_Id="op")).json["deleted"]
    assert (await service.ask("blob.delete", {"digest": DIGEST}, Op_Id="op")).json["deleted"]
    assert not (await service.ask("blob.delete", {"digest": DIGEST})).json["deleted"]
    assert (await service.ask("blob.get", {"digest": DIGEST})).code == "not_found"


async def test_verify_reads_back_and_names_what_is_damaged(service: Service) -> None:
    kept = [await service.put(bytes([n]) * 10) for n in range(4)]
    damaged = digest_of(b"\1" * 10)
    service.pool.blobs._blobs[damaged].data = b"\1" * 9 + b"?"

    everything = (await service.ask("blob.verify")).json
    one = (await service.ask("blob.verify", {"digest": kept[0]})).json

    assert (everything["checked"], [d["digest"] for d in everything["damaged"]]) == (4, [damaged])
    assert everything["damaged"][0]["code"] == "corrupt"
    assert one == {"checked": 1, "bytes": 10}
    assert (await service.ask("blob.verify", {"digest": ABSENT})).code == "not_found"


async def test_verify_stops_in_time_and_says_where_to_go_on(service: Service) -> None:
    for n in range(40):
        await service.put(bytes([n]))

    def later() -> float:
        service.pool.time.advance(4)
        return service.pool.time.seconds

    sources = replace(service.pool.time.sources, monotonic=later)
    service.dispatcher = Dispatcher(sources, timeout_seconds=30)
    checked, cursor, pages = 0, "", 0
    while pages == 0 or cursor:
        request = {"cursor": cursor} if cursor else {}
        page = (await service.ask("blob.verify", request, Timeout="10")).json
        checked, cursor, pages = checked + page["checked"], page.get("cursor", ""), pages + 1

    assert checked == 40
    assert pages > 1


# --- uploads ---


async def test_an_upload_from_open_to_the_end(service: Service) -> None:
    opened = (await service.ask("blob.open", {"size": len(LARGE), "type": "a/b"})).json

    assert opened["part_subject"] == PART_SUBJECT + opened["upload"]
    assert (opened["part_size"], opened["next_part"]) == (PART_BYTES, 0)
    parts = parts_of(LARGE)
    for number, part in enumerate(parts[:-1]):
        await service.ask(opened["part_subject"], part, Blob_Part=str(number))
    last = len(parts) - 1
    reply = await service.ask(
        opened["part_subject"], parts[last], Blob_Part=str(last), Blob_Final=str(last + 1)
    )
    assert reply.json == {
        "part": last,
        "digest": digest_of(LARGE),
        "size": len(LARGE),
        "created": True,
    }
    again = await service.ask(opened["part_subject"], Blob_Final=str(last + 1))
    assert again.json == {"digest": digest_of(LARGE), "size": len(LARGE), "created": True}
    resumed = await service.ask("blob.resume", {"upload": opened["upload"]})
    assert resumed.json == again.json
    aborted = await service.ask("blob.abort", {"upload": opened["upload"]})
    assert aborted.json == {"aborted": False}


async def test_open_says_when_the_blob_is_there_already(service: Service) -> None:
    await service.put(DATA)

    reply = await service.ask("blob.open", {"digest": DIGEST})

    assert reply.json == {"digest": DIGEST, "size": len(DATA), "created": False}


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({}, b"", "invalid"),
        ({}, b"bytes", "invalid"),
        ({"Blob_Final": "1"}, b"bytes", "invalid"),
        ({"Blob_Part": "1"}, b"bytes", "invalid"),
        ({"Blob_Part": "0"}, b"", "invalid"),
        ({"Blob_Part": "0"}, bytes(PART_BYTES + 1), "invalid"),
        ({"Blob_Part": "-1"}, b"bytes", "invalid"),
        ({"Blob_Part": "00"}, b"bytes", "invalid"),
        ({"Blob_Part": "0.0"}, b"bytes", "invalid"),
        ({"Blob_Part": " 0"}, b"bytes", "invalid"),
        ({"Blob_Part": "1e0"}, b"bytes", "invalid"),
        ({"Blob_Part": "null"}, b"bytes", "invalid"),
        ({"Blob_Part": "9" * 400}, b"bytes", "invalid"),
        ({"Blob_Part": "\u0660"}, b"bytes", "invalid"),
        ({"Blob_Final": "2"}, b"", "invalid"),
        ({"Blob_Final": str(2**53)}, b"", "invalid"),
        ({"Blob_Final": "0", "Blob_Digest": ABSENT}, b"", "invalid"),
        ({"Blob_Keep": "true"}, b"bytes", "invalid"),
        ({"Blob_Keep": "true", "Blob_Part": "0"}, b"", "invalid"),
        ({"Blob_Keep": "false"}, b"", "invalid"),
        ({"Blob_Keep": "True"}, b"", "invalid"),
        ({"Blob_Keep": "true"}, b"", "ok"),
    ],
    ids=repr,
)
async def test_a_wrong_message_to_a_part_subject_stores_nothing(
    service: Service, headers: dict[str, str], body: bytes, code: str
) -> None:
    opened = (await service.ask("blob.open")).json

    assert (await service.ask(opened["part_subject"], body, **headers)).code == code

    assert await service.pool.stored() == {}
    assert await service.pool.leftovers() == {}


@pytest.mark.parametrize("upload", ["x" * 22, "", "..", "a.b", "*", "ü" * 22, "x" * 23])
async def test_an_upload_that_nobody_opened_is_refused(service: Service, upload: str) -> None:
    replies = [
        await service.ask(PART_SUBJECT + upload, b"bytes", Blob_Part="0"),
        await service.ask("blob.resume", {"upload": upload}),
        await service.ask("blob.abort", {"upload": upload}),
    ]

    assert {reply.code for reply in replies} <= {"not_found", "invalid"}


async def test_unknown_fields_and_forms_are_invalid_everywhere(service: Service) -> None:
    for subject, endpoint in service.endpoints.items():
        if endpoint.operation.request_body.value == "bytes":
            reply = await service.ask(subject, b"", Blob_Surprise="1")
        else:
            reply = await service.ask(subject, {"surprise": 1})
        assert reply.code == "invalid", subject


async def test_msgpack_is_answered_with_msgpack(service: Service) -> None:
    await service.put(DATA)
    content_type = "application/msgpack"
    body = msgspec.msgpack.encode({"digest": DIGEST})

    stat = await service.ask("blob.stat", body, Content_Type=content_type)
    missing = await service.ask(
        "blob.stat", msgspec.msgpack.encode({"digest": ABSENT}), Content_Type=content_type
    )
    put = await service.ask("blob.put", b"more", Content_Type=content_type)

    assert stat.headers == {"Content-Type": content_type}
    assert msgspec.msgpack.decode(stat.body)["size"] == len(DATA)
    assert missing.code == "not_found"
    assert missing.headers["Content-Type"] == content_type
    assert msgspec.msgpack.decode(put.body)["created"] is True


async def test_a_body_of_another_type_is_invalid(service: Service) -> None:
    reply = await service.ask("blob.stat", b"<digest/>", Content_Type="application/xml")

    assert reply.code == "invalid"


def test_parts_alone_have_a_lane_of_their_own(service: Service) -> None:
    lanes = {subject: endpoint.lane for subject, endpoint in service.endpoints.items()}

    assert lanes.pop("blob.part") == "parts"
    assert set(lanes.values()) == {"requests"}
