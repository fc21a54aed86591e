"""The plan of a collection: what may go, what is to be touched, and what was lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.collection import Reason, RootsNote, higher, left_of, loss, to_touch, why_kept
from holdfast.domain.digest import Digest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = timedelta(hours=24)
NOTE = RootsNote(created="a", last=10, keys=5)
digests = st.frozensets(st.sampled_from([Digest(letter * 64) for letter in "abcdef"]))


@pytest.mark.parametrize(
    ("age", "pinned", "reason"),
    [
        (GRACE, False, Reason.YOUNG),
        (GRACE + timedelta(microseconds=1), False, None),
        (timedelta(0), False, Reason.YOUNG),
        (-GRACE, False, Reason.YOUNG),
        (10 * GRACE, True, Reason.PINNED),
    ],
)
def test_what_is_older_than_the_grace_time_and_has_no_pin_may_go(
    age: timedelta, *, pinned: bool, reason: Reason | None
) -> None:
    assert why_kept(pinned=pinned, seen_at=NOW - age, listed_from=NOW, grace=GRACE) == reason


@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_a_blob_of_which_nothing_is_needed_goes_whatever_its_size(size: int) -> None:
    assert left_of((), size) == ()


@given(needed=digests, vouched=digests, found=digests, young=digests)
def test_all_is_touched_but_what_is_young_or_vouched_for_and_not_found(
    needed: frozenset[Digest],
    vouched: frozenset[Digest],
    found: frozenset[Digest],
    young: frozenset[Digest],
) -> None:
    touched = to_touch(sorted(needed), vouched=vouched, found=found, young=young)

    assert touched == sorted(needed - young - (vouched - found))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"created": "b"}, "made anew"),
        ({"last": 9}, "its last change was 10 and is 9"),
        ({"keys": 4}, "it had 5 records and has 4"),
    ],
)
def test_a_store_that_has_less_than_was_noted_has_lost_something(
    change: dict[str, object], text: str
) -> None:
    assert text in (loss(NOTE, msgspec.structs.replace(NOTE, **change)) or "")


@pytest.mark.parametrize("change", [{}, {"last": 11}, {"keys": 6}])
def test_a_store_that_has_as_much_has_lost_nothing(change: dict[str, object]) -> None:
    assert loss(NOTE, msgspec.structs.replace(NOTE, **change)) is None
    assert loss(None, NOTE) is None


@given(last=st.integers(0, 20), keys=st.integers(0, 20))
def test_a_note_only_rises(last: int, keys: int) -> None:
    found = RootsNote(created="a", last=last, keys=keys)

    raised = higher(NOTE, found)

    assert (raised.last, raised.keys) == (max(10, last), max(5, keys))
    assert loss(raised, NOTE) is None or raised != NOTE
    assert higher(None, found) == found


def test_of_a_store_that_was_made_anew_what_is_found_is_noted() -> None:
    found = RootsNote(created="b", last=1, keys=1)

    assert higher(NOTE, found) == found
