"""A run keeps what it has met in a file, which goes with the run or with its process."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from holdfast.domain.collection import Need
from holdfast.domain.digest import digest_of
from holdfast.repository.collector.spool import Spool
from holdfast.stores.ports import SurveyedBlob

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.domain.kept import Ranges

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
def spool() -> Iterator[Spool]:
    """An empty one."""
    spool = Spool()
    yield spool
    spool.close()


def candidates(spool: Spool, limit: int = 100) -> list[tuple[SurveyedBlob, Ranges | None]]:
    """Page by page."""
    spool.settle()
    found: list[tuple[SurveyedBlob, Ranges | None]] = []
    after = 0
    while page := spool.candidates(after, limit):
        assert len(page) <= limit
        found += [(one.blob, one.needed) for one in page]
        after = page[-1].number
    return found


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_blobs_come_back_as_they_were_met_with_what_is_needed_of_them(
    spool: Spool, limit: int
) -> None:
    blobs = [blob(number) for number in range(10)]
    spool.add(blobs[:5])
    spool.add(blobs[5:])
    spool.need([Need(blobs[3].digest), Need(blobs[7].digest), Need(digest_of(b"of none"))])
    spool.need([Need(blobs[5].digest, ((0, 1), (3, 4))), Need(blobs[3].digest, ((0, 1),))])
    spool.need([Need(blobs[5].digest, ((1, 2),)), Need(digest_of(b"of none"), ((1, 2),))])

    found = candidates(spool, limit)

    needed: dict[int, Ranges | None] = {3: None, 7: None, 5: ((0, 2), (3, 4))}
    assert found == [(one, needed.get(one.size, ())) for one in blobs]


def test_what_very_many_need_of_one_blob_is_joined(spool: Spool) -> None:
    spool.add([blob(1)])
    for start in range(200):
        spool.need([Need(blob(1).digest, tuple((at, at + 1) for at in range(start, 4000, 2)))])

    assert candidates(spool) == [(blob(1), ((0, 4000),))]


def test_parts_of_roots_are_news_once(spool: Spool) -> None:
    assert spool.news([b"a", b"b"]) == [True, True]
    assert spool.news([b"b", b"c", b"c"]) == [False, True, False]


def test_of_a_blob_that_is_met_twice_the_latter_counts(spool: Spool) -> None:
    spool.add([blob(1, mark="1")])
    spool.add([blob(1, mark="2")])

    assert candidates(spool) == [(blob(1, mark="2"), ())]


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
    spool.need([Need(blob(1).digest)])

    spool.begin_source()

    assert (spool.met(), spool.roots(None, 3)) == (0, [])
    assert candidates(spool) == [(blob(1), None)]


def test_its_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    with closing(Spool()) as spool:
        spool.add([blob(1)])

        assert os.listdir(tmp_path) == []
