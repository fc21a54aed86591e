"""A restore that is killed: the target is the old tree or the new one, never a mixture."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests.archive.compare import differences, look_at
from tests.archive.memory import MemoryPackStore
from tests.archive.tars import file, snapshot_of, symlink
from tests.archive.trees import noise, write

from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.archive.restore.options import RestoreOptions
from holdfast.archive.restore.restore import restore_tree
from holdfast.archive.staging import list_stagings, remove_staging
from holdfast.form.terms import RestoreMode

if TYPE_CHECKING:
    from holdfast.archive.ports import Pack, Progress
    from holdfast.domain.digest import Digest

FILES = 300


def snapshot() -> tuple[MemoryPackStore, Digest]:
    store = MemoryPackStore()
    members = [file(f"d{n % 7}/f{n:03}", noise(n * 30, n)) for n in range(FILES)]
    return store, snapshot_of([*members, symlink("link", "d0")], store).digest


class KilledStore(MemoryPackStore):
    """Kills its process instead of giving out the pack number ``at``."""

    def __init__(self, store: MemoryPackStore, at: int) -> None:
        super().__init__()
        self.packs = store.packs
        self._left = at

    def get(self, digest: Digest) -> Pack:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().get(digest)


def restore_until_killed(target: str, mode: RestoreMode, phase: str, packs: str) -> None:
    """Restore in this process, which ends itself when ``phase`` begins, or at a pack."""

    def progress(state: Progress) -> None:
        if state.phase == phase:
            os.kill(os.getpid(), signal.SIGKILL)

    store, root = snapshot()
    restore_tree(
        SnapshotReader(KilledStore(store, int(packs)), root),
        Path(target),
        options=RestoreOptions(staging_id="killed", mode=mode),
        progress=progress,
    )


def killed(target: Path, mode: RestoreMode, phase: str = "", packs: int = 1000) -> int:
    """The exit code of such a process; negative for the signal that ended it."""
    code = "import sys; from tests.archive import test_restore_crash as crash; "
    code += "crash.restore_until_killed(*sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, target, mode, phase, str(packs)],
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=60,
    ).returncode


STEPS: Final = ("restore", "pack 2", "pack 3", "finish", "exchange", "remove")
SHORT: Final = {
    ("new", "restore"),
    ("replace", "pack 2"),
    ("new", "finish"),
    ("replace", "exchange"),
    ("replace", "remove"),
}
"""Each kind of step once; the others at length."""


@pytest.mark.fault("S03")
@pytest.mark.parametrize(
    ("mode", "step"),
    [
        pytest.param(
            mode,
            step,
            marks=() if (mode, step) in SHORT else pytest.mark.long,
            id=f"{step}-{mode}",
        )
        for step in STEPS
        for mode in ("new", "replace")
    ],
)
def test_a_killed_restore_leaves_the_old_tree_or_the_new_one(
    tmp_path: Path, mode: RestoreMode, step: str
) -> None:
    apps, expected = tmp_path / "apps", tmp_path / "expected"
    apps.mkdir()
    store, root = snapshot()
    restore_tree(
        SnapshotReader(store, root), expected, options=RestoreOptions(staging_id="reference")
    )
    if mode == "replace":
        write(apps, "app/old", b"old")
    before = look_at(apps / "app") if mode == "replace" else None

    kind, _, number = step.partition(" ")
    exit_code = killed(apps / "app", mode, "" if number else kind, int(number) if number else 1000)

    is_over = (mode, step) == ("new", "remove")
    assert exit_code == (0 if is_over else -signal.SIGKILL)
    if is_over or step == "remove":
        assert differences(expected, apps / "app") == {}
    elif before is not None:
        assert look_at(apps / "app") == before
    else:
        assert not (apps / "app").exists()
    assert list_stagings(apps) == ([] if is_over else ["killed"])

    remove_staging(apps, "killed")
    options = RestoreOptions(staging_id="again", mode="replace")
    restore_tree(SnapshotReader(store, root), apps / "app", options=options)

    assert os.listdir(apps) == ["app"]
    assert differences(expected, apps / "app") == {}


@pytest.mark.fault("S03")
def test_a_killed_merge_has_only_whole_files_and_is_finished_by_another(tmp_path: Path) -> None:
    apps, expected = tmp_path / "apps", tmp_path / "expected"
    store, root = snapshot()
    reader = SnapshotReader(store, root)
    restore_tree(reader, expected, options=RestoreOptions(staging_id="reference"))
    wanted = look_at(expected)
    for n in range(FILES):
        write(apps, f"app/d{n % 7}/f{n:03}", b"old")

    exit_code = killed(apps / "app", "merge", packs=2)

    assert exit_code == -signal.SIGKILL
    old = {look.content for look in look_at(apps / "app").values() if look.kind}
    assert old
    for path, look in look_at(apps / "app").items():
        if path in wanted and look.content != wanted[path].content:
            assert (apps / "app" / os.fsdecode(path)).read_bytes() == b"old"
    options = RestoreOptions(staging_id="again", mode="merge", delete=True)
    restore_tree(reader, apps / "app", options=options)

    assert differences(expected, apps / "app") == {}
