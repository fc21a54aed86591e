"""What is known of a change that is refused again and again."""

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

    for one in refusals:
        conflicts.note(one)
        await conflicts.wait()

    assert type(conflicts.failure()) is failure


@pytest.mark.fault("P05")
@pytest.mark.parametrize("failure", [UnavailableError, QuotaExceededError])
def test_what_may_have_been_applied_stays_unknown_whatever_fails_afterwards(
    failure: type[HoldfastError],
) -> None:
    sure, unsure = Conflicts(), Conflicts()
    sure.note(refused())
    unsure.trying = "nuid"
    unsure.note(refused(certain=False))

    with pytest.raises(failure), sure.telling():
        raise failure
    with pytest.raises(OutcomeUnknownError), unsure.telling():
        raise failure

    assert (sure.tried, unsure.tried) == ("", "nuid")


def test_a_refusal_for_another_reason_is_told_as_what_it_is_if_that_is_sure() -> None:
    with pytest.raises(QuotaExceededError):
        Conflicts().note(refused(FULL))
    with pytest.raises(OutcomeUnknownError):
        Conflicts().note(refused(FULL, certain=False))


async def test_nobody_waits_past_the_deadline() -> None:
    conflicts = Conflicts()
    conflicts.note(refused(WRITE_IN_FLIGHT))

    with deadline(0.001), pytest.raises(UnavailableError):
        await conflicts.wait()
