"""``holdfast bench snapshot`` on a small tree: every figure is there, and nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.bench import snapshot_measure
from tests.bench.__main__ import app
from tests.bench.backup_tools import TAR, find_tools
from tests.bench.figures import HOLDFAST
from tests.bench.snapshot_figures import ACTIONS, SnapshotReport, find_stored
from tests.bench.snapshot_run import SnapshotRun, run_snapshot_bench

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
    monkeypatch.setattr(snapshot_measure, "SETTLE_SECONDS", 0.1)
    tree = make_tree(tmp_path / "tree")
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    place = tmp_path / "place"
    place.mkdir()

    command = ["snapshot", str(tree), "--rounds", "1", "--large-file", "3MiB", "--json"]
    await app.run_async([*command, "--directory", str(place)], result_action="return_value")

    report = msgspec.json.decode(capsys.readouterr().out, type=SnapshotReport)
    contenders = {HOLDFAST, *find_tools()}
    wanted = {(action, contender) for action in ACTIONS for contender in contenders}
    wanted -= {("command", tool) for tool in find_tools()} | {("export", TAR)}
    assert report.problems == []
    assert {(each.action, each.contender) for each in report.actions} == wanted
    assert {each.contender for each in report.stored} == contenders
    assert {each.contender for each in report.large} == contenders
    assert (report.tree.files, report.change.places) == (120, 2)
    ours = find_stored(report.stored, "default", HOLDFAST)
    assert ours is not None
    assert ours.first[0] > ours.changed[0] > 0
    assert list(place.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


async def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="not a directory"):
        await run_snapshot_bench(run_of(tmp_path / "absent"), lambda _text: None)


async def test_a_run_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="MiB free"):
        await run_snapshot_bench(run_of(tmp_path, large_file_size=TIB), lambda _text: None)


def run_of(source: Path, *, large_file_size: int = 0) -> SnapshotRun:
    return SnapshotRun(
        source=source,
        syncs=("default",),
        rounds=0,
        large_file_size=large_file_size,
        seed=1,
        directory=source,
    )
