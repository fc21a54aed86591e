"""A table of frames gives back the frames, wherever in their packs they lie."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from holdfast.form.frame_table import FrameRef, from_columns, split_digests, table_of, to_columns
from holdfast.form.layout import MAX_FRAME_BYTES
from holdfast.form.packing import PACK_BYTES

digests = st.sampled_from([hashlib.sha256(b"%d" % number).digest() for number in range(6)])
# Frames shared with other snapshots lie anywhere: in no order, gaps between them, repeated.
frames = st.builds(
    FrameRef,
    digest=digests,
    raw_size=st.integers(min_value=1, max_value=MAX_FRAME_BYTES),
    pack=digests,
    offset=st.integers(min_value=0, max_value=PACK_BYTES // 2),
    stored_size=st.integers(min_value=1, max_value=PACK_BYTES // 2),
)


@given(st.lists(frames, max_size=20))
def test_a_table_reads_back_as_the_frames(refs: list[FrameRef]) -> None:
    table = from_columns(to_columns(table_of(refs)))

    assert len(table) == len(refs)
    assert [table[number] for number in range(len(refs))] == refs
    assert set(split_digests(table.packs)) == {ref.pack for ref in refs}


@given(st.lists(frames, max_size=20))
def test_a_table_can_be_given_its_packs(refs: list[FrameRef]) -> None:
    packs = sorted({b"\0" * 32, *(ref.pack for ref in refs)})

    table = table_of(refs, packs)

    assert split_digests(table.packs) == packs
    assert [table[number] for number in range(len(refs))] == refs


@given(frames)
def test_a_frame_tells_the_address_of_its_pack(ref: FrameRef) -> None:
    assert ref.address == ref.pack.hex()
