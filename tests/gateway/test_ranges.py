"""Which bytes a Range header asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.gateway.content.ranges import MAX_RANGES, ByteRange, UnsatisfiableError, parse_range

SIZE = 100


@pytest.mark.fault("H05")
@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=-1", [(99, 100)]),
        ("bytes=5-", [(5, 100)]),
        ("bytes=0-99", [(0, 100)]),
        ("bytes=0-18446744073709551616", [(0, 100)]),
        ("bytes=-200", [(0, 100)]),
        ("BYTES = 1-2", [(1, 3)]),
        ("bytes=0-0, 50-59 ,-10", [(0, 1), (50, 60), (90, 100)]),
        ("bytes=50-59,0-0", [(50, 60), (0, 1)]),
        ("bytes=0-49,40-59", [(0, 60)]),
        ("bytes=200-,3-4", [(3, 5)]),
        ("bytes=" + ",".join(["1-2"] * MAX_RANGES), [(1, 3)]),
    ],
)
def test_a_range_is_these_bytes(header: str, spans: list[tuple[int, int]]) -> None:
    assert parse_range(header, SIZE) == tuple(ByteRange(*span) for span in spans)


@pytest.mark.fault("H05")
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=9-3",
        "bytes=a-b",
        "bytes=-",
        "bytes=1-2;3-4",
        "lines=1-2",
        "bytes=+1-2",
        "bytes=1.0-2",
        "bytes=1-2,x",
        "bytes=\u0661-2",
        "bytes=--1",
    ],
)
def test_what_is_no_range_of_bytes_is_passed_over(header: str | None) -> None:
    assert parse_range(header, SIZE) == ()


@pytest.mark.fault("H05")
@pytest.mark.parametrize(
    "header",
    [
        "bytes=100-",
        "bytes=-0",
        "bytes=18446744073709551616-",
        "bytes=" + "9" * 5000 + "-",
        "bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)),
        "bytes=" + ",".join(["5-"] * 1000),
    ],
)
def test_what_no_byte_meets_or_is_too_many_is_unsatisfiable(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        parse_range(header, SIZE)


def test_nothing_has_no_range() -> None:
    with pytest.raises(UnsatisfiableError):
        parse_range("bytes=0-0", 0)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=8),
    st.integers(1, 30),
)
def test_the_spans_are_the_bytes_asked_for_each_once(
    pairs: list[tuple[int, int]], size: int
) -> None:
    asked = [(min(pair), max(pair)) for pair in pairs]
    wanted = {at for first, last in asked for at in range(first, min(last + 1, size))}
    header = "bytes=" + ",".join(f"{first}-{last}" for first, last in asked)

    if not wanted:
        with pytest.raises(UnsatisfiableError):
            parse_range(header, size)
        return
    spans = parse_range(header, size)

    covered = [at for span in spans for at in range(span.start, span.stop)]
    assert sorted(covered) == sorted(wanted)
