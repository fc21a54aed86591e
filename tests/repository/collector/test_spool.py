"""What a run has met is in a file, which goes with the run or with its process."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from holdfast.domain.digest import Digest, digest_of
from holdfast.repository.collector.spool import Spool
from holdfast.stores.ports import SurveyedBlob

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEEN_AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def blob(number: int, *, mark: str = "1") -> SurveyedBlob:
    """A blob of so many bytes."""
    return SurveyedBlob(
        digest=digest_of(b"%d" % number),
        generation=f"g{number}",
        size=number,
        pinned=False,
        seen_at=SEEN_AT,
        mark=mark,
    )


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty one."""
    spool = Spool(tmp_path)
    yield spool
    spool.close()


def all_unneeded(spool: Spool, limit: int) -> list[SurveyedBlob]:
    """Page by page."""
    found: list[SurveyedBlob] = []
    after: Digest | None = None
    while page := spool.unneeded(after, limit):
        assert len(page) <= limit
        found += page
        after = page[-1].digest
    return found


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_what_is_not_needed_comes_back_as_it_was_met(spool: Spool, limit: int) -> None:
    blobs = [blob(number) for number in range(10)]
    spool.add(blobs)
    spool.need([blobs[3].digest, blobs[7].digest, digest_of(b"of no candidate")])

    found = all_unneeded(spool, limit)

    assert found == sorted(
        (one for one in blobs if one.size not in {3, 7}), key=lambda one: one.digest
    )
    assert spool.needed() == (2, 10)


def test_of_a_blob_that_is_met_twice_the_latter_counts(spool: Spool) -> None:
    spool.add([blob(1, mark="1")])
    spool.add([blob(1, mark="2")])

    assert all_unneeded(spool, 10) == [blob(1, mark="2")]


def test_keys_and_roots_are_counted_once(spool: Spool) -> None:
    roots = sorted(digest_of(b"%d" % number) for number in range(5))
    for _ in range(2):
        spool.meet(["s.a", "s.b"], roots)

    assert spool.met() == 2
    assert spool.roots(None, 3) == roots[:3]
    assert spool.roots(roots[2], 3) == roots[3:]


def test_each_source_begins_with_no_record_and_no_root(spool: Spool) -> None:
    spool.add([blob(1)])
    spool.meet(["s.a"], [blob(1).digest])
    spool.need([blob(1).digest])

    spool.begin_source()

    assert (spool.met(), spool.roots(None, 3)) == (0, [])
    assert spool.needed() == (1, 1)


def test_its_file_has_no_name(spool: Spool, tmp_path: Path) -> None:
    spool.add([blob(1)])

    assert os.listdir(tmp_path) == []
