"""The stored form of a blob's record: what is in buckets now must be read for ever."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.domain.chunk_index import build_index
from holdfast.domain.digest import digest_of
from holdfast.errors import CorruptError
from holdfast.stores.jetstream.blobs.meta import (
    chunk_subject,
    decode_meta,
    mark_damaged,
    meta_subject,
    to_entry,
    to_info,
    to_meta,
    tombstone,
)
from holdfast.stores.ports import Attributes, BlobInfo, ForeignObject, UnreadableObject

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "object_meta.json"
CREATED: Final = datetime(2026, 3, 1, 12, 30, 15, 250, tzinfo=UTC)
NUID: Final = "Dx8GhnPsgHRrwLvTqOZXk2"


def make_info(size: int = 700_000, sequences: tuple[int, ...] = (5, 6, 9)) -> BlobInfo:
    return BlobInfo(
        digest=digest_of(b"golden"),
        size=size,
        chunks=len(sequences),
        part_size=262_144,
        type="image/png",
        created_at=CREATED,
        pinned=True,
        generation=NUID,
        index=build_index(sequences) if sequences else None,
    )


def attributes_of(info: BlobInfo, op_id: str | None = None) -> Attributes:
    return Attributes(type=info.type, created_at=info.created_at, pinned=info.pinned, op_id=op_id)


def encode(info: BlobInfo, op_id: str | None = None) -> bytes:
    return msgspec.json.encode(to_meta("blobs", info, attributes_of(info, op_id)))


def golden_records() -> dict[str, bytes]:
    """The records that this version writes, by their names in the golden file."""
    info = make_info()
    return {
        "staged": encode(info),
        "one-chunk-of-an-operation": encode(make_info(1, (7,)), "op-1"),
        "empty": encode(make_info(0, ())),
        "unpinned": encode(replace(info, pinned=False)),
        "tombstone": tombstone("blobs", info.digest, NUID, CREATED, None),
        "tombstone-of-an-operation": tombstone("blobs", info.digest, NUID, CREATED, "op-2"),
    }


GOLDEN_RECORDS: Final[dict[str, str]] = json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_what_is_written_is_what_was_always_written() -> None:
    written = {name: record.decode() for name, record in golden_records().items()}

    assert written == GOLDEN_RECORDS


@pytest.mark.parametrize(
    ("name", "info"),
    [
        ("staged", make_info()),
        ("one-chunk-of-an-operation", make_info(1, (7,))),
        ("empty", make_info(0, ())),
        ("unpinned", replace(make_info(), pinned=False)),
    ],
)
def test_what_was_written_is_read_as_it_was_meant(name: str, info: BlobInfo) -> None:
    meta = decode_meta(GOLDEN_RECORDS[name].encode())

    assert to_info(meta) == info
    assert to_entry(GOLDEN_RECORDS[name].encode(), meta_subject("blobs", info.digest)) == info
    assert meta.is_ours
    assert meta.op_id == ("op-1" if "operation" in name else None)


@pytest.mark.parametrize("name", ["tombstone", "tombstone-of-an-operation"])
def test_a_tombstone_that_was_written_is_read_as_one(name: str) -> None:
    meta = decode_meta(GOLDEN_RECORDS[name].encode())

    assert meta.deleted
    assert (meta.nuid, meta.op_id) == (NUID, "op-2" if "operation" in name else None)


def test_the_record_is_a_plain_adr_20_object_info() -> None:
    record = json.loads(GOLDEN_RECORDS["staged"])

    assert record["name"] == digest_of(b"golden")
    assert (record["bucket"], record["nuid"]) == ("blobs", NUID)
    assert (record["size"], record["chunks"]) == (700_000, 3)
    assert record["digest"].startswith("SHA-256=")
    assert record["options"] == {"max_chunk_size": 262_144}
    assert all(isinstance(value, str) for value in record["metadata"].values())


def test_subjects_have_the_form_of_adr_20() -> None:
    assert meta_subject("blobs", "a/ü") == "$O.blobs.M.YS_DvA=="
    assert chunk_subject("blobs", NUID) == f"$O.blobs.C.{NUID}"


@pytest.mark.fault("T08")
@pytest.mark.parametrize("nuid", ["", ">", "*", "a.b", "a b", "a\r\nb", "ü", "n" * 65])
def test_a_nuid_that_would_reach_other_chunks_is_corrupt(nuid: str) -> None:
    with pytest.raises(CorruptError):
        chunk_subject("blobs", nuid)


@given(
    size=st.integers(0, 2**44),
    part_size=st.sampled_from((1 << 16, 1 << 18, 1 << 20)),
    offset=st.timedeltas(timedelta(hours=-14), timedelta(hours=14)),
    kind=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    pinned=st.booleans(),
)
def test_a_record_reads_back_as_written(
    size: int, part_size: int, offset: timedelta, kind: str, pinned: bool
) -> None:
    written = BlobInfo(
        digest=digest_of(b"x"),
        size=size,
        chunks=-(-size // part_size),
        part_size=part_size,
        type=kind,
        created_at=CREATED.astimezone(timezone(timedelta(minutes=offset // timedelta(minutes=1)))),
        pinned=pinned,
        generation=NUID,
    )

    assert to_info(decode_meta(encode(written))) == written


def edited(change: Callable[[dict[str, Any]], None]) -> bytes:
    record = json.loads(GOLDEN_RECORDS["staged"])
    change(record)
    return json.dumps(record).encode()


@pytest.mark.fault("T08")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hf-part-size", "0"),
        ("hf-part-size", "-1"),
        ("hf-part-size", "9" * 5000),
        ("hf-created", ""),
        ("hf-created", "2026-03-01T12:30:15"),
        ("hf-type", "a\r\nNats-Rollup: all"),
    ],
    ids=lambda value: value[:20].encode("unicode_escape").decode(),
)
def test_metadata_that_makes_no_sense_is_corrupt(name: str, value: str) -> None:
    meta = decode_meta(edited(lambda record: record["metadata"].update({name: value})))

    with pytest.raises(CorruptError):
        to_info(meta)


@pytest.mark.fault("T08")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "not a digest"),
        ("name", digest_of(b"another")),
        ("digest", ""),
        ("size", -1),
        ("size", 700_000_000),
        ("chunks", 2),
        ("chunks", -3),
        ("nuid", ">"),
        ("options", {"link": {"bucket": "b", "name": "n"}}),
        ("options", {"link": 1}),
        ("metadata", {"hf-format": "1"}),
        ("metadata", {"hf-format": "2"}),
    ],
)
def test_a_record_of_ours_that_does_not_add_up_is_corrupt_and_listed_as_foreign(
    field: str, value: Any
) -> None:
    meta = decode_meta(edited(lambda record: record.update({field: value})))

    with pytest.raises(CorruptError):
        to_info(meta)
    row = to_entry(msgspec.json.encode(meta), meta_subject("blobs", make_info().digest))
    assert isinstance(row, UnreadableObject)
    assert row.name == make_info().digest
    assert row.detail


@pytest.mark.parametrize("text", ["1;5;1", "x", "1;1;1x999999", "1;;;"])
def test_an_index_that_makes_no_sense_does_not_make_the_record_unreadable(text: str) -> None:
    meta = decode_meta(edited(lambda record: record["metadata"].update({"hf-index": text})))

    assert replace(to_info(meta), index=None) == replace(make_info(), index=None)


@given(data=st.binary(max_size=60), name=st.text(max_size=20))
def test_bytes_that_are_no_record_are_listed_under_their_address(data: bytes, name: str) -> None:
    row = to_entry(data, meta_subject("blobs", name))

    assert isinstance(row, UnreadableObject)
    assert row.name == name


def test_a_record_at_another_digests_address_is_listed_as_unreadable_there() -> None:
    row = to_entry(GOLDEN_RECORDS["staged"].encode(), meta_subject("blobs", digest_of(b"other")))

    assert isinstance(row, UnreadableObject)
    assert row.name == digest_of(b"other")


def test_damage_that_was_reported_is_read_back_and_leaves_a_plain_object_info() -> None:
    meta = decode_meta(mark_damaged(decode_meta(GOLDEN_RECORDS["staged"].encode())))
    before = json.loads(GOLDEN_RECORDS["staged"])

    assert to_info(meta) == replace(make_info(), damaged=True)
    after = json.loads(mark_damaged(meta))
    assert after.pop("metadata") == {**before.pop("metadata"), "hf-damaged": "true"}
    assert after == before


@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.integers(0, 400).map(lambda cut: GOLDEN_RECORDS["staged"].encode()[:cut]),
    )
)
def test_bytes_that_are_no_record_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError):
        decode_meta(data)


def test_fields_of_other_programs_are_ignored() -> None:
    meta = decode_meta(edited(lambda record: record.update(headers={"A": ["b"]}, future=[1, {}])))

    assert to_info(meta) == make_info()


def test_an_object_without_our_format_is_foreign() -> None:
    meta = decode_meta(
        b'{"name":"photo.jpg","bucket":"b","nuid":"n","size":7,"metadata":{"x":"y"}}'
    )

    assert not meta.is_ours
    subject = meta_subject("b", "photo.jpg")
    assert to_entry(msgspec.json.encode(meta), subject) == ForeignObject(name="photo.jpg", size=7)


@pytest.mark.parametrize("size", [2**44 + 1, 2**64, -1])
def test_a_size_that_no_blob_can_have_is_unreadable_and_fits_an_answer(size: int) -> None:
    info = make_info()
    written = json.loads(encode(info))
    written |= {"size": size, "chunks": -(-size // info.part_size)}

    row = to_entry(msgspec.json.encode(written), meta_subject("b", info.digest))

    assert isinstance(row, UnreadableObject)
    assert 0 <= row.size < 2**63
