"""The parts of the JetStream API that the stores need, in terms of what is known afterwards.

A publish has three outcomes: applied (an ack), surely not applied (an error or no responders) and
unknown (time-out). ``publish`` tells them apart; it repeats only what is safe to repeat because it
carries a ``Nats-Msg-Id`` (ADR-34) or an expected sequence. ``publish_batch`` does the same for
several messages, all or none (ADR-50). Reads that decide something ask the leader
(``last_message``); bulk reads may come from any replica (ADR-31).
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from holdfast.errors import (
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.transport.inbox import NoRespondersError, raise_for_no_responders
from holdfast.transport.jetstream_messages import (
    BATCH_COMMIT,
    BATCH_ID,
    BATCH_NOT_STARTED,
    BATCH_SEQUENCE,
    END_OF_BATCH,
    NO_MESSAGE,
    PENDING,
    STREAM_NOT_FOUND,
    UNKNOWN_OUTCOME,
    Ack,
    ApiError,
    ApiRefusedError,
    GetAnswer,
    RefusedError,
    StoredMessage,
    Subjects,
    SubjectsAnswer,
    read_failure,
    stored_or_none,
    stored_or_status,
)
from holdfast.transport.message import Message, parse_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast.transport.connection import Connection
    from holdfast.transport.inbox import Inbox
    from holdfast.transport.jetstream_messages import BatchMessage

ATTEMPT_SECONDS: Final = 5.0
_TIMEOUTS_BEFORE_RECONNECT: Final = 3
_RETRY_SECONDS: Final = 0.1
_BATCH_TURNS: Final = 12
"""How often a batch waits for others, of which a server stages 50 per stream: some 10 s in all."""

log = structlog.get_logger(__name__)


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
            if ack.error.err_code != UNKNOWN_OUTCOME:
                raise RefusedError(ack.error, certain=not maybe_applied)
            maybe_applied = True
        if maybe_applied:
            msg = "the store did not say whether it has the data"
            raise OutcomeUnknownError(msg)
        msg = "the store cannot be reached"
        raise UnavailableError(msg)

    async def publish_batch(
        self, messages: Sequence[BatchMessage], *, new_id: Callable[[], str], attempts: int = 3
    ) -> Ack:
        """Store 1 to 1,000 ``messages`` of one stream, all or none (ADR-50); the last one's ack.

        They get consecutive sequences. ``new_id`` gives fresh identifiers, up to 64 characters.
        Headers make a repeat harmless, as in `publish`. Raises RefusedError, UnavailableError
        (surely not applied), OutcomeUnknownError.
        """
        maybe_applied = False
        tries = turns = 0
        while tries < attempts and turns < _BATCH_TURNS:
            batch = new_id()
            if tries or turns:
                await asyncio.sleep(_RETRY_SECONDS * 2 ** min(tries + turns, 4) * _jitter(batch))
            try:
                await self.connection.wait_connected(ATTEMPT_SECONDS)
                ack = msgspec.json.decode(await self._send_batch(messages, batch), type=Ack)
            except UnavailableError:
                tries += 1
                continue
            except TimeoutError:
                tries += 1
                maybe_applied = True
                continue
            if ack.error is None:
                return ack
            if ack.error.err_code in BATCH_NOT_STARTED:
                turns += 1
            elif ack.error.err_code != UNKNOWN_OUTCOME:
                raise RefusedError(ack.error, certain=not maybe_applied)
            else:
                tries += 1
                maybe_applied = True
        if maybe_applied:
            msg = "the store did not say whether it has the data"
            raise OutcomeUnknownError(msg)
        msg = "the store cannot be reached, or has too much to do"
        raise UnavailableError(msg)

    async def _send_batch(self, messages: Sequence[BatchMessage], batch: str) -> bytes | memoryview:
        """The answer to the commit, or to the first message if that was refused.

        Only these two are answered, the first by nothing if it is well. Raises as `_request`.
        """
        answers: asyncio.Queue[Message] = asyncio.Queue()
        mailbox = self._inbox.open(answers.put_nowait)
        last = len(messages)
        try:
            for number, message in enumerate(messages, 1):
                headers = {**message.headers, BATCH_ID: batch, BATCH_SEQUENCE: str(number)}
                if number == last:
                    headers[BATCH_COMMIT] = "1"
                reply = mailbox.subject if number in {1, last} else ""
                self.connection.send(message.subject, message.data, reply=reply, headers=headers)
            async with asyncio.timeout(ATTEMPT_SECONDS):
                while True:
                    answer = await answers.get()
                    raise_for_no_responders(answer, messages[0].subject)
                    if answer.data:
                        break
        except TimeoutError:
            self._note_timeout()
            raise
        finally:
            mailbox.close()
        self._timeouts = 0
        return answer.data

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message on ``subject``, from the stream's leader; None when there is none."""
        return await self._get(stream, {"last_by_subj": subject})

    async def next_message(self, stream: str, subject: str, sequence: int) -> StoredMessage | None:
        """The first message on ``subject`` at or after ``sequence``, from the leader."""
        return await self._get(stream, {"seq": sequence, "next_by_subj": subject})

    async def _get(self, stream: str, query: Mapping[str, Any]) -> StoredMessage | None:
        message = await self._ask(f"STREAM.MSG.GET.{stream}", msgspec.json.encode(query))
        answer = msgspec.json.decode(message.data, type=GetAnswer)
        if answer.error is not None:
            if answer.error.err_code == NO_MESSAGE:
                return None
            raise read_failure(answer.error)
        stored = answer.message
        if stored is None:
            msg = "the store's answer holds no message"
            raise UnavailableError(msg)
        return StoredMessage(
            subject=stored.subject,
            sequence=stored.seq,
            data=base64.b64decode(stored.data),
            headers=parse_headers(base64.b64decode(stored.hdrs)) if stored.hdrs else {},
            stored_at=stored.time,
        )

    async def direct_last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message on ``subject`` that some replica has. None is not proof of absence."""
        message = await self._ask(f"DIRECT.GET.{stream}.{subject}", b"")
        return stored_or_none(message)

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
                stored = stored_or_status(message)
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
            raise read_failure(answer.error)

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
            raise ApiRefusedError(error.description, err_code=error.err_code)
        return answer

    async def subjects(self, stream: str, filtered: str, offset: int) -> Subjects:
        """Subjects that match ``filtered`` and hold messages, from the leader.

        Up to 100,000 of them, after the first ``offset`` in ascending order. Raises
        UnavailableError.
        """
        query = {"subjects_filter": filtered, "offset": offset}
        message = await self._ask(f"STREAM.INFO.{stream}", msgspec.json.encode(query))
        answer = msgspec.json.decode(message.data, type=SubjectsAnswer)
        if answer.error is not None:
            raise read_failure(answer.error)
        return Subjects(list(answer.state.subjects or ()), answer.total)

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


def _jitter(identifier: str) -> float:
    """0.5 to 1.5, so that those who were turned away together do not come back together."""
    return 0.5 + zlib.crc32(identifier.encode()) / 2**32
