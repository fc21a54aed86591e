"""Runs of policies beside other changes: at any moment, on any store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.repository.pool import Pause
from tests.repository.snapshot_records_tools import read

from holdfast.domain.retention import Retention
from holdfast.errors import NotFoundError
from holdfast.repository.snapshots.retention.prune import REMOVED_PER_LOOK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.retention_pool import Archive

    from holdfast.domain.names import SnapshotKey

    Archives = Callable[[], Archive]

LAST_TWO = Retention(last=2)
MAX_CALLS = 150
"""More than a run over a few snapshots makes."""


async def paused_run(
    archive: Archive, pause: Pause, meanwhile: Callable[[], Awaitable[object]]
) -> bool:
    """Apply the policy, and do something ``meanwhile``; False: it ended before."""
    run = asyncio.create_task(archive.worker(pause=pause).prune(archive.app))
    reached = asyncio.create_task(pause.reached.wait())
    await asyncio.wait([run, reached], return_when=asyncio.FIRST_COMPLETED)
    is_paused = pause.reached.is_set()
    reached.cancel()
    if is_paused:
        await meanwhile()
    pause.wake()
    await run
    return is_paused


async def shop(archives: Archives, policy: Retention) -> tuple[Archive, list[SnapshotKey]]:
    """Five days, of which the odd ones have a label, and a policy."""
    archive = archives()
    keys = [await archive.add(day, labels={"odd": str(day % 2)}) for day in range(5)]
    await archive.policies().change(archive.app, policy, expected=None)
    return archive, keys


AFTER = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


class PruneContract:
    """The laws of runs on every store. ``archives`` gives an app's archive, which is empty.

    Runs are paused at one in ``every`` calls to the store.
    """

    every = 1

    async def at_each_call(self, play: Callable[[Pause], Awaitable[bool]], *, after: bool) -> None:
        """Have ``play`` pause a run at a call to the store, until it says there are no more."""
        for call in range(1, MAX_CALLS, self.every):
            if not await play(Pause(call, after=after)):
                assert call > 5
                return
        raise AssertionError("a run makes more calls than are tried")

    @AFTER
    @pytest.mark.parametrize("victim", range(5))
    async def test_a_deletion_during_a_run_leaves_what_one_after_the_other_leaves(
        self, archives: Archives, victim: int, after: bool
    ) -> None:
        async def play(pause: Pause) -> bool:
            archive, keys = await shop(archives, LAST_TWO)
            deleted = keys[victim]

            async def delete() -> None:
                try:
                    await archive.delete(deleted)
                except NotFoundError:
                    assert victim < 3  # the run was quicker

            paused = await paused_run(archive, pause, delete)

            during = await archive.left()
            first = [key for key in keys if key != deleted or not paused]
            last = [key for key in keys[3:] if key != deleted or not paused]
            assert during[0] == first[-1]
            assert {*last} <= {*during}
            await archive.worker().prune(archive.app)
            assert await archive.left() in (first[:-3:-1], last[::-1])
            return paused

        await self.at_each_call(play, after=after)

    @AFTER
    async def test_a_hold_during_a_run_is_kept_or_refused(
        self, archives: Archives, after: bool
    ) -> None:
        async def play(pause: Pause) -> bool:
            archive, keys = await shop(archives, LAST_TWO)
            held: list[bool] = []

            async def hold() -> None:
                try:
                    await archive.hold(keys[0], "audit")
                    held.append(True)
                except NotFoundError:
                    held.append(False)

            paused = await paused_run(archive, pause, hold)

            assert [keys[0] in await archive.left()] == (held or [False])
            return paused

        await self.at_each_call(play, after=after)

    @AFTER
    async def test_a_snapshot_made_during_a_run_stays_and_so_do_the_newest(
        self, archives: Archives, after: bool
    ) -> None:
        async def play(pause: Pause) -> bool:
            archive, keys = await shop(archives, LAST_TWO)
            made: list[SnapshotKey] = []

            async def add() -> None:
                made.append(await archive.add(6))

            paused = await paused_run(archive, pause, add)

            assert (await archive.left())[:2] == [*made, *keys[::-1]][:2]
            return paused

        await self.at_each_call(play, after=after)

    @AFTER
    async def test_a_run_removes_nothing_any_more_once_another_has_begun(
        self, archives: Archives, after: bool
    ) -> None:
        async def play(pause: Pause) -> bool:
            archive, keys = await shop(archives, Retention(labels=({"odd": "0"},)))
            found: list[list[SnapshotKey]] = []

            async def run_another() -> None:
                had_begun = f"g.{archive.app}" in await archive.store.list_keys("g")
                await archive.policies().change(
                    archive.app, Retention(labels=({"odd": "1"},)), expected=None
                )
                await archive.worker().prune(archive.app)
                if had_begun:
                    found.append(await archive.left())

            paused = await paused_run(archive, pause, run_another)

            left = await archive.left()
            assert left in (found or [left])
            assert left[0] == keys[4]
            return paused

        await self.at_each_call(play, after=after)

    async def test_where_one_that_was_counted_on_goes_unnoticed_a_run_does_not_go_on_for_long(
        self, archives: Archives
    ) -> None:
        async def play(pause: Pause) -> bool:
            archive = archives()
            keys = await archive.add_days(REMOVED_PER_LOOK * 2)
            await archive.policies().change(archive.app, LAST_TWO, expected=None)
            left: list[int] = []

            async def delete() -> None:
                for key in keys[-2:]:  # as a worker does that knows nothing of fences
                    await archive.ledger.remove(await read(archive.ledger, key))
                left.append(len(await archive.left()))

            paused = await paused_run(archive, pause, delete)

            left.append(len(await archive.left()))
            listed_later = left[-1] == 2
            assert listed_later or left[0] - left[-1] <= REMOVED_PER_LOOK
            return paused

        await self.at_each_call(play, after=False)

    @AFTER
    async def test_a_policy_that_has_changed_is_not_carried_out_for_long(
        self, archives: Archives, after: bool
    ) -> None:
        async def play(pause: Pause) -> bool:
            archive = archives()
            await archive.add_days(REMOVED_PER_LOOK * 2)
            await archive.policies().change(archive.app, Retention(last=1), expected=None)
            left: list[int] = []

            async def change() -> None:
                left.append(len(await archive.left()))
                await archive.policies().change(archive.app, Retention(), expected=None)

            paused = await paused_run(archive, pause, change)

            left.append(len(await archive.left()))
            assert not paused or left[0] - left[1] <= REMOVED_PER_LOOK
            return paused

        await self.at_each_call(play, after=after)

    async def test_two_runs_of_one_policy_at_once_leave_what_one_leaves(
        self, archives: Archives
    ) -> None:
        archive, keys = await shop(archives, LAST_TWO)

        runs = [archive.worker().prune(archive.app) for _ in range(4)]
        pruned = await asyncio.gather(*runs)
        await archive.worker().prune(archive.app)

        assert await archive.left() == keys[:2:-1]
        gone = [one for run in pruned for one in run.removed]
        assert len(gone) == len(set(gone))
