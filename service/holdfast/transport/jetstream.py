"""The parts of the JetStream API that the stores need, in terms of what is known afterwards.

A publish has three outcomes: applied (an ack), surely not applied (an error or no responders) and
unknown (time-out). ``publish`` tells them apart; it repeats only what is safe to repeat because it
carries a ``Nats-Msg-Id`` (ADR-34) or an expected sequence. ``publish_batch`` does the same for
several messages, all or none (ADR-50). Reads that decide something ask the leader
(``last_message``); bulk reads come from any replica (``jetstream_direct``).

Why: docs/decisions.md, "A leader that was cut off is not believed".
"""

from __future__ import annotations

import asyncio
import base64
import math
import time
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.deadline import deadline
from holdfast.errors import HoldfastError, NotFoundError, OutcomeUnknownError, UnavailableError
from holdfast.transport.inbox import raise_for_status
from holdfast.transport.jetstream_calls import NO_TIME, NOBODY, Tries, attempt_seconds, is_not_now
from holdfast.transport.jetstream_direct import DirectReads
from holdfast.transport.jetstream_messages import (
    BATCH_COMMIT,
    BATCH_ID,
    BATCH_SEQUENCE,
    NO_MESSAGE,
    TURNED_AWAY,
    UNKNOWN_OUTCOME,
    Ack,
    ApiRefusedError,
    DeniedError,
    GetAnswer,
    InfoAnswer,
    NotNowError,
    RefusedError,
    StoredMessage,
    read_failure,
)
from holdfast.transport.message import Message, parse_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from holdfast.transport.connection import Connection
    from holdfast.transport.inbox import Inbox
    from holdfast.transport.jetstream_messages import BatchMessage, StreamState

HEARD_SECONDS: Final = 2.0
BELIEVED_SECONDS: Final = 1.0
"""Together less than the four seconds after which nats-server's followers elect another leader."""

CATCH_UP_SECONDS: Final = 10.0
"""For a leader that was elected before it had applied its log."""

_BEHIND_ALL: Final = 1 << 40
"""An offset from which on no subjects are told, but how many there are."""

_PURGE_SECONDS: Final = 20.0
"""For a purge and the looks at what is left; a failover takes up to 16."""

_BELIEVED_TRIES: Final = 5
_WRITE_TRIES: Final = 3


class JetStream(DirectReads):
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
        super().__init__(connection, inbox, domain, patience_seconds)
        self._believed: dict[str, tuple[float, object]] = {}
        self._acknowledged: dict[str, int] = {}
        self._behind_since: dict[str, float] = {}
        self._created: dict[str, str] = {}

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
            lambda: self._request(subject, data, headers), self._tries(attempts)
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
            lambda: self._send_batch(messages, new_id()), self._tries(attempts)
        )

    async def _write(self, send: Callable[[], Awaitable[Message]], tries: Tries) -> Ack:
        maybe_applied = False
        while tries.is_first() or await tries.wait():
            try:
                if not self.connection.is_connected:
                    await self.connection.wait_connected(attempt_seconds())
                ack = msgspec.json.decode((await send()).data, type=Ack)
            except DeniedError as error:
                raise _known(error, maybe_applied=maybe_applied) from error
            except UnavailableError:
                continue
            except TimeoutError:
                maybe_applied = True
                continue
            if ack.error is None:
                self._note(ack)
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

    def _note(self, ack: Ack) -> None:
        """Remember what was acknowledged: a leader that lacks it is behind."""
        self.connection.liveness.answered()
        if ack.seq > self._acknowledged.get(ack.stream, 0):
            self._acknowledged[ack.stream] = ack.seq
            self._behind_since.pop(ack.stream, None)

    async def _send_batch(self, messages: Sequence[BatchMessage], batch: str) -> Message:
        """The answer to the commit, or to the first message if that was refused.

        Only these two are answered, the first by nothing if it is well. Raises as `_request`.
        """
        answers: asyncio.Queue[Message] = asyncio.Queue()
        mailbox = self._inbox.open(answers.put_nowait, messages[0].subject)
        last = len(messages)
        with closing(mailbox), self._asking():
            for number, message in enumerate(messages, 1):
                headers = {**message.headers, BATCH_ID: batch, BATCH_SEQUENCE: str(number)}
                if number == last:
                    headers[BATCH_COMMIT] = "1"
                reply = mailbox.subject if number in {1, last} else ""
                self.connection.send(message.subject, message.data, reply=reply, headers=headers)
            async with asyncio.timeout(attempt_seconds()):
                while True:
                    answer = await answers.get()
                    raise_for_status(answer, messages[0].subject)
                    if answer.data:
                        break
            if is_not_now(answer.data):
                raise NotNowError(NOBODY)
        return answer

    async def purge(self, stream: str, subject: str, *, up_to: int | None = None) -> None:
        """Remove the messages on ``subject``, all or those up to and with sequence ``up_to``.

        It is sent again while any of them is there. So without ``up_to`` it is for subjects on
        which nobody will count again. Raises UnavailableError (surely not applied),
        OutcomeUnknownError.
        """
        query: dict[str, Any] = {"filter": subject}
        if up_to is not None:
            query["seq"] = up_to + 1
        body = msgspec.json.encode(query)
        maybe_applied = False
        failure: HoldfastError = UnavailableError(NO_TIME)
        tries = self._tries(_WRITE_TRIES)
        with deadline(_PURGE_SECONDS):
            while tries.is_first() or await tries.wait():
                try:
                    message = await self._request(f"{self._api}.STREAM.PURGE.{stream}", body, None)
                except (NotNowError, TimeoutError):
                    # A server that knows no leader hides the answer of the leader that took it.
                    maybe_applied = True
                    if await self._is_purged(stream, subject, up_to):
                        return
                except UnavailableError as error:
                    failure = error
                    if isinstance(error, ApiRefusedError):
                        break
                else:
                    answer = msgspec.json.decode(message.data, type=Ack)
                    if answer.error is None:
                        return
                    failure = read_failure(answer.error)
                    break
        if maybe_applied:
            msg = "the store did not say whether it removed the data"
            raise OutcomeUnknownError(msg) from failure
        raise failure

    async def _is_purged(self, stream: str, subject: str, up_to: int | None) -> bool:
        """Whether a believed leader has no message on ``subject``, or none up to ``up_to``."""

        async def first() -> StoredMessage | None:
            found = await self.next_message(stream, subject, 1)
            is_behind = found is not None and up_to is not None and found.sequence > up_to
            return None if is_behind else found

        try:
            return await self.surely(stream, first) is None
        except UnavailableError:
            return False

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
            raise UnavailableError("the store's answer holds no message")
        return StoredMessage(
            subject=stored.subject,
            sequence=stored.seq,
            data=base64.b64decode(stored.data),
            headers=parse_headers(base64.b64decode(stored.hdrs)) if stored.hdrs else {},
            stored_at=datetime.fromisoformat(stored.time) if stored.time else None,
        )

    async def surely[T](self, stream: str, read: Callable[[], Awaitable[T | None]]) -> T | None:
        """The result of ``read``, which asks the leader; None only if that can be believed.

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

    async def counts(self, stream: str, filtered: str, *, again: bool = False) -> Mapping[str, int]:
        """Messages on each of few subjects, at one moment, by a believed leader.

        ``again``: it is asked for the second time, once the leader was checked (`surely`). Raises
        UnavailableError.
        """
        if again:
            await self._believe(stream)
        query = msgspec.json.encode({"subjects_filter": filtered})
        answer = await self._believe(stream, query)
        return answer.state.subjects or {}

    async def count_subjects(self, stream: str, filtered: str) -> int:
        """The count of subjects that match ``filtered``, by a believed leader.

        Raises UnavailableError.
        """
        query = msgspec.json.encode({"subjects_filter": filtered, "offset": _BEHIND_ALL})
        return (await self._believe(stream, query)).total

    async def state(self, stream: str) -> StreamState:
        """The state of the stream, by a believed leader. Raises UnavailableError."""
        answer = await self._believe(stream)
        return msgspec.structs.replace(answer.state, created=answer.created)

    async def _believe(self, stream: str, query: bytes = b"") -> InfoAnswer:
        """The answer of ``STREAM.INFO``, of a leader that has its majority and has caught up."""
        through = self.connection.wire
        asked_at = time.monotonic()
        acknowledged = self._acknowledged.get(stream, 0)
        answer = await self._info(stream, query)
        if answer.created != self._created.setdefault(stream, answer.created):
            self._created[stream] = answer.created  # another stream of that name
            self._acknowledged[stream] = 0
        # Messages acknowledged meanwhile say nothing, but those given up do.
        acknowledged = min(acknowledged, self._acknowledged.get(stream, 0))
        if answer.state.last_sequence < acknowledged and self._may_catch_up(stream):
            raise UnavailableError("the store's leader has not caught up yet")
        if not answer.has_majority(HEARD_SECONDS):
            self.connection.liveness.nobody(asked_at)
            raise UnavailableError("the store's leader has lost the others")
        self.connection.liveness.answered()
        self._believed[stream] = asked_at + BELIEVED_SECONDS, through
        self._behind_since.pop(stream, None)
        return answer

    def _may_catch_up(self, stream: str) -> bool:
        """Whether a leader that lacks what was acknowledged here may have it in a moment.

        Elected after a restart it may answer before it has applied its log. Messages lost, or of
        a stream since made anew, do not come back.
        """
        now = time.monotonic()
        if now - self._behind_since.setdefault(stream, now) < CATCH_UP_SECONDS:
            return True
        del self._behind_since[stream]
        self._acknowledged.pop(stream, None)
        return False

    def _is_believed(self, stream: str) -> bool:
        until, of = self._believed.get(stream, (-math.inf, None))
        return of is self.connection.wire and time.monotonic() < until

    async def believed[T](self, stream: str, read: Callable[[], Awaitable[T]]) -> T:
        """The result of ``read``, which asks the leader, while that leader is believed all along.

        For acknowledging or removing on its word: no other leader has had the time to be
        elected. Raises UnavailableError.
        """
        for _ in range(_BELIEVED_TRIES):
            await self.check_leader(stream)
            found = await read()
            if self._is_believed(stream):
                return found
        raise UnavailableError("the store's leader answers too slowly to be believed")

    async def leaders_time(self, stream: str) -> datetime:
        """The time by the clock that stamps the stream's messages. Raises UnavailableError."""
        try:
            answer = await self.api(f"STREAM.INFO.{stream}")
            return msgspec.convert(answer.get("ts"), datetime)
        except (NotFoundError, ApiRefusedError, msgspec.ValidationError) as error:
            raise UnavailableError("the nats-server did not tell the time") from error

    async def subjects(self, stream: str, filtered: str, offset: int) -> tuple[list[str], int]:
        """Subjects of messages that match ``filtered``, by a believed leader; how many in all.

        Up to 100,000 of them, in no order, after the first ``offset`` in ascending order. Raises
        UnavailableError.
        """
        query = {"subjects_filter": filtered, "offset": offset}
        answer = await self._believe(stream, msgspec.json.encode(query))
        return list(answer.state.subjects or ()), answer.total

    async def _info(self, stream: str, query: bytes) -> InfoAnswer:
        message = await self._ask(f"STREAM.INFO.{stream}", query)
        answer = msgspec.json.decode(message.data, type=InfoAnswer)
        if answer.error is not None:
            raise read_failure(answer.error)
        return answer


def _known(failure: UnavailableError, *, maybe_applied: bool) -> HoldfastError:
    """The error for a write whose last attempt ended with ``failure``."""
    if maybe_applied:
        return OutcomeUnknownError("the store did not say whether it has the data")
    return failure
