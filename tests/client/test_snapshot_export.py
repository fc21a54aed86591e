"""Exports that are put together here: every range, and nothing left behind however one ends."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from nats.aio.client import Client as NatsClient
from tests.contracts.blob_store import some_bytes

from holdfast.client import Client
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.deployment import Asker, Deployment

    from holdfast.protocol.snapshots import SnapshotRecord

pytestmark = pytest.mark.nats

LARGE_BYTES = 16_000_000
"""More packs than an export has under way."""

THREAD_NAME = "holdfast-snapshot"


def tree(root: Path, *, seed: int, size: int = LARGE_BYTES) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "large").write_bytes(some_bytes(size, seed=seed))
    for number in range(50):
        (root / "sub" / str(number)).write_bytes(b"line\n" * number)
    return root


@pytest_asyncio.fixture
async def large(holdfast: Client, tmp_path: Path) -> SnapshotRecord:
    """A snapshot of some packs."""
    return await holdfast.snapshots.create_from(tree(tmp_path / "tree", seed=1), app="large")


async def exported(client: Client, key: str, **wanted: Any) -> bytes:
    return b"".join([bytes(piece) async for piece in client.snapshots.export(key, **wanted)])


async def test_a_range_is_that_slice_of_the_whole_and_of_what_a_worker_makes_up(
    holdfast: Client, ask: Asker, large: SnapshotRecord
) -> None:
    told: list[tuple[int, int | None]] = []

    whole = await exported(
        holdfast, large.key, progress=lambda done, total: told.append((done, total))
    )

    size = len(whole)
    assert size == large.archive_size
    assert told[-1] == (size, size)
    for offset, length in (
        (0, 0),
        (0, 1),
        (1, 3_000_000),
        (7_654_321, 2),
        (size - 20, None),
        (size - 1, 5),
        (size, 1),
        (2**40, None),
    ):
        found = await exported(holdfast, large.key, offset=offset, length=length)
        assert found == (whole[offset:] if length is None else whole[offset : offset + length])
    request = {"key": large.key, "offset": 5_000_001, "length": 400_000}
    answer = await ask("snapshot.export", request)
    assert answer.data == whole[5_000_001:5_400_001]


async def wait_until_nothing_is_left(tasks: set[asyncio.Task[Any]]) -> None:
    """Until there is no thread that assembles, and no task but ``tasks``."""
    async with asyncio.timeout(30):
        # What was told to end does so within a few rounds of the loop.
        while asyncio.all_tasks() - tasks or any(  # noqa: ASYNC110  (no event tells)
            thread.name == THREAD_NAME for thread in threading.enumerate()
        ):
            await asyncio.sleep(0.01)


async def test_closing_early_leaves_no_task_and_no_thread_behind(
    holdfast: Client, large: SnapshotRecord
) -> None:
    tasks = asyncio.all_tasks()

    stream: Any = holdfast.snapshots.export(large.key)
    async with aclosing(stream) as pieces:
        first = await anext(pieces)

    assert bytes(first[:4]) == b"\x28\xb5\x2f\xfd"
    await wait_until_nothing_is_left(tasks)


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_being_cancelled_leaves_no_task_and_no_thread_behind(
    holdfast: Client, large: SnapshotRecord, after: int
) -> None:
    tasks = asyncio.all_tasks()
    reached = asyncio.Event()

    async def take() -> None:
        count = 0
        stream: Any = holdfast.snapshots.export(large.key)
        async with aclosing(stream) as pieces:
            async for _ in pieces:
                count += 1
                if count == after:
                    reached.set()

    taking = asyncio.create_task(take())
    if after:
        await asyncio.wait_for(reached.wait(), 30)
    else:
        await asyncio.sleep(0)
    taking.cancel()
    with suppress(asyncio.CancelledError):
        await taking

    assert taking.cancelled()
    await wait_until_nothing_is_left(tasks)
    assert len(await exported(holdfast, large.key, length=100)) == 100


@pytest_asyncio.fixture
async def nats(deployment: Deployment) -> AsyncIterator[NatsClient]:
    """A connection to look into the store from beside."""
    client = NatsClient()
    await client.connect(deployment.url)
    yield client
    await client.close()


async def lose_a_pack(nats: NatsClient, bucket: str, known: set[str]) -> str:
    """Remove the largest pack but the ``known`` ones; its digest."""
    stream = f"OBJ_{bucket}"
    sizes = {}
    for subject, digest in (await packs_in(nats, bucket)).items():
        if digest not in known:
            entry = await nats.jetstream().get_last_msg(stream, subject)
            sizes[json.loads(entry.data or b"{}")["size"]] = (subject, digest)
    subject, digest = sizes[max(sizes)]
    await nats.jetstream().purge_stream(stream, subject=subject)
    return digest


async def packs_in(nats: NatsClient, bucket: str) -> dict[str, str]:
    """The packs in the bucket: digests by the subjects of their entries."""
    js = nats.jetstream()
    stream = f"OBJ_{bucket}"
    info = await js.stream_info(stream, subjects_filter=f"$O.{bucket}.M.>")
    found = {}
    for subject in info.state.subjects or {}:
        entry = await js.get_last_msg(stream, subject)
        found[subject] = str(json.loads(entry.data or b"{}")["name"])
    return found


async def test_a_missing_pack_is_named_after_what_comes_before_it(
    holdfast: Client, nats: NatsClient, deployment: Deployment, tmp_path: Path
) -> None:
    bucket = f"{deployment.prefix}_packs"
    known = set((await packs_in(nats, bucket)).values())
    source = tree(tmp_path / "lost", seed=2, size=4_000_000)
    record = await holdfast.snapshots.create_from(source, app="lost")
    tasks = asyncio.all_tasks()

    digest = await lose_a_pack(nats, bucket, known)

    with pytest.raises(CorruptError, match=digest):
        await exported(holdfast, record.key)
    await wait_until_nothing_is_left(tasks)
