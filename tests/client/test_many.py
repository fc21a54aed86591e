"""Many at once: how many, in which order, and what happens when one fails."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import some_bytes

from holdfast.client import Client, connect_sync
from holdfast.client.many import AT_ONCE, BYTES_AT_ONCE, in_order, weight_of
from holdfast.domain.digest import digest_of
from holdfast.domain.limits import MIB, UPLOAD_WINDOW_BYTES
from holdfast.protocol.blobs import BlobStored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.deployment import Deployment

    from holdfast.client.sources import Source


class Doing:
    """Things that end when the test lets them, and how many are under way."""

    def __init__(self) -> None:
        self.gates: dict[int, asyncio.Event] = {}
        self.under_way: set[int] = set()
        self.most = 0
        self.cancelled: set[int] = set()
        self.open = False

    async def do(self, number: int) -> int:
        """Wait for its gate. 13 fails."""
        self.under_way.add(number)
        self.most = max(self.most, len(self.under_way))
        try:
            if not self.open:
                await self.gates.setdefault(number, asyncio.Event()).wait()
            if number == 13:
                raise ValueError(number)
        except asyncio.CancelledError:
            self.cancelled.add(number)
            raise
        finally:
            self.under_way.discard(number)
        return number

    def end(self, number: int) -> None:
        """Let it end."""
        self.gates.setdefault(number, asyncio.Event()).set()


async def add_all[T](found: list[T], results: AsyncIterator[T]) -> None:
    """Add to ``found`` what comes, until something is raised."""
    async for result in results:
        found.append(result)  # noqa: PERF401  (what came before a failure counts)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(3 * AT_ONCE):
        await asyncio.sleep(0)


async def test_results_come_in_order_whatever_ends_first() -> None:
    doing = Doing()
    found: list[int] = []

    async def take() -> None:
        found.extend([n async for n in in_order(range(5), doing.do, lambda _: 1)])

    taking = asyncio.create_task(take())
    for number in (4, 2, 3, 1):
        doing.end(number)
    await settle()
    assert found == []
    doing.end(0)
    await taking

    assert found == [0, 1, 2, 3, 4]


async def test_as_many_as_may_are_under_way_behind_one_that_takes_long() -> None:
    doing = Doing()
    results = in_order(range(100, 1000), doing.do, lambda _: 1)

    async with aclosing(results):
        first = asyncio.ensure_future(anext(results))
        await settle()
        assert len(doing.under_way) == AT_ONCE
        for number in range(101, 200):
            doing.end(number)
        await settle()
        assert len(doing.under_way) == AT_ONCE, "the first one holds nobody up"
        doing.end(100)
        assert await first == 100

    assert doing.under_way == set()


async def test_what_is_under_way_weighs_no_more_than_it_may() -> None:
    doing = Doing()
    results = in_order(range(100, 200), doing.do, lambda _: BYTES_AT_ONCE // 3)

    async with aclosing(results):
        first = asyncio.ensure_future(anext(results))
        await settle()
        assert len(doing.under_way) == 3
        doing.open = True
        for number in (100, 101, 102):
            doing.end(number)
        assert await first == 100
        assert [n async for n in results] == list(range(101, 200))

    assert doing.most == 3


async def test_a_failure_comes_after_the_results_before_it_and_the_rest_ends() -> None:
    doing = Doing()
    taken: list[int] = []
    found: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    taking = asyncio.create_task(add_all(found, in_order(numbers(), doing.do, lambda _: 1)))
    await settle()
    for number in range(14):
        doing.end(number)
    with pytest.raises(ValueError, match="13"):
        await taking

    assert found == list(range(13))
    assert len(taken) <= AT_ONCE + 15
    assert doing.under_way == set()
    assert doing.cancelled


async def test_what_the_items_raise_comes_after_the_results_before_it() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2
        msg = "no more"
        raise LookupError(msg)

    doing = Doing()
    doing.open = True
    found: list[int] = []
    with pytest.raises(LookupError, match="no more"):
        await add_all(found, in_order(numbers(), doing.do, lambda _: 1))

    assert found == [1, 2]


async def test_a_result_does_not_wait_for_the_next_item() -> None:
    never = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await never.wait()

    doing = Doing()
    doing.open = True
    results = in_order(numbers(), doing.do, lambda _: 1)

    async with aclosing(results), asyncio.timeout(30):
        assert await anext(results) == 1


def test_a_source_weighs_what_of_it_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))

    assert weight_of(bytes(10)) == 10
    assert weight_of(tmp_path / "file") == 1000
    assert weight_of(tmp_path / "absent") == UPLOAD_WINDOW_BYTES
    assert weight_of(bytes(9 * MIB)) == UPLOAD_WINDOW_BYTES


# --- put_many ---


@pytest.mark.nats
async def test_blobs_files_and_streams_are_put_together(holdfast: Client, tmp_path: Path) -> None:
    async def streamed() -> AsyncIterator[bytes]:
        yield b"a stream, "
        yield b"in two"

    async def sources() -> AsyncIterator[bytes | Path | AsyncIterator[bytes]]:
        for number in range(100):
            yield b"one of many %d" % number
        yield tmp_path / "small"
        yield streamed()
        yield tmp_path / "large"
        yield b"one of many 0"

    large = some_bytes(3 * MIB, seed=77)
    (tmp_path / "small").write_bytes(b"a small file")
    (tmp_path / "large").write_bytes(large)

    stored = [each async for each in holdfast.put_many(sources())]

    expected = [b"one of many %d" % number for number in range(100)]
    expected += [b"a small file", b"a stream, in two", large, b"one of many 0"]
    assert [each.digest for each in stored] == [digest_of(blob) for blob in expected]
    assert [stored[0].created, stored[-1].created].count(True) == 1
    for blob in expected:
        assert await holdfast.get(digest_of(blob)) == blob


@pytest.mark.nats
async def test_a_source_that_cannot_be_read_ends_the_puts_behind_it(
    holdfast: Client, tmp_path: Path
) -> None:
    stored: list[BlobStored] = []
    sources: list[Source] = [b"before", tmp_path / "absent", b"behind"]

    with pytest.raises(FileNotFoundError):
        await add_all(stored, holdfast.put_many(sources))

    assert [each.digest for each in stored] == [digest_of(b"before")]


@pytest.mark.nats
def test_without_await_too_and_the_sources_may_use_the_client(deployment: Deployment) -> None:
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as client:

        def sources() -> Iterator[bytes]:
            for number in range(70):
                yield client.get(client.put(b"sync %d" % number).digest) + b" again"

        stored = [each.digest for each in client.put_many(sources())]

    assert stored == [digest_of(b"sync %d again" % number) for number in range(70)]
