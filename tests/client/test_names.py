"""Names, through the client and a pool of two workers: every verb, source and way to fail."""

from __future__ import annotations

import asyncio
import io
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from tests.client.test_client import INLINE, PART, blocks, digest_of, pipe_of
from tests.contracts.blob_store import some_bytes
from tests.deployment import deployed

from holdfast.client import Client, connect, connect_sync
from holdfast.errors import ConflictError, InvalidError, NotFoundError
from holdfast.protocol.names import NameEntry, NameRule, NameStored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.deployment import Asker, Deployment

pytestmark = pytest.mark.nats

NAME = "notes//é/"


def stored(name: str, data: bytes, version: int = 1) -> NameStored:
    return NameStored(name=name, digest=digest_of(data), size=len(data), version=version)


async def listed(holdfast: Client, prefix: str, **wanted: Any) -> list[str]:
    """Names and prefixes, as a list tells them."""
    rows = holdfast.names.list(prefix, **wanted)
    return [row if isinstance(row, str) else row.name async for row in rows]


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Of this test's names: the tests of a module share a deployment."""
    return f"{request.node.name}/"


# --- writes and reads ---


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1, 9 * 2**20 + 5])
async def test_what_is_created_comes_back(
    holdfast: Client, ask: Asker, prefix: str, size: int
) -> None:
    data, name = some_bytes(size, seed=size + 17), prefix + NAME

    made = await holdfast.names.create(name, data, type="a/b", labels={"why": "trying it"})

    assert made == stored(name, data)
    assert await holdfast.names.get(name) == data
    described = await holdfast.names.stat(name)
    assert (described.type, described.labels) == ("a/b", {"why": "trying it"})
    assert (described.name, described.version, described.names) == (name, 1, [name])
    pieces = [bytes(piece) async for piece in holdfast.names.stream(name)]
    assert b"".join(pieces) == data
    await ask.wait_no_orphans()


@pytest.mark.parametrize("size", [10, 5 * PART + 7])
@pytest.mark.parametrize("kind", ["path", "file", "pipe", "blocks"])
async def test_anything_that_gives_bytes_can_be_put_under_a_name(
    holdfast: Client, tmp_path: Path, prefix: str, kind: str, size: int
) -> None:
    data = some_bytes(size, seed=2000 + size)
    (tmp_path / "file").write_bytes(data)
    source: Any = tmp_path / "file"
    if kind == "file":
        source = io.BytesIO(data)
    elif kind == "pipe":
        source = pipe_of(data)
    elif kind == "blocks":
        source = blocks(data, 1009)

    made = await holdfast.names.put(prefix, source)

    if kind == "pipe":
        source.close()
    assert made == stored(prefix, data)
    assert await holdfast.names.get_to(prefix, tmp_path / "copy") == size
    assert (tmp_path / "copy").read_bytes() == data


@pytest.mark.parametrize("size", [10, INLINE + 1])
async def test_a_put_creates_a_name_and_then_replaces_its_blob(
    holdfast: Client, prefix: str, size: int
) -> None:
    first, second = some_bytes(size, seed=1), some_bytes(size, seed=2)

    assert await holdfast.names.put(prefix, first) == stored(prefix, first)
    assert await holdfast.names.put(prefix, second) == stored(prefix, second, 2)
    assert await holdfast.names.get(prefix) == second


@pytest.mark.parametrize("size", [10, INLINE + 1])
async def test_a_condition_that_does_not_hold_is_a_conflict_with_the_version(
    holdfast: Client, prefix: str, size: int
) -> None:
    data = some_bytes(size, seed=3)
    await holdfast.names.create(prefix, b"there")
    names = holdfast.names

    for refused in (
        names.create(prefix, data),
        names.replace(prefix, data, if_version=2),
        names.replace(prefix, data, if_digest=digest_of(data)),
    ):
        with pytest.raises(ConflictError) as caught:
            await refused
        assert caught.value.version == 1
    with pytest.raises(NotFoundError):
        await names.replace(prefix + "gone", data)
    assert await names.get(prefix) == b"there"
    replaced = await names.replace(prefix, data, if_version=1, if_digest=digest_of(b"there"))
    assert replaced == stored(prefix, data, 2)


async def test_a_condition_that_is_lost_while_bytes_are_sent_is_a_conflict_too(
    holdfast: Client, prefix: str
) -> None:
    data = some_bytes(3 * PART, seed=4)
    await holdfast.names.create(prefix, b"one")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield data
        begun.set()
        await go_on.wait()
        yield data

    replacing = asyncio.create_task(holdfast.names.replace(prefix, source(), if_version=1))
    await begun.wait()
    await holdfast.names.replace(prefix, b"two")
    go_on.set()

    with pytest.raises(ConflictError) as caught:
        await replacing
    assert caught.value.version == 2
    assert await holdfast.names.get(prefix) == b"two"


async def test_a_streamed_write_that_is_given_up_leaves_the_name_free_or_as_it_was(
    holdfast: Client, prefix: str
) -> None:
    begun = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield some_bytes(3 * PART, seed=8)
        begun.set()
        await asyncio.Event().wait()

    await holdfast.names.create(f"{prefix}there", b"before")
    for write in (
        holdfast.names.create(f"{prefix}new", source()),
        holdfast.names.replace(f"{prefix}there", source()),
    ):
        writing = asyncio.create_task(write)
        await begun.wait()
        begun.clear()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    states = [row.state async for row in holdfast.names.list(prefix) if isinstance(row, NameEntry)]
    assert states == ["failure", "ok"]
    assert await holdfast.names.get(f"{prefix}there") == b"before"
    assert (await holdfast.names.create(f"{prefix}new", b"after")).version == 1


async def test_bytes_with_another_digest_than_expected_are_refused(
    holdfast: Client, prefix: str
) -> None:
    for data in (b"small", some_bytes(INLINE + 1)):
        with pytest.raises(InvalidError):
            await holdfast.names.create(prefix, data, digest=digest_of(b"other"))
    with pytest.raises(NotFoundError):
        await holdfast.names.get(prefix)


async def test_of_many_that_create_a_name_at_once_one_succeeds(
    holdfast: Client, prefix: str
) -> None:
    data = [str(number).encode() for number in range(16)]

    results = await asyncio.gather(
        *(holdfast.names.create(prefix, one) for one in data), return_exceptions=True
    )

    made = [result for result in results if isinstance(result, NameStored)]
    refused = [result for result in results if isinstance(result, ConflictError)]
    assert (len(made), len(refused)) == (1, 15)
    assert digest_of(await holdfast.names.get(prefix)) == made[0].digest


async def test_puts_of_one_name_at_once_all_succeed(holdfast: Client, prefix: str) -> None:
    data = [str(number).encode() for number in range(8)]

    results = await asyncio.gather(*(holdfast.names.put(prefix, one) for one in data))

    assert sorted(result.version for result in results) == list(range(1, 9))
    last = max(results, key=lambda result: result.version)
    assert digest_of(await holdfast.names.get(prefix)) == last.digest


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 10), (INLINE - 5, 10), (PART, 3 * PART), (5 * PART, None), (10**9, 1), (7, 0)],
)
async def test_a_range_is_read_by_name(
    holdfast: Client, prefix: str, offset: int, length: int | None
) -> None:
    data = some_bytes(6 * PART, seed=5)
    await holdfast.names.create(prefix, data)
    wanted = data[offset : None if length is None else offset + length]

    assert await holdfast.names.get(prefix, offset=offset, length=length) == wanted
    streamed = holdfast.names.stream(prefix, offset=offset, length=length)
    assert b"".join([bytes(piece) async for piece in streamed]) == wanted


async def test_what_is_read_is_one_blob_though_the_name_gets_another(
    holdfast: Client, prefix: str
) -> None:
    data = some_bytes(12 * 2**20, seed=6)
    await holdfast.names.create(prefix, data)
    read = b""

    async with aclosing(holdfast.names.stream(prefix)) as pieces:
        async for piece in pieces:
            if not read:
                await holdfast.names.replace(prefix, b"another")
            read += piece

    assert read == data


@pytest.mark.parametrize("size", [10, INLINE + 1, 9 * 2**20 + 5])
async def test_a_name_is_read_whole_though_its_blob_was_deleted_by_the_digest(
    holdfast: Client, tmp_path: Path, prefix: str, size: int
) -> None:
    data = some_bytes(size, seed=size + 3)
    await holdfast.names.create(prefix, data)
    assert await holdfast.delete(digest_of(data))

    assert await holdfast.names.get(prefix) == data
    assert b"".join([bytes(piece) async for piece in holdfast.names.stream(prefix)]) == data
    await holdfast.names.get_to(prefix, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    assert await holdfast.has([digest_of(data)]) == [digest_of(data)]


# --- the other verbs ---


async def test_names_are_copied_renamed_and_deleted(holdfast: Client, prefix: str) -> None:
    names = holdfast.names
    a, b, c = (prefix + token for token in "abc")
    await names.create(a, b"one", type="a/b", labels={"k": "v"})

    assert await names.copy(b, source=a) == stored(b, b"one")
    assert (await names.stat(b)).labels == {"k": "v"}
    with pytest.raises(ConflictError):
        await names.copy(b, source=a, if_absent=True)
    assert await names.rename(c, source=b) == stored(c, b"one")
    assert await listed(holdfast, prefix) == [a, c]
    with pytest.raises(NotFoundError):
        await names.rename(b, source=b + "gone")
    with pytest.raises(ConflictError) as caught:
        await names.delete(c, if_version=2)
    assert caught.value.version == 1
    assert await names.delete(c, if_version=1, if_digest=digest_of(b"one"))
    assert not await names.delete(c)
    assert await names.copy(c, digest=digest_of(b"one")) == stored(c, b"one", 2)
    with pytest.raises(NotFoundError):
        await names.copy(a, digest="0" * 64)
    assert await names.get(a) == b"one"


def test_versions_are_kept_read_and_restored(nats_url: str, prefix: str) -> None:
    # One worker: another hears of new rules within seconds only.
    with (
        deployed(nats_url, "one") as deployment,
        connect_sync(servers=nats_url, prefix=deployment.prefix) as holdfast,
    ):
        names = holdfast.names
        names.set_rules([NameRule(prefix=prefix, keep_versions=3)], if_revision=0)
        for data in (b"one", b"two", b"three", b"four"):
            names.put(prefix, data)

        assert [one.version for one in names.versions(prefix)] == [4, 3, 2]
        assert names.get(prefix, version=2) == b"two"
        assert names.stat(prefix, version=3).digest == digest_of(b"three")
        with pytest.raises(NotFoundError):
            names.get(prefix, version=1)
        assert names.restore(prefix, 2, if_version=4) == stored(prefix, b"two", 5)
        history = names.history(prefix)
        assert (history.state, history.version, history.transitions[0].version) == ("ok", 5, 5)
        assert [one.version for one in history.versions] == [5, 4, 3]
        with pytest.raises(ConflictError):
            names.set_rules([], if_revision=0)
        assert names.set_rules([]).rules == []


async def test_a_list_is_in_order_and_has_everything_that_was_acknowledged(
    holdfast: Client, prefix: str
) -> None:
    names = [f"{prefix}{token}" for token in ("b", "a/1", "a/2", "a!", "a0", "é", "a")]
    for number, name in enumerate(names):
        await holdfast.names.create(name, b"x")
        assert await listed(holdfast, prefix) == sorted(names[: number + 1], key=str.encode)

    by_directory = await listed(holdfast, prefix, delimiter="/")
    assert by_directory == [
        *(f"{prefix}{token}" for token in ("a", "a!", "a/", "a0", "b", "é")),
    ]
    assert await listed(holdfast, prefix, start_after=f"{prefix}b") == [f"{prefix}é"]
    assert await listed(holdfast, prefix, labels={"k": "v"}) == []


async def test_a_list_of_many_pages_is_whole(
    holdfast: Client, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.client.names._PAGE", 7)
    names = [f"{prefix}{number:02d}" for number in range(30)]
    await asyncio.gather(*(holdfast.names.create(name, b"x") for name in names))

    assert await listed(holdfast, prefix) == names


async def test_an_expired_name_is_not_there(holdfast: Client, prefix: str) -> None:
    past, future = datetime(2000, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
    await holdfast.names.create(f"{prefix}a", b"x", expires_at=past)
    await holdfast.names.create(f"{prefix}b", b"x", expires_at=future)

    with pytest.raises(NotFoundError):
        await holdfast.names.get(f"{prefix}a")
    assert await listed(holdfast, prefix) == [f"{prefix}b"]
    assert (await holdfast.names.stat(f"{prefix}b")).expires_at is not None


async def test_a_name_without_a_blob_is_listed_with_its_state(
    holdfast: Client, ask: Asker, prefix: str
) -> None:
    opened = await ask.json("blob.open_name", {"name": prefix, "mode": "create"})

    [pending] = [row async for row in holdfast.names.list(prefix)]
    await ask.json("blob.abort", {"upload": opened["upload"]})
    [failed] = [row async for row in holdfast.names.list(prefix)]

    assert isinstance(pending, NameEntry)
    assert isinstance(failed, NameEntry)
    assert (pending.state, pending.digest) == ("pending", None)
    assert (failed.state, failed.digest) == ("failure", None)


async def test_a_put_of_a_name_that_another_is_writing_is_a_conflict(
    deployment: Deployment, ask: Asker, prefix: str
) -> None:
    opened = await ask.json("blob.open_name", {"name": prefix, "mode": "create"})
    async with await connect(
        servers=deployment.url, prefix=deployment.prefix, timeout_seconds=4
    ) as impatient:
        with pytest.raises(ConflictError):
            await impatient.names.put(prefix, b"mine")
    await ask.json("blob.abort", {"upload": opened["upload"]})


@pytest.mark.parametrize("name", ["", "a" * 513, "é" * 257, "\udcff"], ids=ascii)
async def test_what_is_no_name_is_refused_before_anything_is_asked(
    holdfast: Client, name: str
) -> None:
    names = holdfast.names
    for refused in (
        names.create(name, b"x"),
        names.replace(name, b"x"),
        names.put(name, b"x"),
        names.get(name),
        names.stat(name),
        names.delete(name),
        names.copy(name, source="a"),
        names.copy("a", source=name),
        names.rename("a", source=name),
        names.history(name),
    ):
        with pytest.raises(InvalidError):
            await refused


async def test_what_is_said_of_a_name_is_checked(holdfast: Client, prefix: str) -> None:
    said: list[dict[str, Any]] = [
        {"labels": {"k": ""}},
        {"labels": {"": "v"}},
        {"labels": {"k": "\n"}},
        {"expires_at": datetime(2099, 1, 1)},  # noqa: DTZ001 - that is what is wrong with it
        {"digest": "x"},
    ]
    for words in said:
        with pytest.raises(InvalidError):
            await holdfast.names.create(prefix, b"x", **words)
    assert await listed(holdfast, prefix) == []


def test_without_await_everything_is_the_same(deployment: Deployment, prefix: str) -> None:
    data = some_bytes(INLINE + 1, seed=7)
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        names = holdfast.names

        assert names.put(prefix, data) == stored(prefix, data)
        assert names.get(prefix) == data
        assert b"".join(names.stream(prefix)) == data
        assert [row.name for row in names.list(prefix) if isinstance(row, NameEntry)] == [prefix]
        assert [one.version for one in names.versions(prefix)] == [1]
        assert names.delete(prefix)
