"""Where runs and pages are cut depends on what is at the cut, so changes stay local."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples
from tests.form.plans import Own, Run, member_size, plan_page

from holdfast.form.layout import (
    CHUNKED_BYTES,
    MAX_PAGE_WEIGHT,
    MAX_RUN_BYTES,
    MIN_PAGE_WEIGHT,
    MIN_RUN_BYTES,
    OWN_FRAME_BYTES,
    TYPICAL_RUN_BYTES,
    cuts_page,
    cuts_run,
    has_own_frame,
    page_weight,
)

Member = tuple[bytes, int, int]
"""Path, size of the header, size of the data."""

data_sizes = st.one_of(
    st.integers(min_value=0, max_value=3000),
    st.sampled_from([OWN_FRAME_BYTES - 1, OWN_FRAME_BYTES, CHUNKED_BYTES - 1, CHUNKED_BYTES]),
)
members = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=10**9).map(lambda n: b"file-%d" % n),
        st.sampled_from([512, 512, 512, 1536, 70_000]),
        data_sizes,
    ),
    max_size=120,
    unique_by=lambda member: member[0],
)


def planned(tree: list[Member]) -> list[Run | Own]:
    """The plan of a page with these members."""
    return plan_page([m[0] for m in tree], [m[1] for m in tree], [m[2] for m in tree])


def contents(tree: list[Member]) -> list[tuple[Member, ...]]:
    """The members of each run."""
    return [tuple(tree[p.start : p.stop]) for p in planned(tree) if isinstance(p, Run)]


@examples(50)
@given(members)
def test_a_plan_holds_every_byte_once(tree: list[Member]) -> None:
    plan = planned(tree)

    assert sum(part.raw_size for part in plan) == sum(member_size(m[1], m[2]) for m in tree)
    runs = [part for part in plan if isinstance(part, Run)]
    assert [index for run in runs for index in range(run.start, run.stop)] == [*range(len(tree))]
    for run in runs:
        inside = tree[run.start : run.stop]
        lying_inside = [(m[1], 0 if has_own_frame(m[2]) else m[2]) for m in inside]
        assert run.raw_size == sum(member_size(*sizes) for sizes in lying_inside)
        assert run.raw_size <= MAX_RUN_BYTES or len(inside) == 1


@examples(50)
@given(members)
def test_large_files_have_frames_of_their_own(tree: list[Member]) -> None:
    plan = planned(tree)

    own = {part.index: part for part in plan if isinstance(part, Own)}
    assert own.keys() == {i for i, m in enumerate(tree) if has_own_frame(m[2])}
    for index, part in own.items():
        before = plan[plan.index(part) - 1]
        assert isinstance(before, Run)
        assert before.stop == index + 1
        assert part.raw_size == member_size(0, tree[index][2])
        assert part.chunked == (tree[index][2] >= CHUNKED_BYTES)


@examples(50)
@given(st.data(), st.integers(min_value=300, max_value=600))
def test_a_new_member_changes_only_the_runs_near_it(data: st.DataObject, count: int) -> None:
    tree = [(b"file-%04d" % n, 512, n * 7919 % 2048) for n in range(count)]
    at = data.draw(st.integers(min_value=0, max_value=count))

    changed = [*tree[:at], (b"file-%04d-new" % at, 512, 900), *tree[at:]]

    before, after = contents(tree), contents(changed)
    lost = [run for run in before if run not in after]
    # A run and its neighbours; rarely a few more until the cuts meet again.
    assert len(lost) <= 6
    assert before[:1] == after[:1] or at < 120


def page_cuts(paths: list[bytes]) -> list[bytes]:
    """The paths before which a page begins."""
    cuts, weight = [], 0
    for path in paths:
        if cuts_page(path, 1, weight):
            cuts.append(path)
            weight = 0
        weight += 1
    return cuts


@examples(10)
@given(st.integers(min_value=0, max_value=19_999))
def test_a_new_member_changes_only_the_pages_near_it(at: int) -> None:
    paths = [b"dir/file-%05d" % n for n in range(20_000)]

    changed = [*paths[:at], b"dir/file-%05d-new" % at, *paths[at:]]

    assert len(set(page_cuts(paths)) ^ set(page_cuts(changed))) <= 6


def test_pages_have_about_a_thousand_members() -> None:
    cuts = page_cuts([b"dir/file-%06d" % n for n in range(100_000)])

    assert 60 <= len(cuts) <= 140


def test_runs_have_a_typical_size() -> None:
    tree = [(b"dir/file-%06d" % n, 512, n * 7919 % 2048) for n in range(5000)]

    sizes = [run.raw_size for run in planned(tree)]

    assert TYPICAL_RUN_BYTES <= sum(sizes) / len(sizes) <= MIN_RUN_BYTES + TYPICAL_RUN_BYTES * 1.5
    assert min(sizes[:-1]) >= MIN_RUN_BYTES


@pytest.mark.parametrize("run_bytes", [0, MIN_RUN_BYTES - 1])
def test_a_short_run_is_not_cut(run_bytes: int) -> None:
    assert not any(cuts_run(b"%d" % n, MAX_RUN_BYTES // 2, run_bytes) for n in range(200))


def test_a_run_is_cut_before_it_grows_too_long() -> None:
    assert cuts_run(b"x", 1024, MAX_RUN_BYTES - 1023)
    assert not cuts_run(b"x", MAX_RUN_BYTES + 1, 0)
    assert sum(cuts_run(b"%d" % n, 512, MAX_RUN_BYTES - 512) for n in range(1000)) < 500


def test_a_page_is_cut_between_its_limits() -> None:
    paths = [b"%d" % n for n in range(20_000)]

    assert not any(cuts_page(path, 1, MIN_PAGE_WEIGHT - 1) for path in paths)
    assert any(cuts_page(path, 1, MIN_PAGE_WEIGHT) for path in paths)
    assert all(cuts_page(path, 1, MAX_PAGE_WEIGHT) for path in paths)
    assert not cuts_page(b"x", 10 * MAX_PAGE_WEIGHT, 0)


def test_a_large_file_weighs_as_much_as_the_frames_it_has() -> None:
    assert [page_weight(size) for size in (0, 2**20 - 1, 2**20, 2**40)] == [1, 1, 2, 2**20 + 1]


def test_pages_of_large_files_are_short() -> None:
    weights = [page_weight(100 * 2**20)] * 500

    paths = [b"%d.bin" % n for n in range(500)]
    starts = [0]
    for index, total in enumerate(accumulate(weights)):
        if index + 1 < 500 and cuts_page(paths[index + 1], 101, total - 101 * starts[-1]):
            starts.append(index + 1)

    assert len(starts) > 20
