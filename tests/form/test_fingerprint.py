"""The fingerprint of a page changes with everything that a walk sees."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.form.fingerprint import FINGERPRINT_BYTES, NEVER_EQUAL, SeenColumns

SEEN: dict[str, Any] = {
    "paths": [b"", b"a", b"b"],
    "kinds": b"\x01\x00\x03",
    "modes": [0o755, 0o644, 0o644],
    "uids": [0, 1, 2**32 - 2],
    "gids": [0, 1, 2],
    "sizes": [0, 2**62, 0],
    "mtimes_ns": [-(2**63) + 1, 2**63 - 1, 0],
    "inodes": [1, 2**64 - 1, 3],
    "ctimes_ns": [1, 2, 3],
    "links": {2: b"a"},
}


def fingerprint(**seen: Any) -> bytes:
    return SeenColumns(**seen).fingerprint


def test_a_fingerprint_is_the_same_for_the_same_tree() -> None:
    same = {key: value if key == "links" else value[:] for key, value in SEEN.items()}

    assert fingerprint(**same) == fingerprint(**SEEN)
    assert len(fingerprint(**SEEN)) == FINGERPRINT_BYTES
    assert fingerprint(**SEEN) != NEVER_EQUAL


@pytest.mark.parametrize(
    "change",
    [
        {"paths": [b"", b"a", b"c"]},
        {"paths": [b"", b"aa", b""]},
        {"kinds": b"\x01\x00\x00"},
        {"modes": [0o755, 0o644, 0o645]},
        {"uids": [0, 1, 3]},
        {"gids": [0, 1, 3]},
        {"sizes": [0, 2**62 - 1, 0]},
        {"mtimes_ns": [-(2**63) + 1, 2**63 - 1, 1]},
        {"inodes": [1, 2**64 - 2, 3]},
        {"ctimes_ns": [1, 2, 4]},
        {"links": {2: b"b"}},
        {"links": {1: b"a"}},
        {"links": {}},
    ],
)
def test_a_fingerprint_differs_with_anything_that_differs(change: dict[str, Any]) -> None:
    assert fingerprint(**{**SEEN, **change}) != fingerprint(**SEEN)


def test_equal_columns_in_each_others_place_differ() -> None:
    swapped = {**SEEN, "uids": SEEN["gids"], "gids": SEEN["uids"]}

    assert fingerprint(**swapped) != fingerprint(**SEEN)
