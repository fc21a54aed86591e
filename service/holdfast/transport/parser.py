"""The reading half of the NATS client protocol, sans I/O: buffers in, messages out.

It replaces nats-py's parser, which copies every byte five times on its way from the socket. Here
bytes are received into segments that are used again and again, and a large payload is a view of
the segment it was received into. It knows nothing of sockets, subscriptions or tasks.

Why: docs/decisions.md, "Received bytes stay where they were received".
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from holdfast.transport.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

SEGMENT_BYTES: Final = 2 * 1024 * 1024
MAX_SEGMENTS_KEPT: Final = 16
MAX_CONTROL_LINE_BYTES: Final = 64 * 1024
MAX_MESSAGE_BYTES: Final = 128 * 1024 * 1024
_VIEW_BYTES: Final = 16 * 1024
"""From here on a payload is a view; smaller ones are copied, lest they hold a segment."""

_RECEIVE_BYTES: Final = 512 * 1024
"""At most so much at once, so that what was received is worked on while more is on its way."""

_MIN_ROOM_BYTES: Final = 64 * 1024
_CRLF: Final = b"\r\n"
_NAMED: Final = (3, 4)
"""Fields of a message line before its sizes: what it is, its subject, its subscription; a reply."""


class ParseError(Exception):
    """The peer does not speak the NATS protocol."""


class Parser:
    """Turns received bytes into calls of ``on_message(sid, message)`` and ``on_control(line)``.

    Fill what ``buffer()`` gives, then say how much by ``received()``. ``line`` is a control line
    without its end, such as ``PING`` or ``-ERR '…'``.
    """

    def __init__(
        self,
        on_message: Callable[[int, Message], None],
        on_control: Callable[[bytes], None],
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """``segment_bytes`` is at least twice 64 KiB."""
        self._on_message = on_message
        self._on_control = on_control
        self._segments = _Segments(segment_bytes)
        self._segment = self._segments.take()
        self._view = memoryview(self._segment)
        self._start = 0
        self._end = 0
        self._wanted = 0
        self._large: _LargeMessage | None = None

    def reset(self) -> None:
        """Forget what was received in part: the connection is another one."""
        self._move_to(self._segments.take(), 0)
        self._large = None

    def buffer(self) -> memoryview:
        """Where to receive the next bytes. Never empty."""
        if self._large is not None:
            return self._large.rest()
        room = len(self._segment) - self._end
        if room < _MIN_ROOM_BYTES or self._start + self._wanted > len(self._segment):
            self._move_unread()
        return self._view[self._end : self._end + _RECEIVE_BYTES]

    def received(self, count: int) -> None:
        """``count`` bytes were received. Raises ParseError."""
        if self._large is not None:
            self._large.filled += count
            if not self._large.is_complete():
                return
            large, self._large = self._large, None
            self._on_message(large.sid, large.message())
            return
        self._end += count
        if self._end - self._start < self._wanted:
            return  # the message that comes is not all there yet
        self._wanted = 0
        while self._start < self._end and self._parse_one():
            pass

    def feed(self, data: bytes) -> None:
        """Receive ``data``, for callers that have bytes already."""
        view = memoryview(data)
        while view:
            room = self.buffer()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            self.received(count)
            view = view[count:]

    def _move_unread(self) -> None:
        """Go on in another segment: messages may still be views of this one."""
        segment = self._segments.take()
        unread = self._end - self._start
        segment[:unread] = self._view[self._start : self._end]
        self._move_to(segment, unread)

    def _move_to(self, segment: bytearray, filled: int) -> None:
        self._view.release()
        self._segments.give_back(self._segment)
        self._segment = segment
        self._view = memoryview(segment)
        self._start, self._end = 0, filled
        if not filled:
            self._wanted = 0

    def _parse_one(self) -> bool:
        """Take one message or control line out; False when it is not all there yet."""
        line_end = self._segment.find(_CRLF, self._start, self._end)
        if line_end < 0:
            if self._end - self._start > MAX_CONTROL_LINE_BYTES:
                raise ParseError("control line too long")
            return False
        line = bytes(self._view[self._start : line_end])
        if line.startswith((b"MSG ", b"HMSG ")):
            return self._parse_message(line, line_end + 2)
        self._start = line_end + 2
        self._on_control(line)
        return True

    def _parse_message(self, line: bytes, body: int) -> bool:
        subject, sid, reply, header_bytes, total = _parse_arguments(line)
        end = body + total
        if self._end < end + 2:
            self._wait_for(subject, sid, reply, header_bytes, total, body)
            return False
        head_end = body + header_bytes
        self._start = end + 2
        raw_headers = bytes(self._view[body:head_end]) if header_bytes else b""
        data = self._view[head_end:end]
        whole = data.toreadonly() if end - head_end >= _VIEW_BYTES else bytes(data)
        self._on_message(sid, Message(subject, reply, whole, raw_headers))
        return True

    def _wait_for(
        self, subject: str, sid: int, reply: str, header_bytes: int, total: int, body: int
    ) -> None:
        """The rest of a message is to come; one too large for a segment gets its own buffer."""
        wanted = body + total + 2 - self._start
        if wanted <= len(self._segment) // 2:
            self._wanted = wanted
            return
        self._large = _LargeMessage(subject, sid, reply, header_bytes, total)
        self._large.fill(self._view[body : self._end])
        self._start = self._end


class _Segments:
    """Receive buffers, used again once no message is a view of them: their pages are warm."""

    def __init__(self, segment_bytes: int) -> None:
        self._segment_bytes = segment_bytes
        self._kept: deque[bytearray] = deque()

    def take(self) -> bytearray:
        for _ in range(len(self._kept)):
            segment = self._kept.popleft()
            if _is_unshared(segment):
                return segment
            self._kept.append(segment)
        return bytearray(self._segment_bytes)

    def give_back(self, segment: bytearray) -> None:
        if len(self._kept) < MAX_SEGMENTS_KEPT:
            self._kept.append(segment)


def _is_unshared(segment: bytearray) -> bool:
    """Whether nothing is a view of ``segment``: a bytearray that is shared refuses to resize."""
    try:
        segment.pop()
    except BufferError:
        return False
    segment.append(0)
    return True


class _LargeMessage:
    """A message that is received into a buffer of its own."""

    __slots__ = ("_buffer", "_header_bytes", "_reply", "_subject", "filled", "sid")

    def __init__(self, subject: str, sid: int, reply: str, header_bytes: int, total: int) -> None:
        self._subject = subject
        self.sid = sid
        self._reply = reply
        self._header_bytes = header_bytes
        self._buffer = memoryview(bytearray(total + 2))
        self.filled = 0

    def fill(self, data: memoryview) -> None:
        self._buffer[: len(data)] = data
        self.filled = len(data)

    def rest(self) -> memoryview:
        return self._buffer[self.filled :]

    def is_complete(self) -> bool:
        return self.filled == len(self._buffer)

    def message(self) -> Message:
        raw_headers = bytes(self._buffer[: self._header_bytes])
        data = self._buffer[self._header_bytes : -2].toreadonly()
        return Message(self._subject, self._reply, data, raw_headers)


def _parse_arguments(line: bytes) -> tuple[str, int, str, int, int]:
    """``(subject, sid, reply, header bytes, total bytes)`` of a MSG or HMSG line.

    Publishers choose subjects and replies, and the server lets them hold any byte but white space
    as it knows it: none of that may look like a fault of the connection.
    """
    fields = line.split(b" ")
    if b"" in fields:
        fields = [field for field in fields if field]
    sizes = 2 if line.startswith(b"H") else 1
    named = len(fields) - sizes
    if named not in _NAMED:
        raise ParseError("malformed message line")
    try:
        total = int(fields[-1])
        header_bytes = int(fields[-2]) if sizes > 1 else 0
        reply = _text(fields[3]) if named == max(_NAMED) else ""
        arguments = _text(fields[1]), int(fields[2]), reply, header_bytes, total
    except ValueError as error:
        raise ParseError("malformed message line") from error
    if not 0 <= header_bytes <= total <= MAX_MESSAGE_BYTES:
        raise ParseError("impossible message line")
    return arguments


def _text(field: bytes) -> str:
    return field.decode("utf-8", "replace")
