"""The other tools are run as they should be: what they back up can be read back from them."""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.bench.backup_tools import find_tools, make_tool, run_timed, tool_versions
from tests.bench.processes import ProcessError

from holdfast.cli.bench.snapshots import TAR

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "some where").mkdir(parents=True)
    (tree / "some where" / "file").write_bytes(b"content" * 1000)
    (tree / "other").write_bytes(os.urandom(100_000))
    return tree


@pytest.mark.parametrize("name", find_tools())
async def test_a_tool_restores_reads_and_exports_what_it_backed_up(
    name: str, tree: Path, tmp_path: Path
) -> None:
    tool = make_tool(name, tmp_path / "tool")
    await tool.prepare()
    target = tmp_path / "restored"
    target.mkdir()

    taken = await tool.create(tree)
    await tool.create(tree)
    await tool.restore(target)
    await tool.read_file((tree / "some where" / "file").relative_to(tree), tmp_path / "one")
    exported = await tool.export(tmp_path / "archive")

    assert taken.seconds > 0
    assert taken.peak_bytes
    assert await tool.stored_bytes() > 100_000
    assert (target / "other").read_bytes() == (tree / "other").read_bytes()
    assert (tmp_path / "one").read_bytes() == b"content" * 1000
    if name == TAR:
        assert exported is None
    else:
        with tarfile.open(tmp_path / "archive") as archive:
            assert any(member.endswith("other") for member in archive.getnames())


async def test_versions_are_told_in_one_line_each() -> None:
    versions = await tool_versions(find_tools())

    assert sorted(versions) == sorted(find_tools())
    assert all(said and "\n" not in said for said in versions.values())


async def test_a_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="it is no use"):
        await run_timed(
            [["sh", "-c", "echo it is no use >&2; exit 3"]],
            log=tmp_path / "log",
            cwd=tmp_path,
            environment=os.environ,
        )


async def test_a_failure_before_a_pipe_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"\[4, 0\]"):
        await run_timed(
            [["sh", "-c", "exit 4"], ["cat"]],
            log=tmp_path / "log",
            cwd=tmp_path,
            environment=os.environ,
        )


async def test_the_cpu_of_a_command_and_its_children_is_counted(tmp_path: Path) -> None:
    busy = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"

    taken = await run_timed(
        [["sh", "-c", f"sh -c '{busy}'"]],
        log=tmp_path / "log",
        cwd=tmp_path,
        environment=os.environ,
    )

    assert taken.cpu_seconds > 0
