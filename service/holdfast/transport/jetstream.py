"""The parts of the JetStream API that the stores need, in terms of what is known afterwards.

A publish has three outcomes : applied (an ack), surely not applied (an error
or no responders) and unknown (time-out). ``publish`` tells them apart; it repeats only what is
safe to repeat because it carries a ``Nats-Msg-Id`` (ADR-34) or an expected sequence. Reads that
decide something ask the leader (``last_message``); bulk reads may come from any replica (ADR-31).
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from holdfast.errors import (
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.protocol.headers import STATUS
from holdfast.transport.inbox import NoRespondersError
from holdfast.transport.message import Message, parse_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.transport.connection import Connection
    from holdfast.transport.inbox import Inbox

MSG_ID: Final = "Nats-Msg-Id"
EXPECTED_SUBJECT_SEQUENCE: Final = "Nats-Expected-Last-Subject-Sequence"
ROLLUP: Final = "Nats-Rollup"
TTL: Final = "Nats-TTL"
SEQUENCE: Final = "Nats-Sequence"
SUBJECT: Final = "Nats-Subject"
PENDING: Final = "Nats-Num-Pending"
END_OF_BATCH: Final = "204"

WRONG_LAST_SEQUENCE: Final = 10071
WRITE_IN_FLIGHT: Final = 10164
STREAM_NOT_FOUND: Final = 10059
NO_MESSAGE: Final = 10037
_UNKNOWN_OUTCOME: Final = 10158
_FULL: Final = frozenset({10047, 10051, 10077, 10122, 10023, 10054})

ATTEMPT_SECONDS: Final = 5.0
_TIMEOUTS_BEFORE_RECONNECT: Final = 3
_RETRY_SECONDS: Final = 0.1

log = structlog.get_logger(__name__)


class ApiError(msgspec.Struct, frozen=True):
    """The ``error`` of a JetStream API answer."""

    code: int = 500
    err_code: int = 0
    description: str = ""


class RefusedError(Exception):
    """JetStream refused: nothing was applied. ``conflict`` when a condition did not hold."""

    def __init__(self, error: ApiError, *, certain: bool) -> None:
        """``certain`` is False when an earlier attempt of the same publish timed out."""
        super().__init__(error.description)
        self.error = error
        self.certain = certain

    @property
    def conflict(self) -> bool:
        """Whether the expected sequence was not the last one (10071), or may not be (10164)."""
        return self.error.err_code in {WRONG_LAST_SEQUENCE, WRITE_IN_FLIGHT}

    @property
    def certainly_lost(self) -> bool:
        """Whether another message was surely stored instead of this one."""
        return self.certain and self.error.err_code == WRONG_LAST_SEQUENCE

    def translate(self) -> HoldfastError:
        """The failure to report when no condition was expected to fail."""
        if not self.certain:
            return OutcomeUnknownError("the store did not say whether it has the data")
        if self.error.err_code in _FULL:
            return QuotaExceededError("the store is full")
        return UnavailableError("the store refused the write")


class ApiRefusedError(UnavailableError):
    """JetStream refused an API call; ``detail`` is what it said."""


class Ack(msgspec.Struct, frozen=True):
    """JetStream has the message, under ``seq``. ``duplicate``: it had it already."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


class _StoredJson(msgspec.Struct, frozen=True):
    subject: str
    seq: int
    data: str = ""
    hdrs: str = ""


class _GetAnswer(msgspec.Struct, frozen=True):
    message: _StoredJson | None = None
    error: ApiError | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the stream has it."""

    subject: str
    sequence: int
    data: bytes | memoryview
    headers: Mapping[str, str] = field(default_factory=dict)


class JetStream:
    """JetStream over one connection. Stream names and subjects come from trusted code."""

    def __init__(self, connection: Connection, inbox: Inbox, *, domain: str = "") -> None:
        """Use ``connection``; answers come to ``inbox``."""
        self.connection = connection
        self._inbox = inbox
        self._api = f"$JS.{domain}.API" if domain else "$JS.API"
        self._timeouts = 0

    async def publish(
        self,
        subject: str,
        data: bytes | memoryview,
        headers: Mapping[str, str],
        *,
        attempts: int = 3,
    ) -> Ack:
        """Store one message; ``headers`` make a repeat harmless.

        Raises RefusedError, UnavailableError (surely not applied), OutcomeUnknownError.
        """
        maybe_applied = False
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(_RETRY_SECONDS * 2**attempt)
            try:
                await self.connection.wait_connected(ATTEMPT_SECONDS)
                message = await self._request(subject, data, headers)
            except UnavailableError:
                continue
            except TimeoutError:
                maybe_applied = True
                continue
            ack = msgspec.json.decode(message.data, type=Ack)
            if ack.error is None:
                return ack
            if ack.error.err_code != _UNKNOWN_OUTCOME:
                raise RefusedError(ack.error, certain=not maybe_applied)
            maybe_applied = True
        if maybe_applied:
            msg = "the store did not say whether it has the data"
            raise OutcomeUnknownError(msg)
        msg = "the store cannot be reached"
        raise UnavailableError(msg)

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message on ``subject``, from the stream's leader; None when there is none."""
        return await self._get(stream, {"last_by_subj": subject})

    async def next_message(self, stream: str, subject: str, sequence: int) -> StoredMessage | None:
        """The first message on ``subject`` at or after ``sequence``, from the leader."""
        return await self._get(stream, {"seq": sequence, "next_by_subj": subject})

    async def _get(self, stream: str, query: Mapping[str, Any]) -> StoredMessage | None:
        message = await self._ask(f"STREAM.MSG.GET.{stream}", msgspec.json.encode(query))
        answer = msgspec.json.decode(message.data, type=_GetAnswer)
        if answer.error is not None:
            if answer.error.err_code == NO_MESSAGE:
                return None
            raise _unavailable(answer.error)
        stored = answer.message
        if stored is None:
            msg = "the store's answer holds no message"
            raise UnavailableError(msg)
        return StoredMessage(
            subject=stored.subject,
            sequence=stored.seq,
            data=base64.b64decode(stored.data),
            headers=parse_headers(base64.b64decode(stored.hdrs)) if stored.hdrs else {},
        )

    async def direct_last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message on ``subject`` that some replica has. None is not proof of absence."""
        message = await self._ask(f"DIRECT.GET.{stream}.{subject}", b"")
        return _stored(message)

    def request_batch(self, stream: str, query: Mapping[str, Any], reply: str) -> None:
        """Have the messages of a batched Direct Get sent to ``reply``; nothing is awaited.

        Raises UnavailableError when the request cannot be sent.
        """
        body = msgspec.json.encode(query)
        self.connection.send(f"{self._api}.DIRECT.GET.{stream}", body, reply=reply)

    async def direct_batch(
        self, stream: str, query: Mapping[str, Any], *, idle_seconds: float = ATTEMPT_SECONDS
    ) -> tuple[list[StoredMessage], int]:
        """A batched Direct Get (ADR-31): its messages, and how many more match.

        Raises UnavailableError when the batch does not end within ``idle_seconds`` of its last
        message: a short batch never looks like a whole one.
        """
        messages: list[StoredMessage] = []
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        mailbox = self._inbox.open(arrived.put_nowait)
        try:
            self.request_batch(stream, query, mailbox.subject)
            while True:
                async with asyncio.timeout(idle_seconds):
                    message = await arrived.get()
                stored = _stored_or_status(message)
                if isinstance(stored, StoredMessage):
                    messages.append(stored)
                elif stored == END_OF_BATCH:
                    return messages, int(message.headers.get(PENDING, "0"))
                elif stored == "404":
                    return messages, 0
                else:
                    msg = f"the store refused a batched read ({stored})"
                    raise UnavailableError(msg)
        except TimeoutError as error:
            self._note_timeout()
            msg = "the store did not finish a batched read"
            raise UnavailableError(msg) from error
        finally:
            mailbox.close()

    async def purge(self, stream: str, subject: str) -> None:
        """Remove every message on ``subject``. Raises UnavailableError, OutcomeUnknownError."""
        body = msgspec.json.encode({"filter": subject})
        try:
            message = await self._request(f"{self._api}.STREAM.PURGE.{stream}", body, None)
        except TimeoutError as error:
            msg = "the store did not say whether it removed the data"
            raise OutcomeUnknownError(msg) from error
        answer = msgspec.json.decode(message.data, type=Ack)
        if answer.error is not None:
            raise _unavailable(answer.error)

    async def api(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Any other API call (``STREAM.INFO.x``, ``STREAM.CREATE.x`` …); the answer as it is.

        Raises NotFoundError (no such stream), ApiRefusedError, UnavailableError.
        """
        message = await self._ask(verb, msgspec.json.encode(body) if body is not None else b"")
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        if "error" in answer:
            error = msgspec.convert(answer["error"], ApiError)
            if error.err_code == STREAM_NOT_FOUND:
                raise NotFoundError(error.description)
            raise ApiRefusedError(error.description)
        return answer

    async def _ask(self, verb: str, body: bytes) -> Message:
        """A read: a time-out is only unavailability."""
        try:
            return await self._request(f"{self._api}.{verb}", body, None)
        except TimeoutError as error:
            msg = "the store did not answer in time"
            raise UnavailableError(msg) from error

    async def _request(
        self, subject: str, data: bytes | memoryview, headers: Mapping[str, str] | None
    ) -> Message:
        try:
            message = await self._inbox.request(
                subject, data, headers=headers, timeout_seconds=ATTEMPT_SECONDS
            )
        except NoRespondersError as error:
            msg = "the store is not available: no JetStream, no such bucket or no leader"
            raise NoRespondersError(msg) from error
        except TimeoutError:
            self._note_timeout()
            raise
        self._timeouts = 0
        return message

    def _note_timeout(self) -> None:
        """A client sticks to an isolated server: after three time-outs in a row, leave it."""
        self._timeouts += 1
        if self._timeouts >= _TIMEOUTS_BEFORE_RECONNECT:
            self._timeouts = 0
            log.warning("reconnect_forced", reason="jetstream_timeouts")
            self._reconnect = asyncio.ensure_future(self.connection.force_reconnect())


def _unavailable(error: ApiError) -> HoldfastError:
    if error.err_code == STREAM_NOT_FOUND:
        return UnavailableError("the bucket is not there; `holdfast admin init` makes it")
    return UnavailableError(f"the store refused a read: {error.description}")


def _stored(message: Message) -> StoredMessage | None:
    stored = _stored_or_status(message)
    if isinstance(stored, StoredMessage):
        return stored
    if stored == "404":
        return None
    msg = f"the store refused a read ({stored})"
    raise UnavailableError(msg)


def _stored_or_status(message: Message) -> StoredMessage | str:
    """The stored message, or the inline status that came in its place."""
    headers = message.headers
    sequence = headers.get(SEQUENCE)
    if sequence is None or (STATUS in headers and SUBJECT not in headers):
        return headers.get(STATUS, "no status")
    return StoredMessage(headers.get(SUBJECT, ""), int(sequence), message.data, headers)
