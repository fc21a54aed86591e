"""Both snapshot benches on a small tree: every figure is there, and nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.bench import race
from tests.bench.__main__ import app
from tests.bench.backup_tools import find_tools
from tests.bench.promises import LARGE_FILE, REPOSITORY
from tests.bench.snapshots import ACTIONS, FullRun, run_snapshot_bench

from holdfast.cli import bench
from holdfast.cli.bench import snapshots
from holdfast.cli.bench.report import HOLDFAST, Report, find
from holdfast.cli.bench.snapshots import TAR
from holdfast.domain.limits import TIB
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.nats


def make_tree(root: Path) -> Path:
    for number in range(120):
        path = root / f"{number % 5}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d " % number * 200)
    return root


@pytest.mark.long
async def test_every_action_of_every_contender_is_measured_and_nothing_is_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files that are read once more make figures wrong, which mean nothing here.
    monkeypatch.setattr(race, "SETTLE_SECONDS", 0.1)
    tree = make_tree(tmp_path / "tree")
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    place = tmp_path / "place"
    place.mkdir()

    command = ["snapshot", str(tree), "--rounds", "1", "--large-file", "3MiB", "--json"]
    await app.run_async([*command, "--directory", str(place)], result_action="return_value")

    report = msgspec.json.decode(capsys.readouterr().out, type=Report)
    contenders = {HOLDFAST, *find_tools()}
    wanted = {(action, contender) for action in ACTIONS for contender in contenders}
    wanted -= {("command", tool) for tool in find_tools()} | {("export", TAR)}
    assert report.problems == []
    assert {(each.what, each.contender) for each in report.figures if each.unit == "s"} == wanted
    for what in (REPOSITORY, LARGE_FILE):
        assert {each.contender for each in report.figures if each.what == what} == contenders
    assert any("120 files" in note for note in report.notes)
    assert any("in 2 files" in note for note in report.notes)
    first, changed = (
        find(report.figures, "default", REPOSITORY, HOLDFAST, unit)
        for unit in ("first MiB", "changed KiB")
    )
    assert first is not None
    assert changed is not None
    assert first.values[0] * 1024 > changed.values[0] > 0
    assert list(place.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


@pytest.mark.long
async def test_the_command_measures_ours_and_tar_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SETTLE_SECONDS", 0.1)
    tree = make_tree(tmp_path / "tree")
    place = tmp_path / "place"
    place.mkdir()

    command = ["snapshot", str(tree), "--rounds", "1", "--directory", str(place), "--json"]
    await bench.app.run_async(command, result_action="return_value")

    report = msgspec.json.decode(capsys.readouterr().out, type=Report)
    seconds = [each for each in report.figures if each.unit == "s"]
    ours = {each.what for each in seconds if each.contender == HOLDFAST}
    assert ours == {"first", "unchanged", "restore", "export"}
    assert {each.what for each in seconds if each.contender == TAR} in (ours - {"export"}, set())
    assert all(len(each.values) == 1 for each in seconds)
    assert list(place.iterdir()) == []


async def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="not a directory"):
        await run_snapshot_bench(run_of(tmp_path / "absent"), lambda _text: None)


async def test_a_run_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="MiB free"):
        await run_snapshot_bench(run_of(tmp_path, large_file_size=TIB), lambda _text: None)


def run_of(source: Path, *, large_file_size: int = 0) -> FullRun:
    return FullRun(
        source=source,
        syncs=("default",),
        rounds=0,
        large_file_size=large_file_size,
        seed=1,
        directory=source,
    )
