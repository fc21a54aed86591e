"""Packs depend on the frames and their order, and hold them where they say."""

from __future__ import annotations

import hashlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from holdfast.form.packing import MIN_PACK_BYTES, PACK_BYTES, ClosedPack, Packer

PAGE_END = -1
# Sizes of frames, and ends of pages.
steps = st.lists(
    st.one_of(
        st.integers(min_value=1, max_value=5000),
        st.integers(min_value=1, max_value=PACK_BYTES),
        st.just(PAGE_END),
    ),
    max_size=40,
)


def frame(number: int, size: int) -> tuple[bytes, bytes]:
    """A frame's digest, and ``size`` bytes that stand for it."""
    return hashlib.sha256(b"%d" % number).digest(), bytes([number % 251]) * size


def packed(sizes: list[int]) -> list[ClosedPack]:
    """All packs of frames of these sizes."""
    packer = Packer()
    closed = [
        packer.end_page() if size == PAGE_END else packer.add(*frame(number, size))
        for number, size in enumerate(sizes)
    ]
    return [pack for pack in (*closed, packer.finish()) if pack is not None]


@given(steps)
def test_packs_hold_all_frames_in_order(sizes: list[int]) -> None:
    packs = packed(sizes)

    found = [
        (digest, pack.data[offset : offset + size])
        for pack in packs
        for digest, offset, size in pack.members
    ]
    assert found == [frame(n, size) for n, size in enumerate(sizes) if size != PAGE_END]


@given(steps)
def test_packs_are_full_and_never_too_large(sizes: list[int]) -> None:
    packs = packed(sizes)

    for pack in packs:
        assert 0 < len(pack.data) <= PACK_BYTES
        assert len(pack.data) == sum(size for _, _, size in pack.members)
        assert pack.address == hashlib.sha256(pack.data).hexdigest()
    for pack, after in pairwise(packs):
        at_page_end = len(pack.data) >= MIN_PACK_BYTES
        assert at_page_end or len(pack.data) + after.members[0][2] > PACK_BYTES


@given(steps, steps)
def test_packs_before_a_change_stay_as_they_were(before: list[int], after: list[int]) -> None:
    whole, changed = packed([*before, *after]), packed([*before, 7, *after])

    first = packed(before)[:-1]
    assert whole[: len(first)] == changed[: len(first)] == first


def test_a_page_that_leaves_a_large_pack_closes_it() -> None:
    packer = Packer()
    packer.add(*frame(0, MIN_PACK_BYTES - 1))

    assert packer.end_page() is None
    packer.add(*frame(1, 1))
    closed = packer.end_page()

    assert closed is not None
    assert len(closed.data) == MIN_PACK_BYTES
    assert packer.finish() is None


def test_nothing_makes_no_pack() -> None:
    assert packed([PAGE_END]) == []
