"""However the bytes of a connection are cut up, the same messages come out; garbage is refused."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.examples import examples

from holdfast.transport.parser import MAX_CONTROL_LINE_BYTES, MAX_MESSAGE_BYTES, ParseError, Parser

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.transport.message import Message

KIB = 1024
MIB = 1024 * KIB
SMALL_BUFFER = 128 * KIB  # so that a few messages reach its end


@dataclass(frozen=True)
class Delivery:
    """A message as the server sends it."""

    sid: int
    subject: str
    reply: str = ""
    headers: bytes = b""
    payload: bytes = b""

    def encode(self) -> bytes:
        reply = f" {self.reply}" if self.reply else ""
        total = len(self.headers) + len(self.payload)
        if self.headers:
            line = f"HMSG {self.subject} {self.sid}{reply} {len(self.headers)} {total}\r\n"
        else:
            line = f"MSG {self.subject} {self.sid}{reply} {total}\r\n"
        return line.encode() + self.headers + self.payload + b"\r\n"


@dataclass(frozen=True)
class Control:
    """A control line."""

    line: bytes

    def encode(self) -> bytes:
        return self.line + b"\r\n"


type Event = Delivery | Control


class Receiver:
    """A parser and what it gave."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.messages: list[Message] = []
        self.parser = Parser(
            self._on_message, lambda line: self.events.append(Control(line)), SMALL_BUFFER
        )

    def _on_message(self, sid: int, message: Message) -> None:
        self.messages.append(message)
        raw, data = message.raw_headers, bytes(message.data)
        self.events.append(Delivery(sid, message.subject, message.reply, raw, data))

    def read(self, stream: bytes, sizes: Iterable[int]) -> None:
        """Receive ``stream`` in place, as from a socket that gives at most so much each time."""
        rest = memoryview(stream)
        for size in sizes:
            if not rest:
                return
            room = self.parser.buffer()
            count = min(size, len(room), len(rest))
            assert count > 0, "nowhere to receive to"
            room[:count] = rest[:count]
            self.parser.received(count)
            rest = rest[count:]


def encode(events: Iterable[Event]) -> bytes:
    return b"".join(event.encode() for event in events)


def payload(size: int, seed: int) -> bytes:
    """Bytes that look like the protocol itself here and there."""
    data = bytearray(random.Random(seed).randbytes(size))  # noqa: S311  (test data)
    for trap in (b"\r\n", b"\r\nMSG a 1 5\r\n", b"\r\nPING\r\n"):
        if size > len(trap):
            at = seed % (size - len(trap))
            data[at : at + len(trap)] = trap
    return bytes(data)


# Around every border: the empty, the direct limit, the room kept free, the buffer.
SIZES = (0, 1, 2, 100, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 40 * KIB, 64 * KIB, 128 * KIB)
payloads = st.builds(payload, st.sampled_from(SIZES), st.integers(0, 2**16))
headers = st.sampled_from(
    (b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0 404 No Messages\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n")
)
deliveries = st.builds(
    Delivery,
    sid=st.integers(1, 2**31),
    subject=st.sampled_from(("a", "blob.put", "_INBOX.x.1", "$O.b.C.ü")),
    reply=st.sampled_from(("", "_INBOX.reply.7", "MSG")),
    headers=headers,
    payload=payloads,
)
controls = st.sampled_from(
    (b"PING", b"PONG", b"+OK", b"-ERR 'Permissions Violation'", b'INFO {"a":1}', b"")
).map(Control)
streams = st.lists(st.one_of(deliveries, controls), max_size=6)
BIG = Delivery(2, "b", headers=b"NATS/1.0\r\n\r\n", payload=payload(3 * MIB, 3))


@given(events=streams, sizes=st.lists(st.integers(1, 200 * KIB), min_size=1, max_size=8))
@examples(120)
def test_any_slicing_of_a_stream_gives_the_same_messages(
    events: list[Event], sizes: list[int]
) -> None:
    receiver = Receiver()

    receiver.read(encode(events), chain.from_iterable(repeat(sizes)))

    assert receiver.events == events


@given(events=streams, cuts=st.lists(st.floats(0, 1), max_size=6))
@examples(60)
def test_feeding_bytes_gives_the_same_as_receiving_in_place(
    events: list[Event], cuts: list[float]
) -> None:
    stream = encode(events)
    borders = sorted({0, len(stream), *(int(cut * len(stream)) for cut in cuts)})
    receiver = Receiver()

    for start, stop in pairwise(borders):
        receiver.parser.feed(stream[start:stop])

    assert receiver.events == events


def test_a_stream_may_be_cut_at_every_byte() -> None:
    events: list[Event] = [
        Control(b"PING"),
        Delivery(1, "a", payload=b"\r\nMSG a 1 3\r\n"),
        Delivery(2, "b", reply="r", headers=b"NATS/1.0\r\nA: b\r\n\r\n", payload=b"x"),
        Delivery(3, "c", headers=b"NATS/1.0 503\r\n\r\n"),
        Control(b"-ERR 'x'"),
    ]
    stream = encode(events)

    for cut in range(len(stream) + 1):
        receiver = Receiver()
        receiver.parser.feed(stream[:cut])
        receiver.parser.feed(stream[cut:])
        assert receiver.events == events, cut
    one_by_one = Receiver()
    one_by_one.read(stream, repeat(1))
    assert one_by_one.events == events


@pytest.mark.parametrize("size", [7, 1500, 64 * KIB, 2**30])
def test_messages_larger_than_the_buffer_arrive_whole_between_small_ones(size: int) -> None:
    small = Delivery(1, "s", payload=b"small")
    events: list[Event] = [small, BIG, small, Control(b"PING"), BIG, small]
    stream = encode(events) if size > 7 else encode(events[:4])
    receiver = Receiver()

    receiver.read(stream, repeat(size))

    assert receiver.events == (events if size > 7 else events[:4])


@given(
    kept=st.lists(st.booleans(), min_size=20, max_size=40),
    sizes=st.lists(st.sampled_from((10, 5 * KIB, 20 * KIB, 60 * KIB, 70 * KIB)), min_size=1),
)
@examples(40)
def test_a_message_keeps_its_bytes_for_as_long_as_somebody_has_it(
    kept: list[bool], sizes: list[int]
) -> None:
    receiver = Receiver()
    held: list[tuple[Message, bytes]] = []

    for number, (keep, size) in enumerate(
        zip(kept, chain.from_iterable(repeat(sizes)), strict=False)
    ):
        data = payload(size, number)
        receiver.read(Delivery(1, "a", payload=data).encode(), repeat(50 * KIB))
        message = receiver.messages.pop()
        if keep:
            held.append((message, data))

    assert [bytes(message.data) == data for message, data in held] == [True] * len(held)


def test_a_reader_cannot_change_a_message_that_was_received_in_place() -> None:
    receiver = Receiver()
    receiver.read(encode([BIG]), repeat(64 * KIB))

    data = receiver.messages[0].data

    assert memoryview(data).readonly


MALFORMED = (
    b"MSG ",
    b"MSG a",
    b"MSG a 1",
    b"MSG a 1 x",
    b"MSG a x 1",
    b"MSG a 1 r 5 5",
    b"MSG a 1 -1",
    b"MSG a 1 1e3",
    b"MSG a 1 " + b"8" * 5000,
    b"MSG a 1 %d" % (MAX_MESSAGE_BYTES + 1),
    b"MSG a 1 99999999999999999999",
    b"HMSG a 1 5",
    b"HMSG a 1 6 5",
    b"HMSG a 1 -1 5",
    b"HMSG a 1 r q 1 5",
    b"HMSG a 1 1 -5",
)


@pytest.mark.parametrize("line", MALFORMED, ids=lambda line: line[:40].decode("latin-1"))
def test_a_malformed_message_line_is_refused_and_gives_nothing(line: bytes) -> None:
    receiver = Receiver()

    with pytest.raises(ParseError):
        receiver.parser.feed(line + b"\r\nhello\r\n")

    assert receiver.events == []


@pytest.mark.fault("A01")
@pytest.mark.parametrize(
    ("line", "subject", "reply"),
    [
        (b"MSG \xff\xfe 1 0", "\ufffd\ufffd", ""),
        (b"MSG a 1 \xff 0", "a", "\ufffd"),
        (b"MSG a 1 _INBOX.a\x0bb 0", "a", "_INBOX.a\x0bb"),
        (b"MSG a\x0cb 1 r\x85\x1cs 0", "a\x0cb", "r\ufffd\x1cs"),
        (b"MSG  a  1  r  0", "a", "r"),
    ],
    ids=["subject", "reply", "vertical tab", "form feed", "blanks"],
)
def test_whatever_a_publisher_calls_a_subject_the_connection_goes_on(
    line: bytes, subject: str, reply: str
) -> None:
    receiver = Receiver()

    receiver.parser.feed(line + b"\r\n\r\nMSG b 2 0\r\n\r\n")

    assert receiver.events == [Delivery(1, subject, reply), Delivery(2, "b")]


def test_the_largest_message_that_may_come_is_begun() -> None:
    receiver = Receiver()

    receiver.parser.feed(b"MSG a 1 %d\r\n" % MAX_MESSAGE_BYTES)

    assert len(receiver.parser.buffer()) == MAX_MESSAGE_BYTES + 2
    assert receiver.events == []


def test_a_control_line_is_taken_up_to_its_limit_and_refused_beyond() -> None:
    longest = Control(b"INFO " + b"x" * (MAX_CONTROL_LINE_BYTES - 5))
    receiver = Receiver()
    receiver.read(encode([longest]), repeat(1000))
    assert receiver.events == [longest]

    with pytest.raises(ParseError):
        receiver.read(longest.line + b"x", repeat(1000))


VALID = encode([Delivery(1, "a", "r", b"NATS/1.0\r\nA: b\r\n\r\n", b"payload"), Control(b"PING")])


@given(
    stream=st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                (b"MSG ", b"HMSG ", b"a", b" ", b"0", b"5", b"\r", b"\n", b"\r\n", b"-1", b"PING")
            ),
            max_size=40,
        ).map(b"".join),
        st.tuples(st.integers(0, len(VALID) - 1), st.binary(max_size=3)).map(
            lambda change: VALID[: change[0]] + change[1] + VALID[change[0] + 1 :]
        ),
    ),
    size=st.integers(1, 64),
)
@example(stream=b"MSG a 1 4294967296\r\n", size=3)
@examples(600)
def test_garbage_is_refused_as_such_or_taken_and_never_breaks_the_parser(
    stream: bytes, size: int
) -> None:
    receiver = Receiver()

    with contextlib.suppress(ParseError):
        receiver.read(stream, repeat(size))
        receiver.read(stream, repeat(size))

    receiver.parser.reset()
    receiver.events.clear()
    receiver.read(encode([BIG, Control(b"PING")]), repeat(256 * KIB))
    assert receiver.events == [BIG, Control(b"PING")]


@pytest.mark.parametrize(
    "half",
    [
        b"PIN",
        b"MSG a 1 5\r\nhel",
        b"MSG a 1 5\r\nhello\r",
        BIG.encode()[: 1 * MIB],
        b"MSG a 1 1000000\r\n",
    ],
    ids=["line", "small", "line-end", "large", "large-empty"],
)
def test_after_a_reset_nothing_is_left_of_what_came_in_part(half: bytes) -> None:
    receiver = Receiver()
    receiver.read(half, repeat(64 * KIB))

    receiver.parser.reset()
    receiver.read(VALID, repeat(10))

    assert encode(receiver.events) == VALID
