"""The values in the log and the saves of a state, as a program has them: JSON, and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.domain.hlc import parse_hlc
from holdfast.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence

    from holdfast.protocol.states import Appended, LogEntry, Saved


class LogPosition(msgspec.Struct, frozen=True):
    """Where a command is in the log."""

    index: int
    request_hlc: str
    """The time of the first command that was appended by the same request."""
    behind: int
    """So many commands behind that one."""
    lineage: str | None = None
    """The log of that name, for appends meant for it alone."""

    @property
    def hlc(self) -> str:
        """Its time by a hybrid logical clock."""
        if not self.behind:
            return self.request_hlc
        return str(parse_hlc(self.request_hlc).advanced(self.behind))


class LogCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A command of the log: a JSON value, or bytes. ``lineage`` is the log's."""

    index: int
    hlc: str
    command: Any
    lineage: str | None = None


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """A save with its ``state``, a JSON value or bytes.

    ``fell_back`` are the numbers of newer saves, which are damaged. ``lineage`` is that of the log
    whose commands it includes.
    """

    record: Saved
    state: Any
    fell_back: Sequence[int] = ()
    lineage: str | None = None


def positions(reply: Appended, before: int, count: int) -> list[LogPosition]:
    """The positions of ``count`` commands, behind the first ``before`` that ``reply`` tells of."""
    first, hlc, lineage = reply.index, reply.hlc, reply.lineage
    return [
        LogPosition(first + behind, hlc, behind, lineage)
        for behind in range(before, before + count)
    ]


def command_of(entry: LogEntry, lineage: str | None) -> LogCommand:
    """The command that a worker tells. Raises InternalError where it is none."""
    command: Any = entry.data
    if command is None:
        if isinstance(entry.command, msgspec.UnsetType):
            raise InternalError(f"the answer has no command {entry.index}")
        command = value_of(entry.command)
    return LogCommand(index=entry.index, hlc=entry.hlc, command=command, lineage=lineage)


def value_of(text: Buffer) -> Any:
    """The JSON value that is written as ``text``. Raises InternalError where it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InternalError(f"the answer is not JSON: {error}") from error
