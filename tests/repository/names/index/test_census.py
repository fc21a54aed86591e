"""How many keys a store may have, by what its changes told."""

from __future__ import annotations

from holdfast.repository.names.index.census import Census


def census(records: int = 10) -> Census:
    """One that has seen so many records, and no note."""
    found = Census()
    assert found.is_right(records, records=records, removed=0)
    return found


def test_as_many_keys_as_records_are_right() -> None:
    assert census().is_right(10, records=10, removed=0)


def test_a_key_that_nobody_told_of_is_wrong_when_it_is_seen_twice() -> None:
    found = census()

    assert [found.is_right(11, records=10, removed=0) for _ in range(2)] == [True, False]


def test_a_record_that_went_away_untold_is_wrong_when_it_is_missed_twice() -> None:
    found = census()

    assert [found.is_right(9, records=10, removed=0) for _ in range(2)] == [True, False]


def test_once_right_again_nothing_is_wrong() -> None:
    found = census()

    assert [found.is_right(keys, records=10, removed=0) for keys in (11, 10, 11)] == [True] * 3


def test_a_note_of_a_removal_may_be_there_and_may_have_gone() -> None:
    found = census()

    assert found.is_right(10, records=9, removed=1)
    assert found.is_right(10, records=9, removed=0)
    assert found.is_right(9, records=9, removed=0)


def test_when_a_note_has_gone_no_key_may_come_in_its_place() -> None:
    found = census()
    found.is_right(10, records=9, removed=1)
    found.is_right(9, records=9, removed=0)

    assert [found.is_right(10, records=9, removed=0) for _ in range(2)] == [True, False]


def test_records_that_were_written_after_the_store_was_asked_are_not_missed() -> None:
    found = census()

    assert [found.is_right(10, records=15, removed=0) for _ in range(1)] == [True]


def test_what_no_change_ever_told_of_is_allowed_for() -> None:
    found = Census()
    found.is_right(12, records=10, removed=0)

    assert [found.is_right(12, records=10, removed=0) for _ in range(3)] == [True] * 3
    assert [found.is_right(13, records=10, removed=0) for _ in range(2)] == [True, False]
