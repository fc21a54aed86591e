"""Reports of collections, done or dry, with reasons and bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.domain.collection import Reason


@dataclass(slots=True)
class Tally:
    """A number of blobs and their bytes."""

    blobs: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """One more, of ``size`` bytes."""
        self.blobs += 1
        self.bytes += size

    def add_all(self, other: Tally) -> None:
        """Those of another tally, too."""
        self.blobs += other.blobs
        self.bytes += other.bytes


@dataclass(slots=True)
class Orphans:
    """Copies that no record names, their chunks and, at the most, their bytes."""

    copies: int = 0
    chunks: int = 0
    bytes: int = 0

    def add(self, chunks: int, size: int) -> None:
        """One more, of so many chunks, of ``size`` bytes together."""
        self.copies += 1
        self.chunks += chunks
        self.bytes += size


@dataclass(slots=True, kw_only=True)
class SpaceReport:
    """A space's blobs: those that stay, that went (or would), and that others changed meanwhile.

    ``repacked`` were (or would be) made partial, and gave back so many bytes. ``orphans`` went,
    too, and are not among ``removed``. ``failure`` says why nothing (more) was removed. ``others``
    are foreign or unreadable objects; where one is ``unreadable`` no orphans are looked for.
    ``is_cut``: the limit of one run was reached, and more is left.
    """

    space: str
    kept: dict[Reason, Tally] = field(default_factory=dict)
    removed: Tally = field(default_factory=Tally)
    repacked: Tally = field(default_factory=Tally)
    orphans: Orphans = field(default_factory=Orphans)
    refused: int = 0
    others: int = 0
    unreadable: int = 0
    is_cut: bool = False
    failure: str | None = None

    def keep(self, reason: Reason, size: int) -> None:
        """A blob of ``size`` bytes stays, for this reason."""
        self.kept.setdefault(reason, Tally()).add(size)

    def count(self, size: int, left: int | None) -> None:
        """``left`` of a blob's ``size`` bytes are there now; None: others changed it meanwhile."""
        if left is None:
            self.refused += 1
        elif left:
            self.repacked.add(size - left)
        else:
            self.removed.add(size)


@dataclass(slots=True, kw_only=True)
class CollectionReport:
    """A run over all spaces. ``off`` says why there was none."""

    dry_run: bool
    spaces: list[SpaceReport] = field(default_factory=list)
    off: str | None = None
    is_done: bool = False


@dataclass(slots=True, kw_only=True)
class RunTotals:
    """Totals of all runs of a collector. ``failed``: those with a failure in a space."""

    runs: int = 0
    failed: int = 0
    removed: Tally = field(default_factory=Tally)
    repacked: Tally = field(default_factory=Tally)
    orphans: Orphans = field(default_factory=Orphans)

    def count(self, report: CollectionReport) -> None:
        """Count a run that has ended. A dry run, and one that is off, is not counted."""
        if report.dry_run or report.off is not None:
            return
        self.runs += 1
        self.failed += any(space.failure is not None for space in report.spaces)
        for space in report.spaces:
            self.removed.add_all(space.removed)
            self.repacked.add_all(space.repacked)
        self.orphans.copies += sum(space.orphans.copies for space in report.spaces)
        self.orphans.chunks += sum(space.orphans.chunks for space in report.spaces)
        self.orphans.bytes += sum(space.orphans.bytes for space in report.spaces)
