"""``holdfast scrub``: what was read back, and what is damaged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.deployment import Deployment

from holdfast.cli.base import exit_codes
from holdfast.cli.care.scrub import is_damaged
from holdfast.protocol.care import ScrubLap, ScrubPlace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Holdfast

    from holdfast.runtime.embedded import EmbeddedServer


@pytest.fixture(scope="module")
def worker_connection(nats_server: EmbeddedServer, apps: Path) -> Iterator[tuple[str, ...]]:
    """The flags that reach a worker of a store in which no other module has anything."""
    with Deployment(nats_server.url) as deployment:
        deployment.start("one", apps=str(apps))
        yield ("--server", deployment.url, "--prefix", deployment.prefix)
        assert deployment.stop("one") == 0


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
    assert place["last"]["checked"] >= 1  # others' blobs are there, too
    assert place["last"]["damaged"] == 0
    assert f"{place['last']['checked']} checked" in shown.out.decode()


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


@pytest.mark.nats
def test_doctor_says_what_is_wrong_and_what_to_do(holdfast: Holdfast) -> None:
    told = json.loads(holdfast("doctor", "--json").out)
    checked = holdfast("doctor", "--check")

    assert told["done"]
    assert {one["severity"] for one in told["findings"]} <= {"note", "warning"}
    assert checked.status == exit_codes.OK
    assert [line for line in checked.lines if line.startswith("note: ")]


@pytest.mark.nats
def test_usage_is_told_by_app_by_prefix_and_by_label(
    holdfast: Holdfast, tmp_path: Path, apps: Path
) -> None:
    (tmp_path / "photo").write_bytes(b"a photo")
    (apps / "blog").mkdir()
    (apps / "blog" / "page").write_bytes(b"a page" * 1000)
    holdfast("name", "put", "photos/2026/one", str(tmp_path / "photo"), "--label", "kind=photo")
    made = holdfast("snapshot", "create", "blog", "--label", "kind=page", "--json")
    assert made.status == exit_codes.OK

    by_app = json.loads(holdfast("usage", "--json").out)
    by_prefix = json.loads(holdfast("usage", "--by", "prefix", "--depth", "2", "--json").out)
    below = json.loads(holdfast("usage", "photos/", "--by", "prefix", "--json").out)
    by_label = holdfast("usage", "--by", "label")

    [blog] = by_app["rows"]
    assert (blog["group"], blog["items"], blog["logical"]) == ("blog", 1, 6000)
    assert blog["stored"] > 0
    assert by_prefix["rows"] == [
        {"group": "photos/2026/", "items": 1, "logical": 7, "stored": 7, "shared": 0}
    ]
    assert [row["group"] for row in below["rows"]] == ["photos/2026/"]
    assert {line.split()[0] for line in by_label.lines[1:3]} == {"kind=page", "kind=photo"}
    assert [line.split()[0] for line in by_label.lines[-2:]] == ["packs", "blobs"]
