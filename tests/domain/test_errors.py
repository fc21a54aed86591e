"""The closed list of failures is part of the wire: codes, statuses and what to do about them."""

from __future__ import annotations

import pytest

from holdfast.errors import ERRORS, HoldfastError, InternalError, error_for

# As released. A row may be added; none may change.
RELEASED = {
    "invalid": (400, False),
    "forbidden": (403, False),
    "not_found": (404, False),
    "conflict": (409, False),
    "too_large": (413, False),
    "rate_limited": (429, True),
    "internal": (500, False),
    "corrupt": (500, False),
    "unavailable": (503, True),
    "outcome_unknown": (504, True),
    "quota_exceeded": (507, False),
}


def test_codes_keep_their_status_and_whether_to_repeat() -> None:
    assert {error.code: (error.status, error.retryable) for error in ERRORS} == RELEASED


def test_every_failure_is_in_the_list_once() -> None:
    assert sorted(ERRORS, key=repr) == sorted(HoldfastError.__subclasses__(), key=repr)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_a_code_finds_its_failure(error: type[HoldfastError]) -> None:
    found = error_for(error.code, "why")

    assert type(found) is error
    assert found.detail == str(found) == "why"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_a_failure_without_detail_says_its_title(error: type[HoldfastError]) -> None:
    assert error().detail == str(error()) == error.title


def test_a_code_of_a_later_version_is_internal() -> None:
    assert type(error_for("teapot", "short and stout")) is InternalError
