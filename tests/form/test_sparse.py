"""The map of a sparse file, and which segments a file can have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.form.trees import segments_within

from holdfast.form.sparse import (
    MAX_SEGMENTS,
    are_segments,
    padding,
    sparse_bytes,
    sparse_map,
    to_blocks,
)


def test_a_map_lists_the_segments() -> None:
    assert sparse_map([(0, 10), (4096, 4)], 4100).rstrip(b"\0") == b"2\n0\n10\n4096\n4\n"


def test_a_map_tells_where_a_last_hole_ends() -> None:
    assert sparse_map([(0, 10)], 99).rstrip(b"\0") == b"2\n0\n10\n99\n0\n"
    assert sparse_map([], 99).rstrip(b"\0") == b"1\n99\n0\n"


@given(
    st.integers(min_value=0, max_value=10**9).flatmap(
        lambda size: st.tuples(segments_within(size), st.just(size))
    )
)
def test_segments_within_a_file_are_accepted(file: tuple[tuple[tuple[int, int], ...], int]) -> None:
    segments, size = file

    assert are_segments(segments, size)
    assert len(sparse_map(segments, size)) % 512 == 0
    assert sparse_bytes(segments, size) - len(sparse_map(segments, size)) <= size


@pytest.mark.parametrize(
    "segments",
    [
        [(-1, 5)],
        [(0, 0)],
        [(0, -3)],
        [(0, 101)],
        [(50, 51)],
        [(0, 10), (20, 5)],
        [(0, 10), (9, 5)],
        [(20, 5), (0, 5)],
        [(n, 1) for n in range(MAX_SEGMENTS + 1)],
    ],
)
@pytest.mark.fault("T03")
def test_segments_out_of_order_or_bounds_are_refused(segments: list[tuple[int, int]]) -> None:
    size = 100 if len(segments) < MAX_SEGMENTS else 10 * MAX_SEGMENTS

    assert not are_segments(segments, size)


def test_padding_fills_the_block() -> None:
    assert [padding(size) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]


def test_segments_are_widened_to_blocks() -> None:
    assert to_blocks([(1, 1), (600, 10), (5000, 600), (9990, 10)], 10_000) == (
        (0, 1024),
        (4608, 1024),
        (9728, 272),
    )
    assert to_blocks([(0, 0), (10, 1), (512, 0), (2048, 0)], 3000) == ((0, 512),)


@given(st.lists(st.integers(min_value=0, max_value=50_000), max_size=8, unique=True))
def test_widened_segments_hold_all_data(ends: list[int]) -> None:
    ends.sort()
    size = max(ends, default=0)
    segments = [(a, b - a) for a, b in zip(ends[::2], ends[1::2], strict=False)]

    widened = to_blocks(segments, size)

    assert are_segments(widened, size)
    inside = {at for offset, length in widened for at in range(offset, offset + length)}
    assert all(inside.issuperset(range(offset, offset + length)) for offset, length in segments)
