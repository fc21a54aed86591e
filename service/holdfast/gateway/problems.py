"""Failures as HTTP answers them: problem details (RFC 9457) with the codes of the wire."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from holdfast.errors import ERRORS, HoldfastError, InvalidError
from holdfast.protocol.problem import Problem, problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping


PROBLEM_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = {429: 1, 503: 5, 504: 5}
"""Seconds of ``Retry-After``, by status."""

CHECKSUM_MISMATCH: Final = 460
"""The status in tus of a body that does not match its checksum."""

_CODES: Final = {error.code: error for error in ERRORS}


class HttpError(Exception):
    """A failure that only HTTP knows, such as a method or a condition. ``code`` is the wire's."""

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers: Mapping[str, str] = dict(headers or {})


def problem(error: HoldfastError | HttpError) -> Response:
    """``error`` as an answer."""
    body = problem_body(error)
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    if body.status in RETRY_SECONDS:
        headers.setdefault("Retry-After", str(RETRY_SECONDS[body.status]))
    headers["Cache-Control"] = "no-store"
    return Response(
        msgspec.json.encode(body), status_code=body.status, headers=headers, media_type=PROBLEM_TYPE
    )


def problem_body(error: HoldfastError | HttpError) -> Problem:
    """The body for ``error``."""
    if not isinstance(error, HttpError):
        return problem_of(error)
    return msgspec.structs.replace(
        problem_of(InvalidError(error.detail)),
        type=f"urn:holdfast:error:{error.code}",
        title=_title(error.status),
        status=error.status,
        code=error.code,
        retryable=_CODES[error.code].retryable,
    )


def _title(status: int) -> str:
    return "Checksum Mismatch" if status == CHECKSUM_MISMATCH else HTTPStatus(status).phrase


def json_answer(
    message: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A message of the wire as JSON, which nobody keeps."""
    told = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    body = msgspec.json.encode(message)
    return Response(body, status_code=status, headers=told, media_type="application/json")
