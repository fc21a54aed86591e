"""How the record of a state follows on another, whoever was between the look and the change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import pytest

from holdfast.errors import ConflictError, UnavailableError
from holdfast.repository.states.record import (
    LEAST_SAVES,
    MAX_SAVES,
    CarriedOp,
    Closing,
    KeepPolicy,
    SaveEntry,
    StateRecord,
    TrimmedOps,
    Void,
    check_same,
    closed,
    finders_beside,
    kept_saves,
    removed,
    saved,
    trimmed,
    with_log,
    without_save,
)
from holdfast.stores.record_ports import Delete, Put

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)


def entry(index: int, *, number: int = 0, digest: str = "d", at: datetime = NOW) -> SaveEntry:
    return SaveEntry(
        number=number,
        digest=digest,
        size=1,
        kind="json",
        last_applied_index=index,
        at=at.isoformat(),
        op=f"{digest}{index}",
    )


def log_at(through: int, *indexes: int) -> StateRecord:
    """A record with a log that was trimmed so far, and saves, the newest first."""
    saves = tuple(entry(index, number=len(indexes) - n) for n, index in enumerate(indexes))
    return StateRecord(name="s", log="l", trimmed_through=through, saves=saves, number=len(indexes))


def test_a_log_is_begun_once_and_behind_what_saves_include() -> None:
    first = with_log(StateRecord(name="s", saves=(entry(7),)), name="s", log="l")

    assert (first.log, first.base, first.trimmed_through) == ("l", 7, 7)
    assert with_log(first, name="s", log="other") is first


def test_a_save_of_a_log_that_is_another_by_now_is_not_made() -> None:
    record = log_at(0)

    for lineage in (("other", 0, 0), ("l", 9, 0), ("l", 0, 9)):
        with pytest.raises(UnavailableError):
            saved(record, "s", entry(1), lineage=lineage, force=True, at=NOW)


def test_a_save_of_a_state_without_a_log_that_was_removed_meanwhile_is_not_made() -> None:
    before = StateRecord(name="s", saves=(entry(5),))
    begun = removed(before, "op x", start=0)

    with pytest.raises(UnavailableError):
        saved(begun, "s", entry(6), lineage=before.lineage, force=True, at=NOW)


def test_a_save_below_what_was_trimmed_meanwhile_is_not_made() -> None:
    record = log_at(10, 12, 11)

    with pytest.raises(UnavailableError):
        saved(record, "s", entry(9), lineage=record.lineage, force=True, at=NOW)


def test_a_save_knows_the_one_before_and_is_made_once() -> None:
    record = log_at(0, 3)

    made = saved(record, "s", entry(4, digest="e"), lineage=record.lineage, force=False, at=NOW)

    assert [save.number for save in made.saves] == [2, 1]
    assert made.saves[0].previous == "d"
    assert saved(made, "s", entry(4, digest="e"), lineage=("", 0, 0), force=False, at=NOW) is made
    with pytest.raises(ConflictError):
        saved(made, "s", entry(3, digest="f"), lineage=made.lineage, force=False, at=NOW)


def test_a_trim_that_a_forced_save_of_before_came_between_is_not_made() -> None:
    record = log_at(0, 10, 10)
    older = saved(record, "s", entry(5), lineage=record.lineage, force=True, at=NOW)

    with pytest.raises(UnavailableError):
        trimmed(older, record, 8, ())
    assert trimmed(older, record, 5, ()).trimmed_through == 5
    assert trimmed(record, record, 0, ()) is record


def test_a_trim_does_not_forget_the_op_ids_of_one_that_came_between() -> None:
    record = log_at(0, 10, 10)
    ops = (TrimmedOps(at=NOW.isoformat(), ops=(CarriedOp("op", 1, 1, "hlc"),)),)
    other = trimmed(record, record, 5, ops)

    with pytest.raises(UnavailableError):
        trimmed(other, record, 6, ())
    assert trimmed(other, other, 6, ops).trimmed_ops == ops


def test_some_saves_are_kept_in_any_case_and_never_more_than_so_many() -> None:
    old = [entry(n, number=n, at=NOW - timedelta(days=n)) for n in range(MAX_SAVES + 9)]
    saves = tuple(old)

    assert len(kept_saves(saves, KeepPolicy(keep=1), NOW)) == LEAST_SAVES
    assert len(kept_saves(saves, KeepPolicy(keep=1000), NOW)) == MAX_SAVES
    assert len(kept_saves(saves, KeepPolicy(keep=2, keep_seconds=86400 * 5), NOW)) == 6


def test_what_ends_a_log_is_carried_out_once() -> None:
    record = log_at(0, 3, 2)

    gone = closed(record, "l", Closing(op="op"), 50)

    assert not gone.exists
    assert (gone.start, gone.number, gone.ended_by) == (50, 2, ("op",))
    begun = with_log(gone, name="s", log="m")
    assert closed(begun, "l", Closing(op="op"), 50) is begun


def test_a_repair_takes_back_groups_and_the_saves_that_include_them() -> None:
    record = log_at(0, 5, 2)

    cut = closed(record, "l", Closing(index=3, after=30, next_log="l"), 60)

    assert cut.voids == (Void(after=30, through=60, index=3),)
    assert [save.last_applied_index for save in cut.saves] == [2]
    assert cut.lineage != record.lineage
    again = closed(cut, "l", Closing(index=2, after=20, next_log="l"), 90)
    assert again.voids == (Void(after=20, through=90, index=2),)
    assert again.lineage != cut.lineage
    assert closed(again, "l", Closing(index=3, after=30, next_log="l"), 60) is again


@pytest.mark.parametrize("after", [30, None])
def test_a_repair_whose_beginning_was_trimmed_meanwhile_is_void_and_takes_back_nothing(
    after: int | None,
) -> None:
    record = log_at(6, 9, 8)
    closing = Closing(index=5, after=after, behind=(50, 11), next_log="l", op="op x")

    left = closed(record, "l", closing, 60)

    assert left.voids == (Void(after=50, through=60, index=11, is_vain=True),)
    assert (left.log, left.saves, left.ended_by) == ("l", record.saves, ())
    assert closed(left, "l", closing, 60) is left
    check_same(record.lineage, left, 999)
    assert closed(left, "l", Closing(index=9, after=40, next_log="l"), 70).voids[-1].index == 9


def test_a_repair_behind_a_save_begins_a_log_there() -> None:
    cut = closed(log_at(0, 5), "l", Closing(index=5, next_log="m"), 60)

    assert (cut.log, cut.start, cut.base, cut.trimmed_through) == ("m", 60, 5, 5)


def test_a_log_that_a_repair_begins_does_not_have_what_was_trimmed_from_the_one_before() -> None:
    ops = (TrimmedOps(at=NOW.isoformat(), ops=(CarriedOp("op", 6, 1, "hlc"),)),)
    record = msgspec.structs.replace(log_at(8, 9, 5), trimmed_ops=ops)

    assert closed(record, "l", Closing(index=8, after=30, next_log="l"), 60).trimmed_ops == ops
    assert closed(record, "l", Closing(index=5, next_log="m"), 60).trimmed_ops == ()


def test_keys_of_blobs_come_and_go_with_the_saves_that_have_them() -> None:
    before = StateRecord(name="a/b", saves=(entry(1, digest="x"), entry(1, digest="y")))
    after = StateRecord(name="a/b", saves=(entry(1, digest="y"), entry(2, digest="z")))

    assert {(type(one), one.key) for one in finders_beside(before, after)} == {
        (Put, "sb.z.a.b"),
        (Delete, "sb.x.a.b"),
    }
    assert finders_beside(after, after) == []


def test_a_save_is_taken_back_by_its_number() -> None:
    record = log_at(0, 3, 2)

    assert [save.number for save in without_save(record, 2).saves] == [1]
    assert without_save(record, 9) is record
