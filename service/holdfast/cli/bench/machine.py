"""The context of figures: the machine, the versions, and how memory is counted."""

from __future__ import annotations

import os
import platform
import resource
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast.cli.bench.report import Machine
from holdfast.runtime.embedded import find_nats_server, nats_server_version

if TYPE_CHECKING:
    from collections.abc import Iterable

_PACKAGES: Final = ("holdfast", "nats-py", "natsrpy", "natsio")


def peak_resident_bytes(pid: int | None = None) -> int | None:
    """The most memory that a process, or this one, has had resident; None where nobody counts."""
    status = Path("/proc") / str(pid or "self") / "status"
    peak = _field(status, "VmHWM")
    if peak:
        return int(peak.split()[0]) * 1024
    if pid is None and sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def forget_peak(pid: int) -> None:
    """Begin counting the process's peak anew, where the system can."""
    with suppress(OSError):
        (Path("/proc") / str(pid) / "clear_refs").write_text("5", encoding="ascii")


def cpu_seconds(pid: int) -> float:
    """CPU seconds of the process by now, all threads together; 0 where nobody counts."""
    try:
        stat = (Path("/proc") / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def describe_machine(directory: Path) -> Machine:
    """This machine, and the file system that ``directory`` is on."""
    return Machine(
        cores=os.cpu_count() or 1,
        processor=_field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        filesystem=_filesystem(directory.resolve()),
        system=f"{platform.system()} {platform.release()}",
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    server = ".".join(map(str, nats_server_version(find_nats_server())))
    versions = {"python": platform.python_version(), "nats-server": server}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _filesystem(directory: Path) -> str:
    """The kind of the innermost mount that holds ``directory``: a memory disk syncs for free."""
    mounts = [line.split() for line in _lines(Path("/proc/mounts"))]
    holding = [
        (len(Path(mount[1]).parts), mount[2])
        for mount in mounts
        if directory.is_relative_to(mount[1])
    ]
    return max(holding, default=(0, "unknown"), key=lambda mount: mount[0])[1]


def _field(path: Path, name: str) -> str | None:
    """The value of the first ``name: value`` line."""
    for line in _lines(path):
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _lines(path: Path) -> Iterable[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
