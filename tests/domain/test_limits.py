"""Sizes that both ends compute must leave room for headers and never be nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.limits import (
    KIB,
    MAX_BLOB_BYTES,
    MIB,
    PART_BYTES,
    UPLOAD_MEMORY_BYTES,
    WINDOW_BYTES,
    max_inline_bytes,
    part_bytes,
)

payload_limits = st.integers(min_value=2, max_value=64 * MIB)


@given(payload_limits)
def test_an_inline_body_leaves_room_for_headers(max_payload: int) -> None:
    room = max_payload - max_inline_bytes(max_payload)

    assert room >= min(64 * KIB, max_payload // 2)


@given(payload_limits)
def test_an_inline_body_holds_something(max_payload: int) -> None:
    assert max_inline_bytes(max_payload) >= 1


@given(payload_limits)
def test_a_part_fits_into_a_message_and_into_a_window(max_payload: int) -> None:
    size = part_bytes(max_payload)

    assert 1 <= size <= min(max_payload, PART_BYTES)
    assert WINDOW_BYTES % size == 0


@given(payload_limits)
def test_a_part_is_the_largest_power_of_two_that_fits(max_payload: int) -> None:
    size = part_bytes(max_payload)

    assert size.bit_count() == 1
    assert size == PART_BYTES or size * 2 > max(max_payload - 4 * KIB, max_payload // 2)


@pytest.mark.parametrize(
    ("max_payload", "inline", "part"),
    [
        pytest.param(1 * MIB, 960 * KIB, 512 * KIB, id="the server's default"),
        pytest.param(8 * MIB, 8 * MIB - 64 * KIB, 512 * KIB, id="generous"),
        pytest.param(516 * KIB, 452 * KIB, 512 * KIB, id="just enough for a whole part"),
        pytest.param(260 * KIB - 1, 196 * KIB - 1, 128 * KIB, id="one byte less"),
        pytest.param(64 * KIB, 32 * KIB, 32 * KIB, id="small"),
        pytest.param(0, 0, 1, id="nothing"),
    ],
)
def test_sizes_for_servers_one_meets(max_payload: int, inline: int, part: int) -> None:
    assert max_inline_bytes(max_payload) == inline
    assert part_bytes(max_payload) == part


def test_the_windows_of_three_workers_are_less_than_a_stream_takes() -> None:
    most_waiting = 128 * MIB  # nats-server's; beyond, it answers 429/10167

    assert most_waiting > 3 * UPLOAD_MEMORY_BYTES


def test_the_largest_blob_is_a_number_that_json_carries_exactly() -> None:
    assert MAX_BLOB_BYTES <= 2**53
