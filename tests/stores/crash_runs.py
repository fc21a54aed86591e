"""What a disk store on SQLite holds after a crash, whatever step that follows; its tests run these.

One thing is done again and again, cut off one step of SQLite later each time, or with a step that
fails while the process lives on. Then several kinds of loss are looked at.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol

import pytest
from tests.stores.crash_database import CrashDatabase, Left

from holdfast.errors import HoldfastError, OutcomeUnknownError, QuotaExceededError, UnavailableError

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

NOT_APPLIED: Final = (UnavailableError, QuotaExceededError)


@dataclass(frozen=True)
class Operation[Store, Found]:
    """Something done to one store, what is then found in it, and how many steps it takes."""

    perform: Callable[[Store], Awaitable[object]]
    new: Found
    least_steps: int


def each_of[Store, Found](operations: Iterable[Operation[Store, Found]]) -> pytest.MarkDecorator:
    """Runs a test with each."""
    return pytest.mark.parametrize(
        "operation", [pytest.param(one, id=one.perform.__name__) for one in operations]
    )


def copied(prepared: Path, root: Path) -> Path:
    """A copy of a store that nobody has open."""
    return shutil.copytree(prepared, root, ignore=shutil.ignore_patterns("*-shm"))


class OpenStore[Store](Protocol):
    """Opens the store below a directory, whose files are written through ``files``."""

    def __call__(
        self, root: Path, *, files: CrashDatabase
    ) -> AbstractAsyncContextManager[Store]: ...


@dataclass(frozen=True)
class CrashRuns[Store, Found]:
    """Runs on copies of one store in which ``old`` is found.

    ``find`` is what a store reads that is opened on what is left, which then goes on to be used.
    """

    open_store: OpenStore[Store]
    create: Callable[[Path], None]
    find: Callable[[Path], Awaitable[Found]]
    old: Found

    async def check_cut_off(
        self, prepared: Path, operation: Operation[Store, Found], scratch: Path
    ) -> None:
        """Cut off after any step the store holds the old or the new, which is the acknowledged."""
        for step in count():
            root = copied(prepared, scratch / f"{step}")
            disk = CrashDatabase(root, cut_after=step)

            with disk.installed():
                failure = await self._perform(root, disk, operation)
                assert failure is None or disk.is_cut

                for left in Left:
                    found = await self._found(disk, left, scratch / f"{step}-{left.name}")
                    is_new = self._is_new(found, operation)
                    assert is_new or failure, f"lost after {disk.steps}, left: {left.value}"
                    assert not is_new or step > 0
            if not disk.is_cut:
                break

        assert step >= operation.least_steps

    async def check_subsets(
        self,
        prepared: Path,
        operation: Operation[Store, Found],
        subsets: int,
        rng: random.Random,
        scratch: Path,
    ) -> None:
        """The same whichever writes are left that were not synced; some of them are drawn."""
        for step in count():
            root = copied(prepared, scratch / f"{step}")
            disk = CrashDatabase(root, cut_after=step)

            with disk.installed():
                failure = await self._perform(root, disk, operation)

                for numbers in disk.subsets(subsets, rng):
                    remains = disk.leave_subset(scratch / "left", numbers)
                    is_new = self._is_new(await self.find(remains), operation)
                    assert is_new or failure, f"lost after {disk.steps}, left: {numbers}"
                    shutil.rmtree(remains)
            if not disk.is_cut:
                break

    async def check_failing(
        self, prepared: Path, operation: Operation[Store, Found], error: int, scratch: Path
    ) -> None:
        """A step that fails is reported as what it left behind."""
        for step in count(1):
            root = copied(prepared, scratch / f"{step}")
            disk = CrashDatabase(root, fail_at=step, error=error)

            with disk.installed():
                failure = await self._perform(root, disk, operation)

                for left in Left:
                    found = await self._found(disk, left, scratch / f"{step}-{left.name}")
                    is_new = self._is_new(found, operation)
                    if failure is None:
                        assert is_new, f"lost: {disk.failed_step}, {left.value}"
                    elif isinstance(failure, NOT_APPLIED):
                        assert not is_new, f"{failure.code}, though applied; {disk.steps}"
                    else:
                        assert isinstance(failure, OutcomeUnknownError)
            if not disk.failed_step:
                break

        assert step >= operation.least_steps

    async def check_created_again(self, empty: Found, scratch: Path) -> None:
        """A store whose creation was cut off is created by trying again."""
        for step in count():
            root = scratch / f"{step}"
            root.mkdir()
            disk = CrashDatabase(root, cut_after=step)
            with disk.installed():
                try:
                    self.create(root)
                except HoldfastError:
                    assert disk.is_cut

                for left in Left:
                    remains = disk.leave_behind(scratch / f"{step}-{left.name}", left)
                    self.create(remains)
                    assert await self.find(remains) == empty
            if not disk.is_cut:
                break

        assert step > 5

    async def _perform(
        self, root: Path, disk: CrashDatabase, operation: Operation[Store, Found]
    ) -> HoldfastError | None:
        """How it failed."""
        async with self.open_store(root, files=disk) as store:
            try:
                await operation.perform(store)
            except HoldfastError as failure:
                return failure
        return None

    async def _found(self, disk: CrashDatabase, left: Left, root: Path) -> Found:
        """What is found in what is ``left`` of ``disk``, copied to ``root``."""
        return await self.find(disk.leave_behind(root, left))

    def _is_new(self, found: Found, operation: Operation[Store, Found]) -> bool:
        """Whether what was done is found; it is that or the old."""
        assert found in (self.old, operation.new)
        return found == operation.new
