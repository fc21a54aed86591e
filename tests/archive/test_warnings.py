"""Warnings are counted all, and the first of them kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from holdfast.archive.warnings import Warnings
from holdfast.form.terms import MAX_WARNINGS, EntryWarning


def test_only_the_first_warnings_are_kept_but_all_are_counted() -> None:
    warnings = Warnings()

    for number in range(MAX_WARNINGS + 1):
        warnings(EntryWarning(kind="skipped", path=b"%d" % number))

    assert [warning.path for warning in warnings.first] == [b"%d" % n for n in range(MAX_WARNINGS)]
    assert warnings.count == MAX_WARNINGS + 1


def test_what_is_so_of_all_entries_is_told_once_by_however_many_threads() -> None:
    warnings = Warnings()
    told = [b"%d" % number for number in range(200)]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda path: warnings.add_once("owner", path, "why"), told))
        list(threads.map(lambda path: warnings.add("mode", path, "why"), told))

    assert warnings.count == 201
    assert [warning.kind for warning in warnings.first].count("owner") == 1
