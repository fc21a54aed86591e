"""The parts of the JetStream API that the stores need, in terms of what is known afterwards.

A publish has three outcomes: applied (an ack), surely not applied (an error or no responders) and
unknown (time-out). ``publish`` tells them apart; it repeats only what is safe to repeat because it
carries a ``Nats-Msg-Id`` (ADR-34) or an expected sequence. ``publish_batch`` does the same for
several messages, all or none (ADR-50). Reads that decide something ask the leader
(``last_message``); bulk reads may come from any replica (ADR-31).

While a leader is being elected, or the server is paused, calls go on trying for as long as the
patience lasts and the deadline of the request that they serve (``deadline``) allows.
"""

from __future__ import annotations

import asyncio
import base64
import math
import time
from contextlib import aclosing
from datetime import datetime
from itertools import batched
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.deadline import seconds_left
from holdfast.errors import (
    ForbiddenError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.transport.backoff import Backoff
from holdfast.transport.inbox import NoRespondersError, raise_for_status
from holdfast.transport.jetstream_messages import (
    BATCH_COMMIT,
    BATCH_ID,
    BATCH_SEQUENCE,
    END_OF_BATCH,
    NO_MESSAGE,
    NO_SUCH_MESSAGE,
    NOT_NOW,
    PENDING,
    SEQUENCE,
    STREAM_NOT_FOUND,
    TURNED_AWAY,
    UNKNOWN_OUTCOME,
    Ack,
    ApiError,
    ApiRefusedError,
    DeniedError,
    ErrorAnswer,
    GetAnswer,
    InfoAnswer,
    NotNowError,
    RefusedError,
    StoredMessage,
    StreamState,
    Subjects,
    read_failure,
    stored_or_none,
    stored_or_status,
)
from holdfast.transport.message import Message, parse_headers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from holdfast.transport.connection import Connection
    from holdfast.transport.inbox import Inbox
    from holdfast.transport.jetstream_messages import BatchMessage

ATTEMPT_SECONDS: Final = 4.0
_FIRST_WAIT_SECONDS: Final = 0.25
_LONGEST_WAIT_SECONDS: Final = 1.5
HEARD_SECONDS: Final = 2.0
BELIEVED_SECONDS: Final = 1.0
"""Together less than the four seconds after which nats-server's followers elect another leader."""

CATCH_UP_SECONDS: Final = 10.0
"""For a leader that was elected before it had applied its log."""

_BELIEVED_TRIES: Final = 5
_MESSAGES_AT_ONCE: Final = 32
"""Of a batch that has arrived: then others have their turn."""

_NO_STATUS: Final = b"NATS/1.0\r\n"
_SUBJECTS_AT_ONCE: Final = 128
_QUOTES_BYTES: Final = 3
_LASTS_AT_ONCE: Final = 8
"""Answers that may be on their way together, of 128 records of 12 KiB at the most: a server gives
up a client that is 64 MiB behind."""

_WRITE_TRIES: Final = 3
_READ_TRIES: Final = 1
_TURNS: Final = 12
"""How often a write waits for its turn, some 10 s in all: a server stages 50 batches per stream,
and lets only so much wait for one."""


class JetStream:
    """JetStream over one connection. Stream names and subjects come from trusted code."""

    def __init__(
        self,
        connection: Connection,
        inbox: Inbox,
        *,
        domain: str = "",
        patience_seconds: float = 0.0,
    ) -> None:
        """Use ``connection``; answers come to ``inbox``.

        A call that gets no definite answer is repeated for ``patience_seconds``: a write at least
        twice, a read not at all if that is 0. A failover takes up to 16 seconds.
        """
        self.connection = connection
        self._inbox = inbox
        self._api = f"$JS.{domain}.API" if domain else "$JS.API"
        self._patience_seconds = patience_seconds
        self._lasts = asyncio.Semaphore(_LASTS_AT_ONCE)
        self._believed: dict[str, tuple[float, object]] = {}
        self._acknowledged: dict[str, int] = {}
        self._behind_since: dict[str, float] = {}

    async def publish(
        self,
        subject: str,
        data: bytes | memoryview,
        headers: Mapping[str, str],
        *,
        attempts: int = _WRITE_TRIES,
    ) -> Ack:
        """Store one message; ``headers`` make a repeat harmless.

        It is sent ``attempts`` times at least, if nothing definite is said. Raises RefusedError,
        UnavailableError (surely not applied), OutcomeUnknownError.
        """
        return await self._write(
            lambda: self._request(subject, data, headers), _Tries(attempts, self._patience_seconds)
        )

    async def publish_batch(
        self,
        messages: Sequence[BatchMessage],
        *,
        new_id: Callable[[], str],
        attempts: int = _WRITE_TRIES,
    ) -> Ack:
        """Store 1 to 1,000 ``messages`` of one stream, all or none (ADR-50); the last one's ack.

        They get consecutive sequences. ``new_id`` gives fresh identifiers, up to 64 characters.
        Headers make a repeat harmless, as in `publish`, and what is raised is the same.
        """
        return await self._write(
            lambda: self._send_batch(messages, new_id()), _Tries(attempts, self._patience_seconds)
        )

    async def _write(self, send: Callable[[], Awaitable[Message]], tries: _Tries) -> Ack:
        maybe_applied = False
        while tries.is_first() or await tries.wait():
            try:
                if not self.connection.is_connected:
                    await self.connection.wait_connected(tries.attempt_seconds())
                ack = msgspec.json.decode((await send()).data, type=Ack)
            except DeniedError as error:
                raise _known(error, maybe_applied=maybe_applied) from error
            except UnavailableError:
                continue
            except TimeoutError:
                maybe_applied = True
                continue
            if ack.error is None:
                self.connection.liveness.answered()
                self._acknowledged[ack.stream] = max(ack.seq, self._acknowledged.get(ack.stream, 0))
                return msgspec.structs.replace(ack, again=True) if maybe_applied else ack
            if ack.error.err_code in TURNED_AWAY:
                if not tries.again():
                    break
            elif ack.error.err_code == UNKNOWN_OUTCOME:
                maybe_applied = True
            else:
                raise RefusedError(ack.error, certain=not maybe_applied)
        failure = UnavailableError("the store cannot be reached, or has too much to do")
        raise _known(failure, maybe_applied=maybe_applied)

    async def _send_batch(self, messages: Sequence[BatchMessage], batch: str) -> Message:
        """The answer to the commit, or to the first message if that was refused.

        Only these two are answered, the first by nothing if it is well. Raises as `_request`.
        """
        answers: asyncio.Queue[Message] = asyncio.Queue()
        mailbox = self._inbox.open(answers.put_nowait, messages[0].subject)
        last = len(messages)
        asked_at = time.monotonic()
        try:
            for number, message in enumerate(messages, 1):
                headers = {**message.headers, BATCH_ID: batch, BATCH_SEQUENCE: str(number)}
                if number == last:
                    headers[BATCH_COMMIT] = "1"
                reply = mailbox.subject if number in {1, last} else ""
                self.connection.send(message.subject, message.data, reply=reply, headers=headers)
            async with asyncio.timeout(seconds_left(ATTEMPT_SECONDS)):
                while True:
                    answer = await answers.get()
                    raise_for_status(answer, messages[0].subject)
                    if answer.data:
                        break
        except TimeoutError:
            self.connection.liveness.unanswered(asked_at)
            raise
        except NoRespondersError:
            self.connection.liveness.nobody(asked_at)
            raise
        except ForbiddenError as error:
            raise _denied(error) from error
        finally:
            mailbox.close()
        if _is_not_now(answer.data):
            self.connection.liveness.nobody(asked_at)
            raise NotNowError(_NOBODY)
        return answer

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message on ``subject``, from the stream's leader; None when there is none."""
        return await self._get(stream, {"last_by_subj": subject})

    async def next_message(self, stream: str, subject: str, sequence: int) -> StoredMessage | None:
        """The first message on ``subject`` at or after ``sequence``, from the leader."""
        return await self._get(stream, {"seq": sequence, "next_by_subj": subject})

    async def message_at(self, stream: str, sequence: int) -> StoredMessage | None:
        """The message with that ``sequence``, from the leader; None when it is gone."""
        return await self._get(stream, {"seq": sequence})

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

    async def surely[T](self, stream: str, read: Callable[[], Awaitable[T | None]]) -> T | None:
        """What ``read``, which asks the leader, gives; None only if that can be believed.

        It is read again once the leader was checked: one that was paused and has just woken up may
        have said it, before it learnt that there is another. Raises UnavailableError.
        """
        found = await read()
        if found is not None:
            return found
        self._believed.pop(stream, None)
        await self.check_leader(stream)
        return await read()

    async def check_leader(self, stream: str) -> None:
        """Whether the leader that was just asked can be believed in what it says.

        One that was cut off goes on answering reads for ten seconds, while the others may elect
        another after four. It is believed where a majority has answered its heartbeats within two
        seconds; that holds for a second more. Raises UnavailableError.
        """
        if self._is_believed(stream):
            return
        await self._believe(stream)

    async def count(self, stream: str, subject: str, *, again: bool = False) -> int:
        """How many messages ``subject`` has, by a leader that can be believed.

        ``again``: it is asked for the second time, once the leader was checked (`surely`). Raises
        UnavailableError.
        """
        if again:
            await self._believe(stream)
        query = msgspec.json.encode({"subjects_filter": subject})
        answer = await self._believe(stream, query)
        return (answer.state.subjects or {}).get(subject, 0)

    async def state(self, stream: str) -> StreamState:
        """How much the stream holds, by a leader that can be believed. Raises UnavailableError."""
        answer = await self._believe(stream)
        return StreamState(
            messages=answer.state.messages,
            first_sequence=answer.state.first_seq,
            last_sequence=answer.state.last_seq,
            num_subjects=answer.state.num_subjects,
            created=answer.created,
        )

    async def _believe(self, stream: str, query: bytes = b"") -> InfoAnswer:
        """The answer of ``STREAM.INFO``, of a leader that has its majority and has caught up."""
        through = self.connection.wire
        asked_at = time.monotonic()
        acknowledged = self._acknowledged.get(stream, 0)
        message = await self._ask(f"STREAM.INFO.{stream}", query)
        answer = msgspec.json.decode(message.data, type=InfoAnswer)
        if answer.error is not None:
            raise read_failure(answer.error)
        if answer.state.last_seq < acknowledged and self._may_catch_up(stream, asked_at):
            msg = "the store's leader has not caught up yet"
            raise UnavailableError(msg)
        if not answer.has_majority(HEARD_SECONDS):
            self.connection.liveness.nobody(asked_at)
            msg = "the store's leader has lost the others"
            raise UnavailableError(msg)
        self.connection.liveness.answered()
        self._believed[stream] = asked_at + BELIEVED_SECONDS, through
        self._behind_since.pop(stream, None)
        return answer

    def _may_catch_up(self, stream: str, now: float) -> bool:
        """Whether a leader that lacks what was acknowledged here may have it in a moment.

        Elected after a restart it may answer before it has applied its log. What a stream lost, or
        had before it was made anew, does not come back.
        """
        if now - self._behind_since.setdefault(stream, now) < CATCH_UP_SECONDS:
            return True
        self._acknowledged.pop(stream, None)
        return False

    def _is_believed(self, stream: str) -> bool:
        until, of = self._believed.get(stream, (-math.inf, None))
        return of is self.connection.wire and time.monotonic() < until

    async def believed[T](self, stream: str, read: Callable[[], Awaitable[T]]) -> T:
        """What ``read``, which asks the leader, gives while that leader is believed all along.

        For what is acknowledged or removed on its word: no other leader has had the time to be
        elected. Raises UnavailableError.
        """
        for _ in range(_BELIEVED_TRIES):
            await self.check_leader(stream)
            found = await read()
            if self._is_believed(stream):
                return found
        msg = "the store's leader answers too slowly to be believed"
        raise UnavailableError(msg)

    async def direct_last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message on ``subject`` that some replica has. None is not proof of absence."""
        message = await self._ask(f"DIRECT.GET.{stream}.{subject}", b"")
        return stored_or_none(message)

    async def direct_lasts(
        self, stream: str, subjects: Sequence[str], *, since: int = 0
    ) -> list[StoredMessage]:
        """The last message on each of ``subjects`` where some replica has one, in no order.

        Those whose sequences are less than ``since`` are left out, and cost next to nothing.
        A server answers a request once it has found all, which where they lie far apart on a disk
        takes it longer than anybody waits: many are asked for in several requests.
        """
        longest = max(map(len, subjects), default=1) + _QUOTES_BYTES
        at_once = min(_SUBJECTS_AT_ONCE, max(self.connection.max_payload // 2 // longest, 1))

        async def read(some: tuple[str, ...]) -> list[StoredMessage]:
            async with self._lasts:
                query = {"multi_last": list(some), "batch": len(some), "seq": since}
                return (await self.direct_batch(stream, query))[0]

        answers = await asyncio.gather(*map(read, batched(subjects, at_once)))
        return [message for messages in answers for message in messages]

    async def direct_at(self, stream: str, query: Mapping[str, Any]) -> StoredMessage | None:
        """The one message that some replica has for ``query``. None is not proof of absence."""
        message = await self._ask(f"DIRECT.GET.{stream}", msgspec.json.encode(query))
        return stored_or_none(message)

    async def direct_each(
        self, stream: str, queries: Sequence[Mapping[str, Any]]
    ) -> list[StoredMessage]:
        """For each of ``queries`` the one message that some replica has, if any, in no order.

        As `direct_at`, all at once and for less. Each may go to another replica.
        """
        return await self._read(self._direct_each, stream, queries)

    async def _direct_each(
        self, stream: str, queries: Sequence[Mapping[str, Any]]
    ) -> list[StoredMessage]:
        found: list[StoredMessage] = []
        answered = 0
        async with aclosing(self._answers(stream, queries, ATTEMPT_SECONDS)) as answers:
            async for answer in answers:
                stored = stored_or_none(answer)
                if stored is not None:
                    found.append(stored)
                answered += 1
                if answered == len(queries):
                    break
        return found

    def request_batch(self, stream: str, query: Mapping[str, Any], reply: str) -> None:
        """Have the messages of a Direct Get sent to ``reply``; nothing is awaited.

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
        return await self._read(self._direct_batch, stream, query, idle_seconds)

    async def _direct_batch(
        self, stream: str, query: Mapping[str, Any], idle_seconds: float
    ) -> tuple[list[StoredMessage], int]:
        messages: list[StoredMessage] = []
        pending = 0
        async with aclosing(self._answers(stream, [query], idle_seconds)) as answers:
            async for answer in answers:
                stored = stored_or_status(answer)
                if isinstance(stored, StoredMessage):
                    messages.append(stored)
                elif stored == END_OF_BATCH:
                    pending = int(answer.headers.get(PENDING, "0"))
                    break
                elif stored == NO_SUCH_MESSAGE:
                    break
                else:
                    msg = f"the store refused a batched read ({stored})"
                    raise ApiRefusedError(msg)
        return messages, pending

    async def _answers(
        self, stream: str, queries: Sequence[Mapping[str, Any]], idle_seconds: float
    ) -> AsyncGenerator[Message]:
        """Whatever comes for Direct Gets, for ever.

        Raises UnavailableError, also when nothing has come for ``idle_seconds``.
        """
        subject = f"{self._api}.DIRECT.GET.{stream}"
        arrivals = _Arrivals(len(queries))
        mailbox = self._inbox.open(arrivals.receive, subject)
        asked_at = time.monotonic()
        try:
            for query in queries:
                self.request_batch(stream, query, mailbox.subject)
            while True:
                for number, message in enumerate(await arrivals.take(idle_seconds), 1):
                    raise_for_status(message, subject)
                    yield message
                    if number % _MESSAGES_AT_ONCE == 0:
                        await asyncio.sleep(0)
        except TimeoutError as error:
            self.connection.liveness.unanswered(asked_at)
            msg = "the store did not finish a batched read"
            raise UnavailableError(msg) from error
        except NoRespondersError as error:
            self.connection.liveness.nobody(asked_at)
            raise NoRespondersError(_NOBODY) from error
        except ForbiddenError as error:
            raise _denied(error) from error
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

    async def leaders_time(self, stream: str) -> datetime:
        """The time by the clock that stamps the stream's messages. Raises UnavailableError."""
        try:
            answer = await self.api(f"STREAM.INFO.{stream}")
            return msgspec.convert(answer.get("ts"), datetime)
        except (NotFoundError, ApiRefusedError, msgspec.ValidationError) as error:
            msg = "the nats-server did not tell the time"
            raise UnavailableError(msg) from error

    async def subjects(self, stream: str, filtered: str, offset: int) -> Subjects:
        """Subjects that match ``filtered`` and hold messages, from the leader.

        Up to 100,000 of them, after the first ``offset`` in ascending order. Raises
        UnavailableError.
        """
        query = {"subjects_filter": filtered, "offset": offset}
        message = await self._ask(f"STREAM.INFO.{stream}", msgspec.json.encode(query))
        answer = msgspec.json.decode(message.data, type=InfoAnswer)
        if answer.error is not None:
            raise read_failure(answer.error)
        return Subjects(list(answer.state.subjects or ()), answer.total)

    async def _ask(self, verb: str, body: bytes) -> Message:
        """A read: a time-out is only unavailability."""
        return await self._read(self._request, f"{self._api}.{verb}", body, None)

    async def _read[T, **P](
        self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What ``ask`` gives. Raises UnavailableError when it does not, whenever it is asked."""
        failure: HoldfastError | None = None
        tries = _Tries(_READ_TRIES, self._patience_seconds)
        while tries.is_first() or await tries.wait():
            try:
                if self._patience_seconds and not self.connection.is_connected:
                    await self.connection.wait_connected(tries.attempt_seconds())
                return await ask(*args, **kwargs)
            except ApiRefusedError:
                raise
            except UnavailableError as error:
                failure = error
            except TimeoutError as error:
                failure = UnavailableError("the store did not answer in time")
                failure.__cause__ = error
        raise failure or UnavailableError(_NO_TIME)

    async def _request(
        self, subject: str, data: bytes | memoryview, headers: Mapping[str, str] | None
    ) -> Message:
        asked_at = time.monotonic()
        try:
            message = await self._inbox.request(
                subject, data, headers=headers, timeout_seconds=seconds_left(ATTEMPT_SECONDS)
            )
        except NoRespondersError as error:
            self.connection.liveness.nobody(asked_at)
            raise NoRespondersError(_NOBODY) from error
        except TimeoutError:
            self.connection.liveness.unanswered(asked_at)
            raise
        except ForbiddenError as error:
            raise _denied(error) from error
        # What is stored comes with headers, and may look like anything; answers have none.
        if SEQUENCE not in message.headers and _is_not_now(message.data):
            self.connection.liveness.nobody(asked_at)
            raise NotNowError(_NOBODY)
        return message


class _Arrivals:
    """What has come to a mailbox. To wake a task for each would cost more than the message."""

    def __init__(self, last: int) -> None:
        """When ``last`` have come there may be no more."""
        self._last = last
        self._count = 0
        self._messages: list[Message] = []
        self._arrived_at = time.monotonic()
        self._wake = asyncio.Event()

    def receive(self, message: Message) -> None:
        """Keep it, and wake who waits if that is worth while, or if it may be the last."""
        self._messages.append(message)
        self._count += 1
        self._arrived_at = time.monotonic()
        if (
            self._count == self._last
            or len(self._messages) >= _MESSAGES_AT_ONCE
            or not message.raw_headers.startswith(_NO_STATUS)
        ):
            self._wake.set()

    async def take(self, idle_seconds: float) -> list[Message]:
        """All that have come; TimeoutError if none has for ``idle_seconds``."""
        patience = max(self._arrived_at + idle_seconds - time.monotonic(), 0.0)
        try:
            if not self._wake.is_set():
                async with asyncio.timeout(seconds_left(patience)):
                    await self._wake.wait()
        except TimeoutError:
            if not self._messages:
                raise
        messages, self._messages = self._messages, []
        self._wake.clear()
        return messages


class _Tries:
    """When to try again: ``at_least`` times, and for ``patience_seconds``; never past the deadline.

    There are growing, jittered waits in between. Used once: ``while tries.is_first() or await
    tries.wait()``. The first attempt, which hardly ever fails, costs next to nothing.
    """

    __slots__ = ("_at_least", "_backoff", "_made", "_uncounted", "_until")

    def __init__(self, at_least: int, patience_seconds: float) -> None:
        self._at_least = at_least
        self._until = time.monotonic() + patience_seconds
        self._made = 0
        self._uncounted = 0
        self._backoff: Backoff | None = None

    def again(self) -> bool:
        """Whether another turn may be waited for; then the attempt that was made does not count."""
        self._uncounted += 1
        return self._uncounted <= _TURNS

    def attempt_seconds(self) -> float:
        """How long one attempt may take."""
        return max(min(ATTEMPT_SECONDS, seconds_left(math.inf)), 0.0)

    def is_first(self) -> bool:
        """Whether this is the first attempt; then it is made, if there is any time."""
        if self._made or seconds_left(math.inf) <= 0:
            return False
        self._made = 1
        return True

    async def wait(self) -> bool:
        """Wait for the next attempt; False when there is to be none."""
        if not self._made:
            return False
        counted = self._made - self._uncounted
        if counted >= self._at_least and time.monotonic() >= self._until:
            return False
        if self._backoff is None:
            self._backoff = Backoff(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS)
        if not await self._backoff.wait():
            return False
        self._made += 1
        return True


_NOBODY: Final = "the store is not available: no JetStream, no such bucket or no leader"
_NO_TIME: Final = "there was no time left to ask the store"
_ERROR_HEAD_BYTES: Final = 256


def _is_not_now(answer: bytes | memoryview) -> bool:
    """Whether JetStream says that it cannot at the moment. Only what looks so is decoded."""
    head = answer if isinstance(answer, bytes) else bytes(answer[:_ERROR_HEAD_BYTES])
    if head.find(b'"error"', 0, _ERROR_HEAD_BYTES) < 0:
        return False
    error = msgspec.json.decode(answer, type=ErrorAnswer).error
    return error is not None and error.err_code in NOT_NOW


def _known(failure: UnavailableError, *, maybe_applied: bool) -> HoldfastError:
    """What is known of a write whose last attempt ended with ``failure``."""
    if maybe_applied:
        return OutcomeUnknownError("the store did not say whether it has the data")
    return failure


def _denied(error: ForbiddenError) -> UnavailableError:
    """This process lacks a right, not the caller whom it serves. The cause says which."""
    return DeniedError("the store refuses this worker: its NATS user lacks a right")
