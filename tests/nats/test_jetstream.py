"""The outcome of each JetStream call: applied, surely not applied, or unknown."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from tests.nats.buckets import new_nuid
from tests.nats.tools import FlakyJetStream, Times, connected, frozen, until

from holdfast.deadline import deadline
from holdfast.errors import NotFoundError, OutcomeUnknownError, QuotaExceededError, UnavailableError
from holdfast.transport import jetstream as jetstream_module
from holdfast.transport import jetstream_calls as jetstream_calls_module
from holdfast.transport import liveness as liveness_module
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import CATCH_UP_SECONDS, JetStream
from holdfast.transport.jetstream_messages import (
    EXPECTED_SUBJECT_SEQUENCE,
    MSG_ID,
    BatchMessage,
    RefusedError,
)
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.conftest import StartServer

    from holdfast.transport.connection import Connection
    from holdfast.transport.message import Message

pytestmark = pytest.mark.nats


@pytest_asyncio.fixture
async def stream(jetstream: JetStream, fresh_name: str) -> str:
    """A stream on the subjects ``<name>.*``."""
    await create(jetstream, fresh_name)
    return fresh_name


async def create(jetstream: JetStream, name: str, **more: Any) -> None:
    config = {"name": name, "subjects": [f"{name}.*"], "storage": "memory", "allow_direct": True}
    await jetstream.api(f"STREAM.CREATE.{name}", {**config, **more})


async def count(jetstream: JetStream, stream: str) -> int:
    messages: int = (await jetstream.api(f"STREAM.INFO.{stream}"))["state"]["messages"]
    return messages


@pytest.fixture
def flaky(connection: Connection) -> FlakyJetStream:
    return FlakyJetStream(connection, Inbox(connection))


async def test_what_waits_for_a_connection_ends_with_it(connection: Connection) -> None:
    """Whatever its patience: a thread of a worker that stops would wait for it."""
    patient = JetStream(connection, Inbox(connection), patience_seconds=1000)
    await connection.close()

    async with asyncio.timeout(20):
        with pytest.raises(UnavailableError, match="closed"):
            await patient.last_message("anything", "anything.a")
        with pytest.raises(UnavailableError):
            await patient.publish("anything.a", b"x", {MSG_ID: "1"})


class Clock:
    """Time as it passes, and ``ahead`` seconds more."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What a leader's time is measured by."""
    clock = Clock()
    monkeypatch.setattr(jetstream_module, "time", clock)
    return clock


class TestALeaderThatIsBehind:
    """It lacks what was acknowledged: nothing is concluded from its word until it has caught up."""

    @pytest_asyncio.fixture
    async def behind(self, jetstream: JetStream, stream: str) -> str:
        """A stream that acknowledged three messages, and is then as one before its log is read."""
        for number in range(3):
            await jetstream.publish(f"{stream}.a", b"x", {MSG_ID: f"{stream}.{number}"})
        await jetstream.api(f"STREAM.DELETE.{stream}")
        await create(jetstream, stream)
        return stream

    async def test_it_is_not_believed(self, jetstream: JetStream, behind: str) -> None:
        async def read() -> None:
            return None

        for ask in (
            jetstream.state(behind),
            jetstream.check_leader(behind),
            jetstream.counts(behind, f"{behind}.a"),
            jetstream.surely(behind, read),
            jetstream.believed(behind, read),
        ):
            with pytest.raises(UnavailableError, match="not caught up"):
                await ask

    async def test_it_is_believed_once_it_has_caught_up(
        self, jetstream: JetStream, behind: str
    ) -> None:
        with pytest.raises(UnavailableError):
            await jetstream.state(behind)
        elsewhere = JetStream(jetstream.connection, Inbox(jetstream.connection))
        for number in range(3):
            await elsewhere.publish(f"{behind}.a", b"x", {MSG_ID: f"again {number}"})

        assert (await jetstream.state(behind)).last_sequence == 3

    async def test_a_stream_that_was_seen_to_be_made_anew_is_believed(
        self, jetstream: JetStream, stream: str
    ) -> None:
        await jetstream.publish(f"{stream}.a", b"x", {MSG_ID: stream})
        assert (await jetstream.state(stream)).last_sequence == 1
        await jetstream.api(f"STREAM.DELETE.{stream}")
        await create(jetstream, stream)

        assert (await jetstream.state(stream)).last_sequence == 0

    async def test_what_a_stream_has_lost_is_not_waited_for_for_ever(
        self, jetstream: JetStream, behind: str, clock: Clock
    ) -> None:
        with pytest.raises(UnavailableError):
            await jetstream.state(behind)
        clock.ahead += CATCH_UP_SECONDS

        assert (await jetstream.state(behind)).last_sequence == 0
        assert (await jetstream.state(behind)).last_sequence == 0


class Leader:
    """An answerer for the stream ``S`` of the domain ``fake``, whose last sequence is ``last``."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.last = 0
        self.slow_seconds = 0.0
        self._clock = clock
        self._connection = connection
        self._acknowledged = 0
        connection.route("$JS.fake.API.STREAM.INFO.S", self._inform)
        connection.route("fake.put", self._acknowledge)

    def _acknowledge(self, message: Message) -> None:
        self._acknowledged = self.last = max(self._acknowledged, self.last) + 1
        self._connection.send(message.reply, b'{"stream":"S","seq":%d}' % self.last)

    def _inform(self, message: Message) -> None:
        body = b'{"created":"then","state":{"last_seq":%d}}' % self.last
        self._clock.ahead += self.slow_seconds
        self._connection.send(message.reply, body)


class TestHowLongALeaderMayCatchUp:
    """From when it was seen to be behind, and anew once it was not."""

    async def behind(self, connection: Connection, clock: Clock) -> tuple[Leader, JetStream]:
        leader = Leader(connection, clock)
        jetstream = JetStream(connection, Inbox(connection), domain="fake")
        await jetstream.publish("fake.put", b"", {})
        leader.last = 0
        return leader, jetstream

    async def test_an_answer_that_took_its_time_does_not_shorten_it(
        self, connection: Connection, clock: Clock
    ) -> None:
        leader, jetstream = await self.behind(connection, clock)
        for leader.slow_seconds in (CATCH_UP_SECONDS, 0.0):
            with pytest.raises(UnavailableError, match="not caught up"):
                await jetstream.state("S")

    async def test_one_that_was_behind_before_has_all_of_it_again(
        self, connection: Connection, clock: Clock
    ) -> None:
        leader, jetstream = await self.behind(connection, clock)
        with pytest.raises(UnavailableError, match="not caught up"):
            await jetstream.state("S")
        await jetstream.publish("fake.put", b"", {})  # by one that has everything
        clock.ahead += CATCH_UP_SECONDS
        leader.last = 0

        with pytest.raises(UnavailableError, match="not caught up"):
            await jetstream.state("S")

    async def test_who_asked_before_it_was_given_up_believes_it_too(
        self, connection: Connection, clock: Clock
    ) -> None:
        leader, jetstream = await self.behind(connection, clock)
        with pytest.raises(UnavailableError, match="not caught up"):
            await jetstream.state("S")
        clock.ahead += CATCH_UP_SECONDS

        states = await asyncio.gather(*(jetstream.state("S") for _ in range(3)))

        assert {state.last_sequence for state in states} == {leader.last}

    async def test_one_that_lost_something_and_goes_on_is_believed_in_the_end(
        self, connection: Connection, clock: Clock
    ) -> None:
        leader, jetstream = await self.behind(connection, clock)
        await jetstream.publish("fake.put", b"", {})
        async with asyncio.timeout(30):
            while True:
                leader.last = 1
                with suppress(UnavailableError):
                    assert (await jetstream.state("S")).last_sequence == 1
                    break
                clock.ahead += CATCH_UP_SECONDS / 5


class TestTurnedAway:
    """A server that has more waiting for a stream than it takes says so, and has stored nothing."""

    TOO_MANY = b'{"error":{"code":429,"err_code":10167,"description":"too many requests"}}'

    def answer(self, connection: Connection, subject: str, refusals: int) -> list[bytes]:
        """Have ``subject`` answered as a busy stream does; the messages that came."""
        came: list[bytes] = []

        def receive(message: Message) -> None:
            came.append(bytes(message.data))
            is_taken = len(came) > refusals
            body = b'{"stream":"S","seq":7}' if is_taken else self.TOO_MANY
            connection.send(message.reply, body)

        connection.route(subject, receive)
        return came

    async def test_what_was_turned_away_is_sent_again(
        self, connection: Connection, jetstream: JetStream, fresh_name: str
    ) -> None:
        came = self.answer(connection, f"{fresh_name}.a", refusals=2)

        ack = await jetstream.publish(f"{fresh_name}.a", b"x", {MSG_ID: "1"}, attempts=1)

        assert ack.seq == 7
        assert came == [b"x"] * 3

    async def test_when_there_is_no_time_to_wait_it_was_surely_not_stored(
        self,
        connection: Connection,
        jetstream: JetStream,
        fresh_name: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.answer(connection, f"{fresh_name}.a", refusals=1000)
        monkeypatch.setattr(jetstream_calls_module, "_FIRST_WAIT_SECONDS", 1000.0)

        with deadline(30), pytest.raises(UnavailableError):
            await jetstream.publish(f"{fresh_name}.a", b"x", {MSG_ID: "1"})


class TestPublish:
    async def test_what_is_acknowledged_is_there(self, jetstream: JetStream, stream: str) -> None:
        first = await jetstream.publish(f"{stream}.a", b"one", {"A": "b"})
        second = await jetstream.publish(f"{stream}.a", b"two", {})

        last = await jetstream.last_message(stream, f"{stream}.a")
        old = await jetstream.next_message(stream, f"{stream}.a", 1)

        assert (first.seq, second.seq) == (1, 2)
        assert last is not None
        assert (last.sequence, bytes(last.data), last.headers) == (2, b"two", {})
        assert old is not None
        assert (old.sequence, bytes(old.data), old.headers) == (1, b"one", {"A": "b"})

    async def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_doubles(
        self, flaky: FlakyJetStream, stream: str
    ) -> None:
        flaky.lose_answer = Times(1, lambda subject, _: subject == f"{stream}.a")

        ack = await flaky.publish(f"{stream}.a", b"x", {MSG_ID: "1"})

        assert (ack.seq, ack.duplicate) == (1, True)
        assert await count(flaky, stream) == 1

    async def test_a_request_that_is_lost_is_sent_again(
        self, flaky: FlakyJetStream, stream: str
    ) -> None:
        flaky.lose_request = Times(2, lambda subject, _: subject == f"{stream}.a")

        ack = await flaky.publish(f"{stream}.a", b"x", {MSG_ID: "1"})

        assert (ack.seq, ack.duplicate) == (1, False)

    async def test_without_any_answer_the_outcome_is_unknown(
        self, flaky: FlakyJetStream, stream: str
    ) -> None:
        flaky.lose_answer = Times(3, lambda subject, _: subject == f"{stream}.a")

        with pytest.raises(OutcomeUnknownError):
            await flaky.publish(f"{stream}.a", b"x", {MSG_ID: "1"})

        assert await count(flaky, stream) == 1

    async def test_a_condition_that_does_not_hold_is_a_conflict_that_surely_lost(
        self, jetstream: JetStream, stream: str
    ) -> None:
        await jetstream.publish(f"{stream}.a", b"x", {})

        with pytest.raises(RefusedError) as refused:
            await jetstream.publish(f"{stream}.a", b"y", {EXPECTED_SUBJECT_SEQUENCE: "0"})

        assert refused.value.conflict
        assert refused.value.certain
        assert await count(jetstream, stream) == 1

    async def test_a_conflict_after_a_time_out_is_not_certain(
        self, flaky: FlakyJetStream, stream: str
    ) -> None:
        await flaky.publish(f"{stream}.a", b"x", {})
        flaky.lose_request = Times(1, lambda subject, _: subject == f"{stream}.a")

        with pytest.raises(RefusedError) as refused:
            await flaky.publish(f"{stream}.a", b"y", {EXPECTED_SUBJECT_SEQUENCE: "0"})

        assert refused.value.conflict
        assert not refused.value.certain

    async def test_of_racing_writers_with_one_condition_one_wins(
        self, jetstream: JetStream, stream: str
    ) -> None:
        results = await asyncio.gather(
            *(
                jetstream.publish(f"{stream}.a", b"%d" % n, {EXPECTED_SUBJECT_SEQUENCE: "0"})
                for n in range(16)
            ),
            return_exceptions=True,
        )

        refused = [one for one in results if isinstance(one, RefusedError) and one.conflict]
        assert len(refused) == 15
        assert await count(jetstream, stream) == 1

    async def test_a_full_stream_is_a_quota_and_not_a_conflict(
        self, jetstream: JetStream, fresh_name: str
    ) -> None:
        await create(jetstream, fresh_name, max_bytes=2000, discard="new")

        with pytest.raises(RefusedError) as refused:
            await jetstream.publish(f"{fresh_name}.a", bytes(3000), {})

        assert not refused.value.conflict
        assert isinstance(refused.value.translate(), QuotaExceededError)

    async def test_without_a_stream_it_is_surely_not_applied(
        self, jetstream: JetStream, fresh_name: str
    ) -> None:
        with pytest.raises(UnavailableError):
            await jetstream.publish(f"{fresh_name}.a", b"x", {}, attempts=1)


class TestBatches:
    @pytest_asyncio.fixture
    async def stream(self, jetstream: JetStream, fresh_name: str) -> str:
        """A stream that takes batches."""
        await create(jetstream, fresh_name, allow_atomic=True)
        return fresh_name

    async def test_a_batch_is_stored_in_order_under_consecutive_sequences(
        self, jetstream: JetStream, stream: str
    ) -> None:
        await jetstream.publish(f"{stream}.x", b"before", {})

        ack = await jetstream.publish_batch(batch(stream, "abc"), new_id=new_nuid)

        assert ack.seq == 4
        for sequence, name in enumerate("abc", 2):
            message = await jetstream.last_message(stream, f"{stream}.{name}")
            assert message is not None
            assert (message.sequence, bytes(message.data)) == (sequence, name.encode())

    async def test_one_condition_that_does_not_hold_refuses_all_and_surely(
        self, jetstream: JetStream, stream: str
    ) -> None:
        await jetstream.publish(f"{stream}.b", b"taken", {})

        with pytest.raises(RefusedError) as refused:
            await jetstream.publish_batch(batch(stream, "abc"), new_id=new_nuid)

        assert refused.value.conflict
        assert refused.value.certain
        assert await count(jetstream, stream) == 1

    async def test_a_batch_whose_answer_is_lost_is_refused_as_a_repeat_of_itself(
        self, flaky: FlakyJetStream, stream: str
    ) -> None:
        flaky.lose_answer = Times(1, lambda subject, _: subject == f"{stream}.a")

        with pytest.raises(RefusedError) as refused:
            await flaky.publish_batch(batch(stream, "ab", ids=True), new_id=new_nuid)

        assert refused.value.repeated
        assert not refused.value.certain
        assert await count(flaky, stream) == 2

    async def test_a_batch_that_is_lost_is_sent_again(
        self, flaky: FlakyJetStream, stream: str
    ) -> None:
        flaky.lose_request = Times(2, lambda subject, _: subject == f"{stream}.a")

        ack = await flaky.publish_batch(batch(stream, "ab", ids=True), new_id=new_nuid)

        assert ack.seq == 2

    async def test_without_any_answer_the_outcome_is_unknown(
        self, flaky: FlakyJetStream, stream: str
    ) -> None:
        flaky.lose_answer = Times(3, lambda subject, _: subject == f"{stream}.a")

        with pytest.raises(OutcomeUnknownError):
            await flaky.publish_batch(batch(stream, "ab", ids=True), new_id=new_nuid)

    async def test_where_nobody_takes_it_it_is_surely_not_applied(
        self, jetstream: JetStream, fresh_name: str
    ) -> None:
        with pytest.raises(UnavailableError):
            await jetstream.publish_batch(batch(fresh_name, "ab"), new_id=new_nuid, attempts=1)

    async def test_a_stream_that_takes_no_batches_refuses(
        self, jetstream: JetStream, fresh_name: str
    ) -> None:
        await create(jetstream, fresh_name)

        with pytest.raises(RefusedError) as refused:
            await jetstream.publish_batch(batch(fresh_name, "ab"), new_id=new_nuid)

        assert not refused.value.conflict
        assert isinstance(refused.value.translate(), UnavailableError)
        assert await count(jetstream, fresh_name) == 0

    async def test_more_batches_than_a_server_stages_take_turns(
        self, jetstream: JetStream, stream: str
    ) -> None:
        open_batches = 50
        for number in range(open_batches):
            headers = {"Nats-Batch-Id": f"open{number}", "Nats-Batch-Sequence": "1"}
            jetstream.connection.send(f"{stream}.open{number}", b"", headers=headers)
        refused = 0

        class Counting(JetStream):
            async def _send_batch(self, messages: Sequence[BatchMessage], batch: str) -> Message:
                nonlocal refused
                answer = await super()._send_batch(messages, batch)
                refused += b"10210" in bytes(answer.data)
                if refused == 2:  # somebody else's batch comes to its end
                    end = {"Nats-Batch-Id": "open7", "Nats-Batch-Sequence": "2"}
                    self.connection.send(
                        f"{stream}.end", b"", headers={**end, "Nats-Batch-Commit": "1"}
                    )
                return answer

        counting = Counting(jetstream.connection, Inbox(jetstream.connection))
        ack = await counting.publish_batch(batch(stream, "ab"), new_id=new_nuid)

        assert refused == 2
        assert ack.seq == 4

    async def test_a_batch_of_the_most_messages_is_taken_and_more_are_refused(
        self, jetstream: JetStream, stream: str
    ) -> None:
        names = [f"k{number}" for number in range(1001)]

        ack = await jetstream.publish_batch(batch(stream, names[:1000]), new_id=new_nuid)
        with pytest.raises(RefusedError):
            await jetstream.publish_batch(batch(stream, names), new_id=new_nuid)

        assert ack.seq == 1000
        assert await count(jetstream, stream) == 1000


def batch(stream: str, names: Iterable[str], *, ids: bool = False) -> list[BatchMessage]:
    """New messages, one on a subject."""
    return [
        BatchMessage(
            f"{stream}.{name}",
            name.encode(),
            {EXPECTED_SUBJECT_SEQUENCE: "0"} | ({MSG_ID: f"{stream}.{name}"} if ids else {}),
        )
        for name in names
    ]


class TestReads:
    async def test_what_is_not_there_is_none(self, jetstream: JetStream, stream: str) -> None:
        subject = f"{stream}.a"

        assert await jetstream.last_message(stream, subject) is None
        assert await jetstream.next_message(stream, subject, 1) is None
        assert await jetstream.direct_last(stream, subject) is None
        query = {"batch": 10, "seq": 1, "next_by_subj": subject}
        assert await jetstream.direct_batch(stream, query) == ([], 0)

    async def test_a_stream_that_is_not_there_is_unavailable(
        self, jetstream: JetStream, fresh_name: str
    ) -> None:
        subject = f"{fresh_name}.a"

        with pytest.raises(UnavailableError):
            await jetstream.last_message(fresh_name, subject)
        with pytest.raises(UnavailableError):
            await jetstream.next_message(fresh_name, subject, 1)
        with pytest.raises(UnavailableError):
            await jetstream.direct_last(fresh_name, subject)
        with pytest.raises(UnavailableError):
            await jetstream.direct_batch(fresh_name, {"batch": 1, "next_by_subj": subject})
        with pytest.raises(UnavailableError):
            await jetstream.purge(fresh_name, subject)
        with pytest.raises(NotFoundError):
            await jetstream.api(f"STREAM.INFO.{fresh_name}")

    async def test_a_batch_comes_in_order_and_says_how_much_more_there_is(
        self, jetstream: JetStream, stream: str
    ) -> None:
        for number in range(6):
            await jetstream.publish(f"{stream}.{'ab'[number % 2]}", b"%d" % number, {"N": "1"})

        query = {"batch": 2, "seq": 2, "next_by_subj": f"{stream}.b"}
        messages, pending = await jetstream.direct_batch(stream, query)

        found = [(one.sequence, bytes(one.data), one.subject, one.headers["N"]) for one in messages]
        assert found == [(2, b"1", f"{stream}.b", "1"), (4, b"3", f"{stream}.b", "1")]
        assert pending == 1

    async def test_a_message_may_carry_headers_of_the_servers_own(
        self, jetstream: JetStream, stream: str
    ) -> None:
        await jetstream.publish(f"{stream}.a", b"x", {"Status": "404", "Description": "none"})

        message = await jetstream.direct_last(stream, f"{stream}.a")

        assert message is not None
        assert bytes(message.data) == b"x"

    async def test_what_is_purged_is_gone_and_the_rest_stays(
        self, jetstream: JetStream, stream: str
    ) -> None:
        for subject in ("a", "a", "b"):
            await jetstream.publish(f"{stream}.{subject}", b"x", {})

        await jetstream.purge(stream, f"{stream}.a")
        await jetstream.purge(stream, f"{stream}.a")

        assert await count(jetstream, stream) == 1
        assert await jetstream.last_message(stream, f"{stream}.b") is not None

    async def test_a_refused_call_says_why(self, jetstream: JetStream, stream: str) -> None:
        with pytest.raises(UnavailableError, match="name already in use"):
            await create(jetstream, stream, max_msgs=7)


class TestAFrozenServer:
    async def test_a_batch_that_does_not_end_is_unavailable_and_not_short(
        self, start_server: StartServer
    ) -> None:
        server = start_server()
        async with connected(NatsOptions(servers=(server.url,))) as connection:
            jetstream = JetStream(connection, Inbox(connection))
            await create(jetstream, "s")
            await jetstream.publish("s.a", b"x", {})

            query = {"batch": 1, "seq": 1, "next_by_subj": "s.a"}
            with frozen(server), pytest.raises(UnavailableError, match="did not finish"):
                await jetstream.direct_batch("s", query, idle_seconds=0.1)

    async def test_after_three_time_outs_in_a_row_the_connection_is_made_anew(
        self, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = start_server()
        async with connected(NatsOptions(servers=(server.url,))) as connection:
            jetstream = JetStream(connection, Inbox(connection))
            await create(jetstream, "s")

            with frozen(server), monkeypatch.context() as impatient:
                impatient.setattr(jetstream_calls_module, "ATTEMPT_SECONDS", 0.1)
                impatient.setattr(liveness_module, "LEAST_SECONDS", 0)
                for _ in range(3):
                    assert connection.is_connected
                    with suppress(UnavailableError):
                        await jetstream.last_message("s", "s.a")
                await until(lambda: not connection.is_connected)
            await connection.wait_connected(60)

            assert await jetstream.last_message("s", "s.a") is None
