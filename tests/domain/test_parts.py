"""Parts are taken in order, once; whatever else comes leaves the upload as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.digest import digest_of
from holdfast.domain.parts import REMEMBERED_PARTS, PartSequence
from holdfast.errors import ConflictError, HoldfastError, InvalidError, TooLargeError

PART_SIZE = 4


def started(data: bytes = b"", *, max_bytes: int = 10_000) -> PartSequence:
    """An upload that has got ``data``."""
    sequence = PartSequence(PART_SIZE, max_bytes)
    for part, start in enumerate(range(0, len(data), PART_SIZE)):
        sequence.accept(part, data[start : start + PART_SIZE])
    return sequence


@given(st.binary(max_size=200))
def test_the_digest_is_that_of_the_parts_in_a_row(data: bytes) -> None:
    sequence = started(data)

    assert sequence.digest == digest_of(data)
    assert sequence.size == len(data)
    assert sequence.count == -(-len(data) // PART_SIZE)


def test_nothing_at_all_is_an_upload_without_parts() -> None:
    sequence = started()

    sequence.check_final(0, digest_of(b""), size=0)

    assert sequence.digest == digest_of(b"")


@pytest.mark.fault("P14")
@pytest.mark.parametrize(
    ("part", "data", "error"),
    [
        pytest.param(3, b"late", InvalidError, id="a part is missing before it"),
        pytest.param(2, b"", InvalidError, id="an empty part"),
        pytest.param(2, b"12345", InvalidError, id="a part over the part size"),
        pytest.param(0, b"DATA", ConflictError, id="a repeat with other bytes"),
        pytest.param(1, b"mor", ConflictError, id="a repeat that is shorter"),
        pytest.param(2, b"xyz", TooLargeError, id="more than a blob may have"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    part: int, data: bytes, error: type[HoldfastError]
) -> None:
    sequence = started(b"datamore", max_bytes=10)

    with pytest.raises(error):
        sequence.accept(part, data)

    assert (sequence.count, sequence.size) == (2, 8)
    assert sequence.digest == digest_of(b"datamore")
    assert sequence.accept(2, b"ok")


def test_a_blob_may_be_as_large_as_the_limit() -> None:
    assert started(b"datamo", max_bytes=6).size == 6


def test_nothing_follows_a_short_part() -> None:
    sequence = started(b"datamo")

    with pytest.raises(InvalidError, match="shorter"):
        sequence.accept(2, b"more")

    sequence.check_final(2)


@pytest.mark.fault("P13")
def test_a_repeat_is_known_and_not_taken_again() -> None:
    sequence = started(b"datamore")

    assert not sequence.accept(0, b"data")
    assert not sequence.accept(1, memoryview(bytearray(b"more")))
    assert sequence.digest == digest_of(b"datamore")


@pytest.mark.fault("P13")
def test_repeats_are_known_as_far_back_as_is_remembered_and_refused_beyond() -> None:
    sequence = started(b"data" * (REMEMBERED_PARTS + 1))

    assert not sequence.accept(1, b"data")
    with pytest.raises(InvalidError, match="out of order"):
        sequence.accept(0, b"data")


def test_a_large_part_with_another_beginning_or_end_is_no_repeat() -> None:
    data = bytes(100_000)
    sequence = PartSequence(len(data), len(data))
    sequence.accept(0, data)

    for other in (b"x" + data[1:], data[:-1] + b"x", data[:-1]):
        with pytest.raises(ConflictError):
            sequence.accept(0, other)


@pytest.mark.fault("P20")
@pytest.mark.parametrize("parts", [0, 1, 3])
def test_an_upload_ends_with_the_parts_it_has(parts: int) -> None:
    with pytest.raises(InvalidError, match="2 parts"):
        started(b"datamore").check_final(parts)


@pytest.mark.fault("P20")
def test_a_size_that_was_announced_must_be_right() -> None:
    with pytest.raises(InvalidError, match="9 announced"):
        started(b"datamore").check_final(2, size=9)


@pytest.mark.fault("P20")
def test_every_digest_that_was_announced_must_be_right() -> None:
    sequence = started(b"datamore")
    right, wrong = digest_of(b"datamore"), digest_of(b"other")

    sequence.check_final(2, right, None, right, size=8)
    for expected in ((wrong, right), (right, wrong), (None, wrong)):
        with pytest.raises(InvalidError, match="digest"):
            sequence.check_final(2, *expected)


@pytest.mark.parametrize(
    ("sent", "tail", "part", "at", "data", "joined"),
    [
        pytest.param(b"data", b"", 1, 0, b"mo", b"mo", id="the first bytes"),
        pytest.param(b"data", b"mo", 1, 2, b"r", b"mor", id="the next"),
        pytest.param(b"data", b"mo", 1, 1, b"or", b"mor", id="some again, and the next"),
        pytest.param(b"data", b"mo", 1, 0, b"mo", b"mo", id="all again"),
        pytest.param(b"data", b"mo", 1, 2, b"re", b"more", id="up to the whole part"),
        pytest.param(b"data", b"", 0, 2, b"ta", None, id="a part that is whole"),
    ],
)
def test_a_tail_grows_by_the_bytes_that_follow_it(
    sent: bytes, tail: bytes, part: int, at: int, data: bytes, joined: bytes | None
) -> None:
    assert started(sent).joined(part, tail, at, data) == joined


@pytest.mark.parametrize(
    ("sent", "tail", "part", "at", "data", "error"),
    [
        pytest.param(b"data", b"mo", 1, 3, b"e", InvalidError, id="behind a gap"),
        pytest.param(b"data", b"", 2, 0, b"e", InvalidError, id="of a part behind the next"),
        pytest.param(b"dat", b"", 1, 0, b"e", InvalidError, id="behind a short part"),
        pytest.param(b"data", b"mo", 1, 2, b"red", InvalidError, id="beyond the part"),
        pytest.param(b"data", b"mo", 1, 0, b"me", ConflictError, id="other bytes"),
        pytest.param(b"datamore", b"", 2, 0, b"xyz", TooLargeError, id="beyond the limit"),
    ],
)
def test_a_tail_that_does_not_go_on_is_refused(
    sent: bytes, tail: bytes, part: int, at: int, data: bytes, error: type[HoldfastError]
) -> None:
    with pytest.raises(error):
        started(sent, max_bytes=10).joined(part, tail, at, data)
