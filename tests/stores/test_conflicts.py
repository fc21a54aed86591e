"""A change that is refused again and again, and its outcome as known."""

from __future__ import annotations

import pytest

from holdfast.deadline import deadline
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.stores.jetstream.conflicts import Conflicts
from holdfast.transport.jetstream_messages import (
    WRITE_IN_FLIGHT,
    WRONG_LAST_SEQUENCE,
    ApiError,
    RefusedError,
)

FULL = 10077


def refused(code: int = WRONG_LAST_SEQUENCE, *, certain: bool = True) -> RefusedError:
    """A refusal; not ``certain`` after an attempt that timed out."""
    return RefusedError(ApiError(err_code=code), certain=certain)


@pytest.mark.parametrize(
    ("refusals", "failure"),
    [
        ([refused()], ConflictError),
        ([refused(), refused(WRITE_IN_FLIGHT)], UnavailableError),
        ([refused(WRITE_IN_FLIGHT), refused()], ConflictError),
        ([refused(certain=False)], OutcomeUnknownError),
        ([refused(certain=False), refused()], OutcomeUnknownError),
        ([refused(WRITE_IN_FLIGHT, certain=False)], OutcomeUnknownError),
    ],
    ids=["lost", "in flight", "lost after all", "after a time-out", "once", "both"],
)
async def test_in_the_end_no_more_is_said_than_is_known(
    refusals: list[RefusedError], failure: type[HoldfastError]
) -> None:
    conflicts = Conflicts()

    for sequence, one in enumerate(refusals):
        conflicts.note(one, sequence)
        await conflicts.wait()

    assert type(conflicts.failure()) is failure


def test_waiting_for_a_write_under_way_uses_up_no_attempt_to_read_it_afterwards() -> None:
    conflicts = Conflicts()
    for _ in range(7):
        conflicts.note(refused(WRITE_IN_FLIGHT), 1)

    conflicts.note(refused(), 2)
    assert not conflicts.are_too_many()

    conflicts.note(refused(WRITE_IN_FLIGHT), 3)
    assert conflicts.are_too_many()
    assert type(conflicts.failure()) is UnavailableError


async def test_who_is_refused_by_a_write_that_cannot_be_read_is_not_said_to_be_overtaken() -> None:
    conflicts = Conflicts()

    for sequence in (7, 7):
        conflicts.note(refused(), sequence)
        await conflicts.wait()

    assert type(conflicts.failure()) is UnavailableError
    conflicts.note(refused(), 8)
    assert type(conflicts.failure()) is ConflictError


@pytest.mark.fault("P05")
@pytest.mark.parametrize("failure", [UnavailableError, QuotaExceededError])
def test_what_may_have_been_applied_stays_unknown_whatever_fails_afterwards(
    failure: type[HoldfastError],
) -> None:
    sure, unsure = Conflicts(), Conflicts()
    sure.note(refused(), 1)
    unsure.trying = "nuid"
    unsure.note(refused(certain=False), 1)

    with pytest.raises(failure), sure:
        raise failure
    with pytest.raises(OutcomeUnknownError), unsure:
        raise failure

    assert (sure.tried, unsure.tried) == ("", "nuid")


def test_a_refusal_for_another_reason_is_told_as_what_it_is_if_that_is_sure() -> None:
    with pytest.raises(QuotaExceededError):
        Conflicts().note(refused(FULL), 1)
    with pytest.raises(OutcomeUnknownError):
        Conflicts().note(refused(FULL, certain=False), 1)


async def test_nobody_waits_past_the_deadline() -> None:
    conflicts = Conflicts()
    conflicts.note(refused(WRITE_IN_FLIGHT), 1)

    with deadline(0.001), pytest.raises(UnavailableError):
        await conflicts.wait()
