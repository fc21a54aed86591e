"""The findings about a deployment, and how bad they are."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holdfast.domain.findings import (
    MANY_TOMBSTONES,
    StreamCount,
    of_clocks,
    of_replicas,
    of_store,
    of_tombstones,
)
from holdfast.domain.store_state import BucketState, Durability, StoreState

BUCKET = BucketState(bucket="blobs", stream="OBJ_blobs", kind="objects")


@pytest.mark.parametrize(
    ("durability", "expected"), [("synced", []), ("unknown", ["note"]), ("lazy", ["warning"])]
)
def test_writes_that_are_not_synced_are_told_where_there_are_servers(
    durability: Durability, expected: list[str]
) -> None:
    state = StoreState(durability=durability, buckets=(BUCKET,))

    assert [one.severity for one in of_store(state)] == expected
    assert list(of_store(StoreState(durability=durability))) == []


def test_each_problem_of_the_store_is_an_error_and_each_advice_a_warning() -> None:
    state = StoreState(durability="synced", problems=("one", "two"), advice=("three",))

    assert [(one.kind, one.severity, one.text) for one in of_store(state)] == [
        ("store", "error", "one"),
        ("store", "error", "two"),
        ("old_server", "warning", "three"),
    ]


@pytest.mark.parametrize(
    ("size", "most", "told"), [(89, 100, False), (90, 100, True), (10**9, -1, False)]
)
def test_a_bucket_that_is_nearly_full_is_told(size: int, most: int, *, told: bool) -> None:
    bucket = BucketState(bucket="b", stream="OBJ_b", kind="objects", bytes=size, max_bytes=most)
    state = StoreState(durability="synced", buckets=(bucket,))

    assert [one.kind for one in of_store(state)] == (["nearly_full"] if told else [])


def count(server: str, **fields: int) -> StreamCount:
    """A server's account of its copy."""
    told = {"last": 9, "messages": 5, "bytes": 50, "deleted": 4, **fields}
    return StreamCount(server=server, stream="OBJ_blobs", **told)


def test_copies_differ_that_have_come_equally_far_and_do_not_hold_the_same() -> None:
    same = [count("a"), count("b"), count("c", last=8, messages=4)]
    differing = [*same, count("d", messages=3, deleted=6)]

    assert list(of_replicas(same)) == []
    assert [one.severity for one in of_replicas(differing)] == ["error"]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, []), (-2, []), (3, ["note"]), (-60, ["note"]), (61, ["error"])]
)
def test_a_clock_that_is_off_is_told_and_is_an_error_once_nothing_is_removed_by_it(
    seconds: int, expected: list[str]
) -> None:
    found = of_clocks({"node": timedelta(seconds=seconds)})

    assert [one.severity for one in found] == expected


def test_many_notes_of_what_was_deleted_are_told() -> None:
    assert list(of_tombstones("names", MANY_TOMBSTONES - 1)) == []
    assert [one.kind for one in of_tombstones("names", MANY_TOMBSTONES)] == ["tombstones"]
