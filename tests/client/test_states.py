"""States by the client: what is appended and saved is there, in order, and once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.client import connect
from holdfast.client.states.following import ReadLog, followed, replayed
from holdfast.client.states.verify import verified
from holdfast.domain.limits import MAX_COMMANDS, MIB
from holdfast.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
)
from holdfast.protocol import codec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from nats.aio.msg import Msg
    from tests.deployment import Asker, Deployment

    from holdfast.client import Client
    from holdfast.client.states.values import LogCommand

pytestmark = pytest.mark.nats

SECONDS = 60.0


async def logged(client: Client, name: str, from_index: int = 1) -> list[LogCommand]:
    """The log, from an index on."""
    return [one async for one in client.states.replay(name, from_index)]


@asynccontextmanager
async def counted(ask: Asker) -> AsyncIterator[list[Msg]]:
    """The appends that any client asks for, by any way."""
    asked: list[Msg] = []

    async def note(message: Msg) -> None:
        asked.append(message)

    subject = ask.deployment.subject("snapshot.append")
    for each in (subject, f"{subject}.>"):
        await ask.client.subscribe(each, cb=note)
    await ask.client.flush()
    yield asked
    await ask.client.flush()


# --- the log ---


async def test_commands_come_back_as_they_were_appended_numbered_from_one(
    holdfast: Client, name: str
) -> None:
    commands: list[Any] = [{"a": [1, 2.5, None, True]}, "text é", 2**60, [], b"\x00\xff", b""]

    positions = [await holdfast.states.append(name, command) for command in commands]

    found = await logged(holdfast, name)
    assert [one.command for one in found] == commands
    assert [one.index for one in found] == [1, 2, 3, 4, 5, 6]
    assert [(one.index, one.hlc) for one in found] == [(p.index, p.hlc) for p in positions]
    assert sorted({one.hlc for one in found}) == [one.hlc for one in found]


async def test_appends_of_many_tasks_are_in_the_log_as_they_were_called_in_few_requests(
    holdfast: Client, ask: Asker, name: str
) -> None:
    await holdfast.states.append(name, "first")

    async with counted(ask) as asked:
        positions = await asyncio.gather(*(holdfast.states.append(name, n) for n in range(300)))

    found = (await logged(holdfast, name))[1:]
    assert [one.command for one in found] == list(range(300))
    assert [(p.index, p.hlc) for p in positions] == [(one.index, one.hlc) for one in found]
    assert 1 <= len(asked) < 10


async def test_what_is_bytes_or_fenced_keeps_its_turn_among_others(
    holdfast: Client, name: str
) -> None:
    append = holdfast.states.append
    calls = [append(name, 1), append(name, b"2"), append(name, 3, expected_index=2)]
    calls += [append(name, 4), append(name, 5, hlc="2020-01-01T00:00:00.000Z-0000")]

    positions = await asyncio.gather(*calls)

    assert [position.index for position in positions] == [1, 2, 3, 4, 5]
    assert [one.command for one in await logged(holdfast, name)] == [1, b"2", 3, 4, 5]


async def test_appends_that_need_no_order_have_an_index_each(holdfast: Client, name: str) -> None:
    append = holdfast.states.append

    positions = await asyncio.gather(*(append(name, n, ordered=False) for n in range(50)))

    found = {one.index: one.command for one in await logged(holdfast, name)}
    assert {position.index: n for n, position in enumerate(positions)} == found
    assert sorted(found) == list(range(1, 51))


async def test_appends_that_begin_a_log_together_go_on_at_one_worker(
    holdfast: Client, ask: Asker, name: str
) -> None:
    async def append_some() -> None:
        for number in range(4):
            await holdfast.states.append(name, number, ordered=False)

    async with counted(ask) as asked:
        await asyncio.gather(*(append_some() for _ in range(32)))

    anyone = ask.deployment.subject("snapshot.append")
    assert len({message.subject for message in asked} - {anyone}) == 1


async def test_a_batch_is_there_whole(holdfast: Client, name: str) -> None:
    positions = await holdfast.states.append_many(name, ["a", "b", "c"], expected_index="none")

    assert [position.index for position in positions] == [1, 2, 3]
    assert [one.command for one in await logged(holdfast, name)] == ["a", "b", "c"]
    assert await holdfast.states.append_many(name, []) == []


async def test_whoever_was_overtaken_is_told_by_whom(holdfast: Client, name: str) -> None:
    await holdfast.states.append(name, 1, expected_index="none")

    with pytest.raises(ConflictError) as first:
        await holdfast.states.append(name, 2, expected_index="none")
    with pytest.raises(ConflictError) as second:
        await holdfast.states.append_many(name, [2, 3], expected_index=0)

    assert (first.value.index, second.value.index) == (1, 1)
    assert len(await logged(holdfast, name)) == 1


async def test_what_is_meant_for_a_log_that_was_removed_does_not_go_to_the_one_begun_anew(
    holdfast: Client, name: str
) -> None:
    states = holdfast.states
    old = await states.append(name, 1)
    await states.remove(name)
    assert (await states.append(name, 2)).index == old.index
    that_log: dict[str, Any] = {"lineage": old.lineage}

    for meant in (
        states.append(name, 3, **that_log),
        states.append(name, 3, expected_index=1, **that_log),
        states.append(name, b"3", **that_log),
        states.append_many(name, [3], **that_log),
        states.save(name, 3, last_applied_index=1, **that_log),
        states.save(name, b"3", last_applied_index=1, **that_log),
    ):
        with pytest.raises(ConflictError):
            await meant

    assert [one.command for one in await logged(holdfast, name)] == [2]


async def test_who_reads_on_reads_the_log_of_what_he_has(holdfast: Client, name: str) -> None:
    states = holdfast.states
    await states.append_many(name, [1, 2])
    await states.save(name, 1, last_applied_index=1)
    saved = await states.latest(name)
    assert saved is not None
    that_log: dict[str, Any] = {"lineage": saved.lineage}

    assert [one.lineage for one in await logged(holdfast, name)] == [saved.lineage] * 2
    for read in (states.replay, states.follow):
        assert await first_of(read(name, 2, **that_log), 1) == [2]

    await states.remove(name)
    await states.append_many(name, [3, 4, 5])
    for read in (states.replay, states.follow):
        with pytest.raises(ConflictError):
            await first_of(read(name, 3, **that_log), 1)


async def test_a_number_is_expected_of_a_log_that_is_not_there_is_not_found(
    holdfast: Client, name: str
) -> None:
    with pytest.raises(NotFoundError):
        await holdfast.states.append(name, 1, expected_index=7)
    with pytest.raises(NotFoundError):
        await logged(holdfast, name)


@pytest.mark.parametrize(
    "command",
    [math.nan, {"a": math.inf}, "\ud800", object(), 10**400, json.loads("[" * 600 + "]" * 600)],
    ids=["NaN", "infinity", "surrogate", "object", "no double", "deep"],
)
async def test_a_command_that_is_no_json_is_refused_and_what_came_with_it_is_not(
    command: object, holdfast: Client, name: str
) -> None:
    append = holdfast.states.append

    results = await asyncio.gather(
        *(append(name, each) for each in (1, 2, command, 3)), return_exceptions=True
    )

    assert isinstance(results[2], InvalidError)
    assert [one.command for one in await logged(holdfast, name)] == [1, 2, 3]


async def test_what_may_have_been_appended_is_not_appended_anew_when_the_repeat_is_refused(
    ask: Asker, name: str
) -> None:
    asked: list[Msg] = []

    async def answer(message: Msg) -> None:
        asked.append(message)
        error = OutcomeUnknownError("lost") if len(asked) == 1 else InvalidError("refused")
        headers, body = codec.encode_error(error, codec.Encoding.JSON)
        await ask.client.publish(message.reply, body, headers=headers)

    await ask.client.subscribe("elsewhere.snapshot.append", cb=answer)
    await ask.client.flush()
    async with await connect(servers=ask.deployment.url, prefix="elsewhere") as client:
        results = await asyncio.gather(
            *(client.states.append(name, n) for n in range(2)), return_exceptions=True
        )

    assert [type(result) for result in results] == [OutcomeUnknownError] * 2
    assert len({(message.headers or {})["Op-Id"] for message in asked}) == 1


async def test_whoever_gives_up_while_waiting_takes_nothing_of_others_along(
    holdfast: Client, name: str
) -> None:
    append = holdfast.states.append
    tasks = [asyncio.ensure_future(append(name, n)) for n in range(3)]
    await asyncio.sleep(0)

    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(results[1], asyncio.CancelledError)
    found = [one.command for one in await logged(holdfast, name)]
    assert found in ([0, 1, 2], [0, 2])


async def test_a_name_that_is_none_is_invalid(holdfast: Client) -> None:
    for name in ("", "x" * 513, "\ud800"):
        with pytest.raises(InvalidError):
            await holdfast.states.append(name, 1)


# --- following ---


async def test_whoever_follows_has_what_was_there_and_what_comes(
    holdfast: Client, name: str
) -> None:
    await holdfast.states.append_many(name, [1, 2, 3])

    async with aclosing(holdfast.states.follow(name, 2)) as log:
        found = [(await anext(log)).command for _ in range(2)]
        await holdfast.states.append_many(name, [4, 5])
        found += [(await anext(log)).command for _ in range(2)]

    assert found == [2, 3, 4, 5]


async def test_another_worker_goes_on_for_one_that_is_killed(pool: Deployment) -> None:
    async with (
        asyncio.timeout(SECONDS),
        await connect(servers=pool.url, prefix=pool.prefix) as client,
    ):
        await client.states.append("log", 0)
        following = asyncio.create_task(first_of(client.states.follow("log"), 40))
        for number in range(1, 40):
            await client.states.append("log", number)
            if number == 20:
                pool.kill("one")

        assert await following == list(range(40))


async def test_whoever_reads_on_is_told_that_the_log_is_another(
    holdfast: Client, name: str
) -> None:
    for read in (replayed, followed):
        await holdfast.states.append_many(name, [0] * MAX_COMMANDS)
        await holdfast.states.append(name, 0)
        log = ReadLog(name)
        async with asyncio.timeout(SECONDS), aclosing(read(holdfast.requester, log, 1)) as pages:
            index = (await anext(pages))[-1].index
        await holdfast.states.remove(name)
        await holdfast.states.append_many(name, [1] * MAX_COMMANDS)
        await holdfast.states.append_many(name, [1] * MAX_COMMANDS)

        async with (
            asyncio.timeout(SECONDS),
            aclosing(read(holdfast.requester, log, index + 1)) as on,
        ):
            with pytest.raises(ConflictError):
                await anext(on)
        await holdfast.states.remove(name)


async def first_of(log: AsyncGenerator[LogCommand], count: int) -> list[Any]:
    """The first commands of a log that is followed."""
    async with aclosing(log):
        return [(await anext(log)).command for _ in range(count)]


# --- saves ---


@pytest.mark.parametrize(
    "state",
    [{"b": 1.0, "a": ["é", None]}, b"\x00\xff", b"", {"large": "x" * 3 * MIB}, b"x" * 3 * MIB],
    ids=["JSON", "bytes", "no bytes", "large JSON", "large bytes"],
)
async def test_the_state_that_was_saved_is_the_one_that_is_loaded(
    state: Any, holdfast: Client, name: str
) -> None:
    position = await holdfast.states.append(name, "a")

    saved = await holdfast.states.save(
        name, state, last_applied_index=position.index, last_applied_hlc=position.hlc
    )
    found = await holdfast.states.latest(name)

    assert found is not None
    assert found.state == state
    assert found.record == saved
    assert (saved.last_applied_index, saved.last_applied_hlc) == (1, position.hlc)
    assert saved.kind == ("bytes" if isinstance(state, bytes) else "json")
    assert saved.digest == saved.state_hash
    assert await holdfast.states.latest(name, if_none_match=saved.state_hash) is None


async def test_a_state_is_stored_as_rfc_8785_writes_it(holdfast: Client, name: str) -> None:
    await holdfast.states.append(name, 1)

    saved = await holdfast.states.save(name, {"b": 1.0, "a": "é"}, last_applied_index=1)

    text = '{"a":"é","b":1}'.encode()
    assert saved.state_hash == hashlib.sha256(text).hexdigest()
    assert await holdfast.get(saved.digest) == text


async def test_a_large_save_is_kept_by_the_state_alone(holdfast: Client, name: str) -> None:
    await holdfast.states.append(name, 1)

    saved = await holdfast.states.save(name, b"x" * 2 * MIB, last_applied_index=1)

    assert not (await holdfast.stat(saved.digest)).pinned
    assert [row async for row in holdfast.names.list(".holdfast/states/")] == []


@pytest.mark.parametrize("size", [5, 2 * MIB])
async def test_a_save_is_loaded_though_its_blob_was_deleted_by_the_digest(
    holdfast: Client, name: str, size: int
) -> None:
    await holdfast.states.append(name, 1)
    saved = await holdfast.states.save(name, name.encode() + bytes(size), last_applied_index=1)

    assert await holdfast.delete(saved.digest)

    found = await holdfast.states.latest(name)
    assert found is not None
    assert found.state == name.encode() + bytes(size)
    assert (await holdfast.states.verify(name)).damaged == []


async def test_saves_before_are_found_by_index_by_time_and_by_hash(
    holdfast: Client, name: str
) -> None:
    await holdfast.states.append_many(name, [1, 2, 3])
    saves = [
        await holdfast.states.save(name, {"sum": index}, last_applied_index=index)
        for index in (1, 2, 3)
    ]

    listed = [record async for record in holdfast.states.saves(name)]
    by_index = await holdfast.states.at(name, index=2)
    by_hash = await holdfast.states.at(name, hash=saves[0].state_hash)

    assert listed == saves[::-1]
    assert [record.previous for record in listed] == [
        saves[1].state_hash,
        saves[0].state_hash,
        None,
    ]
    assert (by_index.state, by_index.record) == ({"sum": 2}, saves[1])
    assert (by_hash.state, by_hash.record) == ({"sum": 1}, saves[0])
    with pytest.raises(NotFoundError):
        await holdfast.states.at(name, hash="0" * 64)


async def test_an_older_save_is_a_conflict_unless_it_is_forced(holdfast: Client, name: str) -> None:
    await holdfast.states.append_many(name, [1, 2])
    await holdfast.states.save(name, "two", last_applied_index=2)

    with pytest.raises(ConflictError):
        await holdfast.states.save(name, "one", last_applied_index=1)
    await holdfast.states.save(name, "one", last_applied_index=1, force=True)

    found = await holdfast.states.latest(name)
    assert found is not None
    assert found.state == "one"


async def test_a_save_of_what_is_not_in_the_log_is_invalid(holdfast: Client, name: str) -> None:
    await holdfast.states.append(name, 1)

    with pytest.raises(InvalidError):
        await holdfast.states.save(name, "later", last_applied_index=2)
    with pytest.raises(NotFoundError):
        await holdfast.states.latest(name)


@pytest.mark.parametrize("state", [math.nan, 2**53 + 1, {"\ud800": 1}, object()])
async def test_a_state_that_is_no_json_is_invalid(
    state: object, holdfast: Client, name: str
) -> None:
    await holdfast.states.append(name, 1)

    with pytest.raises(InvalidError):
        await holdfast.states.save(name, state, last_applied_index=1)


async def test_a_state_is_streamed_from_a_file_and_into_one(
    holdfast: Client, name: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"0123456789" * MIB)
    await holdfast.states.append(name, 1)

    saved = await holdfast.states.save_from(name, source, last_applied_index=1)
    record = await holdfast.states.read_to(name, target)

    assert record == saved
    assert target.read_bytes() == source.read_bytes()


async def test_what_is_read_back_is_told_with_what_is_wrong_of_it(
    holdfast: Client, name: str
) -> None:
    await holdfast.states.append_many(name, [1, 2])
    for index in (1, 2):
        await holdfast.states.save(name, index, last_applied_index=index)
    await holdfast.states.append(name, 3)

    found = await holdfast.states.verify(name)

    assert (found.saves, found.commands, found.damaged) == (2, 2, [])


async def test_a_state_is_healthy_though_its_log_begins_behind_its_oldest_save(
    holdfast: Client, name: str
) -> None:
    for index in (3, 4, 5):
        await holdfast.states.save(name, index, last_applied_index=index)
    found = await holdfast.states.verify(name)
    assert (found.saves, found.commands, found.damaged) == (3, 0, [])

    for command in (6, 7, 8):
        await holdfast.states.append(name, command)
    found = await holdfast.states.verify(name)
    assert (found.saves, found.commands, found.damaged) == (3, 3, [])

    for index in (6, 7):
        await holdfast.states.save(name, index, last_applied_index=index)
    await holdfast.states.trim(name, 6)
    found = await holdfast.states.verify(name)
    assert (found.saves, found.commands, found.damaged) == (5, 2, [])


async def test_a_log_that_begins_behind_all_saves_is_told_to_be_damaged_and_read(
    holdfast: Client, name: str
) -> None:
    states, other = holdfast.states, f"{name}/other"
    await states.append_many(name, [1, 2, 3])
    for index in (2, 3):
        await states.save(name, index, last_applied_index=index)
    await states.trim(name, 2)
    await states.save(other, 1, last_applied_index=1)

    found = await verified(
        partial(states.saves, other), holdfast.stream, partial(states.replay, name)
    )

    assert (found.saves, found.commands) == (1, 1)
    assert found.damaged == ["log: the log begins with command 3, and no save leads up to there"]


# --- what is kept ---


async def test_a_log_is_trimmed_at_most_to_the_save_before_the_newest(
    holdfast: Client, name: str
) -> None:
    await holdfast.states.append_many(name, [1, 2, 3, 4])
    for index in (2, 3):
        await holdfast.states.save(name, index, last_applied_index=index)

    with pytest.raises(ConflictError):
        await holdfast.states.trim(name, 3)
    trimmed = await holdfast.states.trim(name, 2)

    assert (trimmed.trimmed_through, trimmed.first_index) == (2, 3)
    assert [one.command for one in await logged(holdfast, name, 3)] == [3, 4]
    assert await holdfast.states.first_index(name) == 3
    with pytest.raises(NotFoundError):
        await logged(holdfast, name, 2)


async def test_states_are_listed_until_they_are_removed(holdfast: Client, name: str) -> None:
    for number in range(3):
        await holdfast.states.append(f"{name}/{number}", 1)

    async def listed() -> list[str]:
        return sorted([entry.name async for entry in holdfast.states.list(f"{name}/")])

    assert await listed() == [f"{name}/{number}" for number in range(3)]
    assert await holdfast.states.remove(f"{name}/1")
    assert not await holdfast.states.remove(f"{name}/1")
    assert await listed() == [f"{name}/0", f"{name}/2"]
    assert (await holdfast.states.append(f"{name}/1", "anew")).index == 1


async def test_a_policy_is_told_and_changed_where_something_is_said(
    holdfast: Client, name: str
) -> None:
    await holdfast.states.append(name, 1)

    await holdfast.states.set_policy(name, save_every=7, keep=3)
    changed = await holdfast.states.set_policy(name, keep=5)

    assert changed == await holdfast.states.policy(name)
    assert (changed.save_every, changed.keep) == (7, 5)


async def test_plain_requests_say_the_same(holdfast: Client, ask: Asker, name: str) -> None:
    await holdfast.states.append(name, {"a": 1})
    await holdfast.states.save(name, {"sum": 1}, last_applied_index=1)

    page = await ask.json("snapshot.replay", {"name": name})
    latest = await ask.json("snapshot.latest", {"name": name})

    assert [entry["command"] for entry in page["entries"]] == [{"a": 1}]
    assert latest["state"] == {"sum": 1}


async def test_a_blob_that_is_deleted_stays_for_the_states_that_have_it(
    holdfast: Client, name: str
) -> None:
    saved = await holdfast.states.save(name, {"n": 1}, last_applied_index=0)
    assert await holdfast.put(b'{"n":1}') is not None

    assert await holdfast.delete(saved.digest)

    latest = await holdfast.states.latest(name)
    assert latest is not None
    assert latest.state == {"n": 1}
