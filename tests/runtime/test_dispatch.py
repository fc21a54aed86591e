"""The one place where failures become answers, with endpoints made up to fail."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from holdfast.bootstrap.sources import SOURCES
from holdfast.deadline import seconds_left
from holdfast.domain.op_id import bind_op_id, split_op_id
from holdfast.errors import (
    ERRORS,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.handlers.endpoint import AnyEndpoint, BytesReply, Call, Endpoint
from holdfast.protocol.blobs import (
    DELETE_BLOB,
    GET_BLOB,
    PUT_BLOB,
    STAT_BLOB,
    BlobDeleted,
    BlobHead,
    BlobStat,
    BlobStored,
    DeleteBlob,
    PutBlob,
    StatBlob,
)
from holdfast.runtime.dispatch import Answer, Dispatcher

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DIGEST = "ab" * 32
REQUEST = msgspec.json.encode({"digest": DIGEST})
SECRET = "hunter2 at /srv/secret.py"
STORED = BlobStored(digest=DIGEST, size=0, created=True)


def dispatcher(timeout_seconds: float = 5) -> Dispatcher:
    """One whose clock stands still."""
    sources = replace(SOURCES, clock=lambda: NOW, monotonic=lambda: 0.0)
    return Dispatcher(sources, timeout_seconds=timeout_seconds)


def deleting(handle: Callable[[DeleteBlob, Call], Any]) -> AnyEndpoint:
    """An endpoint that mutates, its body a message."""
    return Endpoint(DELETE_BLOB, handle)


def raising(error: BaseException) -> AnyEndpoint:
    """An endpoint that fails."""

    async def handle(request: DeleteBlob, call: Call) -> BlobDeleted:
        del request, call
        raise error

    return deleting(handle)


async def ask(
    endpoint: AnyEndpoint, body: bytes = REQUEST, timeout_seconds: float = 5, **headers: str
) -> Answer:
    """The answer to ``body``. ``_`` in a header's name stands for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    subject = endpoint.operation.subject
    return await dispatcher(timeout_seconds).answer(endpoint, subject, named, body)


def code_of(answer: Answer) -> str:
    """The code of a failed answer."""
    return str(msgspec.json.decode(answer.body)["code"])


async def calls_of(body: bytes = REQUEST, **headers: str) -> Call:
    """The call that the handler gets beside its message."""
    seen: list[Call] = []

    async def handle(request: DeleteBlob, call: Call) -> BlobDeleted:
        assert request.digest == DIGEST
        seen.append(call)
        return BlobDeleted(deleted=True)

    answer = await ask(deleting(handle), body, 5, **headers)
    assert answer.error is None
    return seen[0]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.code)
async def test_every_failure_has_its_code_on_the_wire(kind: type[HoldfastError]) -> None:
    answer = await ask(raising(kind("what went wrong")))

    assert answer.headers["Nats-Service-Error"] == "what went wrong"
    assert answer.headers["Nats-Service-Error-Code"] == str(kind.status)
    assert msgspec.json.decode(answer.body) == {
        "type": f"urn:holdfast:error:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
        "detail": "what went wrong",
        "retryable": kind.retryable,
    }


@pytest.mark.parametrize(
    "bug",
    [ValueError(SECRET), KeyError(SECRET), OSError(5, SECRET), RecursionError(SECRET)],
    ids=lambda bug: type(bug).__name__,
)
async def test_a_bug_is_reported_without_its_story(bug: Exception) -> None:
    answer = await ask(raising(bug))

    assert code_of(answer) == "internal"
    assert b"hunter2" not in bytes(answer.body)
    assert "hunter2" not in str(answer.headers)


async def test_cancellation_is_not_an_answer() -> None:
    with pytest.raises(asyncio.CancelledError):
        await ask(raising(asyncio.CancelledError()))


@pytest.mark.fault("I06")
async def test_an_error_with_control_characters_stays_on_one_line() -> None:
    answer = await ask(raising(OutcomeUnknownError("a\r\nNats-Rollup: all\x1b[2J" + "x" * 9999)))

    header = answer.headers["Nats-Service-Error"]
    assert header.isprintable()
    assert len(header) <= 300


@pytest.mark.parametrize(
    ("mutates", "code"), [(True, "outcome_unknown"), (False, "unavailable")], ids=["put", "read"]
)
async def test_what_does_not_end_in_time_is_unknown_if_it_changes_anything(
    mutates: bool, code: str
) -> None:
    async def handle(request: Any, call: Call) -> Any:
        del request, call
        await asyncio.Event().wait()

    endpoint: AnyEndpoint = (
        Endpoint(DELETE_BLOB, handle) if mutates else Endpoint(STAT_BLOB, handle)
    )

    assert code_of(await ask(endpoint, Timeout="0.01")) == code
    assert code_of(await ask(endpoint, timeout_seconds=0.01)) == code


@pytest.mark.fault("N16")
async def test_who_heeds_the_deadline_can_still_say_that_nothing_was_changed() -> None:
    """A store that waits for its leader gives up a moment before the caller does."""

    async def handle(request: DeleteBlob, call: Call) -> BlobDeleted:
        del request, call
        await asyncio.sleep(seconds_left(60))
        raise UnavailableError

    answer = await ask(deleting(handle), Timeout="0.5")

    assert code_of(answer) == "unavailable"


async def test_the_handler_is_told_who_asks_when_and_where() -> None:
    call = await calls_of(Op_Id="op-1")

    assert (call.now, bytes(call.data)) == (NOW, REQUEST)
    assert call.op_id == bind_op_id("op-1", DELETE_BLOB.subject, REQUEST)
    assert call.target == "delete"
    assert call.has_time()


async def test_an_op_id_may_be_left_out_and_is_at_most_64_printable_characters() -> None:
    assert (await calls_of()).op_id is None
    assert split_op_id((await calls_of(Op_Id="~" * 64)).op_id or "")[0] == "~" * 64
    for wrong in ("", "a" * 65, "a b", "a\tb", "é", "\x7f"):
        answer = await ask(raising(AssertionError("never called")), Op_Id=wrong)
        assert code_of(answer) == "invalid"


@pytest.mark.parametrize("text", ["1", "0.5", "3600", "0.000001", "000001"])
async def test_a_timeout_is_a_number_of_seconds(text: str) -> None:
    assert (await calls_of(Timeout=text)).has_time()


@pytest.mark.fault("I03")
@pytest.mark.parametrize(
    "text", ["0", "-1", "inf", "nan", "1e2", "3600.1", "", " 1", "1 ", "\u0663", "9" * 99]
)
async def test_another_timeout_is_invalid(text: str) -> None:
    answer = await ask(raising(AssertionError("never called")), Timeout=text)

    assert code_of(answer) == "invalid"


async def test_half_of_the_callers_time_is_what_a_long_task_may_use() -> None:
    seen: list[bool] = []
    seconds = [0.0]

    async def handle(request: StatBlob, call: Call) -> Any:
        del request
        for seconds[0] in (0.0, 4.9, 5.1):
            seen.append(call.has_time())
        return BlobDeleted(deleted=False)

    sources = replace(SOURCES, monotonic=lambda: seconds[0])
    timed = Dispatcher(sources, timeout_seconds=99)
    await timed.answer(Endpoint(STAT_BLOB, handle), "blob.stat", {"Timeout": "10"}, REQUEST)

    assert seen == [True, True, False]


@pytest.mark.fault("I01")
@pytest.mark.parametrize("size", range(1, len(REQUEST)))
async def test_a_request_cut_anywhere_is_invalid(size: int) -> None:
    assert code_of(await ask(raising(AssertionError()), REQUEST[:size])) == "invalid"


@pytest.mark.fault("I01")
@pytest.mark.fault("I04")
@pytest.mark.parametrize(
    "body",
    [
        b"\0",
        b"null",
        b"[]",
        b"1",
        b'"' + DIGEST.encode() + b'"',
        b'{"digest": 1}',
        b'{"digest": ["a"]}',
        b"\xef\xbb\xbf" + REQUEST,
        REQUEST + b"x",
        b'{"digest": "' + b"\xff" * 64 + b'"}',
        b'{"digest": "' + b"\\ud800" * 11 + b'"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"digest": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"digest": 1e999}',
        b'{"digest": NaN}',
        b'{"digest": "' + DIGEST.upper().encode() + b'"}',
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_a_body_that_is_no_request_is_invalid(body: bytes) -> None:
    assert code_of(await ask(raising(AssertionError()), body)) == "invalid"


async def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    twice = b'{"digest": "' + b"cd" * 32 + b'", "digest": "' + DIGEST.encode() + b'"}'

    assert (await calls_of(twice)).data == twice


async def test_a_body_of_bytes_may_say_any_content_type() -> None:
    async def handle(request: PutBlob, call: Call) -> BlobStored:
        del request, call
        return STORED

    endpoint: AnyEndpoint = Endpoint(PUT_BLOB, handle)

    for content_type in ("image/png", "application/json", "nonsense"):
        answer = await ask(endpoint, b"\xff\x00", Content_Type=content_type)
        assert msgspec.json.decode(answer.body) == {"digest": DIGEST, "size": 0, "created": True}
    answer = await ask(endpoint, b"", Content_Type="application/msgpack")
    assert msgspec.msgpack.decode(answer.body)["digest"] == DIGEST


async def test_details_name_the_field_that_is_wrong() -> None:
    answer = await ask(raising(AssertionError()), b'{"digest": 5}')

    assert re.search(r"digest", msgspec.json.decode(answer.body)["detail"])


async def test_a_reply_that_cannot_be_sent_as_headers_is_a_failure_not_a_forged_header() -> None:
    head = BlobHead(digest=DIGEST, size=0, offset=0, length=0, type="a\r\nNats-Rollup: all")

    async def handle(request: Any, call: Call) -> BytesReply[BlobHead]:
        del request, call
        return BytesReply(head=head)

    answer = await ask(Endpoint(GET_BLOB, handle))

    assert answer.error is not None
    assert "Nats-Rollup" not in answer.headers


async def test_a_change_is_not_begun_that_may_have_waited_longer_than_its_caller_does() -> None:
    begun: list[float] = []

    async def delete(request: DeleteBlob, call: Call) -> BlobDeleted:
        del request
        begun.append(call.seconds)
        return BlobDeleted(deleted=True)

    async def answer(age_seconds: float) -> Answer:
        return await dispatcher().answer(
            deleting(delete), "blob.delete", {"Timeout": "2"}, REQUEST, age_seconds=age_seconds
        )

    assert (await answer(0.5)).error is None
    assert code_of(await answer(2.5)) == "unavailable"
    assert begun == [1.5]


async def test_a_read_is_answered_however_old_it_may_be() -> None:
    async def stat(request: StatBlob, call: Call) -> BlobStat:
        del request, call
        raise NotFoundError

    answer = await dispatcher().answer(
        Endpoint(STAT_BLOB, stat), "blob.stat", {"Timeout": "2"}, REQUEST, age_seconds=60
    )

    assert code_of(answer) == "not_found"
