"""Streamed writes of names: uploads that end once the name has their blob."""

from __future__ import annotations

import pytest
from tests.contracts.blob_store import some_bytes
from tests.repository.names.pool import NamesPool, NamesWorker
from tests.repository.pool import PART_BYTES, finish, send

from holdfast.domain.blob_names import Conditions, Said, Verb
from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, NotFoundError
from holdfast.repository.targets import NewTarget
from holdfast.repository.uploads.owned import Opened
from holdfast.repository.uploads.record import Result

DATA = some_bytes(3 * PART_BYTES + 100)


@pytest.fixture
def pool() -> NamesPool:
    """Empty stores."""
    return NamesPool()


async def open_name(
    worker: NamesWorker,
    name: str = "n",
    verb: Verb = "create",
    *,
    said: Said | None = None,
    op_id: str | None = None,
    digest: str | None = None,
) -> Opened | Result:
    """Begin a streamed write."""
    return await worker.uploads.open(
        size=None,
        digest=None if digest is None else digest_of(DATA),
        type="text/plain",
        op_id=op_id,
        new=NewTarget(name=name, verb=verb, said=said or Said(type="text/plain")),
    )


async def opened(worker: NamesWorker, verb: Verb = "create") -> Opened:
    """Begin a streamed write of the name ``n`` of which parts are wanted."""
    state = await open_name(worker, verb=verb)
    assert isinstance(state, Opened)
    return state


async def test_a_name_has_its_bytes_once_the_upload_is_answered(pool: NamesPool) -> None:
    worker = pool.worker()
    state = await opened(worker)
    await send(worker.uploads, state.upload, DATA)
    with pytest.raises(NotFoundError):
        await worker.read("n")

    result = await finish(worker.uploads, state.upload, DATA)

    assert result == Result(
        digest=digest_of(DATA), size=len(DATA), created=True, name="n", version=1
    )
    assert await worker.read("n") == DATA
    assert not (await pool.blobs.stat(digest_of(DATA))).pinned
    assert await finish(worker.uploads, state.upload, DATA) == result


async def test_a_name_is_pending_while_its_first_bytes_come(pool: NamesPool) -> None:
    worker = pool.worker()
    await opened(worker)

    assert (await worker.names.history("n")).record.state == "pending"
    with pytest.raises(ConflictError):
        await pool.worker("b").create("n", b"other")


async def test_a_replaced_name_has_its_old_bytes_until_the_end(pool: NamesPool) -> None:
    worker = pool.worker()
    await worker.create("n", b"one")
    state = await opened(worker, verb="replace")
    await send(worker.uploads, state.upload, DATA)

    assert await worker.read("n") == b"one"
    await finish(worker.uploads, state.upload, DATA)
    assert await worker.read("n") == DATA


async def test_another_worker_ends_what_the_owner_began(pool: NamesPool) -> None:
    state = await opened(pool.worker("a"))
    other = pool.worker("b")
    resumed = await other.uploads.resume(state.upload)
    assert isinstance(resumed, Opened)
    await send(other.uploads, state.upload, DATA)

    result = await finish(other.uploads, state.upload, DATA)

    assert (result.name, result.version) == ("n", 1)
    assert await other.read("n") == DATA


async def test_an_aborted_upload_leaves_a_failure_and_what_the_name_had(pool: NamesPool) -> None:
    worker = pool.worker()
    state = await opened(worker)
    await worker.uploads.abort(state.upload)
    record = (await worker.names.history("n")).record
    assert (record.state, record.pending) == ("failure", ())
    await worker.create("n", b"one")

    state = await opened(worker, verb="replace")
    await worker.uploads.abort(state.upload)

    record = (await worker.names.history("n")).record
    assert (record.state, record.pending) == ("ok", ())
    assert await worker.read("n") == b"one"


async def test_conditions_are_looked_at_once_more_at_the_end(pool: NamesPool) -> None:
    worker = pool.worker()
    await worker.create("n", b"one")
    said = Said(conditions=Conditions(if_version=1))
    state = await open_name(worker, verb="replace", said=said)
    assert isinstance(state, Opened)
    await send(worker.uploads, state.upload, DATA)
    await worker.replace("n", b"two")

    for _ in range(2):
        with pytest.raises(ConflictError, match="condition failed") as refused:
            await finish(worker.uploads, state.upload, DATA)
        assert refused.value.version == 2

    assert await worker.read("n") == b"two"
    with pytest.raises(ConflictError, match="condition failed"):
        await pool.worker("b").uploads.resume(state.upload)


async def test_nothing_has_to_be_sent_of_a_blob_that_is_there(pool: NamesPool) -> None:
    worker = pool.worker()
    await worker.create("m", DATA)

    result = await open_name(worker, digest=digest_of(DATA))

    assert result == Result(
        digest=digest_of(DATA), size=len(DATA), created=False, name="n", version=1
    )
    assert await worker.read("n") == DATA


async def test_a_repeated_open_goes_on_with_the_same_upload(pool: NamesPool) -> None:
    worker = pool.worker()
    first = await open_name(worker, op_id="x")
    again = await open_name(worker, op_id="x")
    assert isinstance(first, Opened)
    assert isinstance(again, Opened)
    assert first.upload == again.upload
    await send(worker.uploads, first.upload, DATA)
    result = await finish(worker.uploads, first.upload, DATA)

    assert await open_name(pool.worker("b"), op_id="x") == result


async def test_an_upload_that_nobody_carries_on_fails_its_name(pool: NamesPool) -> None:
    worker, sweeper = pool.worker("a"), pool.worker("b")
    await opened(worker)

    for _ in range(8):
        await sweeper.uploads.sweep()
        pool.time.advance(75)

    record = (await sweeper.names.history("n")).record
    assert (record.state, record.pending) == ("failure", ())
