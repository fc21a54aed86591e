"""The index of a blob finds each part, survives being written down, and is checked when read."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.chunk_index import ChunkIndex, build_index
from holdfast.domain.limits import MAX_INDEX_ENTRIES
from holdfast.errors import CorruptError

# Steps repeat, as they do when an upload is alone on the stream.
rising_sequences = st.lists(
    st.tuples(st.integers(min_value=1, max_value=1000), st.integers(min_value=1, max_value=20)),
    min_size=1,
    max_size=30,
).map(lambda runs: list(accumulate(step for step, count in runs for _ in range(count))))


@given(rising_sequences, st.integers(min_value=1, max_value=50))
def test_an_index_reads_back_as_it_was_written(sequences: list[int], max_entries: int) -> None:
    index = build_index(sequences, max_entries)

    read = ChunkIndex.written(index.text)
    assert (read.stride, read.sequences) == (index.stride, index.sequences)
    assert read == index


@given(rising_sequences)
def test_the_first_part_is_found_without_reading_the_rest(sequences: list[int]) -> None:
    index = ChunkIndex.written(build_index(sequences).text)

    assert index.locate(0) == (0, sequences[0])


@given(rising_sequences, st.integers(min_value=1, max_value=50))
def test_a_coarser_index_says_the_same_of_fewer_parts(
    sequences: list[int], max_entries: int
) -> None:
    index = build_index(sequences, max_entries)

    coarser = index.coarser()

    assert coarser.stride == 2 * index.stride
    assert coarser.sequences == index.sequences[::2]
    for part in range(len(sequences)):
        first, sequence = coarser.locate(part)
        assert sequences[first] == sequence


@given(rising_sequences, st.integers(min_value=1, max_value=50))
def test_an_index_keeps_within_its_limit(sequences: list[int], max_entries: int) -> None:
    index = build_index(sequences, max_entries)

    assert 1 <= len(index.sequences) <= max_entries
    # It is no sparser than it must be.
    assert index.stride == 1 or len(sequences) > max_entries * index.stride // 2


@given(st.data(), rising_sequences, st.integers(min_value=1, max_value=50))
def test_a_part_lies_where_the_index_says(
    data: st.DataObject, sequences: list[int], max_entries: int
) -> None:
    part = data.draw(st.integers(min_value=0, max_value=len(sequences) - 1))
    index = build_index(sequences, max_entries)

    entry_part, sequence = index.locate(part)
    first_possible, first_impossible = index.bounds(part)

    assert entry_part <= part < entry_part + index.stride
    assert sequence == sequences[entry_part] == first_possible
    assert first_possible <= sequences[part]
    assert first_impossible is None or sequences[part] < first_impossible


def test_a_part_beyond_the_end_is_looked_for_after_the_last_entry() -> None:
    index = build_index([10, 20, 30])

    assert index.locate(99) == (2, 30)
    assert index.bounds(99) == (30, None)


def test_a_part_between_two_entries_lies_between_their_sequences() -> None:
    index = build_index([10, 11, 20, 21, 30], max_entries=3)

    assert index == ChunkIndex(stride=2, sequences=(10, 20, 30))
    assert index.locate(1) == (0, 10)
    assert index.bounds(1) == (10, 20)
    assert index.bounds(4) == (30, None)


@pytest.mark.parametrize(
    ("index", "written"),
    [
        pytest.param(build_index([]), "1;0;", id="no parts"),
        pytest.param(build_index([7]), "1;7;", id="one part"),
        pytest.param(build_index(range(7, 17)), "1;7;1x9", id="alone on the stream"),
        pytest.param(build_index([1, 2, 4, 6, 9]), "1;1;1,2x2,3", id="among others"),
        pytest.param(build_index(range(1, 9), max_entries=4), "2;1;2x3", id="every other part"),
        pytest.param(
            build_index(range(1, 64 * 1024 * 1024 + 1, 1024)), "16;1;16384x4095", id="16 GiB"
        ),
    ],
)
def test_the_written_form_never_changes(index: ChunkIndex, written: str) -> None:
    # These texts are in buckets: an index written by an older version must stay readable.
    assert index.text == written
    assert ChunkIndex.written(written).sequences == index.sequences
    assert ChunkIndex.written(written).stride == index.stride


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(";;", id="no numbers"),
        pytest.param("1;1", id="cut short"),
        pytest.param("0;1;", id="stride of nothing"),
        pytest.param("1;0;1", id="entries after none"),
        pytest.param("1;1;0", id="a step of nothing"),
        pytest.param("1;1;1x0", id="a run of nothing"),
        pytest.param("1;1;-1", id="backwards"),
        pytest.param("-1;1;1", id="negative stride"),
        pytest.param("1;1;1,", id="trailing comma"),
        pytest.param("1;1;1,,1", id="double comma"),
        pytest.param("1;1;x3", id="a run without a step"),
        pytest.param("1;1;1x", id="a run without a count"),
        pytest.param("1;1;1x2x3", id="two counts"),
        pytest.param("1;1;1\n", id="trailing newline"),
        pytest.param(" 1;1;1", id="leading space"),
        pytest.param("1;1;1;1", id="one field too many"),
        pytest.param("1.0;1;1", id="a fraction"),
        pytest.param("1;\N{ARABIC-INDIC DIGIT ONE};1", id="digit of another script"),
        pytest.param("1;1;\0", id="NUL"),
        pytest.param("1" * 13 + ";1;1", id="huge stride"),
        pytest.param("1;" + "1" * 21 + ";1", id="huge sequence"),
        pytest.param("1;18446744073709551615;1", id="beyond the last sequence a stream can have"),
        pytest.param(f"1;1;1x{MAX_INDEX_ENTRIES}", id="one entry too many"),
        pytest.param("1;1;1x999999", id="far too many entries"),
        pytest.param("1;1;" + "1," * MAX_INDEX_ENTRIES + "1", id="too many runs"),
    ],
)
def test_an_unreadable_index_is_corrupt(text: str) -> None:
    with pytest.raises(CorruptError):
        _ = ChunkIndex.written(text).sequences


def test_the_largest_index_is_readable() -> None:
    index = ChunkIndex.written(f"1;1;1x{MAX_INDEX_ENTRIES - 1}")

    assert len(index.sequences) == MAX_INDEX_ENTRIES


def test_the_last_sequence_that_a_stream_can_have_is_readable() -> None:
    assert ChunkIndex.written("1;18446744073709551614;1").sequences[-1] == 2**64 - 1


@given(st.text(alphabet="0123456789;,x", max_size=40))
def test_whatever_is_found_reads_as_a_rising_index_or_is_corrupt(text: str) -> None:
    try:
        index = ChunkIndex.written(text)
        _ = index.sequences
    except CorruptError:
        return

    assert index.stride > 0
    assert len(index.sequences) <= MAX_INDEX_ENTRIES
    assert list(index.sequences) == sorted(set(index.sequences))
    again = ChunkIndex.written(ChunkIndex(index.stride, index.sequences).text)
    assert again.sequences == index.sequences
