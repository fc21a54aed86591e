"""Answers: a failure arrives as the failure it was, and a worker's nonsense is ``internal``."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.errors import (
    ERRORS,
    ConflictError,
    CorruptError,
    HoldfastError,
    InternalError,
    NotFoundError,
)
from holdfast.protocol.blobs import BlobDeleted, BlobPage, BlobStored
from holdfast.protocol.codec import Encoding, decode_reply, encode, encode_error, raise_error
from holdfast.protocol.problem import Problem, error_of, problem_of

both_encodings = pytest.mark.parametrize("encoding", Encoding, ids=lambda encoding: encoding.name)
every_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)


def test_an_answer_may_have_fields_of_a_later_version() -> None:
    body = b'{"deleted":true,"tombstone":{"kept":[1,2,3]}}'

    assert decode_reply(body, BlobDeleted) == BlobDeleted(deleted=True)


@both_encodings
@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"null", b"[]", b"\x80", b"{}", b"\xc1", b'{"deleted":1}'], ids=repr
)
def test_an_answer_that_is_none_is_internal(body: bytes, encoding: Encoding) -> None:
    with pytest.raises(InternalError, match="BlobDeleted"):
        decode_reply(body, BlobDeleted, encoding)


@pytest.mark.fault("I04")
@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        pytest.param(b'{"later":' + b"[" * 100_000, Encoding.JSON, id="JSON"),
        pytest.param(b"\x81\xa5later" + b"\x91" * 100_000, Encoding.MSGPACK, id="msgpack"),
    ],
)
def test_an_answer_that_is_nested_too_deeply_is_internal(body: bytes, encoding: Encoding) -> None:
    with pytest.raises(InternalError, match="BlobPage"):
        decode_reply(body, BlobPage, encoding)


@both_encodings
@pytest.mark.parametrize("kind", [BlobStored, BlobDeleted, BlobPage, Problem])
@given(body=st.binary())
def test_noise_is_an_answer_or_internal(
    kind: type[BlobStored | BlobDeleted | BlobPage | Problem], encoding: Encoding, body: bytes
) -> None:
    try:
        reply = decode_reply(body, kind, encoding)
    except InternalError:
        return
    assert decode_reply(encode(reply), kind) == reply


@every_error
def test_a_problem_tells_of_the_failure_it_came_from(error: type[HoldfastError]) -> None:
    problem = problem_of(error("the blob is gone"))
    told = error_of(problem)

    assert type(told) is error
    assert told.detail == problem.detail == "the blob is gone"
    assert problem.type == f"urn:holdfast:error:{error.code}"
    assert (problem.title, problem.status, problem.retryable) == (
        error.title,
        error.status,
        error.retryable,
    )


@both_encodings
@every_error
def test_a_failure_arrives_as_the_failure_it_was(
    error: type[HoldfastError], encoding: Encoding
) -> None:
    headers, body = encode_error(error("the blob is gone"), encoding)

    with pytest.raises(error) as caught:
        raise_error(headers, body)

    assert type(caught.value) is error
    assert caught.value.detail == "the blob is gone"


@pytest.mark.parametrize("error", [ConflictError, CorruptError, NotFoundError])
def test_a_failure_of_a_log_arrives_with_the_index_that_it_is_about(
    error: type[ConflictError | CorruptError | NotFoundError],
) -> None:
    headers, body = encode_error(error("not there", index=5), Encoding.JSON)

    with pytest.raises(error, match="not there") as caught:
        raise_error(headers, body)

    assert vars(caught.value)["index"] == 5


def test_the_written_form_of_a_failure_never_changes() -> None:
    headers, body = encode_error(NotFoundError("no such blob"), Encoding.JSON)

    assert headers == {
        "Nats-Service-Error": "no such blob",
        "Nats-Service-Error-Code": "404",
        "Content-Type": "application/json",
    }
    assert body == (
        b'{"type":"urn:holdfast:error:not_found","title":"Not found","status":404,'
        b'"code":"not_found","detail":"no such blob","retryable":false}'
    )


@pytest.mark.fault("I13")
@both_encodings
@given(detail=st.text(min_size=1))
@example("a\ud800b")
@example("a\r\nNats-Rollup: all")
def test_any_detail_can_be_told(encoding: Encoding, detail: str) -> None:
    headers, body = encode_error(NotFoundError(detail), encoding)

    assert headers["Nats-Service-Error"].isprintable()
    with pytest.raises(NotFoundError):
        raise_error(headers, body)


def test_an_answer_without_an_error_header_is_no_failure() -> None:
    raise_error({"Content-Type": "application/json"}, b"{}")


@pytest.mark.parametrize("body", [b"", b"Service Unavailable", b"{}", b"\xff"], ids=repr)
def test_a_failure_with_an_unreadable_body_is_internal_and_says_what_it_knows(body: bytes) -> None:
    headers = {"Nats-Service-Error-Code": "503", "Nats-Service-Error": "who knows"}

    with pytest.raises(InternalError, match="answered 503: who knows"):
        raise_error(headers, body)


def test_a_failure_without_a_description_is_still_a_failure() -> None:
    with pytest.raises(InternalError, match="answered 500"):
        raise_error({"Nats-Service-Error-Code": "500"}, b"")


def test_a_failure_with_a_code_of_a_later_version_is_internal() -> None:
    problem = Problem(
        type="urn:holdfast:error:teapot",
        title="Teapot",
        status=418,
        code="teapot",
        detail="short and stout",
        retryable=False,
    )

    with pytest.raises(InternalError, match="short and stout"):
        raise_error({"Nats-Service-Error-Code": "418"}, encode(problem))
