"""Contenders take turns, and one that fails is named and left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.bench.processes import ProcessError
from tests.bench.race import Race

from holdfast.cli.bench.report import HOLDFAST
from holdfast.cli.bench.snapshots import Taken

if TYPE_CHECKING:
    from pathlib import Path

TAKEN = Taken(seconds=1.0, cpu_seconds=0.5, peak_bytes=10)


class Contender:
    """Does everything in no time, or fails."""

    def __init__(self, name: str, *, log: list[str], fails: bool = False) -> None:
        self.name = name
        self._log = log
        self._fails = fails

    async def prepare(self) -> None:
        """Nothing."""

    async def create(self, tree: Path) -> Taken:
        del tree
        self._log.append(self.name)
        if self._fails:
            raise ProcessError(f"{self.name} broke")
        return TAKEN

    async def restore(self, target: Path) -> Taken:
        return await self.create(target)

    async def read_file(self, path: Path, target: Path) -> Taken:
        del path
        return await self.create(target)

    async def export(self, target: Path) -> Taken | None:
        del target
        return None

    async def stored_bytes(self) -> int:
        return 100


async def test_another_contender_begins_each_step(tmp_path: Path) -> None:
    log: list[str] = []
    race = Race([Contender(name, log=log) for name in "abc"], turn=0, problems=[])

    for _ in range(3):
        await race.step("first", lambda each: each.create(tmp_path))

    assert log == ["b", "c", "a", "c", "a", "b", "a", "b", "c"]


async def test_a_tool_that_fails_is_named_and_takes_no_further_part(tmp_path: Path) -> None:
    log: list[str] = []
    problems: list[str] = []
    contenders = [Contender(HOLDFAST, log=log), Contender("tool", log=log, fails=True)]
    race = Race(contenders, turn=0, problems=problems)

    await race.step("first", lambda each: each.create(tmp_path))
    await race.step("unchanged", lambda each: each.create(tmp_path))
    await race.weigh()

    assert problems == ["first: tool broke"]
    assert log.count("tool") == 1
    assert race.taken == {("first", HOLDFAST): TAKEN, ("unchanged", HOLDFAST): TAKEN}
    assert race.stored == {HOLDFAST: [100], "tool": []}


async def test_a_failure_of_holdfast_ends_the_run(tmp_path: Path) -> None:
    race = Race([Contender(HOLDFAST, log=[], fails=True)], turn=0, problems=[])

    with pytest.raises(ProcessError, match="broke"):
        await race.step("first", lambda each: each.create(tmp_path))


async def test_what_has_nothing_to_do_has_no_figure(tmp_path: Path) -> None:
    race = Race([Contender(HOLDFAST, log=[])], turn=0, problems=[])

    await race.step("export", lambda each: each.export(tmp_path))

    assert race.taken == {}
