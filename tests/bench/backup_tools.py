"""The backup tools beside which snapshots are measured: restic, borg, and ``tar | zstd``.

Each is run as its documentation says and as its users have it: caches on (in the run's own
directory), default compression where there is one. What differs between them is said in ``notes``
and printed with the figures. A tool is a process per call; its start is part of what it takes.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from tests.bench.processes import ProcessError
from tests.bench.trees import allocated_bytes

from holdfast.cli.bench import snapshots
from holdfast.cli.bench.snapshots import TAR, Taken
from holdfast.runtime.child import dies_with_this_process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESTIC: Final = "restic"
BORG: Final = "borg"

TOOL_SECONDS: Final = 900.0
"""How long one call of a tool may take before it is given up."""

_TIMED: Final = Path(__file__).parent / "timed.py"
_LOG_TAIL_CHARS: Final = 600
_OPEN_TO_ALL: Final = "a benchmark's repository"


class BackupTool(Protocol):
    """A repository of some tool, and what is done with it. Every method raises ProcessError."""

    name: str

    async def prepare(self) -> None:
        """Make the repository. Not measured."""

    async def create(self, tree: Path) -> Taken:
        """Back up ``tree``."""

    async def restore(self, target: Path) -> Taken:
        """The latest backup into ``target``, an empty directory."""

    async def export(self, target: Path) -> Taken | None:
        """The latest backup as an archive, into the file ``target``. None: it is that already."""

    async def read_file(self, path: Path, target: Path) -> Taken:
        """One file of the latest backup, into the file ``target``."""

    async def stored_bytes(self) -> int:
        """How many bytes the repository holds."""


class _Tool:
    """Calls of one program, in a directory of their own."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.repository = directory / "repository"
        self._environment = {**os.environ, **environment}

    async def stored_bytes(self) -> int:
        return await asyncio.to_thread(allocated_bytes, self.repository)

    async def _call(
        self,
        *commands: Sequence[str | Path],
        cwd: Path | None = None,
        stdout: Path | None = None,
    ) -> Taken:
        log = self.directory / "log"
        return await run_timed(
            commands,
            log=log,
            cwd=cwd or self.directory,
            environment=self._environment,
            stdout=stdout,
        )


class Restic(_Tool):
    """restic with a local repository of format 2, which compresses from 0.14 on."""

    name = RESTIC

    def __init__(self, directory: Path) -> None:
        super().__init__(
            directory,
            {
                "RESTIC_PASSWORD": _OPEN_TO_ALL,
                "RESTIC_REPOSITORY": str(directory / "repository"),
                "RESTIC_CACHE_DIR": str(directory / "cache"),
            },
        )

    async def prepare(self) -> None:
        await self._call(["restic", "init", "--quiet", "--repository-version", "2"])

    async def create(self, tree: Path) -> Taken:
        return await self._call(["restic", "backup", "--quiet", "."], cwd=tree)

    async def restore(self, target: Path) -> Taken:
        return await self._call(["restic", "restore", "--quiet", "latest", "--target", target])

    async def read_file(self, path: Path, target: Path) -> Taken:
        return await self._call(["restic", "dump", "latest", f"/{path}"], stdout=target)

    async def export(self, target: Path) -> Taken | None:
        return await self._call(
            ["restic", "dump", "--archive", "tar", "latest", "/"], stdout=target
        )


class Borg(_Tool):
    """borg with a local repository, without encryption, zstd at level 3 (lz4 is its default)."""

    name = BORG

    def __init__(self, directory: Path) -> None:
        super().__init__(
            directory, {"BORG_BASE_DIR": str(directory / "base"), "BORG_PASSPHRASE": ""}
        )
        self._archives = 0

    @property
    def _latest(self) -> str:
        return f"{self.repository}::{self._archives}"

    async def prepare(self) -> None:
        await self._call(["borg", "init", "--encryption", "none", self.repository])

    async def create(self, tree: Path) -> Taken:
        self._archives += 1
        return await self._call(
            ["borg", "create", "--compression", "zstd,3", self._latest, "."], cwd=tree
        )

    async def restore(self, target: Path) -> Taken:
        return await self._call(["borg", "extract", self._latest], cwd=target)

    async def read_file(self, path: Path, target: Path) -> Taken:
        return await self._call(
            ["borg", "extract", "--stdout", self._latest, str(path)], stdout=target
        )

    async def export(self, target: Path) -> Taken | None:
        return await self._call(["borg", "export-tar", self._latest, "-"], stdout=target)


class TarZstd(_Tool, snapshots.TarZstd):
    """GNU tar through ``zstd -T0``, its processes measured like the others'."""

    def __init__(self, directory: Path) -> None:
        _Tool.__init__(self, directory, {})
        snapshots.TarZstd.__init__(self, self.repository)

    async def prepare(self) -> None:
        self.repository.mkdir()

    async def run(self, *commands: Sequence[str | Path], cwd: Path) -> Taken:
        return await self._call(*commands, cwd=cwd)

    async def read_file(self, path: Path, target: Path) -> Taken:
        return await self._call(
            ["tar", "--extract", "--zstd", "--to-stdout", "--file", self.latest, f"./{path}"],
            stdout=target,
        )


NOTES: Final[dict[str, str]] = {
    RESTIC: "repository version 2, default compression (auto, zstd); it always encrypts",
    BORG: "--encryption none --compression zstd,3",
    TAR: "zstd -3 -T0; a whole archive each time, nothing is shared",
}
_KINDS: Final[dict[str, tuple[type[Restic | Borg | TarZstd], tuple[str, ...]]]] = {
    RESTIC: (Restic, ("restic",)),
    BORG: (Borg, ("borg",)),
    TAR: (TarZstd, ("tar", "zstd")),
}


def find_tools() -> list[str]:
    """The tools that are installed here."""
    return [
        name
        for name, (_, programs) in _KINDS.items()
        if all(shutil.which(each) for each in programs)
    ]


def make_tool(name: str, directory: Path) -> BackupTool:
    """The tool ``name``, with everything it writes below ``directory``, which is made."""
    directory.mkdir()
    return _KINDS[name][0](directory)


async def tool_versions(names: Sequence[str]) -> dict[str, str]:
    """Each tool's version, in one line each."""
    commands = {RESTIC: ["restic", "version"], BORG: ["borg", "--version"], TAR: ["zstd", "-V"]}
    versions = {}
    for name in names:
        process = await asyncio.create_subprocess_exec(*commands[name], stdout=PIPE, stderr=PIPE)
        said, _ = await process.communicate()
        versions[name] = (said.decode(errors="replace").strip().splitlines() or ["?"])[0]
    return versions


async def run_timed(
    commands: Sequence[Sequence[str | Path]],
    *,
    log: Path,
    cwd: Path,
    environment: Mapping[str, str],
    stdout: Path | None = None,
) -> Taken:
    """Run ``commands``, each reading what the one before writes, and measure them together.

    Raises ProcessError when one fails or takes longer than TOOL_SECONDS, with the end of what it
    said (which goes to ``log``).
    """
    given = {
        "commands": [[str(word) for word in command] for command in commands],
        "cwd": str(cwd),
        "env": dict(environment),
        "stdout": None if stdout is None else str(stdout),
        "stderr": str(log),
        "seconds": TOOL_SECONDS,
    }
    process = await asyncio.create_subprocess_exec(
        *dies_with_this_process([sys.executable, "-I", "-S", str(_TIMED)]),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        said, error = await process.communicate(json.dumps(given).encode())
    except asyncio.CancelledError:
        os.killpg(process.pid, signal.SIGTERM)
        await process.wait()
        raise
    name = Path(commands[0][0]).name
    if process.returncode:
        raise ProcessError(f"{name}: {error.decode(errors='replace')[-_LOG_TAIL_CHARS:]}")
    return _judged(name, json.loads(said), log)


def _judged(name: str, answer: dict[str, Any], log: Path) -> Taken:
    if answer["timed_out"]:
        raise ProcessError(f"{name} took longer than {TOOL_SECONDS:g} s")
    if any(answer["status"]):
        text = log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL_CHARS:].strip()
        raise ProcessError(f"{name} ended with {answer['status']}: {text}")
    return Taken(
        seconds=answer["seconds"],
        cpu_seconds=answer["cpu_seconds"],
        peak_bytes=answer["peak_bytes"],
    )
