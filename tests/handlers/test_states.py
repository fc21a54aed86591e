"""``snapshot.*`` of states over the wire: what is asked, what is answered, what is refused."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from tests.repository.states.pool import MAX_BYTES, StatesPool

from holdfast.domain.canonical import state_hash
from holdfast.domain.digest import digest_of
from holdfast.errors import ERRORS
from holdfast.handlers.follow import FollowHandlers
from holdfast.handlers.states import StateHandlers
from holdfast.runtime.dispatch import Dispatcher
from holdfast.stores.ports import Attributes

if TYPE_CHECKING:
    from holdfast.handlers.endpoint import AnyEndpoint
    from holdfast.runtime.dispatch import Answer

OWN: Final = ("snapshot.append.w1.json", "snapshot.append.w1.bytes")
MSGPACK: Final = "application/msgpack"
CODES: Final = {error.code for error in ERRORS}


class StatesService:
    """One worker's endpoints of states, over stores in memory."""

    def __init__(self) -> None:
        self.pool = StatesPool()
        worker = self.pool.worker()
        handlers = StateHandlers(
            worker.appender,
            worker.saves,
            worker.replays,
            worker.upkeep,
            append_subjects=OWN,
            prefix="p",
            max_inline_bytes=MAX_BYTES,
        )
        self.worker = worker
        self.follows = FollowHandlers(
            worker.replays, monotonic=self.pool.time.monotonic, heartbeat_seconds=0
        )
        self.endpoints: dict[str, AnyEndpoint] = {
            endpoint.operation.subject: endpoint
            for endpoint in (*handlers.endpoints(), *self.follows.endpoints())
        }
        self.dispatcher = Dispatcher(self.pool.time.sources, timeout_seconds=30)

    async def answer(self, verb: str, body: bytes | dict[str, Any], **headers: str) -> Answer:
        """Ask; ``_`` in a header's name stands for ``-``."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        endpoint = self.endpoints[f"snapshot.{verb}"]
        return await self.dispatcher.answer(endpoint, f"snapshot.{verb}", named, data)

    async def ask(self, verb: str, body: bytes | dict[str, Any], **headers: str) -> Any:
        """The answer, which is no failure."""
        answer = await self.answer(verb, body, **headers)
        assert answer.error is None, answer.error
        return msgspec.json.decode(answer.body)

    async def code(self, verb: str, body: bytes | dict[str, Any], **headers: str) -> str:
        """``ok``, or the code of the failure."""
        answer = await self.answer(verb, body, **headers)
        code = "ok" if answer.error is None else answer.error.code
        assert code == "ok" or code in CODES
        return code

    async def put(self, data: bytes) -> str:
        """The digest of a blob, which is there now."""
        digest = digest_of(data)
        attributes = Attributes(type="a/b", created_at=self.pool.time.clock())
        await self.pool.blobs.put(digest, data, attributes)
        return digest

    async def problem(self, verb: str, body: dict[str, Any], **headers: str) -> Any:
        """The problem in a failed answer."""
        answer = await self.answer(verb, body, **headers)
        assert answer.error is not None
        return msgspec.json.decode(answer.body)


@pytest.fixture
def service() -> StatesService:
    return StatesService()


async def test_a_command_is_appended_and_replayed_as_it_was_sent(service: StatesService) -> None:
    written = b'{"name":"s","command":{"b":1.50,"a":"\\u00e9","a":2}}'

    answer = await service.ask("append", written)
    page = await service.answer("replay", {"name": "s"})

    assert (answer["index"], answer["count"]) == (1, 1)
    assert answer["append_subject"] == f"p.{OWN[0]}"
    assert b'"command":{"b":1.50,"a":"\\u00e9","a":2}' in bytes(page.body)


async def test_an_append_and_a_page_may_be_msgpack(service: StatesService) -> None:
    command = {"n": [1, 2.5, None, True, "é"], "big": 2**63}
    body = msgspec.msgpack.encode({"name": "s", "commands": [command, "two"]})
    await service.answer("append", body, Content_Type=MSGPACK)

    asked = msgspec.msgpack.encode({"name": "s"})
    packed = await service.answer("replay", asked, Content_Type=MSGPACK)
    plain = await service.ask("replay", {"name": "s"})

    assert [one["command"] for one in plain["entries"]] == [command, "two"]
    entries = msgspec.msgpack.decode(packed.body)["entries"]
    assert [one["command"] for one in entries] == [command, "two"]


async def test_bytes_are_appended_and_told_in_base64(service: StatesService) -> None:
    answer = await service.ask("append_bytes", b"\xff\x00", Blob_Name="a%2Fb")

    page = await service.ask("replay", {"name": "a/b"})

    assert answer["append_subject"] == f"p.{OWN[1]}"
    assert page["entries"][0]["bytes"] == "/wA="
    assert "command" not in page["entries"][0]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"name":"s","command":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"name":"s","command":1e999}', id="beyond a double"),
        pytest.param(b'{"name":"s","command":' + b"9" * 400 + b"}", id="a huge integer"),
        pytest.param(b'{"name":"s","command":NaN}', id="NaN"),
        pytest.param(b'{"name":"s","command":"\\ud800"}', id="half a pair"),
        pytest.param(b'{"name":"s","command":' + b"[" * 513 + b"]" * 513 + b"}", id="deep"),
        pytest.param(
            b'{"name":"s","commands":[1,' + b"[" * 600 + b"]" * 600 + b"]}", id="one deep"
        ),
        pytest.param(b'{"name":"s","commands":[]}', id="none"),
        pytest.param(b'{"name":"s"}', id="none at all"),
        pytest.param(b'{"name":"s","command":1,"commands":[2]}', id="both"),
        pytest.param(b'{"name":"s","commands":[' + b"1," * 1000 + b"1]}", id="too many"),
        pytest.param(b'{"name":"","command":1}', id="no name"),
        pytest.param(b'{"name":"orders.*","command":1}', id="a wildcard"),
        pytest.param(b'{"name":"orders.>","command":1}', id="a wildcard for all"),
        pytest.param(b'{"name":"' + b"n" * 513 + b'","command":1}', id="a long name"),
        pytest.param('{"name":"%s","command":1}' % ("é" * 257), id="a name of many bytes"),
        pytest.param(b'{"name":"s","command":1,"expected_index":-1}', id="a negative index"),
        pytest.param(b'{"name":"s","command":1,"expected_index":"some"}', id="no index"),
        pytest.param(b'{"name":"s","command":1,"hlc":"yesterday"}', id="no time"),
        pytest.param(
            b'{"name":"s","command":1,"hlc":"2999-01-01T00:00:00.000Z-0000"}', id="far ahead"
        ),
    ],
)
async def test_what_is_no_command_is_invalid_and_nothing_is_appended(
    service: StatesService, body: bytes | str
) -> None:
    sent = body if isinstance(body, bytes) else body.encode()

    assert await service.code("append", sent) == "invalid"
    assert await service.code("replay", {"name": "s"}) == "not_found"


@pytest.mark.parametrize(
    "value", [b"bytes", {1: "a number for a name"}, float("nan")], ids=["bytes", "name", "NaN"]
)
async def test_what_json_cannot_say_is_invalid_in_msgpack_too(
    service: StatesService, value: Any
) -> None:
    body = msgspec.msgpack.encode({"name": "s", "command": value})

    assert await service.code("append", body, Content_Type=MSGPACK) == "invalid"


async def test_a_command_that_does_not_fit_is_too_large(service: StatesService) -> None:
    large = {"name": "s", "command": "x" * MAX_BYTES}

    assert await service.code("append", large) == "too_large"
    assert await service.code("append_bytes", b"x" * MAX_BYTES, Blob_Name="s") == "too_large"


async def test_the_largest_command_can_be_read_back(service: StatesService) -> None:
    size = MAX_BYTES - 3000
    await service.ask("append", {"name": "s", "command": "x" * size})

    answer = await service.answer("replay", {"name": "s"})

    assert memoryview(answer.body).nbytes <= MAX_BYTES
    assert len(msgspec.json.decode(answer.body)["entries"][0]["command"]) == size


async def test_a_name_may_be_any_text_without_wildcards(service: StatesService) -> None:
    for name in ("a.b", "a//b", "$HF.states.x", " ", "\n", "é" * 256):
        assert (await service.ask("append", {"name": name, "command": name}))["index"] == 1
        page = await service.ask("replay", {"name": name})
        assert [one["command"] for one in page["entries"]] == [name]


async def test_a_lost_fence_is_a_conflict_with_the_index_that_there_is(
    service: StatesService,
) -> None:
    await service.ask("append", {"name": "s", "commands": [1, 2], "expected_index": "none"})

    problem = await service.problem("append", {"name": "s", "command": 3, "expected_index": 1})

    assert (problem["code"], problem["index"]) == ("conflict", 2)
    assert await service.code("append", {"name": "t", "command": 1, "expected_index": 1}) == (
        "not_found"
    )


async def test_an_append_is_not_waited_for_longer_than_its_op_id_is_known(
    service: StatesService,
) -> None:
    body = {"name": "s", "command": 1}

    assert await service.code("append", body, Timeout="60.1") == "invalid"
    assert await service.code("append", body, Timeout="60") == "ok"


async def test_an_op_id_stands_for_one_request_of_one_kind(service: StatesService) -> None:
    first = await service.ask("append", {"name": "s", "command": 1}, Op_Id="x")

    assert await service.ask("append", {"name": "s", "command": 1}, Op_Id="x") == first
    assert await service.code("append", {"name": "s", "command": 2}, Op_Id="x") == "conflict"
    await service.ask("append_bytes", b"1", Blob_Name="s", Op_Id="y")
    assert await service.code("append_bytes", b"2", Blob_Name="s", Op_Id="y") == "conflict"


async def test_a_state_is_saved_as_canonical_json_and_told_whole(service: StatesService) -> None:
    await service.ask("append", {"name": "s", "commands": [1, 2]})
    body = b'{"name":"s","state":{"b": 1.0, "a":[1e2]},"last_applied_index":2}'

    saved = await service.ask("save", body)
    latest = await service.answer("latest", {"name": "s"})

    assert saved["state_hash"] == state_hash({"a": [100], "b": 1})
    assert b'"state":{"a":[100],"b":1}' in bytes(latest.body)
    again = {"name": "s", "if_none_match": saved["state_hash"]}
    unchanged = await service.ask("latest", again)
    assert unchanged["unchanged"]
    assert "state" not in unchanged


NO_STATES = pytest.mark.parametrize(
    "state",
    [
        b"NaN",
        b"9007199254740993",
        b'{"a":1,"a":1}',
        b'"\\ud800"',
        b'"\xff"',
        b"[" * 600 + b"]" * 600,
    ],
    ids=["NaN", "2^53", "a key twice", "half a pair", "not UTF-8", "deep"],
)


@NO_STATES
async def test_what_rfc_8785_cannot_say_is_no_state(service: StatesService, state: bytes) -> None:
    body = b'{"name":"s","last_applied_index":0,"state":' + state + b"}"

    assert await service.code("save", body) == "invalid"
    assert await service.code("latest", {"name": "s"}) == "not_found"


@NO_STATES
async def test_a_blob_that_is_no_state_is_not_saved_as_json(
    service: StatesService, state: bytes
) -> None:
    saved = {"name": "s", "digest": await service.put(state), "last_applied_index": 0}

    assert await service.code("save", saved) == "invalid"
    assert await service.code("latest", {"name": "s"}) == "not_found"


async def test_a_blob_that_is_not_canonical_is_saved_as_bytes_only(service: StatesService) -> None:
    digest = await service.put(b'{"b": 1, "a": 2}')
    saved = {"name": "s", "digest": digest, "last_applied_index": 0}

    assert await service.code("save", saved) == "invalid"
    assert (await service.ask("save", {**saved, "kind": "bytes"}))["state_hash"] == digest

    latest = await service.ask("latest", {"name": "s"})
    assert (latest["digest"], "state" in latest) == (digest, False)


async def test_a_canonical_blob_is_saved_as_the_state_that_it_is(service: StatesService) -> None:
    digest = await service.put(b'{"a":2,"b":1}')

    saved = await service.ask("save", {"name": "s", "digest": digest, "last_applied_index": 0})

    assert saved["state_hash"] == state_hash({"b": 1, "a": 2})
    assert (await service.ask("latest", {"name": "s"}))["state"] == {"a": 2, "b": 1}


async def test_a_save_says_a_state_or_a_blob(service: StatesService) -> None:
    at = {"name": "s", "last_applied_index": 0}

    assert await service.code("save", at) == "invalid"
    assert await service.code("save", {**at, "state": 1, "digest": "0" * 64}) == "invalid"
    assert await service.code("save", {**at, "state": 1, "kind": "bytes"}) == "invalid"
    assert await service.code("save", {**at, "digest": "0" * 64}) == "not_found"
    assert (
        await service.code("save", {**at, "state": 1, "last_applied_hlc": "x" * 129}) == "invalid"
    )


async def test_bytes_are_saved_and_loaded_by_their_digest(service: StatesService) -> None:
    saved = await service.ask(
        "save_bytes",
        b"\xff",
        Blob_Name="s",
        Blob_Last_Applied_Index="7",
        Blob_Last_Applied_Hlc="my own clock",
    )

    latest = await service.ask("latest", {"name": "s"})

    assert saved["digest"] == digest_of(b"\xff")
    assert latest == {**saved, "lineage": ".0.0"}
    assert (latest["kind"], latest["last_applied_hlc"]) == ("bytes", "my own clock")


async def test_a_state_is_found_by_index_time_and_hash(service: StatesService) -> None:
    await service.ask("append", {"name": "s", "commands": [1, 2]})
    first = await service.ask("save", {"name": "s", "state": 1, "last_applied_index": 1})
    service.pool.time.advance(10)
    await service.ask("save", {"name": "s", "state": 2, "last_applied_index": 2})

    for asked in ({"index": 1}, {"time": first["at"]}, {"hash": first["state_hash"]}):
        assert (await service.ask("at", {"name": "s", **asked}))["state"] == 1
    assert await service.code("at", {"name": "s"}) == "invalid"
    assert await service.code("at", {"name": "s", "time": "yesterday"}) == "invalid"


async def test_saves_and_states_come_in_pages(service: StatesService) -> None:
    for n in range(5):
        await service.ask("save", {"name": f"s/{n % 2}", "state": n, "last_applied_index": 0})

    first = await service.ask("saves", {"name": "s/0", "limit": 2})
    rest = await service.ask("saves", {"name": "s/0", "limit": 2, "cursor": first["cursor"]})
    states = await service.ask("states", {"prefix": "s/", "limit": 1})
    others = await service.ask("states", {"limit": 5, "cursor": states["cursor"]})

    assert [one["number"] for one in first["saves"] + rest["saves"]] == [3, 2, 1]
    assert "cursor" not in rest
    assert [one["name"] for one in states["states"] + others["states"]] == ["s/0", "s/1"]
    for verb in ("saves", "states"):
        body = {"cursor": "~~~", **({"name": "s/0"} if verb == "saves" else {})}
        assert await service.code(verb, body) == "invalid"


async def test_a_log_is_trimmed_by_hand_and_below_that_its_first_command_is_told(
    service: StatesService,
) -> None:
    await service.ask("append", {"name": "s", "commands": [1, 2, 3]})
    refused = await service.problem("trim", {"name": "s", "through_index": 1})
    for index in (1, 2):
        await service.ask("save", {"name": "s", "state": index, "last_applied_index": index})

    trimmed = await service.ask("trim", {"name": "s", "through_index": 1})
    below = await service.problem("replay", {"name": "s", "from_index": 1})

    assert (refused["code"], refused["index"]) == ("conflict", 0)
    assert trimmed == {"trimmed_through": 1, "first_index": 2}
    assert (below["code"], below["index"], below["first_index"]) == ("not_found", 2, 2)
    assert await service.code("replay", {"name": "s", "from_index": 5}) == "invalid"
    assert await service.code("trim", {"name": "s", "through_index": 4}) == "invalid"


async def test_a_policy_is_told_and_changed_field_by_field(service: StatesService) -> None:
    await service.ask("append", {"name": "s", "command": 1})

    await service.ask("state_policy", {"name": "s", "save_every": 100, "trim": True})
    policy = await service.ask("state_policy", {"name": "s", "keep": 3})

    assert policy == {"save_every": 100, "keep": 3, "keep_seconds": None, "trim": True}
    assert await service.ask("state_policy", {"name": "s"}) == policy
    assert await service.code("state_policy", {"name": "t"}) == "not_found"


async def test_a_state_is_removed_and_repaired_on_request(service: StatesService) -> None:
    for n in range(3):
        await service.ask("append", {"name": "s", "command": n})

    repaired = await service.ask("repair_state", {"name": "s", "from_index": 3})
    assert repaired == {"first_index": 1, "last_index": 2}
    assert (await service.ask("append", {"name": "s", "command": "on"}))["index"] == 3
    assert await service.ask("remove_state", {"name": "s"}) == {"removed": True}
    assert await service.ask("remove_state", {"name": "s"}) == {"removed": False}
    assert await service.code("repair_state", {"name": "s", "from_index": 1}) == "not_found"


async def test_a_repeat_of_a_removal_or_repair_is_known_by_its_op_id(
    service: StatesService,
) -> None:
    for verb, index in (("repair_state", 2), ("remove_state", 1)):
        request = {"name": "s", **({"from_index": 2} if verb == "repair_state" else {})}
        for n in range(3):
            await service.ask("append", {"name": "s", "command": n})
        first = await service.ask(verb, request, Op_Id=verb)
        await service.ask("append", {"name": "s", "command": "on"})

        assert await service.ask(verb, request, Op_Id=verb) == first
        [kept] = (await service.ask("replay", {"name": "s", "from_index": index}))["entries"]
        assert kept["command"] == "on"


# --- follow ---


async def told(answer: Answer, *, messages: int) -> list[tuple[dict[str, str], list[Any]]]:
    """The first so many messages of an answer."""
    found: list[tuple[dict[str, str], list[Any]]] = []
    assert answer.messages is not None
    async with aclosing(answer.messages) as sent:
        async for headers, body in sent:
            found.append((dict(headers), msgspec.json.decode(body)))
            if len(found) == messages:
                break
    return found


async def test_who_follows_is_told_whole_groups_and_where_to_go_on(service: StatesService) -> None:
    await service.ask("append", {"name": "s", "commands": [1, 2]})
    await service.ask("append", {"name": "s", "command": 3})

    answer = await service.answer("follow", {"name": "s", "from_index": 2, "credit": 1})
    first, entries, last = await told(answer, messages=9)

    assert (first[0]["Blob-Part"], first[0]["Blob-Next-Index"], first[1]) == ("0", "2", [])
    assert [one["command"] for one in entries[1]] == [2, 3]
    assert (last[0]["Blob-End"], last[0]["Blob-Next-Index"]) == ("credit", "4")


async def test_who_follows_hears_of_what_is_appended_while_it_waits(service: StatesService) -> None:
    await service.ask("append", {"name": "s", "command": 1})
    answer = await service.answer("follow", {"name": "s", "from_index": 2})
    assert answer.messages is not None

    async with aclosing(answer.messages) as sent:
        await anext(sent)
        await service.ask("append", {"name": "s", "command": 2})
        while not (entries := msgspec.json.decode((await anext(sent))[1])):
            pass
        await service.follows.drain(1)
        ends = [headers.get("Blob-End") async for headers, _ in sent]

    assert [one["index"] for one in entries] == [2]
    assert ends[-1] == "drain"


async def test_a_follow_ends_with_its_lease(service: StatesService) -> None:
    await service.ask("append", {"name": "s", "command": 1})
    answer = await service.answer("follow", {"name": "s", "from_index": 2})
    assert answer.messages is not None

    async with aclosing(answer.messages) as sent:
        await anext(sent)
        service.pool.time.advance(61)
        ends = [headers.get("Blob-End") async for headers, _ in sent]

    assert ends[-1] == "lease"


async def test_what_cannot_be_followed_is_refused_at_once(service: StatesService) -> None:
    assert await service.code("follow", {"name": "s"}) == "not_found"
    await service.ask("append", {"name": "s", "command": 1})
    assert await service.code("follow", {"name": "s", "from_index": 3}) == "invalid"
