"""Exit statuses are a promise to scripts."""

from __future__ import annotations

import pytest

from holdfast.cli.base.exit_codes import EXIT_CODES, exit_code_of
from holdfast.errors import ERRORS, HoldfastError


def test_every_error_has_its_exit_status() -> None:
    assert EXIT_CODES.keys() == {error.code for error in ERRORS}


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("internal", 1),
        ("invalid", 2),
        ("not_found", 3),
        ("conflict", 4),
        ("corrupt", 5),
        ("unavailable", 6),
        ("outcome_unknown", 6),
        ("forbidden", 7),
        ("quota_exceeded", 8),
    ],
)
def test_an_exit_status_never_changes_its_meaning(code: str, status: int) -> None:
    error = next(error for error in ERRORS if error.code == code)

    assert exit_code_of(error()) == status


def test_an_error_of_a_newer_version_is_a_failure() -> None:
    class NewError(HoldfastError):
        code = "something_new"

    assert exit_code_of(NewError()) == 1
