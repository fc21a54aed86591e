"""The index of digests finds what a dict would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.digest import Digest, digest_of
from holdfast.form.digest_index import DigestIndex

# Few beginnings, so that digests meet in one piece; and one that repeats itself byte for byte.
digests = st.one_of(
    st.integers(0, 300).map(lambda number: digest_of(b"%d" % number)),
    st.sampled_from(("00" * 32, "ff" * 32, "ab" * 32, "ab" * 31 + "ac")).map(Digest),
    st.integers(0, 2**40).map(lambda number: Digest(f"abc{number:061x}")),
)
prefixes = st.one_of(st.text("0123456789abcdef", min_size=1, max_size=5), digests)


@given(
    noted=st.lists(st.tuples(digests, st.integers(0, 2**64 - 1)), max_size=60),
    prefix=prefixes,
    after=st.one_of(st.just(""), digests),
    limit=st.integers(1, 20),
)
def test_what_begins_with_some_digits_is_found_in_order(
    noted: list[tuple[Digest, int]], prefix: str, after: str, limit: int
) -> None:
    index, model = DigestIndex(), dict[Digest, int]()
    for digest, number in noted:
        index.note(digest, number)
        model[digest] = number

    found = index.find(prefix, after, limit)

    expected = sorted(item for item in model.items() if item[0].startswith(prefix))
    assert found == [item for item in expected if item[0] > after][:limit]
    assert len(index) == len(model)


@given(noted=st.sets(digests, max_size=60), prefix=st.sampled_from(("a", "ab", "abc", "0", "f")))
def test_pages_add_up(noted: set[Digest], prefix: str) -> None:
    index = DigestIndex()
    for digest in noted:
        index.note(digest, 7)
    found: list[Digest] = []

    while page := index.find(prefix, found[-1] if found else "", 3):
        found += [digest for digest, _ in page]

    assert found == sorted(digest for digest in noted if digest.startswith(prefix))
