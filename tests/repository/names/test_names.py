"""Names: one worker, one write after another."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from tests.repository.names.pool import NamesPool, NamesWorker
from tests.repository.pool import BucketBlobStore, DoomedBlobStore, Pause

from holdfast.domain.blob_names import Conditions, Said
from holdfast.domain.digest import digest_of
from holdfast.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.repository.names.rules import Rule
from holdfast.repository.targets import Named


@pytest.fixture
def pool() -> NamesPool:
    """Empty stores."""
    return NamesPool()


@pytest.fixture
def worker(pool: NamesPool) -> NamesWorker:
    """A worker on them."""
    return pool.worker()


async def keep(worker: NamesWorker, versions: int) -> None:
    """Have so many versions of every name kept."""
    await worker.names.rules.change([Rule(prefix="", keep_versions=versions)], expected=0)


async def test_a_created_name_has_its_bytes(worker: NamesWorker) -> None:
    made = await worker.create("a/b", b"one", said=Said(type="text/plain", labels={"k": "v"}))

    assert made == Named(name="a/b", digest=digest_of(b"one"), size=3, version=1)
    assert await worker.read("a/b") == b"one"
    found = await worker.find("a/b")
    assert (found.content.type, found.content.labels) == ("text/plain", {"k": "v"})
    assert (await worker.names.history("a/b")).record.state == "ok"


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 5000])
async def test_bytes_of_any_size_come_back(worker: NamesWorker, data: bytes) -> None:
    await worker.create("n", data)

    assert await worker.read("n") == data


async def test_a_taken_name_is_not_created_again(pool: NamesPool, worker: NamesWorker) -> None:
    await worker.create("n", b"one")

    with pytest.raises(ConflictError) as refused:
        await pool.worker("b").create("n", b"two")

    assert refused.value.version == 1
    assert await worker.read("n") == b"one"


async def test_nothing_is_left_of_a_create_that_is_refused(
    pool: NamesPool, worker: NamesWorker
) -> None:
    await worker.create("n", b"one")

    with pytest.raises(ConflictError):
        await worker.create("n", b"two")

    listing = await pool.blobs.list_blobs(prefix="", cursor=None, limit=10)
    assert listing.after == [digest_of(b"one")]
    assert pool.blobs._staged == {}
    held = await worker.writes.look("n")
    assert held is not None
    assert held.record.pending == ()


async def test_what_is_not_there_is_not_replaced(worker: NamesWorker) -> None:
    with pytest.raises(NotFoundError):
        await worker.replace("n", b"one")

    with pytest.raises(NotFoundError):
        await worker.read("n")


async def test_a_replaced_name_has_the_new_bytes_at_the_next_version(worker: NamesWorker) -> None:
    await worker.create("n", b"one")

    made = await worker.replace("n", b"two")

    assert made.version == 2
    assert await worker.read("n") == b"two"


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        (Conditions(if_version=1), True),
        (Conditions(if_version=2), False),
        (Conditions(if_digest=digest_of(b"one")), True),
        (Conditions(if_digest=digest_of(b"two")), False),
        (Conditions(if_version=1, if_digest=digest_of(b"two")), False),
    ],
)
async def test_a_change_is_made_if_its_conditions_hold(
    worker: NamesWorker, conditions: Conditions, *, holds: bool
) -> None:
    await worker.create("n", b"one")

    if holds:
        await worker.replace("n", b"two", said=Said(conditions=conditions))
    else:
        with pytest.raises(ConflictError, match="condition failed") as refused:
            await worker.replace("n", b"two", said=Said(conditions=conditions))
        assert refused.value.version == 1

    assert await worker.read("n") == (b"two" if holds else b"one")


async def test_a_deleted_name_is_not_there_and_its_versions_go_on(worker: NamesWorker) -> None:
    await worker.create("n", b"one")

    assert await worker.delete("n")
    assert not await worker.delete("n")
    with pytest.raises(NotFoundError):
        await worker.read("n")
    assert (await worker.create("n", b"two")).version == 2

    with pytest.raises(ConflictError) as refused:
        await worker.delete("n", if_version=1)
    assert refused.value.version == 2


async def test_other_programs_take_a_deleted_name_for_deleted(
    pool: NamesPool, worker: NamesWorker
) -> None:
    await worker.create("n", b"one")
    await worker.delete("n")

    held = await worker.writes.look("n")
    assert held is not None
    assert held.kind.is_grave(held.record)
    assert held.record.transitions[-1].state == "deleted"
    assert (await pool.names.get(held.key)).revision == held.revision


async def test_a_repeat_gets_the_first_answer_whatever_was_written_since(
    pool: NamesPool, worker: NamesWorker
) -> None:
    made = await worker.create("n", b"one", op_id="x")
    await worker.replace("n", b"two")
    await worker.delete("n")

    assert await pool.worker("b").create("n", b"one", op_id="x") == made
    with pytest.raises(NotFoundError):
        await worker.read("n")


async def test_the_same_op_id_with_other_bytes_is_a_conflict(worker: NamesWorker) -> None:
    await worker.create("n", b"one", op_id="x 1")

    with pytest.raises(ConflictError):
        await worker.create("n", b"two", op_id="x 2")


async def test_no_repeat_brings_other_bytes_than_the_first(
    pool: NamesPool, worker: NamesWorker
) -> None:
    await worker.create("n", b"one", op_id="x")

    with pytest.raises(ConflictError, match="other bytes"):
        await worker.create("n", b"two", op_id="x")

    assert await worker.read("n") == b"one"
    assert pool.blobs._staged == {}


async def test_of_many_creates_exactly_one_succeeds(pool: NamesPool) -> None:
    workers = [pool.worker(str(number)) for number in range(64)]

    outcomes = await asyncio.gather(
        *(worker.create("n", worker.writes._worker.encode()) for worker in workers),
        return_exceptions=True,
    )

    made = [outcome for outcome in outcomes if isinstance(outcome, Named)]
    assert len(made) == 1
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 63
    assert digest_of(await workers[0].read("n")) == made[0].digest


async def test_many_replaces_are_made_one_after_the_other(pool: NamesPool) -> None:
    await pool.worker().create("n", b"0")

    made = await asyncio.gather(
        *(pool.worker(str(number)).replace("n", str(number).encode()) for number in range(16))
    )

    assert sorted(one.version for one in made) == list(range(2, 18))
    last = max(made, key=lambda one: one.version)
    assert digest_of(await pool.worker().read("n")) == last.digest


async def test_a_copy_shares_the_bytes_and_keeps_what_was_said(
    pool: NamesPool, worker: NamesWorker
) -> None:
    await worker.create("n", b"one", said=Said(type="text/plain", labels={"k": "v"}))

    made = await worker.copy("m", "n")

    assert made.version == 1
    assert await worker.read("m") == b"one"
    assert (await worker.find("m")).content == (await worker.find("n")).content
    assert len((await pool.blobs.list_blobs(prefix="", cursor=None, limit=9)).entries) == 1


async def test_a_copy_of_nothing_leaves_the_target_as_it_was(worker: NamesWorker) -> None:
    await worker.create("m", b"one")

    with pytest.raises(NotFoundError):
        await worker.copy("m", "n")

    held = await worker.writes.look("m")
    assert held is not None
    assert (held.record.state, held.record.version, held.record.pending) == ("ok", 1, ())


async def test_a_copy_whose_bytes_are_gone_leaves_the_target_as_it_was(
    pool: NamesPool, worker: NamesWorker
) -> None:
    await worker.create("m", b"one")
    await worker.create("n", b"two")
    await pool.blobs.delete(digest_of(b"two"))

    with pytest.raises(NotFoundError):
        await worker.copy("m", "n")

    assert await worker.read("m") == b"one"
    held = await worker.writes.look("m")
    assert held is not None
    assert held.record.pending == ()


async def test_a_renamed_name_is_there_under_the_other_only(worker: NamesWorker) -> None:
    await worker.create("n", b"one", said=Said(labels={"k": "v"}))

    made = await worker.rename("m", "n")

    assert made == Named(name="m", digest=digest_of(b"one"), size=3, version=1)
    assert await worker.read("m") == b"one"
    assert (await worker.find("m")).content.labels == {"k": "v"}
    with pytest.raises(NotFoundError):
        await worker.read("n")


async def test_versions_are_kept_by_number_and_each_is_readable(worker: NamesWorker) -> None:
    await keep(worker, 3)
    await worker.create("n", b"1")
    for number in range(2, 6):
        await worker.replace("n", str(number).encode())

    history = await worker.names.history("n")

    assert [one.version for one in history.versions] == [5, 4, 3]
    for number in (3, 4, 5):
        assert await worker.read("n", version=number) == str(number).encode()
    with pytest.raises(NotFoundError):
        await worker.read("n", version=2)


async def test_a_version_is_restored_as_the_newest(worker: NamesWorker) -> None:
    await keep(worker, 3)
    await worker.create("n", b"one")
    await worker.replace("n", b"two")

    made = await worker.copy("n", "n", version=1)

    assert made.version == 3
    assert await worker.read("n") == b"one"


async def test_a_version_outlives_the_deletion_of_its_name(worker: NamesWorker) -> None:
    await keep(worker, 2)
    await worker.create("n", b"one")
    await worker.delete("n")

    assert await worker.read("n", version=1) == b"one"
    assert (await worker.copy("n", "n", version=1)).version == 2
    assert await worker.read("n") == b"one"


async def test_no_version_is_kept_unless_that_was_asked_for(worker: NamesWorker) -> None:
    await worker.create("n", b"one")
    await worker.replace("n", b"two")

    assert [one.version for one in (await worker.names.history("n")).versions] == [2]
    with pytest.raises(NotFoundError):
        await worker.read("n", version=1)


async def test_versions_go_out_of_date(pool: NamesPool, worker: NamesWorker) -> None:
    rule = Rule(prefix="", keep_versions=5, keep_seconds=60)
    await worker.names.rules.change([rule], expected=0)
    await worker.create("n", b"one")
    await worker.replace("n", b"two")
    pool.time.advance(59)
    assert await worker.read("n", version=1) == b"one"

    pool.time.advance(1)

    with pytest.raises(NotFoundError):
        await worker.read("n", version=1)


async def test_a_name_expires_at_its_time(pool: NamesPool, worker: NamesWorker) -> None:
    at = pool.time.clock() + timedelta(seconds=10)
    await worker.create("n", b"one", said=Said(expires_at=at))
    assert await worker.read("n") == b"one"

    pool.time.advance(10)

    with pytest.raises(NotFoundError):
        await worker.read("n")
    assert (await worker.create("n", b"two")).version == 2


async def test_a_renamed_name_expires_when_it_would_have_and_a_copy_does_not(
    pool: NamesPool, worker: NamesWorker
) -> None:
    at = pool.time.clock() + timedelta(seconds=10)
    await worker.create("n", b"one", said=Said(expires_at=at))
    await worker.copy("copy", "n")
    await worker.rename("m", "n")

    pool.time.advance(10)

    assert await worker.read("copy") == b"one"
    with pytest.raises(NotFoundError):
        await worker.read("m")


async def test_what_has_expired_is_no_version(pool: NamesPool, worker: NamesWorker) -> None:
    await keep(worker, 3)
    at = pool.time.clock() + timedelta(seconds=10)
    await worker.create("n", b"one", said=Said(expires_at=at))
    pool.time.advance(10)

    assert (await worker.create("n", b"two")).version == 2

    with pytest.raises(NotFoundError):
        await worker.read("n", version=1)


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_a_copy_that_loses_its_source_leaves_no_name(
    pool: NamesPool, worker: NamesWorker, is_deleted: bool
) -> None:
    if is_deleted:
        await worker.create("m", b"one")
        await worker.delete("m")
    await worker.create("n", b"two")
    await pool.blobs.delete(digest_of(b"two"))

    with pytest.raises((NotFoundError, CorruptError)):
        await worker.copy("m", "n")

    assert (await worker.names.history("m")).record.state == "deleted"


async def test_names_expire_by_the_rule_of_their_prefix(
    pool: NamesPool, worker: NamesWorker
) -> None:
    rules = [
        Rule(prefix="tmp/", expire_seconds=60),
        Rule(prefix="tmp/kept/", expire_seconds=600),
        Rule(name="tmp/one", expire_seconds=6000),
    ]
    await worker.names.rules.change(rules, expected=0)
    for name in ("tmp/a", "tmp/kept/a", "tmp/one", "a"):
        await worker.create(name, b"one")

    pool.time.advance(61)

    with pytest.raises(NotFoundError):
        await worker.read("tmp/a")
    for name in ("tmp/kept/a", "tmp/one", "a"):
        assert await worker.read(name) == b"one"


async def test_a_change_of_rules_may_be_repeated(pool: NamesPool, worker: NamesWorker) -> None:
    rules = [Rule(prefix="", keep_versions=3)]

    changed = await worker.names.rules.change(rules, expected=0)

    assert await pool.worker("b").names.rules.change(rules, expected=0) == changed


async def test_rules_of_the_longest_times_end_nothing(worker: NamesWorker) -> None:
    longest = Rule(prefix="", keep_versions=2, keep_seconds=2**40, expire_seconds=2**40)
    await worker.names.rules.change([longest], expected=0)
    await worker.create("n", b"one")
    await worker.replace("n", b"two")

    assert await worker.read("n") == b"two"
    assert await worker.read("n", version=1) == b"one"


@pytest.mark.parametrize(
    "rules",
    [
        [Rule(prefix="a", keep_versions=1), Rule(prefix="a", keep_versions=2)],
        [Rule(keep_versions=1)],
        [Rule(prefix="a", name="a")],
        [Rule(prefix=str(number)) for number in range(257)],
    ],
)
async def test_rules_that_make_no_sense_are_refused(worker: NamesWorker, rules: list[Rule]) -> None:
    with pytest.raises(InvalidError):
        await worker.names.rules.change(rules, expected=None)

    assert await worker.names.rules.read() == ((), 0)


async def test_a_history_tells_each_step_newest_first_at_the_end(worker: NamesWorker) -> None:
    await worker.create("n", b"one")
    await worker.replace("n", b"two")
    await worker.delete("n")

    steps = (await worker.names.history("n")).record.transitions

    assert [(step.state, step.version) for step in steps] == [
        ("pending", 0),
        ("ok", 1),
        ("ok", 2),
        ("deleted", 2),
    ]
    assert [step.revision for step in steps] == sorted({step.revision for step in steps})


async def test_of_a_long_history_the_last_sixteen_steps_are_kept(worker: NamesWorker) -> None:
    await worker.create("n", b"0")
    for number in range(1, 20):
        await worker.replace("n", str(number).encode())

    steps = (await worker.names.history("n")).record.transitions

    assert [step.version for step in steps] == list(range(5, 21))


@pytest.mark.parametrize("verb", ["create", "replace"])
@pytest.mark.parametrize("call", range(1, 8))
async def test_a_blob_whose_answer_is_lost_keeps_its_bytes(
    pool: NamesPool, verb: str, call: int
) -> None:
    pool.blobs = BucketBlobStore()
    steady = pool.worker("b")
    if verb == "replace":
        await steady.create("n", b"one")
    pause = Pause(call, lost=True)
    pause.wake()
    doomed = DoomedBlobStore(pool.blobs, pause)
    worker = NamesWorker("a", doomed, pool.names, pool.records, pool.time)

    with suppress(UnavailableError, OutcomeUnknownError):
        await (worker.create if verb == "create" else worker.replace)("n", b"two", op_id="x 1")

    with suppress(NotFoundError):
        assert await pool.blobs.get(await pool.blobs.stat(digest_of(b"two"))) == b"two"
    await (steady.create if verb == "create" else steady.replace)("n", b"two", op_id="x 1")
    assert await steady.read("n") == b"two"


@pytest.mark.parametrize(
    "name",
    ["a//b", "/a", "a/", ".", "..", "a/../b", "é", "e\u0301", " a", "a\n", "\x00", "*", "a.b", ">"],
)
async def test_any_text_is_a_name_of_its_own(worker: NamesWorker, name: str) -> None:
    await worker.create(name, name.encode())
    await worker.create("a", b"other")

    assert await worker.read(name) == name.encode()
    assert (await worker.names.history(name)).record.name == name


@pytest.mark.parametrize("name", ["", "x" * 513, "é" * 257, "\ud800"])
async def test_what_is_no_name_is_refused(pool: NamesPool, worker: NamesWorker, name: str) -> None:
    with pytest.raises(InvalidError):
        await worker.create(name, b"one")

    assert await pool.names.list_keys("") == []


@pytest.mark.parametrize("name", ["x" * 512, "/" * 512, "é" * 256, "." * 512])
async def test_the_longest_names_are_stored(worker: NamesWorker, name: str) -> None:
    await keep(worker, 2)
    await worker.create(name, b"one")
    await worker.replace(name, b"two")

    assert await worker.read(name, version=1) == b"one"


async def test_conditions_that_contradict_each_other_are_refused(worker: NamesWorker) -> None:
    for conditions in (
        Conditions(if_absent=True, if_version=1),
        Conditions(if_version=1),
        Conditions(if_digest="0" * 64),
    ):
        with pytest.raises(InvalidError):
            await worker.create("n", b"one", said=Said(conditions=conditions))
    with pytest.raises(InvalidError):
        await worker.replace("n", b"one", said=Said(conditions=Conditions(if_absent=True)))
    assert await worker.writes.look("n") is None


async def test_a_name_keeps_its_bytes_without_a_pin(pool: NamesPool, worker: NamesWorker) -> None:
    await worker.create("n", b"one")

    assert not (await pool.blobs.stat(digest_of(b"one"))).pinned
