"""The form of a group: commands that were appended at once, as one entry of the journal.

``{"log":…,"first":…,"count":…,"hlc":…,"commands":[…]}``: the id of the log, the index of the first
command and its time, and the commands as they were sent. Each further command is one later, by its
index and its time. The entry itself says which sequence is before it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.hlc import Hlc, parse_hlc
from holdfast.errors import CorruptError, HoldfastError
from holdfast.repository.states.record import Closing, StateRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast.stores.journal_ports import JournalEntry


class Command(msgspec.Struct, frozen=True):
    """One command: the text of any JSON, or bytes."""

    data: bytes
    is_json: bool = True

    @property
    def size(self) -> int:
        """Its bytes in a group."""
        return len(self.data) if self.is_json else (len(self.data) + 2) // 3 * 4 + 2

    def written(self) -> msgspec.Raw:
        """The command as JSON: bytes become text in base64."""
        if self.is_json:
            return msgspec.Raw(self.data)
        return msgspec.Raw(b'"%s"' % base64.b64encode(self.data))


class GroupedOp(msgspec.Struct, frozen=True, array_like=True):
    """``op_id``, bound to its request, has appended ``count`` commands from ``place`` on."""

    op_id: str
    place: int
    count: int


class GroupHead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A group without its commands."""

    log: str
    first: int
    count: int
    hlc: str
    ops: tuple[GroupedOp, ...] = ()
    closing: Closing | None = None

    @property
    def last(self) -> int:
        """The index of its last command; the one before its first where it has none."""
        return self.first + self.count - 1

    @property
    def first_hlc(self) -> Hlc:
        """The time of its first command."""
        return parse_hlc(self.hlc)

    @property
    def last_hlc(self) -> Hlc:
        """The time of its last command."""
        return self.first_hlc.advanced(max(self.count - 1, 0))


class Group(GroupHead, frozen=True, kw_only=True, omit_defaults=True):
    """A group. ``binary`` are the places of the commands that are bytes, in base64."""

    commands: tuple[msgspec.Raw, ...] = ()
    binary: tuple[int, ...] = ()


class LoggedCommand(msgspec.Struct, frozen=True):
    """A command of a log, as a replay gets it."""

    index: int
    hlc: str
    command: Command


_GROUPS: Final = msgspec.json.Decoder(Group)
_HEADS: Final = msgspec.json.Decoder(GroupHead)
_ENCODER: Final = msgspec.json.Encoder()


def encode_group(
    log: str, first: int, hlc: Hlc, commands: Sequence[Command], ops: Iterable[GroupedOp]
) -> bytes:
    """The group as the journal has it."""
    group = Group(
        log=log,
        first=first,
        count=len(commands),
        hlc=str(hlc),
        ops=tuple(ops),
        commands=tuple(command.written() for command in commands),
        binary=tuple(place for place, command in enumerate(commands) if not command.is_json),
    )
    return _ENCODER.encode(group)


def encode_closing(record: StateRecord, index: int, hlc: Hlc, closing: Closing) -> bytes:
    """The end of the log of ``record``, as the journal has it, where command ``index`` would be."""
    first = max(index, record.base + 1)
    group = Group(log=record.log, first=first, count=0, hlc=str(hlc), closing=closing)
    return _ENCODER.encode(group)


def decode_group(entry: JournalEntry) -> Group:
    """Raises CorruptError."""
    group = _decoded(_GROUPS, entry)
    if len(group.commands) != group.count:
        raise CorruptError(_unreadable(entry))
    return group


def decode_head(entry: JournalEntry) -> GroupHead:
    """The group but for its commands. Raises CorruptError."""
    return _decoded(_HEADS, entry)


def entries_of(group: Group, from_index: int) -> Iterator[LoggedCommand]:
    """Its commands from an index on, in order. Raises CorruptError."""
    binary = frozenset(group.binary)
    places = range(max(from_index - group.first, 0), group.count)
    for place, hlc in zip(places, group.first_hlc.texts(places), strict=True):
        index, written = group.first + place, group.commands[place]
        command = _bytes_of(written, index) if place in binary else Command(bytes(written))
        yield LoggedCommand(index, hlc, command)


def _bytes_of(written: msgspec.Raw, index: int) -> Command:
    try:
        return Command(msgspec.json.decode(written, type=bytes), is_json=False)
    except msgspec.MsgspecError as error:
        msg = f"command {index} of the log is unreadable"
        raise CorruptError(msg, index=index) from error


def _decoded[HeadT: GroupHead](decoder: msgspec.json.Decoder[HeadT], entry: JournalEntry) -> HeadT:
    try:
        head = decoder.decode(entry.value)
        head.first_hlc  # noqa: B018  (it may raise)
    except (msgspec.MsgspecError, UnicodeError, HoldfastError) as error:
        raise CorruptError(_unreadable(entry)) from error
    if head.first < 1 or head.count < 0 or (head.count == 0) != (head.closing is not None):
        raise CorruptError(_unreadable(entry))
    return head


def _unreadable(entry: JournalEntry) -> str:
    return f"the group of commands at sequence {entry.sequence} is unreadable"
