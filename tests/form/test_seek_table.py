"""The seek table has the form that the seekable format of zstd lays down."""

from __future__ import annotations

import struct

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from holdfast.form.seek_table import (
    seek_footer,
    seek_header,
    seek_rows,
    seek_table,
    seek_table_size,
)

sizes_of_frames = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=2**32 - 1), st.integers(min_value=0, max_value=2**32 - 1)
    ),
    max_size=20,
)


@given(sizes_of_frames)
def test_a_table_has_a_row_for_each_frame(sizes: list[tuple[int, int]]) -> None:
    table = seek_table(sizes)

    magic, size = struct.unpack_from("<II", table)
    assert (magic, size) == (0x184D2A5E, len(table) - 8)
    assert list(struct.iter_unpack("<II", table[8:-9])) == sizes
    assert struct.unpack("<IBI", table[-9:]) == (len(sizes), 0, 0x8F92EAB1)


@given(sizes_of_frames, sizes_of_frames)
def test_a_table_can_be_made_in_parts(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    count = len(first) + len(second)

    parts = [seek_header(count), seek_rows(first), seek_rows(second), seek_footer(count)]

    assert b"".join(parts) == seek_table([*first, *second])
    assert len(b"".join(parts)) == seek_table_size(count)


def test_zstd_passes_over_the_table() -> None:
    frame = zstandard.compress(b"data")

    whole = frame + seek_table([(len(frame), 4)])

    with zstandard.ZstdDecompressor().stream_reader(whole, read_across_frames=True) as reader:
        assert reader.read() == b"data"
