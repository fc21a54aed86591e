"""Ranges of bytes, and what is found in a partial blob by the offsets of the whole."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.digest import digest_of
from holdfast.domain.kept import (
    KeptBytes,
    PartialBytes,
    Ranges,
    common,
    has_bytes,
    joined,
    reduced,
    size_of,
)
from holdfast.errors import CorruptError

SIZE = 60
DATA = bytes(range(SIZE))

pairs = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, 9)).map(
        lambda one: (one[0], min(one[0] + one[1], SIZE))
    ),
    max_size=12,
)
some_ranges = pairs.map(joined)


def bytes_in(ranges: Ranges) -> set[int]:
    """The offsets."""
    return {at for start, stop in ranges for at in range(start, stop)}


@given(pairs, st.integers(0, 6))
def test_joined_ranges_have_all_bytes_and_small_gaps(
    parts: list[tuple[int, int]], gap: int
) -> None:
    found = joined(parts, gap=gap)

    assert bytes_in(tuple(parts)) <= bytes_in(found)
    assert all(b[0] - a[1] >= max(gap, 1) for a, b in pairwise(found))
    assert gap or bytes_in(found) == bytes_in(tuple(parts))


@given(some_ranges, some_ranges)
def test_common_bytes_are_those_that_both_have(some: Ranges, others: Ranges) -> None:
    found = common(some, others)

    assert bytes_in(found) == bytes_in(some) & bytes_in(others)
    assert size_of(found) == len(bytes_in(found))


@given(some_ranges.filter(bool))
def test_what_is_kept_is_read_as_it_was_written(ranges: Ranges) -> None:
    kept = KeptBytes(digest_of(b"x"), ranges)

    assert KeptBytes.written(kept.text) == kept


@given(some_ranges.filter(bool), some_ranges)
def test_a_partial_blob_covers_what_it_has(ranges: Ranges, needed: Ranges) -> None:
    kept = KeptBytes(digest_of(b"x"), ranges)

    assert kept.covers(needed) == (bytes_in(needed) <= bytes_in(ranges))
    assert has_bytes(kept, needed) == kept.covers(needed)
    assert not has_bytes(kept, None)
    assert has_bytes(None, None)


@given(some_ranges.filter(bool), st.integers(0, SIZE - 1), st.integers(1, 20))
def test_bytes_are_found_by_their_offsets_in_the_whole(
    ranges: Ranges, start: int, size: int
) -> None:
    data, kept = reduced(DATA, None, ranges)
    partial = PartialBytes(data, kept)

    wanted = set(range(start, start + size))
    found = bytes(partial.cut(start, start + size))
    assert found == (DATA[start : start + size] if wanted <= bytes_in(ranges) else b"")


@given(
    some_ranges.filter(bool),
    st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 9)), max_size=4),
)
def test_several_cuts_are_each_of_them_or_nothing(
    ranges: Ranges, spans: list[tuple[int, int]]
) -> None:
    partial = PartialBytes(*reduced(DATA, None, ranges))

    found = partial.cuts(spans)

    each = [partial.cut(start, start + size) for start, size in spans]
    assert found == (each if all(each) else None)


@given(some_ranges.filter(bool), some_ranges)
def test_what_was_dropped_does_not_come_back(first: Ranges, second: Ranges) -> None:
    data, kept = reduced(DATA, None, first)
    if not bytes_in(first) & bytes_in(second):
        with pytest.raises(CorruptError):
            reduced(data, kept, second)
        return

    data, kept = reduced(data, kept, second)

    assert bytes_in(kept.ranges) == bytes_in(first) & bytes_in(second)
    assert data == bytes(sorted(bytes_in(kept.ranges)))
    assert kept.digest == digest_of(data)


@pytest.mark.parametrize(
    "text", ["", "x;0,1", f"{digest_of(b'')};", f"{digest_of(b'')};0", f"{digest_of(b'')};0,1,0,1"]
)
def test_what_nobody_wrote_is_corrupt(text: str) -> None:
    with pytest.raises(CorruptError):
        KeptBytes.written(text)


def test_fewer_bytes_than_are_kept_are_corrupt() -> None:
    with pytest.raises(CorruptError):
        PartialBytes(b"12", KeptBytes(digest_of(b"12"), ((0, 3),)))
