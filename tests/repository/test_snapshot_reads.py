"""Reading snapshots for many at once: what is shared, what is bounded, and what is given up."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.archive.tars import CountingStore, directory, file, large_tree, members_of, snapshot_of

from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.domain.limits import WINDOW_BYTES
from holdfast.errors import CorruptError, RateLimitedError
from holdfast.repository.snapshots.reading.content import MAX_WAITING, MAX_WINDOWS
from holdfast.repository.snapshots.reading.reads import MAX_OPEN, MAX_VERIFYING, SnapshotReads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from holdfast.archive.ports import Pack
    from holdfast.domain.digest import Digest
    from holdfast.repository.blobs import Content

INLINE_BYTES = 64 * 1024
ROOT = directory(".")


class Packs(CountingStore):
    """Packs in memory; their readers can be made to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0
        self.asked = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def get(self, digest: Digest) -> Pack:
        """See ``PackStore``."""
        self.asked.set()
        assert self.open.wait(30)
        return super().get(digest)

    def close(self) -> None:
        """Nothing is under way."""

    def hold(self) -> None:
        """Let readers wait from now on."""
        self.asked.clear()
        self.open.clear()

    async def is_asked(self) -> None:
        """Until one waits."""
        assert await asyncio.to_thread(self.asked.wait, 30)


@contextmanager
def reading(packs: Packs, threads: int = 1) -> Iterator[SnapshotReads]:
    """Snapshots of ``packs``, read by so many threads."""

    def open_store(_: int) -> Packs:
        packs.opened += 1
        return packs

    executor = ThreadPoolExecutor(threads)
    try:
        yield SnapshotReads(open_store, executor, max_inline_bytes=INLINE_BYTES)
    finally:
        packs.open.set()
        executor.shutdown()


def always() -> bool:
    """There is time."""
    return True


async def given_up(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)


def small(packs: Packs, text: bytes) -> Digest:
    """A snapshot of one file."""
    return snapshot_of([ROOT, file("a", text)], packs).digest


# --- no more time, and nobody there ---


def two_large(packs: Packs) -> tuple[Digest, Digest]:
    """Two snapshots that differ in a few paths and in the pages of many."""
    files = large_tree()
    before = snapshot_of(members_of(files), packs)
    for number in range(0, 3000, 100):
        files.pop(f"d{number % 37:02}/s{number % 5}/f{number:04}")
    return before.digest, snapshot_of(members_of(files), packs).digest


async def changed_paths(
    reads: SnapshotReads, a: Digest, b: Digest, has_time: Callable[[], bool]
) -> tuple[list[bytes], list[int]]:
    """All changes, page by page, and how many each of the pages had."""
    paths, counts, cursor = [], [], None
    while True:
        found, reached = await reads.changes(a, b, cursor, 1000, has_time)
        paths += [change.path for change in found]
        counts.append(len(found))
        if reached is None:
            return paths, counts
        cursor = await reads.cursor_after_change(a, b, reached)


async def test_a_diff_that_runs_out_of_time_goes_on_where_it_was_even_without_a_change() -> None:
    packs = Packs()
    a, b = two_large(packs)
    looks = iter(range(1_000_000))

    with reading(packs) as reads:
        whole, at_once = await changed_paths(reads, a, b, always)
        pieces, counts = await changed_paths(reads, a, b, lambda: next(looks) % 50 != 49)

    assert at_once == [len(whole)] == [30]
    assert pieces == whole
    assert 0 in counts


async def test_a_diff_without_any_time_makes_progress_with_every_page() -> None:
    packs = Packs()
    a = snapshot_of([ROOT, *(file(f"f{n}", b"x") for n in range(20))], packs).digest
    b = snapshot_of([ROOT, *(file(f"f{n}", b"x") for n in range(20)), file("z")], packs).digest

    with reading(packs) as reads:
        paths, counts = await changed_paths(reads, a, b, lambda: False)

    assert paths == [b"z"]
    assert len(counts) > 20


async def test_a_list_of_files_without_any_time_has_one_of_them() -> None:
    packs = Packs()
    root = snapshot_of([ROOT, file("a"), file("b")], packs).digest

    with reading(packs) as reads:
        found, more = await reads.files(root, b"", None, 1000, lambda: False)

    assert [located.entry.path for located in found] == [b""]
    assert more


class Pausing:
    """Time that there is, once a thread has been let look."""

    def __init__(self) -> None:
        self.looked = threading.Event()
        self.go_on = threading.Event()
        self.looks = 0

    def __call__(self) -> bool:
        self.looks += 1
        self.looked.set()
        assert self.go_on.wait(30)
        return True


@pytest.mark.parametrize("what", ["files", "changes"])
async def test_a_list_that_nobody_waits_for_any_more_ends_at_the_next_entry(what: str) -> None:
    packs, time = Packs(), Pausing()
    a, b = two_large(packs)

    with reading(packs) as reads:
        listing: Coroutine[Any, Any, Any] = (
            reads.files(a, b"", None, 1000, time)
            if what == "files"
            else reads.changes(a, b, None, 1000, time)
        )
        task = asyncio.create_task(listing)
        assert await asyncio.to_thread(time.looked.wait, 30)
        await given_up(task)
        time.go_on.set()
        await reads.files(a, b"", None, 1, always)  # the one thread has come to this

    assert time.looks == 1


async def test_a_verification_that_nobody_waits_for_keeps_its_turn_and_ends_soon() -> None:
    # Given as many verifications as there may be, amid a pack,
    packs = Packs()
    a, _ = two_large(packs)
    with reading(packs, threads=8) as reads:
        opened, fetched = packs.opened, len(packs.fetched)
        packs.hold()
        verifying = [asyncio.create_task(reads.verify(a, None, always)) for _ in range(2)]
        assert len(verifying) == MAX_VERIFYING
        await packs.is_asked()

        # when their callers give up and another asks,
        await given_up(*verifying)
        another = asyncio.create_task(reads.verify(a, None, always))
        await asyncio.sleep(0)

        # then it waits for the threads, which stop reading.
        assert packs.opened - opened == MAX_VERIFYING
        packs.open.set()
        found, cursor = await another
        assert cursor is None
        assert sum(step.packs for step in found) > 5
        with_given_up, fetched = len(packs.fetched) - fetched, len(packs.fetched)
        await reads.verify(a, None, always)
        alone = len(packs.fetched) - fetched
        assert with_given_up - alone < alone


# --- opened once ---


async def test_many_who_ask_at_once_have_a_snapshot_opened_once() -> None:
    packs = Packs()
    root = small(packs, b"x")

    with reading(packs, threads=8) as reads:
        packs.fetched.clear()
        packs.hold()
        asking = [asyncio.create_task(reads.files(root, b"", None, 10, always)) for _ in range(10)]
        await packs.is_asked()
        await given_up(asking.pop(0))  # the first one is not needed for the others
        packs.open.set()
        found = await asyncio.gather(*asking)

    assert [len(entries) for entries, _ in found] == [2] * 9
    assert packs.fetched.count(root) == 1


async def test_a_failure_to_open_is_not_kept() -> None:
    packs = Packs()
    root = small(packs, b"x")
    data = packs.packs.pop(root)

    with reading(packs) as reads:
        with pytest.raises(CorruptError):
            await reads.files(root, b"", None, 10, always)
        packs.packs[root] = data
        found, _ = await reads.files(root, b"", None, 10, always)

    assert len(found) == 2


async def test_nothing_is_kept_of_a_snapshot_that_gave_way_while_it_was_exported() -> None:
    packs = Packs()
    roots = [small(packs, b"%d" % number) for number in range(MAX_OPEN + 2)]

    with reading(packs) as reads:
        await asyncio.gather(
            whole(reads, roots[0]),
            *(reads.files(root, b"", None, 10, always) for root in roots[1:]),
        )
        gc.collect()
        kept = {o.digest for o in gc.get_objects() if isinstance(o, SnapshotReader)}

    assert roots[0] not in kept
    assert roots[-1] in kept


async def whole(reads: SnapshotReads, root: Digest) -> bytes:
    content = await reads.export(
        root, is_ours=True, offset=0, length=None, cursor=None, wait_seconds=30
    )
    return bytes(content.data)


# --- windows ---


def noise(packs: Packs) -> Digest:
    """A snapshot that does not fit a message."""
    return snapshot_of([ROOT, file("f", bytes(range(256)) * 1024)], packs).digest


async def window(reads: SnapshotReads, root: Digest, seconds: float) -> Content:
    return await reads.read(root, b"f", offset=0, length=None, cursor=None, wait_seconds=seconds)


async def taken(content: Content) -> bytes:
    assert content.pieces is not None
    async with aclosing(content.pieces) as pieces:
        return b"".join([bytes(piece) async for piece in pieces])


async def test_who_finds_no_place_in_time_is_told_so_and_sent_nothing() -> None:
    packs = Packs()
    root = noise(packs)

    with reading(packs) as reads:
        held = [await window(reads, root, 0) for _ in range(MAX_WINDOWS)]
        with pytest.raises(RateLimitedError):
            await window(reads, root, 0)
        late = asyncio.create_task(window(reads, root, 30))
        first = await taken(held.pop())

        assert await taken(await late) == first == bytes(range(256)) * 1024
        for content in held:
            await taken(content)
    assert WINDOW_BYTES > len(first) > INLINE_BYTES


async def test_no_more_than_a_few_wait_for_a_place() -> None:
    packs = Packs()
    root = noise(packs)

    with reading(packs) as reads:
        held = [await window(reads, root, 0) for _ in range(MAX_WINDOWS)]
        waiting = [asyncio.create_task(waited(reads, root)) for _ in range(MAX_WAITING + 3)]
        refused, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        while len(refused) < 3:
            refused, _ = await asyncio.wait(waiting, timeout=0.1)

        for task in refused:
            assert isinstance(task.exception(), RateLimitedError)
        assert len(refused) == 3
        for content in held:
            await taken(content)
        for task in set(waiting) - refused:
            assert len(await task) == 256 * 1024


async def waited(reads: SnapshotReads, root: Digest) -> bytes:
    return await taken(await window(reads, root, 30))


@pytest.mark.usefixtures("quick_collections")
async def test_a_window_that_nobody_takes_gives_its_place_back() -> None:
    packs = Packs()
    root = noise(packs)

    with reading(packs) as reads:
        for _ in range(2 * MAX_WINDOWS):
            await window(reads, root, 30)  # dropped, as when the head of it cannot be sent
            gc.collect()
        assert len(await taken(await window(reads, root, 30))) == 256 * 1024


async def test_a_caller_who_gives_up_waiting_leaves_the_place_to_others() -> None:
    packs = Packs()
    root = noise(packs)

    with reading(packs) as reads:
        held = [await window(reads, root, 0) for _ in range(MAX_WINDOWS)]
        waiting = [asyncio.create_task(waited(reads, root)) for _ in range(2)]
        while reads._contents._waiting != 2:  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0)
        await given_up(waiting[0])
        await taken(held.pop())

        assert len(await waiting[1]) == 256 * 1024
        for content in held:
            await taken(content)
