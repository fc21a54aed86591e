"""Snapshots that a client uploads: kept alive, given up, and their packs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.contracts.blob_store import some_bytes
from tests.deployment import deployed

from holdfast.archive.bridge import checked
from holdfast.client import Client
from holdfast.client.requests import Requester
from holdfast.client.snapshots.lease import PendingSnapshot
from holdfast.client.snapshots.packs import PackTransport
from holdfast.client.snapshots.wait import wait_ended
from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, InvalidError, NotFoundError, OutcomeUnknownError
from holdfast.protocol.snapshots import CommitSnapshot
from holdfast.transport import connection as transport
from holdfast.transport.inbox import Inbox
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.deployment import Deployment

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats


@pytest.fixture(scope="module")
def deployment(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """A worker that soon gives up what nobody renews."""
    with deployed(nats_server.url, "one", snapshot_lease_seconds="4") as deployment:
        yield deployment


@pytest_asyncio.fixture
async def requester(deployment: Deployment) -> AsyncIterator[Requester]:
    connection = await transport.connect(NatsOptions(servers=(deployment.url,)), timeout_seconds=30)
    inbox = Inbox(connection)
    yield Requester(connection, inbox, prefix=deployment.prefix, timeout_seconds=30)
    await connection.close()


async def test_a_snapshot_that_is_worked_on_outlives_one_that_is_not(
    requester: Requester, holdfast: Client
) -> None:
    kept = await PendingSnapshot.begin(requester, "kept", {})
    left = await PendingSnapshot.begin(requester, "left", {})

    async def until_the_other_is_given_up() -> str:
        ended = await wait_ended(requester, left.record, None)
        assert (ended.state, ended.code) == ("failure", OutcomeUnknownError.code)
        return (await holdfast.snapshots.get(kept.record.key)).state

    assert await kept.keep_alive(until_the_other_is_given_up()) == "pending"
    assert (await holdfast.snapshots.get(left.record.key)).state == "failure"
    with pytest.raises(ConflictError):
        await left.commit(CommitSnapshot(key=left.record.key, digest="0" * 64))
    await kept.forget()


async def test_work_on_a_snapshot_that_was_removed_is_stopped(
    requester: Requester, holdfast: Client
) -> None:
    pending = await PendingSnapshot.begin(requester, "removed", {})
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    working = asyncio.create_task(pending.keep_alive(work()))
    await begun.wait()
    await holdfast.snapshots.delete(pending.record.key)

    with pytest.raises(NotFoundError):
        await working
    assert stopped.is_set()


async def test_what_work_raises_is_raised(requester: Requester) -> None:
    pending = await PendingSnapshot.begin(requester, "raises", {})

    async def work() -> None:
        msg = "no such pattern"
        raise InvalidError(msg)

    with pytest.raises(InvalidError, match="no such pattern"):
        await pending.keep_alive(work())
    await pending.forget()


async def test_a_commit_without_its_root_names_what_is_missing(requester: Requester) -> None:
    pending = await PendingSnapshot.begin(requester, "missing", {})

    record = await pending.commit(CommitSnapshot(key=pending.record.key, digest="0" * 64))

    assert (record.state, record.missing) == ("pending", ["0" * 64])
    await pending.forget()


async def test_many_packs_are_put_once_and_come_back(requester: Requester) -> None:
    packs = [some_bytes(1000 + number, seed=number) for number in range(50)]
    digests = [digest_of(pack) for pack in packs]
    transport_ = PackTransport(requester)

    first = await asyncio.gather(*map(transport_.put, digests, packs))
    second = await asyncio.gather(*map(transport_.put, digests, packs))
    read = await asyncio.gather(*map(transport_.get, digests))

    assert (first, second) == ([True] * 50, [False] * 50)
    assert [checked(pack) for pack in read] == packs


async def test_a_pack_that_is_not_there_is_not_found(requester: Requester) -> None:
    with pytest.raises(NotFoundError):
        await PackTransport(requester).get(digest_of(b"never put"))


async def test_whoever_asks_for_presence_gets_the_failure_too(requester: Requester) -> None:
    await requester.connection.close()
    requester.timeout_seconds = 0.2
    packs = PackTransport(requester)

    outcomes = await asyncio.gather(
        *(packs.put(digest_of(data), data) for data in (b"1", b"2")), return_exceptions=True
    )

    assert [type(outcome).__name__ for outcome in outcomes] == ["UnavailableError"] * 2
