"""Faults of the earlier store of states, as services met them: by the requests of today.

``Save`` is ``snapshot.save``, ``LoadLatest`` and ``GET /state`` are ``snapshot.latest``, ``POST
/state`` is ``snapshot.save`` of JSON as it is written, and ``POST /command`` ``snapshot.append``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from tests.deployment import code_of, deployed

from holdfast.client import connect
from holdfast.domain.limits import MIB
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deployment import Asker, Deployment

    from holdfast.client import Client
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats


@pytest.fixture
def pool(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """One worker, which a test may kill."""
    with deployed(nats_server.url, "one") as deployment:
        yield deployment


# --- the four operations ---


async def test_save_answers_the_hash_of_the_canonical_json(ask: Asker, name: str) -> None:
    await ask.json("snapshot.append", {"name": name, "command": {"open": "a"}})

    saved = await ask.json(
        "snapshot.save",
        {"name": name, "state": {"b": 2.0, "a": 1}, "last_applied_index": 1},
    )

    assert saved["state_hash"] == hashlib.sha256(b'{"a":1,"b":2}').hexdigest()
    assert (saved["last_applied_index"], saved["number"]) == (1, 1)


async def test_load_latest_answers_the_state_and_how_far_it_goes(ask: Asker, name: str) -> None:
    appended = await ask.json("snapshot.append", {"name": name, "command": 1})
    hlc = appended["hlc"]
    await ask.json(
        "snapshot.save",
        {"name": name, "state": [1], "last_applied_index": 1, "last_applied_hlc": hlc},
    )

    latest = await ask.json("snapshot.latest", {"name": name})

    assert (latest["state"], latest["last_applied_index"]) == ([1], 1)
    assert latest["last_applied_hlc"] == hlc


async def test_a_posted_state_is_got_back_whatever_its_size(holdfast: Client, name: str) -> None:
    for size in (0, 3 * MIB):
        text = json.dumps({"text": "x" * size}).encode()

        saved = await holdfast.states.save_json(name, text, last_applied_index=0, force=True)

        found = await holdfast.states.latest(name)
        assert found is not None
        assert found.state == json.loads(text)
        assert hashlib.sha256(await holdfast.get(saved.digest)).hexdigest() == saved.state_hash


async def test_a_posted_command_has_the_next_index_and_a_later_time(ask: Asker, name: str) -> None:
    answers = [
        await ask.json("snapshot.append", {"name": name, "command": {"n": n}}) for n in range(3)
    ]

    assert [answer["index"] for answer in answers] == [1, 2, 3]
    assert sorted({answer["hlc"] for answer in answers}) == [answer["hlc"] for answer in answers]


# --- what must not come back ---


async def test_a_state_that_is_not_there_is_told_from_one_that_cannot_be_reached(
    pool: Deployment,
) -> None:
    async with await connect(servers=pool.url, prefix=pool.prefix) as client:
        with pytest.raises(NotFoundError):
            await client.states.latest("nothing")
    pool.kill("one")
    async with await connect(servers=pool.url, prefix=pool.prefix, timeout_seconds=3) as client:
        with pytest.raises(UnavailableError):
            await client.states.latest("nothing")


async def test_an_older_state_does_not_overwrite_a_newer_one(holdfast: Client, name: str) -> None:
    await holdfast.states.append_many(name, [1, 2, 3])
    await holdfast.states.save(name, "three", last_applied_index=3)

    saves = [
        holdfast.states.save(name, f"late {index}", last_applied_index=index) for index in (1, 2)
    ]
    results = await asyncio.gather(*saves, return_exceptions=True)

    assert [type(result) for result in results] == [ConflictError, ConflictError]
    found = await holdfast.states.latest(name)
    assert found is not None
    assert found.state == "three"


async def test_a_save_that_is_refused_leaves_the_one_before(
    holdfast: Client, ask: Asker, name: str
) -> None:
    await holdfast.states.append(name, 1)
    await holdfast.states.save(name, "good", last_applied_index=1)
    request = b'{"name": "%s", "last_applied_index": 1, "state": %s}'

    codes = [
        code_of(await ask("snapshot.save", request % (name.encode(), state)))
        for state in (b'{"a": 1, "a": 2}', b"9007199254740993", b'"\\ud800"', b'"\xff"', b"[1")
    ]

    assert codes == ["invalid"] * 5
    found = await holdfast.states.latest(name)
    assert found is not None
    assert (found.state, found.record.number) == ("good", 1)


@pytest.mark.long
async def test_nothing_half_written_is_ever_loaded(pool: Deployment) -> None:
    async with await connect(servers=pool.url, prefix=pool.prefix, timeout_seconds=15) as client:
        await client.states.append("log", 1)
        states = [str(number) * 2 * MIB for number in range(4)]
        await client.states.save("log", states[0], last_applied_index=1)
        for state in states[1:]:
            saving = asyncio.create_task(client.states.save("log", state, last_applied_index=1))
            async for _ in client.names.list(".holdfast/"):  # it may be on its way
                pass
            pool.kill("one")
            pool.spawn("one")
            await asyncio.gather(saving, return_exceptions=True)
            await pool.wait_serving({"one"})

            found = await client.states.latest("log")

            assert found is not None
            assert found.state in states
            assert found.fell_back == []


async def test_a_name_reaches_no_other_state(holdfast: Client, name: str) -> None:
    names = [
        f"{name}/a",
        f"{name}/a/",
        f"{name}:a",
        f"{name}/../{name}/a",
        f"{name}/a.b",
    ]

    for number, each in enumerate(names):
        await holdfast.states.append(each, number)

    found = [[one.command async for one in holdfast.states.replay(each)] for each in names]
    assert found == [[number] for number in range(len(names))]
    for wild in (f"{name}/*", f"{name}/>"):
        with pytest.raises(InvalidError):
            await holdfast.states.append(wild, 1)


async def test_history_is_collected_while_the_process_runs(holdfast: Client, name: str) -> None:
    await holdfast.states.append(name, 0)
    await holdfast.states.set_policy(name, keep=2, trim=True)

    index = 0
    async with asyncio.timeout(60):
        while await holdfast.states.first_index(name) < 5:
            index += 1
            await holdfast.states.save(name, index, last_applied_index=index)
            await holdfast.states.append(name, index)

    assert len([record async for record in holdfast.states.saves(name)]) == 2
    found = await holdfast.states.latest(name)
    assert found is not None
    assert found.state == index


async def test_a_command_that_is_refused_is_not_half_appended(ask: Asker, name: str) -> None:
    await ask.json("snapshot.append", {"name": name, "command": 1})
    requests = [
        b'{"name": "%s", "commands": [2, "\xff"]}',
        b'{"name": "%s", "commands": [2, 1e999]}',
        b'{"name": "%s", "commands": [2, ' + b"[" * 513 + b"]" * 513 + b"]}",
        b'{"name": "%s", "commands": [2], "expected_index": -1}',
        b'{"name": "%s", "commands": [2], "hlc": "2999-01-01T00:00:00.000Z-0000"}',
        b'{"name": "%s"}',
    ]

    codes = [
        code_of(await ask("snapshot.append", request.replace(b"%s", name.encode())))
        for request in requests
    ]

    assert codes == ["invalid"] * len(requests)
    page = await ask.json("snapshot.replay", {"name": name})
    assert [entry["command"] for entry in page["entries"]] == [1]


async def test_a_failure_is_never_told_as_a_success(pool: Deployment) -> None:
    async with await connect(servers=pool.url, prefix=pool.prefix) as client:
        await client.states.append("log", 1)
    pool.kill("one")

    async with await connect(servers=pool.url, prefix=pool.prefix, timeout_seconds=3) as client:
        for call in (
            client.states.append("log", 2),
            client.states.save("log", 1, last_applied_index=1),
            client.states.save("log", b"x" * 2 * MIB, last_applied_index=1),
        ):
            with pytest.raises(HoldfastError) as caught:
                await call
            assert caught.value.retryable
            assert not isinstance(caught.value, InvalidError)
