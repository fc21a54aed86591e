"""``holdfast snapshot prune``, ``hold``, ``release`` and ``policy``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from holdfast.cli.base import exit_codes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Holdfast

pytestmark = pytest.mark.nats


def created(holdfast: Holdfast, tmp_path: Path, app: str, count: int) -> list[str]:
    """Snapshots of an app, the oldest first."""
    (tmp_path / "file").write_text(app)
    made = [holdfast("snapshot", "create", f"{tmp_path}/", "--app", app) for _ in range(count)]
    return [key for ran in made for key in ran.lines]


def listed(holdfast: Holdfast, app: str) -> list[str]:
    return [line.split()[0] for line in holdfast("snapshot", "ls", "--app", app).lines][::-1]


def test_what_is_not_kept_is_told_of_and_then_deleted(holdfast: Holdfast, tmp_path: Path) -> None:
    keys = created(holdfast, tmp_path, "pruned", 3)

    dry = holdfast("snapshot", "prune", "pruned", "--keep-last", "1", "--dry-run")
    before = listed(holdfast, "pruned")
    ran = holdfast("snapshot", "prune", "pruned", "--keep-last", "1", "--json")

    assert (dry.status, ran.status) == (exit_codes.OK, exit_codes.OK)
    assert before == keys
    assert [line.split()[0] for line in dry.lines] == [keys[1], keys[0], keys[2]]
    assert "superfluous" in dry.lines[0]
    assert "1 newer snapshots" in dry.lines[0]
    assert dry.lines[2].endswith("last")
    assert json.loads(ran.lines[-1]) == {"kept": 1, "superfluous": 2, "removed": 2}
    assert listed(holdfast, "pruned") == [keys[2]]


def test_what_is_held_stays_until_it_is_released(holdfast: Holdfast, tmp_path: Path) -> None:
    keys = created(holdfast, tmp_path, "held", 2)

    held = holdfast("snapshot", "hold", keys[0], "--reason", "audit")
    holdfast("snapshot", "prune", "held", "--keep-last", "1")

    assert held.lines[0].split() == [keys[0], "held"]
    assert listed(holdfast, "held") == keys
    assert "audit" in holdfast("snapshot", "show", keys[0]).out.decode()
    assert holdfast("snapshot", "release", keys[0]).status == exit_codes.OK
    holdfast("snapshot", "prune", "held", "--keep-last", "1")
    assert listed(holdfast, "held") == [keys[1]]


def test_a_policy_is_set_shown_and_gone_by(holdfast: Holdfast, tmp_path: Path) -> None:
    keys = created(holdfast, tmp_path, "policed", 2)
    nothing = holdfast("snapshot", "prune", "policed")

    made = holdfast(
        *("snapshot", "policy", "policed", "--keep-last", "1", "--keep-within", "1h"),
        *("--keep-label", "a=1,b=2", "--time-zone", "Europe/Berlin", "--if-revision", "0"),
    )
    shown = holdfast("snapshot", "policy", "policed")

    assert nothing.status == exit_codes.UNAVAILABLE
    assert "there is no policy" in nothing.err
    assert made.lines == ["keep-last=1 keep-within=1h keep-label=a=1,b=2 time-zone=Europe/Berlin"]
    assert shown.lines == made.lines
    holdfast("snapshot", "policy", "policed", "--keep-last", "1")
    assert holdfast("snapshot", "prune", "policed").status == exit_codes.OK
    assert listed(holdfast, "policed") == [keys[1]]
    assert holdfast("snapshot", "policy", "policed", "--keep-all").lines == ["keep-all"]
    taken_back = holdfast("snapshot", "policy", "policed", "--none")
    assert taken_back.lines == ["no policy: nothing is removed"]


def test_the_default_is_told_as_such(holdfast: Holdfast) -> None:
    holdfast("snapshot", "policy", "--keep-daily", "7")

    shown = holdfast("snapshot", "policy", "anybody")
    holdfast("snapshot", "policy", "--none")

    assert shown.lines == ["keep-daily=7 time-zone=UTC (default)"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["prune"],
        ["prune", "app", "--all"],
        ["prune", "app", "--keep-last=-1"],
        ["prune", "app", "--time-zone", "UTC"],
        ["prune", "app", "--keep-label", "x"],
        ["prune", "app", "--keep-within", "3w"],
        ["policy", "app", "--keep-all", "--none"],
        ["policy", "app", "--if-revision", "1"],
        ["policy", "app", "--keep-last", "1", "--time-zone", "Nowhere/City"],
        ["release", "app"],
    ],
)
def test_wrong_usage_is_refused(holdfast: Holdfast, arguments: list[str]) -> None:
    assert holdfast("snapshot", *arguments).status == exit_codes.USAGE


def test_all_apps_are_pruned_when_it_is_said(holdfast: Holdfast, tmp_path: Path) -> None:
    created(holdfast, tmp_path, "everybody", 2)

    assert holdfast("snapshot", "prune", "--all", "--keep-last", "1").status == exit_codes.OK

    assert len(listed(holdfast, "everybody")) == 1
