"""docker compose up, and what an operator does to it afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

import pytest
from tests.e2e.stack import NODES

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.e2e.stack import Stack

    from holdfast.client import Client
    from holdfast.protocol.blobs import BlobStored
    from holdfast.protocol.snapshots import SnapshotProgress

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

MIB = 1024 * 1024
LARGE = 256 * MIB
HEAVY = 512 * MIB
BLOCK = os.urandom(MIB)


def block(number: int) -> bytes:
    """A mebibyte unlike that of any other number."""
    return number.to_bytes(8) + BLOCK[8:]


async def blocks(size: int, seed: int, halt: Halt | None = None) -> AsyncIterator[bytes]:
    """``size`` bytes, with a halt a quarter of the way if one is given."""
    for number in range(size // MIB):
        if halt is not None and number == size // MIB // 4:
            halt.reached.set()
            await halt.over.wait()
        yield block(seed + number)


class Halt:
    """Where a sender stops until it is told to go on."""

    def __init__(self) -> None:
        self.reached, self.over = asyncio.Event(), asyncio.Event()


def digest_of(size: int, seed: int) -> str:
    """The SHA-256 of what ``blocks`` gives."""
    whole = hashlib.sha256()
    for number in range(size // MIB):
        whole.update(block(seed + number))
    return whole.hexdigest()


async def requests_by_node(client: Client) -> Counter[str]:
    """How many requests each worker has answered."""
    return Counter({w.metadata["node"]: w.requests for w in await client.workers()})


async def test_everything_is_up_once_the_command_returns(stack: Stack, holdfast: Client) -> None:
    states = stack.states()

    assert states == {
        **{f"nats-{n}": "running" for n in (1, 2, 3)},
        **{f"worker-{n}": "healthy" for n in (1, 2, 3)},
        "init": "exited 0",
        "gateway": "healthy",
    }
    workers = await holdfast.workers()
    assert {worker.metadata["node"] for worker in workers} == set(NODES)
    assert {worker.metadata["durability"] for worker in workers} == {"synced"}


async def test_status_finds_the_store_as_it_is_configured(stack: Stack, holdfast: Client) -> None:
    told = await asyncio.to_thread(stack.compose, "run", "--rm", "init", "status", "--check")

    assert all(node in told for node in NODES)


async def test_blobs_put_and_got_from_the_host_are_answered_by_every_worker(
    holdfast: Client,
) -> None:
    before = await requests_by_node(holdfast)

    stored = [await holdfast.put(b"%d" % number) for number in range(60)]
    got = [await holdfast.get(one.digest) for one in stored]

    assert got == [b"%d" % number for number in range(60)]
    listed = {blob.digest async for blob in holdfast.list()}
    assert listed >= {one.digest for one in stored}
    answered = await requests_by_node(holdfast) - before
    assert set(answered) == set(NODES)


async def test_an_app_is_archived_where_it_is_and_restored_into_another_elsewhere(
    stack: Stack, holdfast: Client
) -> None:
    files = {"index.html": b"<h1>hello</h1>", "data/large": block(1) * 3, "data/empty": b""}
    stack.unpack("worker-2", "site", files)

    record = await holdfast.snapshots.create("site", labels={"why": "e2e"})
    restored = await holdfast.snapshots.restore(record.key, app="site-copy", node="node-3")

    assert (record.state, record.node) == ("ok", "node-2")
    assert (restored.state, restored.node) == ("ok", "node-3")
    wanted = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert stack.digests("worker-3", "site-copy") == wanted
    # The worker is not root, and replaces its own files without being told anything about owners.
    replaced = await holdfast.snapshots.restore(record.key, mode="replace")
    assert (replaced.state, replaced.node) == ("ok", "node-2")
    assert stack.digests("worker-2", "site") == wanted


async def put_through(client: Client, node: str) -> tuple[int, Halt, asyncio.Task[BlobStored]]:
    """A large put that the worker of ``node`` owns and that halts in the middle; its seed first."""
    for seed in count(5000, LARGE // MIB):
        before = await parts_by_node(client)
        halt = Halt()
        putting = asyncio.create_task(client.put(blocks(LARGE, seed, halt)))
        await halt.reached.wait()
        ((owner, _parts),) = (await parts_by_node(client) - before).most_common(1)
        if owner == node:
            return seed, halt, putting
        putting.cancel()
        await asyncio.wait([putting])
    raise AssertionError


async def parts_by_node(client: Client) -> Counter[str]:
    """How many parts of uploads each worker has taken."""
    return Counter(
        {
            worker.metadata["node"]: endpoint.num_requests
            for worker in await client.workers()
            for endpoint in worker.endpoints
            if endpoint.subject.startswith("blob.part.")
        }
    )


@pytest.mark.fault("N01")
async def test_a_put_and_a_restore_finish_although_a_server_and_a_worker_are_killed(
    stack: Stack, holdfast: Client
) -> None:
    # Nothing of it is alike, so that the restore has to read, and write, all of it.
    files = {f"file-{number}": os.urandom(16 * MIB) for number in range(HEAVY // MIB // 16)}
    stack.unpack("worker-2", "heavy", files)
    record = await holdfast.snapshots.create("heavy")
    restored_bytes = 0
    restore_begun = asyncio.Event()

    def told(progress: SnapshotProgress) -> None:
        nonlocal restored_bytes
        restored_bytes = progress.bytes
        if restored_bytes:
            restore_begun.set()

    seed, halt, putting = await put_through(holdfast, "node-1")
    restoring = asyncio.create_task(
        holdfast.snapshots.restore(record.key, app="heavy-copy", node="node-2", on_progress=told)
    )
    begun = asyncio.create_task(restore_begun.wait())
    await asyncio.wait([begun, restoring], return_when=asyncio.FIRST_COMPLETED)
    halt.over.set()
    seconds = await stack.run("kill", "nats-2", "worker-1")
    assert not putting.done()
    assert not restoring.done()
    print(f"killed within {seconds:.1f} s, {restored_bytes / HEAVY:.0%} restored by then")  # noqa: T201  (make e2e shows it)
    stored, restored = await asyncio.gather(putting, restoring)

    assert restored.state == "ok"
    assert stored.digest == digest_of(LARGE, seed)
    assert stack.states() | {"nats-2": "exited 137", "worker-1": "exited 137"} == stack.states()
    received = hashlib.sha256()
    async for piece in holdfast.stream(stored.digest):
        received.update(piece)
    assert received.hexdigest() == stored.digest
    wanted = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert stack.digests("worker-2", "heavy-copy") == wanted

    await stack.run("start")

    await stack.wait_current()
    assert stack.states()["nats-2"] == "running"


async def test_more_workers_join_and_answer(stack: Stack, holdfast: Client) -> None:
    await stack.run("up", "--detach", "--wait", "--scale", "worker=6")

    async with asyncio.timeout(60):
        while len(found := await holdfast.workers()) < len(NODES) + 6:
            pass
    for number in range(100):
        await holdfast.put(b"scaled %d" % number)
    assert len({worker.metadata["node"] for worker in found}) == len(NODES) + 6
    assert len(+(await requests_by_node(holdfast))) == len(NODES) + 6
    # As deploy/README.md says: scaling down alone would leave their volumes behind.
    await stack.run("rm", "--stop", "--force", "--volumes", "worker")


@pytest.mark.fault("R04")
async def test_stop_lets_workers_answer_what_they_had_begun(stack: Stack, holdfast: Client) -> None:
    acknowledged: list[str] = []
    busy = asyncio.Event()
    numbers = count()

    async def put_until_stopped() -> None:
        while True:
            try:
                stored = await holdfast.put(b"stopping %d" % next(numbers))
            except HoldfastError:
                return
            acknowledged.append(stored.digest)
            if len(acknowledged) > 200:
                busy.set()

    putting = [asyncio.create_task(put_until_stopped()) for _ in range(8)]
    await busy.wait()

    seconds = await stack.run("stop")

    print(f"stopped in {seconds:.1f} s")  # noqa: T201  (make e2e shows it)
    assert seconds <= 10
    assert set(stack.states().values()) == {"exited 0"}
    for task in putting:
        task.cancel()
    await asyncio.gather(*putting, return_exceptions=True)
    await stack.run("start")
    await stack.wait_current()
    async with await stack.client() as again:
        assert await again.has(acknowledged[:1000]) == []


async def test_down_and_up_again_keeps_everything(stack: Stack, holdfast: Client) -> None:
    stored = await holdfast.put(blocks(8 * MIB, 9000))
    stack.unpack("worker-1", "kept", {"file": b"kept"})
    record = await holdfast.snapshots.create("kept")
    await holdfast.aclose()

    await stack.run("down")
    started = time.monotonic()
    await stack.run("up", "--detach", "--wait")
    print(f"up again in {time.monotonic() - started:.1f} s")  # noqa: T201  (make e2e shows it)

    async with await stack.client() as again:
        assert hashlib.sha256(await again.get(stored.digest)).hexdigest() == stored.digest
        assert await again.snapshots.read(record.key, "file") == b"kept"
        assert stack.digests("worker-1", "kept") == {"file": hashlib.sha256(b"kept").hexdigest()}
