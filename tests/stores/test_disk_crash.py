"""Whatever step a crash follows, the disk blob store holds the old or the new, whole and verified.

Each test runs one operation again and again, cut off one step later each time, and looks at what
four kinds of loss leave behind. Then the same with a step that fails while the process lives on.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import (
    ATTRIBUTES,
    PART_BYTES,
    UNPINNED,
    said,
    some_bytes,
    staged_bytes,
)
from tests.stores.crash_files import CrashFiles, Loss, PowerCut
from tests.stores.disk_tools import FakeClock, blob_store, leftover_files

from holdfast.domain.digest import digest_of
from holdfast.errors import (
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.stores.disk.store import DiskBlobStore

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = some_bytes(2000, seed=1), some_bytes(2500, seed=2)
STAGING = "s" * 22

NOT_APPLIED = (UnavailableError, QuotaExceededError)


@dataclass(frozen=True)
class Operation:
    """Something done to one store, and whether a root shows that it was."""

    name: str
    prepare: Callable[[Path], Awaitable[None]]
    perform: Callable[[Path, CrashFiles], Awaitable[None]]
    is_done: Callable[[Path], Awaitable[bool]]
    least_steps: int


async def blob_or_none(store: DiskBlobStore, data: bytes) -> bytes | None:
    """The blob, whole and verified, or None; anything else is an error."""
    try:
        return await store.get(await store.stat(digest_of(data)))
    except NotFoundError:
        return None


async def prepare_old_blob(root: Path) -> None:
    await blob_store(root).put(digest_of(OLD), OLD, ATTRIBUTES)


async def prepare_nothing(root: Path) -> None:
    blob_store(root)


async def prepare_parts(root: Path) -> None:
    await prepare_old_blob(root)
    staged = blob_store(root).stage(STAGING, PART_BYTES)
    for part in range(3):
        await staged.write(part, NEW[part * PART_BYTES : (part + 1) * PART_BYTES])


async def put_blob(root: Path, files: CrashFiles) -> None:
    store = blob_store(root, files=files)
    await store.put(digest_of(NEW), NEW, ATTRIBUTES)


async def write_first_part(root: Path, files: CrashFiles) -> None:
    store = blob_store(root, files=files)
    await store.stage(STAGING, PART_BYTES).write(0, NEW[:PART_BYTES])


async def commit_parts(root: Path, files: CrashFiles) -> None:
    staged = blob_store(root, files=files).stage(STAGING, PART_BYTES)
    await staged.commit(digest_of(NEW), len(NEW), ATTRIBUTES)


async def delete_blob(root: Path, files: CrashFiles) -> None:
    await blob_store(root, files=files).delete(digest_of(OLD))


async def prepare_unpinned(root: Path) -> None:
    await blob_store(root).put(digest_of(OLD), OLD, UNPINNED)


async def pin_blob(root: Path, files: CrashFiles) -> None:
    await blob_store(root, files=files).put(digest_of(OLD), OLD, ATTRIBUTES)


async def unpin_blob(root: Path, files: CrashFiles) -> None:
    await blob_store(root, files=files).delete(digest_of(OLD), kept=said(True))


async def old_blob_is_pinned(root: Path) -> bool:
    assert await blob_or_none(blob_store(root), OLD) == OLD
    return (await blob_store(root).stat(digest_of(OLD))).pinned


async def old_blob_is_unpinned(root: Path) -> bool:
    return not await old_blob_is_pinned(root)


async def new_blob_is_there(root: Path) -> bool:
    found = await blob_or_none(blob_store(root), NEW)
    assert found in {None, NEW}
    return found is not None


async def new_blob_is_there_beside_the_old(root: Path) -> bool:
    assert await blob_or_none(blob_store(root), OLD) == OLD
    return await new_blob_is_there(root)


async def old_blob_is_gone(root: Path) -> bool:
    found = await blob_or_none(blob_store(root), OLD)
    assert found in {None, OLD}
    return found is None


async def parts_are_all_there_or_all_used(root: Path) -> bool:
    done = await new_blob_is_there_beside_the_old(root)
    parts = await staged_bytes(blob_store(root), STAGING)
    assert done or b"".join(parts) == NEW
    return done


async def part_is_there(root: Path) -> bool:
    parts = await staged_bytes(blob_store(root), STAGING)
    assert parts in ([], [NEW[:PART_BYTES]])
    return bool(parts)


OPERATIONS = (
    Operation("first-put", prepare_nothing, put_blob, new_blob_is_there, 8),
    Operation("put", prepare_old_blob, put_blob, new_blob_is_there_beside_the_old, 8),
    Operation("write-part", prepare_nothing, write_first_part, part_is_there, 8),
    Operation("commit", prepare_parts, commit_parts, parts_are_all_there_or_all_used, 12),
    Operation("delete", prepare_old_blob, delete_blob, old_blob_is_gone, 2),
    Operation("pin", prepare_unpinned, pin_blob, old_blob_is_pinned, 7),
    Operation("unpin", prepare_old_blob, unpin_blob, old_blob_is_unpinned, 7),
)

each_operation = pytest.mark.parametrize(
    "operation", OPERATIONS, ids=[operation.name for operation in OPERATIONS]
)


@pytest.mark.fault("D01")
@each_operation
async def test_cut_off_after_any_step_the_store_holds_the_old_or_the_new(
    tmp_path: Path, operation: Operation
) -> None:
    for step in count():
        root = tmp_path / f"{step}"
        await operation.prepare(root)
        files = CrashFiles(root, cut_after=step)

        acknowledged = True
        try:
            await operation.perform(root, files)
        except PowerCut:
            acknowledged = False

        for loss in Loss:
            left = files.leave_behind(tmp_path / f"{step}-{loss.name}", loss)
            done = await operation.is_done(left)
            assert done or not acknowledged, f"lost after {files.steps}, losing {loss.value}"
            if step == 0:
                assert not done
            await assert_still_usable(left, operation)
        if acknowledged:
            break

    assert step >= operation.least_steps


@pytest.mark.fault("D01", "D06")
@each_operation
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(errno.EIO, marks=pytest.mark.long),
        errno.ENOSPC,
        pytest.param(errno.EMFILE, marks=pytest.mark.long),
    ],
    ids=errno.errorcode.get,
)
async def test_a_step_that_fails_is_reported_as_what_it_left_behind(
    tmp_path: Path, operation: Operation, error: int
) -> None:
    for step in count(1):
        root = tmp_path / f"{step}"
        await operation.prepare(root)
        files = CrashFiles(root, fail_at=step, error=error)

        failure: HoldfastError | None = None
        try:
            await operation.perform(root, files)
        except HoldfastError as raised:
            failure = raised

        for loss in Loss:
            left = files.leave_behind(tmp_path / f"{step}-{loss.name}", loss)
            done = await operation.is_done(left)
            if failure is None:
                assert done, f"acknowledged, though {files.failed_step} failed, {loss.value}"
            elif isinstance(failure, NOT_APPLIED):
                assert not done, f"{failure.code}, though applied; {files.steps}"
            else:
                assert isinstance(failure, OutcomeUnknownError)
            await assert_still_usable(left, operation)
        if not files.failed_step:
            break

    assert step >= operation.least_steps


@pytest.mark.fault("D06")
async def test_what_is_acknowledged_after_a_failed_sync_is_really_there(tmp_path: Path) -> None:
    refused = acknowledged = 0
    for step in count(1):
        root = tmp_path / f"{step}"
        await prepare_old_blob(root)
        files = CrashFiles(root, fail_at=step)
        store = blob_store(root, files=files)

        for _ in range(2):
            try:
                await store.put(digest_of(NEW), NEW, ATTRIBUTES)
            except (OutcomeUnknownError, UnavailableError):
                refused += 1
            else:
                acknowledged += 1
                left = files.leave_behind(tmp_path / f"{step}-{acknowledged}", Loss.UNSYNCED)
                assert await new_blob_is_there_beside_the_old(left), files.steps
        if not files.failed_step:
            break

    assert refused > 0
    assert acknowledged > 0


async def assert_still_usable(root: Path, operation: Operation) -> None:
    """Work goes on, and a day later the sweep leaves nothing of the crash."""
    blobs, clock = blob_store(root), FakeClock()
    if operation.name in {"put", "first-put", "commit"}:
        stored = await blobs.put(digest_of(NEW), NEW, ATTRIBUTES)
        assert await blobs.get(stored.info) == NEW

    clock.pass_time(timedelta(days=1))
    await blobs.sweep(clock.now, timedelta(hours=1))
    assert leftover_files(root) == []
