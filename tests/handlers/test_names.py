"""``blob.*`` of names from bytes to bytes: what each operation answers, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.contracts.blob_store import some_bytes
from tests.handlers.service import MAX_INLINE_BYTES, Service, serving
from tests.handlers.test_blobs import body_of
from tests.repository.pool import PART_BYTES, parts_of

from holdfast.domain.blob_names import quote_text
from holdfast.domain.digest import digest_of
from holdfast.domain.limits import MIB
from holdfast.errors import NotFoundError
from holdfast.stores.ports import Attributes

if TYPE_CHECKING:
    from tests.handlers.service import Reply

ABSENT = "0" * 64
DATA, OTHER = b"some bytes", b"other bytes"
DIGEST, OTHER_DIGEST = digest_of(DATA), digest_of(OTHER)
LARGE = some_bytes(6 * PART_BYTES + 10)
NASTY = ["a//b", "/", "/a", "a/", ".", "..", "\u00e9", "e\u0301", " ", "a b\n", "%41", "é" * 256]


async def create(service: Service, name: str, data: bytes = DATA, /, **headers: str) -> Reply:
    return await service.ask("blob.create", data, Blob_Name=quote_text(name), **headers)


async def replace(service: Service, name: str, data: bytes = OTHER, /, **headers: str) -> Reply:
    return await service.ask("blob.replace", data, Blob_Name=quote_text(name), **headers)


async def stream(service: Service, data: bytes, **request: Any) -> Reply:
    """A streamed write; the answer to its end, or to what came before it if that failed."""
    opened = await service.ask("blob.open_name", request)
    if opened.code != "ok" or "digest" in opened.json:
        return opened
    subject = opened.json["part_subject"]
    for number, part in enumerate(parts_of(data)):
        await service.ask(subject, part, Blob_Part=str(number))
    return await service.ask(subject, Blob_Final=str(len(parts_of(data))))


async def bytes_of(service: Service, name: str, **request: Any) -> bytes:
    reply = await service.ask("blob.get", {"name": name, **request})
    assert reply.code == "ok", reply.body
    return await body_of(reply)


async def versions_of(service: Service, name: str) -> list[int]:
    history = (await service.ask("blob.history", {"name": name})).json
    return [row["version"] for row in history["versions"]]


# --- create and replace ---


async def test_a_created_name_is_read_and_described(service: Service) -> None:
    made = await create(
        service,
        "notes/one",
        Blob_Type="text/plain",
        Blob_Labels="why=trying%20it&app=notes",
        Blob_Expires="2099-01-02T04:04:05+01:00",
    )

    stored = {"name": "notes/one", "digest": DIGEST, "size": len(DATA), "version": 1}
    assert made.json == stored | {"state": "ok"}
    got = await service.ask("blob.get", {"name": "notes/one"})
    assert got.body == DATA
    assert (got.headers["Blob-Name"], got.headers["Blob-Version"]) == ("notes/one", "1")
    assert (got.headers["Blob-Digest"], got.headers["Blob-Type"]) == (DIGEST, "text/plain")
    described = (await service.ask("blob.stat", {"name": "notes/one"})).json
    assert described["labels"] == {"why": "trying it", "app": "notes"}
    assert described["expires_at"] == "2099-01-02T03:04:05Z"
    assert (described["name"], described["version"]) == ("notes/one", 1)
    assert (described["names"], described["pinned"]) == (["notes/one"], False)


@pytest.mark.parametrize("name", NASTY, ids=ascii)
async def test_a_name_comes_back_as_it_was_given(service: Service, name: str) -> None:
    made = await create(service, name)

    assert made.json["name"] == name
    assert await bytes_of(service, name) == DATA
    listed = (await service.ask("blob.names", {})).json["names"]
    assert [row["name"] for row in listed] == [name]


async def test_names_that_look_alike_are_different_names(service: Service) -> None:
    for name in NASTY:
        await create(service, name, name.encode())

    for name in NASTY:
        assert await bytes_of(service, name) == name.encode()


async def test_a_taken_name_is_a_conflict_that_says_its_version(service: Service) -> None:
    await create(service, "n")
    await replace(service, "n")

    refused = await create(service, "n", b"third")

    assert refused.code == "conflict"
    assert refused.json["version"] == 2
    assert await bytes_of(service, "n") == OTHER


async def test_a_create_repeated_with_its_op_id_is_answered_as_before(service: Service) -> None:
    first = await create(service, "n", Op_Id="op")

    assert (await create(service, "n", Op_Id="op")).json == first.json
    assert (await create(service, "n", Op_Id="other")).code == "conflict"
    assert (await create(service, "m", Op_Id="op")).code == "ok"  # another record


async def test_replace_of_a_missing_name_is_not_found(service: Service) -> None:
    refused = await replace(service, "n")

    assert refused.code == "not_found"
    assert (await service.ask("blob.get", {"name": "n"})).code == "not_found"


@pytest.mark.parametrize(
    ("headers", "holds"),
    [
        ({"Blob_If_Version": "1"}, True),
        ({"Blob_If_Version": "2"}, False),
        ({"Blob_If_Digest": DIGEST}, True),
        ({"Blob_If_Digest": OTHER_DIGEST}, False),
        ({"Blob_If_Version": "1", "Blob_If_Digest": OTHER_DIGEST}, False),
    ],
)
async def test_a_replace_whose_condition_fails_leaves_the_name_as_it_was(
    service: Service, headers: dict[str, str], holds: bool
) -> None:
    await create(service, "n")

    reply = await replace(service, "n", **headers)

    if holds:
        assert reply.json["version"] == 2
    else:
        assert (reply.code, reply.json["version"]) == ("conflict", 1)
        assert reply.json["detail"].startswith("the condition failed")
    assert await bytes_of(service, "n") == (OTHER if holds else DATA)


async def test_a_write_beyond_one_message_says_what_to_use(service: Service) -> None:
    reply = await create(service, "n", bytes(MAX_INLINE_BYTES + 1))

    assert reply.code == "too_large"
    assert "blob.open_name" in reply.json["detail"]
    assert (await service.ask("blob.stat", {"name": "n"})).code == "not_found"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Blob_Name": ""},
        {"Blob_Name": "a" * 513},
        {"Blob_Name": "%C3%A9" * 257},
        {"Blob_Name": "a b"},
        {"Blob_Name": "é"},
        {"Blob_Name": "%"},
        {"Blob_Name": "%FF"},
        {"Blob_Name": "a+b"},
        {"Blob_Name": "n", "Blob_Labels": "why"},
        {"Blob_Name": "n", "Blob_Labels": "=trying"},
        {"Blob_Name": "n", "Blob_Labels": "why="},
        {"Blob_Name": "n", "Blob_Labels": "why=trying it"},
        {"Blob_Name": "n", "Blob_Labels": "why=a&why=b"},
        {"Blob_Name": "n", "Blob_Labels": "why=%00"},
        {"Blob_Name": "n", "Blob_Labels": "w%20hy=trying"},
        {"Blob_Name": "n", "Blob_Labels": "&".join(f"k{n}=v" for n in range(65))},
        {"Blob_Name": "n", "Blob_Expires": "2099-01-02"},
        {"Blob_Name": "n", "Blob_Expires": "2099-01-02T03:04:05"},
        {"Blob_Name": "n", "Blob_Expires": "tomorrow"},
        {"Blob_Name": "n", "Blob_Expires": "0001-01-01T00:00:00+14:00"},
        {"Blob_Name": "n", "Blob_If_Version": "1"},
        {"Blob_Name": "n", "Blob_If_Digest": DIGEST},
        {"Blob_Name": "n", "Blob_If_Version": "0"},
        {"Blob_Name": "n", "Blob_If_Version": "1.0"},
        {"Blob_Name": "n", "Blob_If_Absent": "yes"},
        {"Blob_Name": "n", "Blob_Digest": ABSENT},
        {"Blob_Name": "n", "Blob_Type": "ä/b"},
        {"Blob_Name": "n", "Blob_Space": "packs"},
    ],
    ids=str,
)
async def test_a_create_that_is_not_well_formed_changes_nothing(
    service: Service, headers: dict[str, str]
) -> None:
    reply = await service.ask("blob.create", DATA, **headers)

    assert reply.code == "invalid"
    assert (await service.ask("blob.names", {})).json["names"] == []
    assert await service.pool.stored() == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"Blob_If_Absent": "true"},
        {"Blob_If_Absent": "true", "Blob_If_Version": "1"},
        {"Blob_If_Absent": "true", "Blob_If_Digest": DIGEST},
    ],
    ids=str,
)
async def test_conditions_that_contradict_a_replace_or_each_other_are_invalid(
    service: Service, headers: dict[str, str]
) -> None:
    await create(service, "n")

    assert (await replace(service, "n", **headers)).code == "invalid"
    assert await bytes_of(service, "n") == DATA


# --- streamed writes ---


@pytest.mark.parametrize("mode", ["create", "replace"])
async def test_a_streamed_write_gives_a_name_its_blob(service: Service, mode: str) -> None:
    if mode == "replace":
        await create(service, "n")

    ended = await stream(service, LARGE, name="n", mode=mode, labels={"k": "v"}, type="a/b")

    version = 1 if mode == "create" else 2
    expected = {"digest": digest_of(LARGE), "size": len(LARGE), "created": True}
    assert ended.json == expected | {"name": "n", "version": version}
    assert await bytes_of(service, "n", proxy=True) == LARGE
    described = (await service.ask("blob.stat", {"name": "n"})).json
    assert (described["labels"], described["type"]) == ({"k": "v"}, "a/b")


async def test_the_end_of_a_streamed_write_may_be_asked_for_again(service: Service) -> None:
    opened = (await service.ask("blob.open_name", {"name": "n", "mode": "create"})).json
    await service.ask(opened["part_subject"], DATA, Blob_Part="0")
    first = await service.ask(opened["part_subject"], Blob_Final="1")

    again = await service.ask(opened["part_subject"], Blob_Final="1")
    resumed = await service.ask("blob.resume", {"upload": opened["upload"]})

    assert again.json == first.json
    assert resumed.json == first.json


async def test_a_name_is_pending_until_its_streamed_write_has_ended(service: Service) -> None:
    opened = (await service.ask("blob.open_name", {"name": "n", "mode": "create"})).json

    assert (await service.ask("blob.get", {"name": "n"})).code == "not_found"
    assert [row["state"] for row in (await service.ask("blob.names", {})).json["names"]] == [
        "pending"
    ]
    refused = await create(service, "n")
    assert (refused.code, refused.json["version"]) == ("conflict", 0)
    assert (await service.ask("blob.abort", {"upload": opened["upload"]})).json["aborted"]
    assert [row["state"] for row in (await service.ask("blob.names", {})).json["names"]] == [
        "failure"
    ]
    assert (await create(service, "n")).code == "ok"


@pytest.mark.parametrize(
    "request_",
    [
        {"mode": "create"},
        {"name": "n"},
        {"name": "", "mode": "create"},
        {"name": "n", "mode": "copy"},
        {"name": "é" * 257, "mode": "create"},
        {"name": "n", "mode": "create", "labels": {"k": ""}},
        {"name": "n", "mode": "create", "labels": ["k"]},
        {"name": "n", "mode": "create", "expires": "2099-01-02T03:04:05"},
        {"name": "n", "mode": "create", "if_version": 1},
        {"name": "n", "mode": "replace", "if_absent": True},
        {"name": "n", "mode": "create", "if_absent": True, "if_digest": DIGEST},
        {"name": "n", "mode": "create", "Name": "m"},
    ],
    ids=str,
)
async def test_a_streamed_write_that_is_not_well_formed_is_not_begun(
    service: Service, request_: dict[str, Any]
) -> None:
    assert (await service.ask("blob.open_name", request_)).code == "invalid"
    assert (await service.ask("blob.names", {})).json["names"] == []


# --- gets, stats, deletes ---


async def test_a_range_and_a_version_are_read_by_name(service: Service) -> None:
    await keep(service, 3)
    await create(service, "n")
    await replace(service, "n")

    assert await bytes_of(service, "n", offset=6, length=3) == OTHER[6:9]
    assert await bytes_of(service, "n", version=1) == DATA
    assert await bytes_of(service, "n", version=2) == OTHER
    assert (await service.ask("blob.get", {"name": "n", "version": 3})).code == "not_found"
    described = (await service.ask("blob.stat", {"name": "n", "version": 1})).json
    assert (described["version"], described["digest"]) == (1, DIGEST)


async def test_the_windows_of_a_name_are_of_one_blob(service: Service) -> None:
    data = some_bytes(5_000_000)
    await stream(service, data, name="n", mode="create")
    first = await service.ask("blob.get", {"name": "n", "proxy": True})
    begun = await body_of(first)

    await replace(service, "n")

    rest = await service.ask(
        "blob.get", {"name": "n", "proxy": True, "cursor": first.headers["Blob-Cursor"]}
    )
    assert begun + await body_of(rest) == data
    assert rest.headers["Blob-Digest"] == digest_of(data)
    assert "Blob-Version" not in rest.headers


async def test_the_store_never_answers_a_name_by_itself(service: Service) -> None:
    await create(service, "n")

    got = await service.ask("blob.get", {"name": "n", "bare": True})

    assert (got.body, got.headers["Blob-Version"]) == (DATA, "1")


@pytest.mark.parametrize("verb", ["get", "stat", "delete"])
@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"name": "n", "digest": DIGEST},
        {"name": ""},
        {"name": "é" * 257},
        {"name": 5},
        {"digest": DIGEST, "version": 1},
        {"digest": DIGEST, "if_version": 1},
        {"name": "n", "version": 0},
        {"name": "n", "space": "packs"},
        {"name": "n", "if_absent": True},
    ],
    ids=str,
)
async def test_one_blob_is_asked_for_by_its_digest_or_by_a_name(
    service: Service, verb: str, request_: dict[str, Any]
) -> None:
    await create(service, "n")

    assert (await service.ask(f"blob.{verb}", request_)).code == "invalid"
    assert await bytes_of(service, "n") == DATA


async def test_a_deleted_name_is_gone_and_its_versions_count_on(service: Service) -> None:
    await create(service, "n")

    first = await service.ask("blob.delete", {"name": "n", "if_version": 1})
    again = await service.ask("blob.delete", {"name": "n"})

    assert (first.json, again.json) == ({"deleted": True}, {"deleted": False})
    assert (await service.ask("blob.get", {"name": "n"})).code == "not_found"
    assert (await service.ask("blob.names", {})).json["names"] == []
    assert (await create(service, "n")).json["version"] == 2


async def test_a_delete_whose_condition_fails_deletes_nothing(service: Service) -> None:
    await create(service, "n")

    by_version = await service.ask("blob.delete", {"name": "n", "if_version": 2})
    by_digest = await service.ask("blob.delete", {"name": "n", "if_digest": ABSENT})
    of_nothing = await service.ask("blob.delete", {"name": "m", "if_version": 1})

    assert [reply.code for reply in (by_version, by_digest, of_nothing)] == ["conflict"] * 3
    assert [reply.json["version"] for reply in (by_version, by_digest, of_nothing)] == [1, 1, 0]
    assert await bytes_of(service, "n") == DATA


async def test_a_delete_by_digest_keeps_the_bytes_that_names_have(service: Service) -> None:
    await service.put(DATA)
    await create(service, "n")
    await create(service, "m")

    deleted = await service.ask("blob.delete", {"digest": DIGEST})

    assert deleted.json == {"deleted": True, "kept_by": ["m", "n"]}
    assert await bytes_of(service, "n") == DATA
    await service.ask("blob.delete", {"name": "n"})
    await service.ask("blob.delete", {"name": "m"})
    assert (await service.ask("blob.delete", {"digest": DIGEST})).json == {"deleted": False}
    with pytest.raises(NotFoundError):
        await service.blobs.stat(DIGEST)


async def test_a_deleted_blob_that_a_name_has_is_there_by_the_name_alone(service: Service) -> None:
    await service.put(DATA)
    await create(service, "n")

    first, again = [await service.ask("blob.delete", {"digest": DIGEST}) for _ in range(2)]

    assert (first.json["deleted"], again.json["deleted"]) == (True, False)
    for verb in ("blob.get", "blob.stat"):
        assert (await service.ask(verb, {"digest": DIGEST})).code == "not_found"
    missing = await service.ask("blob.has", {"digests": [DIGEST]})
    assert missing.json == {"missing": [DIGEST]}
    assert (await service.ask("blob.list", {})).json["blobs"] == []
    copied = await service.ask("blob.copy", {"name": "m", "digest": DIGEST})
    assert copied.code == "not_found"
    found = (await service.ask("blob.stat", {"name": "n"})).json
    assert (found["pinned"], found["kept_by"]) == (False, ["n"])
    assert await bytes_of(service, "n") == DATA


async def test_a_deleted_blob_is_there_for_all_again_once_it_is_put_or_copied(
    service: Service,
) -> None:
    await service.put(DATA)
    await create(service, "n")

    for again in (
        lambda: service.put(DATA),
        lambda: service.ask("blob.copy", {"name": "m", "from": "n"}),
    ):
        await service.ask("blob.delete", {"digest": DIGEST})
        await again()
        assert (await service.ask("blob.stat", {"digest": DIGEST})).code == "ok"


async def test_who_goes_on_by_a_cursor_reads_a_deleted_blob_to_its_end(service: Service) -> None:
    data = some_bytes(5 * MIB)
    digest = digest_of(data)
    attributes = Attributes(type="a/b", created_at=service.pool.time.clock())
    await service.blobs.put(digest, data, attributes)
    await service.ask("blob.copy", {"name": "n", "digest": digest})
    reply = await service.ask("blob.get", {"digest": digest})
    found = await body_of(reply)
    assert "Blob-Cursor" in reply.headers
    deleted = await service.ask("blob.delete", {"digest": digest})
    assert deleted.json == {"deleted": True, "kept_by": ["n"]}

    while "Blob-Cursor" in reply.headers:
        cursor = reply.headers["Blob-Cursor"]
        reply = await service.ask("blob.get", {"digest": digest, "cursor": cursor})
        found += await body_of(reply)

    assert found == data


async def test_without_an_index_blobs_are_looked_up_and_none_is_deleted() -> None:
    service = Service()  # whose index was not started
    await service.put(DATA)

    assert (await service.ask("blob.stat", {"digest": DIGEST})).json["names"] == []
    assert (await service.ask("blob.delete", {"digest": DIGEST})).code == "unavailable"
    assert (await service.ask("blob.names", {})).code == "unavailable"
    assert (await service.ask("blob.get", {"digest": DIGEST})).body == DATA


# --- copies ---


async def test_a_copy_has_the_blob_the_type_and_the_labels(service: Service) -> None:
    await create(service, "a", Blob_Type="text/plain", Blob_Labels="k=v")

    copied = await service.ask("blob.copy", {"name": "b", "from": "a"})

    assert copied.json == {
        "name": "b",
        "digest": DIGEST,
        "size": len(DATA),
        "version": 1,
        "state": "ok",
    }
    described = (await service.ask("blob.stat", {"name": "b"})).json
    assert (described["type"], described["labels"]) == ("text/plain", {"k": "v"})
    assert described["names"] == ["a", "b"]


async def test_a_name_is_given_the_blob_of_a_digest(service: Service) -> None:
    await service.put(DATA)

    assert (await service.ask("blob.copy", {"name": "n", "digest": DIGEST})).code == "ok"
    assert await bytes_of(service, "n") == DATA


async def test_a_version_is_restored(service: Service) -> None:
    await keep(service, 3)
    await create(service, "n")
    await replace(service, "n")

    restored = await service.ask("blob.copy", {"name": "n", "from": "n", "version": 1})

    assert restored.json["version"] == 3
    assert await bytes_of(service, "n") == DATA
    assert await versions_of(service, "n") == [3, 2, 1]


@pytest.mark.parametrize("source", [{"from": "gone"}, {"digest": ABSENT}])
@pytest.mark.parametrize("target", ["n", "m"])
async def test_a_copy_without_a_source_leaves_its_target_as_it_was(
    service: Service, source: dict[str, str], target: str
) -> None:
    await create(service, "n")

    copied = await service.ask("blob.copy", {"name": target, **source})

    assert copied.code == "not_found"
    assert await bytes_of(service, "n") == DATA
    assert (await service.ask("blob.get", {"name": "m"})).code == "not_found"


async def test_copy_and_rename_take_conditions_of_their_target(service: Service) -> None:
    await create(service, "a")
    await create(service, "b", OTHER)

    for verb in ("copy", "rename"):
        for condition in ({"if_absent": True}, {"if_version": 2}, {"if_digest": DIGEST}):
            refused = await service.ask(f"blob.{verb}", {"name": "b", "from": "a", **condition})
            assert (refused.code, refused.json["version"]) == ("conflict", 1)

    assert await bytes_of(service, "a") == DATA
    assert await bytes_of(service, "b") == OTHER


async def test_a_renamed_blob_has_the_other_name_only(service: Service) -> None:
    await create(service, "a")
    await create(service, "b", OTHER)

    renamed = await service.ask("blob.rename", {"name": "b", "from": "a"})

    assert (renamed.json["version"], renamed.json["digest"]) == (2, DIGEST)
    assert await bytes_of(service, "b") == DATA
    assert (await service.ask("blob.get", {"name": "a"})).code == "not_found"


@pytest.mark.parametrize(
    ("verb", "request_"),
    [
        ("copy", {"name": "b"}),
        ("copy", {"name": "b", "from": "a", "digest": DIGEST}),
        ("copy", {"name": "b", "digest": DIGEST, "version": 1}),
        ("copy", {"name": "é" * 257, "from": "a"}),
        ("copy", {"name": "b", "from": "é" * 257}),
        ("copy", {"name": "b", "from": "a", "if_absent": True, "if_version": 1}),
        ("rename", {"name": "b"}),
        ("rename", {"name": "a", "from": "a"}),
        ("rename", {"name": "b", "source": "a"}),
        ("rename", {"name": "b", "from": "a", "if_absent": True, "if_digest": DIGEST}),
        ("history", {}),
        ("history", {"name": "é" * 257}),
        ("history", {"name": "a", "cursor": "x"}),
        ("history", {"name": "a", "cursor": "0"}),
        ("names", {"limit": 0}),
        ("names", {"limit": 1001}),
        ("names", {"cursor": "!"}),
        ("names", {"delimiter": "a" * 17}),
        ("set_rules", {}),
        ("set_rules", {"rules": [{}]}),
        ("set_rules", {"rules": [{"prefix": "a", "name": "a"}]}),
        ("set_rules", {"rules": [{"prefix": "a", "keep_versions": 0}]}),
        ("set_rules", {"rules": [{"prefix": "a", "keep": 1}]}),
    ],
    ids=str,
)
async def test_a_request_that_is_not_well_formed_changes_nothing(
    service: Service, verb: str, request_: dict[str, Any]
) -> None:
    await create(service, "a")

    assert (await service.ask(f"blob.{verb}", request_)).code == "invalid"
    assert await bytes_of(service, "a") == DATA
    assert [row["name"] for row in (await service.ask("blob.names", {})).json["names"]] == ["a"]
    assert (await service.ask("blob.rules", {})).json == {"rules": [], "revision": 0}


# --- lists ---


async def test_names_are_listed_in_the_order_of_their_bytes_with_prefixes_among_them(
    service: Service,
) -> None:
    for name in ("b", "a/1", "a/2", "a!", "a0", "a", "é", "z"):
        await create(service, name)

    everything = (await service.ask("blob.names", {})).json
    by_directory = (await service.ask("blob.names", {"delimiter": "/"})).json
    below = (await service.ask("blob.names", {"prefix": "a/", "delimiter": "/"})).json

    names = [row["name"] for row in everything["names"]]
    assert names == sorted(names, key=str.encode) == ["a", "a!", "a/1", "a/2", "a0", "b", "z", "é"]
    assert [row["name"] for row in by_directory["names"]] == ["a", "a!", "a0", "b", "z", "é"]
    assert by_directory["prefixes"] == ["a/"]
    assert [row["name"] for row in below["names"]] == ["a/1", "a/2"]


async def test_pages_of_a_list_joined_are_the_whole(service: Service) -> None:
    for number in range(7):
        await create(service, f"n{number}")

    found, request = [], {"limit": 2, "start_after": "n0"}
    while True:
        page = (await service.ask("blob.names", request)).json
        found += [row["name"] for row in page["names"]]
        if "cursor" not in page:
            break
        request["cursor"] = page["cursor"]

    assert found == [f"n{number}" for number in range(1, 7)]


async def test_names_with_certain_labels_are_listed(service: Service) -> None:
    await create(service, "a", Blob_Labels="k=v&l=w")
    await create(service, "b", Blob_Labels="k=v")
    await create(service, "c", Blob_Labels="k=w")

    async def listed(**wanted: str) -> list[str]:
        page = (await service.ask("blob.names", {"labels": wanted})).json
        return [row["name"] for row in page["names"]]

    assert await listed(k="v") == ["a", "b"]
    assert await listed(k="v", l="w") == ["a"]
    assert await listed(x="y") == []


async def test_a_page_of_names_fits_into_one_message() -> None:
    async with serving(max_inline_bytes=2000) as service:
        for number in range(9):
            await create(service, f"{number}" + "\x01" * 100)

        found: list[str] = []
        request: dict[str, Any] = {}
        while True:
            page = await service.ask("blob.names", request)
            assert len(page.body) <= 2000
            found += [row["name"][0] for row in page.json["names"]]
            if "cursor" not in page.json:
                break
            request["cursor"] = page.json["cursor"]
        assert found == list("012345678")


# --- history ---


async def test_a_history_has_steps_and_versions_newest_first(service: Service) -> None:
    await keep(service, 2)
    await create(service, "n", b"one")
    await replace(service, "n", b"two")
    await replace(service, "n", b"three")
    await service.ask("blob.delete", {"name": "n"})

    history = (await service.ask("blob.history", {"name": "n"})).json

    states = [(step["state"], step.get("version", 0)) for step in history["transitions"]]
    assert states == [("deleted", 3), ("ok", 3), ("ok", 2), ("ok", 1), ("pending", 0)]
    assert {step["worker"] for step in history["transitions"]} == {"w1"}
    assert (history["state"], history["version"]) == ("deleted", 3)
    assert [row["version"] for row in history["versions"]] == [3]
    assert (await service.ask("blob.history", {"name": "m"})).code == "not_found"


async def test_the_pages_of_a_history_joined_have_every_version() -> None:
    async with serving(max_inline_bytes=8000) as service:
        await keep(service, 30)
        await create(service, "n", b"0")
        for number in range(1, 24):
            await replace(service, "n", str(number).encode(), Blob_Labels=f"k={'v' * 250}")

        found: list[int] = []
        request: dict[str, Any] = {"name": "n", "limit": 20}
        while True:
            page = await service.ask("blob.history", request)
            assert len(page.body) <= 8000
            found += [row["version"] for row in page.json["versions"]]
            if "cursor" not in page.json:
                break
            request["cursor"] = page.json["cursor"]
        assert found == list(range(24, 0, -1))


# --- rules ---


async def keep(service: Service, versions: int) -> None:
    """Have so many versions of every name kept."""
    rules = [{"prefix": "", "keep_versions": versions}]
    assert (await service.ask("blob.set_rules", {"rules": rules})).code == "ok"


async def test_rules_are_told_and_replaced_by_compare_and_set(service: Service) -> None:
    rules = [{"prefix": "logs/", "keep_versions": 3}, {"name": "n", "expire_seconds": 60}]

    made = (await service.ask("blob.set_rules", {"rules": rules, "if_revision": 0})).json
    refused = await service.ask("blob.set_rules", {"rules": [], "if_revision": 0})

    assert made["rules"] == rules
    assert (await service.ask("blob.rules", {})).json == made
    assert refused.code == "conflict"
    emptied = await service.ask("blob.set_rules", {"rules": [], "if_revision": made["revision"]})
    assert emptied.json["rules"] == []


async def test_an_expired_name_is_not_there_any_more(service: Service) -> None:
    at = service.pool.time.clock().isoformat()
    await create(service, "n", Blob_Expires=at)

    assert (await service.ask("blob.get", {"name": "n"})).code == "not_found"
    assert (await service.ask("blob.names", {})).json["names"] == []
    assert (await create(service, "n", OTHER)).json["version"] == 2
