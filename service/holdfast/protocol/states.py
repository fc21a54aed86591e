"""``snapshot.*`` of states: a log of commands, and saved states that each say how far they go.

A command is any JSON, which is kept as it was sent, or bytes. Large saves are blobs that were put
before.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Raw, UnsetType, field

from holdfast.domain.limits import MAX_COMMANDS, MAX_FOREIGN_HLC_CHARS
from holdfast.protocol import headers
from holdfast.protocol.message import (
    QuotedName,
    Reply,
    Request,
    ToldCount,
    ToldSize,
    WireDigest,
    WireLimit,
    WireName,
    WireTime,
    base64_of,
)
from holdfast.protocol.names import WireNameCursor, ZonedText
from holdfast.protocol.operation import AnyOperation, Body, Operation

STATES_FEATURE: Final = "states"
"""The one of ``features`` in discovery of a worker that knows states."""

ENTRIES_TYPE: Final = "application/json"
MAX_ENTRY_CREDIT: Final = 65_536
MAX_REPLAYED: Final = 4096

WireJson = Annotated[Raw, Meta(description="Any JSON.")]
WireHlc = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="Time of a hybrid logical clock, as an answer has it: texts sort as times.",
    ),
]
ForeignHlc = Annotated[
    str,
    Meta(
        max_length=MAX_FOREIGN_HLC_CHARS,
        pattern=r"^[\x20-\x7e]*$(?!\n)",
        description="Time of a clock, kept as it is given.",
    ),
]
WireIndex = Annotated[
    int, Meta(ge=0, le=2**53, description="Number of a command: 1, 2, 3 … without gaps.")
]
ExpectedIndex = Literal["any", "none"] | WireIndex
WireLineage = Annotated[
    str,
    Meta(
        max_length=128,
        pattern=r"^[0-9A-Za-z_-]*\.[0-9]{1,20}\.[0-9]{1,20}$(?!\n)",
        description="The log of a name, as an answer has it; a removal ends it.",
    ),
]
QuotedExpectedIndex = Annotated[
    str,
    Meta(
        max_length=16,
        pattern=r"^(any|none|0|[1-9][0-9]{0,15})$(?!\n)",
        description="any, none, or the index of the last command.",
    ),
]
SaveKind = Literal["json", "bytes"]
FollowEnd = Literal["credit", "lease", "drain"]


class AppendCommands(Request, frozen=True, kw_only=True):
    """Append a ``command``, or several ``commands``: all of them or none, one after the other.

    Only while the last command of the log has ``expected_index`` (``none``, or 0: there is none;
    ``any``: whatever it has). The first append makes the log. Clocks go on from ``hlc``. With the
    ``lineage`` of an answer it is a ``conflict`` where the log was removed since, or repaired so
    that commands up to ``expected_index`` (without a number: any commands) are not in it any more.
    """

    keeps_json: ClassVar[bool] = True

    name: WireName
    command: WireJson | UnsetType = UNSET
    commands: Annotated[list[Raw], Meta(max_length=MAX_COMMANDS)] = field(default_factory=list)
    expected_index: ExpectedIndex = "any"
    lineage: WireLineage | None = None
    hlc: WireHlc | None = None


class AppendBytes(Request, frozen=True, kw_only=True):
    """Headers beside the bytes of one command: as ``snapshot.append``."""

    quoted_name: QuotedName = field(name=headers.BLOB_NAME)
    expected_index: QuotedExpectedIndex = field(default="any", name=headers.BLOB_EXPECTED_INDEX)
    lineage: WireLineage | None = field(default=None, name=headers.BLOB_LINEAGE)
    hlc: WireHlc | None = field(default=None, name=headers.BLOB_HLC)


class Appended(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The commands are in the log: ``count`` of them, from ``index`` on.

    ``hlc`` is the time of the first and ``last_hlc`` that of the last. Further ones of that
    name are grouped when sent to ``append_subject``, for as long as somebody answers there; with
    ``lineage`` they are for this log only.
    """

    index: ToldCount
    count: ToldCount
    hlc: str
    last_hlc: str
    append_subject: str
    lineage: str | None = None


class SaveState(Request, frozen=True, kw_only=True):
    """Save a state, which includes the log up to and with ``last_applied_index``.

    Either ``state``, any JSON, which is made canonical (RFC 8785); or a blob that is there, by its
    ``digest``, which is as ``kind`` says. JSON there is canonical, or ``invalid``; of what does not
    fit a message the caller is believed. One that is older than the newest is a conflict, but with
    ``force``; so is one of a log, known by its ``lineage``, that does not have the commands up to
    ``last_applied_index`` any more.
    """

    keeps_json: ClassVar[bool] = True

    name: WireName
    state: WireJson | UnsetType = UNSET
    digest: WireDigest | None = None
    kind: SaveKind = "json"
    last_applied_index: WireIndex
    last_applied_hlc: ForeignHlc = ""
    lineage: WireLineage | None = None
    force: bool = False


class SaveBytes(Request, frozen=True, kw_only=True):
    """Headers beside the bytes of a state: as ``snapshot.save``."""

    quoted_name: QuotedName = field(name=headers.BLOB_NAME)
    last_applied_index: WireIndex = field(name=headers.BLOB_LAST_APPLIED_INDEX)
    last_applied_hlc: ForeignHlc = field(default="", name=headers.BLOB_LAST_APPLIED_HLC)
    lineage: WireLineage | None = field(default=None, name=headers.BLOB_LINEAGE)
    digest: WireDigest | None = field(default=None, name=headers.BLOB_DIGEST)
    force: bool | None = field(default=None, name=headers.BLOB_FORCE)


class Saved(Reply, frozen=True, kw_only=True):
    """A save. ``state_hash`` is the SHA-256 of its bytes, and so the ``digest`` of its blob.

    They are numbered in the order in which they were made; ``previous`` is the hash of the one
    before.
    """

    name: str
    number: ToldCount
    state_hash: WireDigest
    digest: WireDigest
    size: ToldSize
    kind: SaveKind
    last_applied_index: ToldCount
    at: WireTime
    last_applied_hlc: str = ""
    previous: WireDigest | None = None


class GetLatest(Request, frozen=True, kw_only=True):
    """The newest save that is whole. With its hash as ``if_none_match`` it is not sent again."""

    name: WireName
    if_none_match: WireDigest | None = None


class GetSave(Request, frozen=True, kw_only=True):
    """The newest save up to an ``index`` or a ``time``, or the one with a ``hash``."""

    name: WireName
    index: WireIndex | None = None
    time: ZonedText | None = None
    hash: WireDigest | None = None


class LoadedState(Saved, frozen=True, kw_only=True):
    """A save, with the ``state`` where that is JSON and fits; else its blob is to be read.

    ``fell_back`` are the numbers of newer ones which are damaged. ``unchanged``: it is the one that
    the caller has. ``lineage`` is that of the log, to read on in it.
    """

    keeps_json: ClassVar[bool] = True

    state: WireJson | UnsetType = UNSET
    fell_back: list[ToldCount] = field(default_factory=list)
    unchanged: bool = False
    lineage: str | None = None


class ListSaves(Request, frozen=True, kw_only=True):
    """A page of the saves of a state, newest first."""

    name: WireName
    cursor: WireNameCursor | None = None
    limit: WireLimit = 100


class SavePage(Reply, frozen=True, kw_only=True):
    """Saves. ``cursor`` is there while more may follow."""

    saves: list[Saved]
    cursor: WireNameCursor | None = None


class ListStates(Request, frozen=True, kw_only=True):
    """A page of the states whose name starts with ``prefix``."""

    prefix: Annotated[str, Meta(max_length=512)] = ""
    cursor: WireNameCursor | None = None
    limit: WireLimit = 100


class StateEntry(Reply, frozen=True, kw_only=True):
    """A state: what its record says, which knows the end of the log only as of the last save."""

    name: str
    trimmed_through: ToldCount = 0
    last_applied_index: ToldCount = 0
    state_hash: WireDigest | None = None
    size: ToldSize = 0
    saved_at: WireTime | None = None
    saves: ToldCount = 0


class StatePage(Reply, frozen=True, kw_only=True):
    """States, in an order of their own. ``cursor`` is there while more may follow."""

    states: list[StateEntry]
    cursor: WireNameCursor | None = None


class RemoveState(Request, frozen=True, kw_only=True):
    """Remove a state: its saves and its log. A later append begins a new one."""

    name: WireName


class StateRemoved(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """``removed`` is False where there was none."""

    removed: bool


class ReplayLog(Request, frozen=True, kw_only=True):
    """The commands from ``from_index`` on. Below what the log still has they are ``not_found``.

    With the ``lineage`` of the answer before it is a ``conflict`` where commands that were told are
    not in the log any more, since it was removed or repaired.
    """

    name: WireName
    from_index: Annotated[int, Meta(ge=1, le=2**53)] = 1
    lineage: WireLineage | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_REPLAYED)] = 1000


class LogEntry(Reply, frozen=True, kw_only=True):
    """A command as it was appended: JSON, or ``bytes``."""

    keeps_json: ClassVar[bool] = True

    index: ToldCount
    hlc: str
    command: WireJson | UnsetType = UNSET
    data: Annotated[bytes, base64_of("a command", 2**24)] | None = field(default=None, name="bytes")


class LogPage(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """Commands without gaps, as many as fit. The next one is ``next_index``.

    The log has those from ``first_index`` to ``last_index`` (where that is less, it has none).
    Behind the last of them there was nothing when it was read.
    """

    keeps_json: ClassVar[bool] = True

    entries: list[LogEntry]
    next_index: ToldCount
    first_index: ToldCount
    last_index: ToldCount
    lineage: str | None = None


class FollowLog(Request, frozen=True, kw_only=True):
    """Tell the commands from ``from_index`` on, and further ones as they come.

    ``credit``: after so many, or some more, it ends and is asked for again; and after 16 MiB, so
    that nothing piles up before a slow reader. Commands that were appended together are told
    together. ``lineage`` is as of ``ReplayLog``.
    """

    name: WireName
    from_index: Annotated[int, Meta(ge=1, le=2**53)] = 1
    lineage: WireLineage | None = None
    credit: Annotated[int, Meta(ge=1, le=MAX_ENTRY_CREDIT)] = 4096


class FollowHead(Reply, frozen=True, kw_only=True):
    """Headers beside commands, which are a JSON array of `LogEntry` and may be none.

    Messages are numbered by ``part``, from 0: where one is missing it was lost, and what follows
    the ``next_index`` of the one before is to be asked for again. The first message says how often
    one comes at the least, and how long this lasts, in seconds. ``end`` says why no more will come:
    the credit is spent, the lease is over, or the worker stops.
    """

    part: ToldCount = field(name=headers.BLOB_PART)
    next_index: ToldCount = field(name=headers.BLOB_NEXT_INDEX)
    lineage: str | None = field(default=None, name=headers.BLOB_LINEAGE)
    heartbeat: ToldCount | None = field(default=None, name=headers.BLOB_HEARTBEAT)
    lease: ToldCount | None = field(default=None, name=headers.BLOB_LEASE)
    end: FollowEnd | None = field(default=None, name=headers.BLOB_END)


class TrimLog(Request, frozen=True, kw_only=True):
    """Forget commands up to and with ``through_index``: at most those of the save before the last.

    Only whole saves count.
    """

    name: WireName
    through_index: WireIndex


class Trimmed(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """Commands up to and with ``trimmed_through`` are not there any more; the next one is first."""

    trimmed_through: ToldCount
    first_index: ToldCount


class StatePolicy(Request, frozen=True, kw_only=True):
    """The policy of a state; without any field it is only told.

    ``save_every`` tells its writers to save it after so many commands. The saves
    of the last ``keep_seconds`` are kept, and ``keep`` in any case; with ``trim`` the log goes back
    to the oldest of them.
    """

    name: WireName
    save_every: Annotated[int, Meta(ge=1, le=2**40)] | None = None
    keep: Annotated[int, Meta(ge=2, le=1000)] | None = None
    keep_seconds: Annotated[int, Meta(ge=1, le=2**40)] | None = None
    trim: bool | None = None


class KeptPolicy(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The policy as it is now: see ``StatePolicy``."""

    save_every: ToldCount | None
    keep: ToldCount
    keep_seconds: ToldCount | None
    trim: bool


class RepairState(Request, frozen=True, kw_only=True):
    """Go on with a damaged log: its next command gets ``from_index``; what lies behind is lost."""

    name: WireName
    from_index: Annotated[int, Meta(ge=1, le=2**53)]


class StateRepaired(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The log has the commands from ``first_index`` to ``last_index`` now."""

    first_index: ToldCount
    last_index: ToldCount


APPEND_COMMANDS: Final = Operation(
    "snapshot.append",
    AppendCommands,
    Appended,
    "Append commands to the log of a state.",
    mutates=True,
)
APPEND_BYTES: Final = Operation(
    "snapshot.append_bytes",
    AppendBytes,
    Appended,
    "Append a command that is bytes.",
    request_body=Body.BYTES,
    mutates=True,
)
SAVE_STATE: Final = Operation("snapshot.save", SaveState, Saved, "Save a state.", mutates=True)
SAVE_BYTES: Final = Operation(
    "snapshot.save_bytes",
    SaveBytes,
    Saved,
    "Save a state that is bytes.",
    request_body=Body.BYTES,
    mutates=True,
)
GET_LATEST: Final = Operation("snapshot.latest", GetLatest, LoadedState, "The newest save.")
GET_SAVE: Final = Operation("snapshot.at", GetSave, LoadedState, "A save of before.")
LIST_SAVES: Final = Operation("snapshot.saves", ListSaves, SavePage, "A page of saves.")
LIST_STATES: Final = Operation("snapshot.states", ListStates, StatePage, "A page of states.")
REMOVE_STATE: Final = Operation(
    "snapshot.remove_state", RemoveState, StateRemoved, "Remove a state.", mutates=True
)
REPLAY_LOG: Final = Operation("snapshot.replay", ReplayLog, LogPage, "A page of commands.")
FOLLOW_LOG: Final = Operation(
    "snapshot.follow",
    FollowLog,
    FollowHead,
    "Commands as they are appended.",
    reply_body=Body.BYTES,
    events=LogEntry,
    events_type=ENTRIES_TYPE,
)
TRIM_LOG: Final = Operation(
    "snapshot.trim", TrimLog, Trimmed, "Forget the beginning of a log.", mutates=True
)
STATE_POLICY: Final = Operation(
    "snapshot.state_policy", StatePolicy, KeptPolicy, "The policy of a state.", mutates=True
)
REPAIR_STATE: Final = Operation(
    "snapshot.repair_state", RepairState, StateRepaired, "Go on with a damaged log.", mutates=True
)

STATE_OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    APPEND_COMMANDS,
    APPEND_BYTES,
    SAVE_STATE,
    SAVE_BYTES,
    GET_LATEST,
    GET_SAVE,
    LIST_SAVES,
    LIST_STATES,
    REMOVE_STATE,
    REPLAY_LOG,
    FOLLOW_LOG,
    TRIM_LOG,
    STATE_POLICY,
    REPAIR_STATE,
)
