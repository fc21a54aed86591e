"""Bytes and headers to messages and back. An error in them is ``invalid``.

JSON by default, msgpack when the request says so; the reply uses the same. Where the body is the
blob itself, the message travels as headers.
"""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.domain.commands import to_json, to_msgpack
from holdfast.errors import HoldfastError, InternalError, InvalidError
from holdfast.protocol import headers as names
from holdfast.protocol.problem import Problem, error_of, problem_of

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Mapping

    from holdfast.protocol.message import Reply, Request

JSON_TYPE: Final = "application/json"
MSGPACK_TYPE: Final = "application/msgpack"

_FAULTS: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError)
_HEADER_PREFIX: Final = "blob-"
_WAIT: Final = "wait_seconds"


class Encoding(enum.Enum):
    """Encodings of a message body."""

    JSON = JSON_TYPE
    MSGPACK = MSGPACK_TYPE


def encoding_of(headers: Mapping[str, str]) -> Encoding:
    """Encoding by ``Content-Type``. Raises InvalidError for a type that is neither."""
    content_type = headers.get(names.CONTENT_TYPE)
    if content_type is None:
        return Encoding.JSON
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == MSGPACK_TYPE:
        return Encoding.MSGPACK
    if media_type in {JSON_TYPE, "", "text/plain", "application/octet-stream"}:
        return Encoding.JSON
    raise InvalidError(f"Content-Type is {JSON_TYPE} or {MSGPACK_TYPE}")


def decode_request[R: Request](body: Buffer, kind: type[R], encoding: Encoding) -> R:
    """``body`` as a ``kind``; an empty body is the message without fields.

    Raises InvalidError, with where and why.
    """
    try:
        if not memoryview(body).nbytes:
            return msgspec.convert({}, kind)
        return _decode(body, kind, encoding)
    except _FAULTS as error:
        raise InvalidError(_explain(error)) from error


def _decode[M: Request | Reply](body: Buffer, kind: type[M], encoding: Encoding) -> M:
    if encoding is not Encoding.MSGPACK:
        return msgspec.json.decode(body, type=kind)
    message = msgspec.msgpack.decode(body, type=kind)
    return _with_json(message, to_json) if kind.keeps_json else message


def decode_request_headers[R: Request](headers: Mapping[str, str], kind: type[R]) -> R:
    """The ``Blob-*`` headers as a ``kind``. Raises InvalidError; an unknown one is a typo."""
    fields = {name: value for name, value in headers.items() if _is_field(name)}
    try:
        message = msgspec.convert(fields, kind, strict=False)
    except _FAULTS as error:
        raise InvalidError(_explain(error)) from error
    _refuse_loose_numbers(message, fields)
    return message


def encode(message: Request | Reply, encoding: Encoding = Encoding.JSON) -> bytes:
    """The body that carries ``message``. Raises InvalidError for what no message can hold."""
    try:
        if encoding is not Encoding.MSGPACK:
            return msgspec.json.encode(message)
        if message.keeps_json:
            message = _with_json(message, to_msgpack)
        return msgspec.msgpack.encode(message)
    except UnicodeEncodeError as error:
        raise InvalidError(f"{error.object!a} is not UTF-8") from error
    except OverflowError as error:
        raise InvalidError("a number is out of range") from error


def meaning(request: Request) -> bytes:
    """``request`` as JSON without its bytes and its wait, alike however it was encoded."""
    request = request.without_bytes()
    if _WAIT in request.__struct_fields__:
        request = msgspec.structs.replace(request, **{_WAIT: 0.0})
    return msgspec.json.encode(request, order="deterministic")


def encode_headers(message: Request | Reply) -> dict[str, str]:
    """The headers that carry ``message``. Fields that are None are left out.

    Raises InvalidError for text that is not printable: a line break would forge a header.
    """
    fields: dict[str, Any] = msgspec.to_builtins(message)
    encoded = {name: _as_text(value) for name, value in fields.items() if value is not None}
    for name, text in encoded.items():
        if not text.isprintable():
            raise InvalidError(f"{name} may not hold control characters")
    return encoded


def _with_json(value: Any, write: Callable[[bytes], bytes]) -> Any:
    """``value`` with every `msgspec.Raw` in it as ``write`` makes it."""
    if isinstance(value, msgspec.Raw):
        return msgspec.Raw(write(bytes(value)))
    if isinstance(value, list):
        return [_with_json(item, write) for item in value]
    if isinstance(value, msgspec.Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        changed = {name: _with_json(field, write) for name, field in fields.items()}
        return msgspec.structs.replace(value, **changed)
    return value


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def decode_reply[R: Reply](body: Buffer, kind: type[R], encoding: Encoding = Encoding.JSON) -> R:
    """``body`` as a ``kind``. Raises InternalError: a worker never answers otherwise."""
    try:
        return _decode(body, kind, encoding)
    except (*_FAULTS, InvalidError) as error:
        raise InternalError(f"the answer is not a {kind.__name__}: {error}") from error


def decode_reply_headers[R: Reply](headers: Mapping[str, str], kind: type[R]) -> R:
    """The ``Blob-*`` headers of an answer as a ``kind``. Raises InternalError."""
    fields = {name: value for name, value in headers.items() if _is_field(name)}
    try:
        return msgspec.convert(fields, kind, strict=False)
    except _FAULTS as error:
        raise InternalError(f"the answer's headers are not a {kind.__name__}: {error}") from error


def encode_error(error: HoldfastError, encoding: Encoding) -> tuple[dict[str, str], bytes]:
    """Headers and body of a failed answer (ADR-32 error headers, problem body)."""
    headers = {
        names.SERVICE_ERROR: one_line(error.detail),
        names.SERVICE_ERROR_CODE: str(error.status),
        names.CONTENT_TYPE: encoding.value,
    }
    return headers, encode(problem_of(error), encoding)


def raise_error(headers: Mapping[str, str], body: Buffer) -> None:
    """Raise what a failed answer tells of; return when it is not a failed answer."""
    status = headers.get(names.SERVICE_ERROR_CODE)
    if status is None:
        return
    encoding = (
        Encoding.MSGPACK if headers.get(names.CONTENT_TYPE) == MSGPACK_TYPE else Encoding.JSON
    )
    try:
        problem = decode_reply(body, Problem, encoding)
    except InternalError:
        detail = headers.get(names.SERVICE_ERROR, "")
        raise InternalError(f"answered {status}: {detail}") from None
    raise error_of(problem)


def one_line(text: str, max_chars: int = 300) -> str:
    """``text`` as a header value: printable, on one line, bounded."""
    return "".join(c if c.isprintable() else " " for c in text)[:max_chars].strip()


def _refuse_loose_numbers(message: Request, fields: Mapping[str, str]) -> None:
    """A value has one spelling: not ``1.0``, `` 1``, ``1_0`` or ``null``, and not ``True``."""
    for name, header in _header_names(type(message)):
        text = fields.get(header)
        value = getattr(message, name)
        if text is not None and not isinstance(value, str) and text != _as_text(value):
            wanted = "true or false" if isinstance(value, bool) else "a plain decimal number"
            raise InvalidError(f"{header} is not {wanted}")


@functools.cache
def _header_names(kind: type[Request]) -> tuple[tuple[str, str], ...]:
    """``(attribute, header)`` of each field; looked up once, for it takes as long as hashing."""
    return tuple((field.name, field.encode_name) for field in msgspec.structs.fields(kind))


def _is_field(name: str) -> bool:
    return name.lower().startswith(_HEADER_PREFIX)


def _explain(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "the request is nested too deeply"
    return one_line(f"the request is not valid: {error}")
