"""``holdfast scrub``: what was read back, and what is damaged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from holdfast.cli import exit_codes
from holdfast.cli.scrub import is_damaged
from holdfast.protocol.care import ScrubLap, ScrubPlace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Holdfast


@pytest.mark.nats
def test_scrub_reads_back_what_there_is_and_says_how_much(
    holdfast: Holdfast, tmp_path: Path
) -> None:
    (tmp_path / "photo").write_bytes(b"a photo")
    holdfast("blob", "put", str(tmp_path / "photo"))

    ran = holdfast("scrub", "--start", "--json")
    shown = holdfast("scrub")

    told = json.loads(ran.out)
    [place] = told["places"]
    assert (ran.status, shown.status) == (exit_codes.OK, exit_codes.OK)
    assert place["place"] == told["here"]
    assert (place["last"]["checked"], place["last"]["damaged"]) == (1, 0)
    assert "1 checked" in shown.out.decode()


@pytest.mark.parametrize(
    ("damaged", "healed", "unreadable", "expected"),
    [(0, 0, 0, False), (1, 1, 0, False), (2, 1, 0, True), (0, 0, 1, True)],
)
def test_only_what_is_not_healed_is_damaged(
    damaged: int, healed: int, unreadable: int, *, expected: bool
) -> None:
    lap = ScrubLap(
        began_at="",
        ended_at="",
        checked=9,
        bytes=9,
        damaged=damaged,
        healed=healed,
        unreadable=unreadable,
        found=[],
    )

    for place in (
        ScrubPlace(place="x", worker="", wanted=False, lap=lap, last=None),
        ScrubPlace(place="x", worker="", wanted=False, lap=None, last=lap),
    ):
        assert is_damaged(place) == expected
