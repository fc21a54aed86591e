"""The record of a state, ``st.<tokens>``: which log it has, how far that was trimmed, its saves.

Each function here makes of a record the next one and does no more; the ledger writes it by
compare-and-set, and may ask again. The end of the log is not in it: appends do not touch it. It
knows how far the log went at least: one that ends before that has lost commands.

The log's groups lie in the journal under the tokens of the name, behind the sequence ``start``, and
are of the log's id. A removed state keeps its record, and a later log is behind what ended the one
before.

Why: docs/decisions.md, "Whoever goes on names the log that is meant".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from holdfast.domain.blob_names import name_key
from holdfast.domain.op_id import is_repeat
from holdfast.errors import ConflictError, NotFoundError, UnavailableError
from holdfast.repository.ledger.ledger import PRESENT, RecordKind
from holdfast.stores.record_ports import Delete, Put

if TYPE_CHECKING:
    from holdfast.stores.record_ports import Change

Lineage = tuple[str, int, int]
SaveForm = Literal["json", "bytes"]

MAX_SAVES: Final = 100
"""Saves of one state, whatever its policy, so that its record stays small."""

LEAST_SAVES: Final = 2
"""Saves kept in any case, so that a damaged one does not leave none."""

DEFAULT_SAVES: Final = 10
DROPPED_REMEMBERED: Final = 8
"""Saves remembered that are not kept any more: a late repeat of one does nothing."""

ENDINGS_KEPT: Final = 16
"""Removals and repairs remembered of a state: a late repeat of one does nothing."""

MAX_OVERTAKEN: Final = 100
FINDER_PREFIX: Final = "sb"
_TAKEN_BACK: Final = (
    "the log was removed or repaired, and commands that were told are not in it: "
    "begin again with the latest save"
)


class SaveEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A save. ``sequence`` is where the group of its last command lies, 0 where nobody knows."""

    number: int
    digest: str
    size: int
    kind: SaveForm
    last_applied_index: int
    at: str
    last_applied_hlc: str = ""
    previous: str | None = None
    sequence: int = 0
    op: str | None = None


class KeepPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A state's retention: see `holdfast.protocol.states.StatePolicy`."""

    save_every: int | None = None
    keep: int = DEFAULT_SAVES
    keep_seconds: int | None = None
    trim: bool = False


class Void(msgspec.Struct, frozen=True, kw_only=True):
    """Groups behind the sequence ``after`` that do not count, up to and with ``through``.

    The command before them is ``index``, and so is the one before what comes behind them.
    ``is_vain``: none of them has commands, for it is a repair that was not carried out.
    """

    after: int
    through: int
    index: int
    is_vain: bool = False


class CarriedOp(msgspec.Struct, frozen=True, array_like=True):
    """``op_id`` has appended ``count`` commands from ``index`` on, the first at ``hlc``."""

    op_id: str
    index: int
    count: int
    hlc: str


class TrimmedOps(msgspec.Struct, frozen=True, kw_only=True):
    """Appends of groups that were trimmed while they were young, at the journal's time ``at``."""

    at: str
    ops: tuple[CarriedOp, ...]


class StateRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``saves`` are newest first, and so are the last that were not kept, ``dropped``.

    Without a ``log`` the state has none (any more).

    The first command of the log is the one behind ``base``; those up to and with
    ``trimmed_through``, which is never less, are not there any more, and ``trimmed_ops`` are what
    only the record knows of them. It has had the command ``reached``. ``number`` is that of the
    last save there ever was; ``ended_by`` are the requests that have last removed or repaired the
    state, which was removed ``removals`` times; what is appended since is later than ``hlc``.
    """

    name: str
    log: str = ""
    start: int = 0
    base: int = 0
    trimmed_through: int = 0
    trimmed_ops: tuple[TrimmedOps, ...] = ()
    reached: int = 0
    voids: tuple[Void, ...] = ()
    saves: tuple[SaveEntry, ...] = ()
    number: int = 0
    dropped: tuple[SaveEntry, ...] = ()
    policy: KeepPolicy = KeepPolicy()
    ended_by: tuple[str, ...] = ()
    removals: int = 0
    hlc: str = ""

    @property
    def exists(self) -> bool:
        """Whether there is anything of the state."""
        return bool(self.log or self.saves)

    @property
    def lineage(self) -> Lineage:
        """The same for as long as the end of the log changes by nothing but appends."""
        log = self.log or self.without_log
        return log, self.start, self.voids[-1].through if self.voids else 0

    @property
    def without_log(self) -> str:
        """The id in its lineage before it has a log; no log has such an id."""
        return f"_{self.removals}" if self.removals else ""

    @property
    def closed_through(self) -> int:
        """The sequence of the last removal or repair: groups that count or come are behind it."""
        return self.voids[-1].through if self.voids else self.start

    @property
    def known_index(self) -> int:
        """The last command surely has this index, or a higher one."""
        saved = [save.last_applied_index for save in self.saves]
        return max(self.base, self.trimmed_through, self.reached, *saved)


def check_same(before: Lineage | None, record: StateRecord, index: int) -> None:
    """Raises ConflictError where the commands before ``index`` are not in the log any more.

    ``before`` is the lineage of what they were read from; without a log that was a save alone.
    """
    if before is None:
        return
    log, start, through = before
    is_other = start != record.start or log not in (record.without_log, record.log)
    last = index - 1
    since = [void for void in record.voids if void.through > through and not void.is_vain]
    if is_other or any(void.index < last for void in since):
        raise ConflictError(_TAKEN_BACK)


class Closing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The end of a log, or of a piece, written into it: nobody appends behind it unaware.

    Each reader carries it out: the state is removed (``index`` is None), or goes on behind
    ``index``. Then all groups behind the sequence ``after`` are void; where that is None, all there
    are, and the log gets the id ``next_log``. ``op`` is the request that removes or repairs,
    ``hlc`` the last time of the log that is known. It is ``anew`` where the journal was lost: then
    its sequences begin again, below what the record knows.

    A repair that cannot be carried out any more is void itself: it lies ``behind`` that sequence
    and that index.

    ``ops`` are those of the last appends: their repeats are answered as before.
    """

    index: int | None = None
    after: int | None = None
    behind: tuple[int, int] | None = None
    next_log: str = ""
    op: str | None = None
    ops: tuple[CarriedOp, ...] = ()
    hlc: str = ""
    anew: bool = False


def finder_key(digest: str, name: str) -> str:
    """A key that is there while a save of the state ``name`` has that blob."""
    return f"{FINDER_PREFIX}.{digest}.{name_key(name)}"


def finders_beside(before: StateRecord | None, after: StateRecord) -> list[Change]:
    """Changes to write together with ``after``, so that its blobs lead to it."""
    had = set() if before is None else {save.digest for save in before.saves}
    has = {save.digest for save in after.saves}
    puts = [Put(key=finder_key(one, after.name), value=PRESENT, expected=None) for one in has - had]
    return [*puts, *(Delete(key=finder_key(one, after.name)) for one in had - has)]


def with_log(record: StateRecord | None, *, name: str, log: str) -> StateRecord:
    """The record with a log: as it is if it has one, else a new one, behind what saves include."""
    if record is not None and record.log:
        return record
    base = max((save.last_applied_index for save in record.saves), default=0) if record else 0
    record = record or StateRecord(name=name)
    return msgspec.structs.replace(record, log=log, base=base, trimmed_through=base, voids=())


def saved(
    record: StateRecord | None,
    name: str,
    save: SaveEntry,
    *,
    lineage: Lineage,
    force: bool,
    at: datetime,
) -> StateRecord:
    """The record with one more save; as it is where that was made before.

    ``lineage`` is that of the log that the save was compared with. Raises ConflictError of one that
    is older than the newest, UnavailableError where the log is another by now.
    """
    if record is None:
        record = StateRecord(name=name)
    if save_of(record, save.op) is not None:
        return record
    if record.lineage != lineage:
        msg = "the log was removed, begun or repaired meanwhile"
        raise UnavailableError(msg)
    if record.log and save.last_applied_index < record.trimmed_through:
        msg = "the log was trimmed meanwhile"
        raise UnavailableError(msg)
    newest = record.saves[0] if record.saves else None
    if newest is not None and save.last_applied_index < newest.last_applied_index and not force:
        msg = f"the newest save includes the log up to {newest.last_applied_index}"
        raise ConflictError(msg, index=newest.last_applied_index)
    save = msgspec.structs.replace(
        save,
        number=record.number + 1,
        previous=None if newest is None else newest.digest,
        at=at.isoformat(),
    )
    saves = kept_saves((save, *record.saves), record.policy, at)
    return msgspec.structs.replace(with_saves(record, saves), number=save.number)


def with_saves(record: StateRecord, saves: tuple[SaveEntry, ...]) -> StateRecord:
    """The record with those saves; what it does not keep of its own is remembered for a while."""
    kept = {save.number for save in saves}
    gone = tuple(save for save in record.saves if save.number not in kept)
    dropped = (*gone, *record.dropped)[:DROPPED_REMEMBERED]
    return msgspec.structs.replace(record, saves=saves, dropped=dropped)


def save_of(record: StateRecord, op: str | None) -> SaveEntry | None:
    """The save that ``op`` made, kept or not. Raises ConflictError of another request's Op-Id."""
    made = (*record.saves, *record.dropped)
    return next((save for save in made if is_repeat(save.op, op)), None)


def kept_saves(
    saves: tuple[SaveEntry, ...], policy: KeepPolicy, at: datetime
) -> tuple[SaveEntry, ...]:
    """Those of ``saves``, newest first, that the policy keeps at the time ``at``."""
    keep = max(policy.keep, LEAST_SAVES)
    if policy.keep_seconds is None:
        return saves[: min(keep, MAX_SAVES)]
    since = at - timedelta(seconds=policy.keep_seconds)
    young = sum(datetime.fromisoformat(save.at) >= since for save in saves)
    return saves[: min(max(keep, young), MAX_SAVES)]


def without_save(record: StateRecord | None, number: int) -> StateRecord:
    """The record without the save of that number. Raises NotFoundError where it is gone."""
    if record is None:
        msg = "the record of the state is gone"
        raise NotFoundError(msg)
    saves = tuple(save for save in record.saves if save.number != number)
    if len(saves) == len(record.saves):
        return record
    return msgspec.structs.replace(record, saves=saves)


def trimmed(
    record: StateRecord, seen: StateRecord, through: int, ops: tuple[TrimmedOps, ...]
) -> StateRecord:
    """The record once the commands up to ``through`` are not there, and it tells of ``ops``.

    They were found when it was as ``seen``. Raises UnavailableError where the log is another by
    now, was trimmed, or has a later save that needs the commands.
    """
    if record.lineage != seen.lineage:
        msg = "the log was removed or repaired meanwhile"
        raise UnavailableError(msg)
    if record.trimmed_ops != seen.trimmed_ops:
        msg = "the log was trimmed meanwhile"
        raise UnavailableError(msg)
    if ops != record.trimmed_ops:
        record = msgspec.structs.replace(record, trimmed_ops=ops)
    if through <= record.trimmed_through:
        return record
    if any(s.last_applied_index < through for s in record.saves if s.number > seen.number):
        msg = "an older state was saved meanwhile"
        raise UnavailableError(msg)
    return msgspec.structs.replace(record, trimmed_through=through)


def reached(record: StateRecord, lineage: Lineage, index: int) -> StateRecord:
    """The record once the log of that lineage has had the command ``index``."""
    if record.lineage != lineage or index <= record.known_index:
        return record
    return msgspec.structs.replace(record, reached=index)


def was_ended_by(record: StateRecord, op: str) -> bool:
    """Whether that request was carried out. Raises ConflictError of an Op-Id of another one."""
    return any(is_repeat(one, op) for one in record.ended_by)


def removed(record: StateRecord, op: str | None, *, start: int, hlc: str = "") -> StateRecord:
    """A removed state: a later log is behind ``start``, and later than ``hlc``."""
    return StateRecord(
        name=record.name,
        start=start,
        number=record.number,
        dropped=with_saves(record, ()).dropped,
        ended_by=_ended_by(record, op),
        removals=record.removals + 1,
        hlc=max(record.hlc, hlc),
    )


def _ended_by(record: StateRecord, op: str | None) -> tuple[str, ...]:
    ops = record.ended_by if op is None else (*record.ended_by, op)
    return ops[-ENDINGS_KEPT:]


def is_loadable(record: StateRecord, index: int, *, from_log: bool) -> bool:
    """Whether the state up to command ``index`` can be had: by a save, and the log behind that.

    Or from the first command on. Unless ``from_log``, the save is to include all.
    """
    gone = record.trimmed_through if from_log else index
    return not gone or any(gone <= save.last_applied_index <= index for save in record.saves)


def closed(record: StateRecord, log: str, closing: Closing, sequence: int) -> StateRecord:
    """The record once ``closing``, found at ``sequence`` of ``log``, is carried out.

    A repair is not where what is before it was trimmed meanwhile, or its save dropped.
    """
    if record.log != log or (sequence <= record.closed_through and not closing.anew):
        return record
    if closing.index is None:
        return removed(record, closing.op, start=sequence, hlc=closing.hlc)
    is_whole = is_loadable(record, closing.index, from_log=closing.after is not None)
    if closing.behind is not None and not is_whole:
        after, index = closing.behind
        void = Void(after=after, through=sequence, index=index, is_vain=True)
        return msgspec.structs.replace(record, voids=(*record.voids, void))
    saves = tuple(save for save in record.saves if save.last_applied_index <= closing.index)
    if closing.after is None:  # nothing of the new log is behind what they know
        saves = tuple(msgspec.structs.replace(save, sequence=0) for save in saves)
    ended_by = _ended_by(record, closing.op)
    hlc = max(record.hlc, closing.hlc)
    record = msgspec.structs.replace(
        with_saves(record, saves),
        reached=min(record.reached, closing.index),
        ended_by=ended_by,
        hlc=hlc,
    )
    if closing.after is None:
        return msgspec.structs.replace(
            record,
            log=closing.next_log,
            start=sequence,
            base=closing.index,
            trimmed_through=closing.index,
            trimmed_ops=(),
            voids=(),
        )
    void = Void(after=closing.after, through=sequence, index=closing.index)
    voids = tuple(one for one in record.voids if one.through <= void.after)
    return msgspec.structs.replace(record, voids=(*voids, void))


STATE: Final = RecordKind(
    noun="state",
    form=StateRecord,
    prefix="st",
    name=lambda record: name_key(record.name),
    overtaken=MAX_OVERTAKEN,
)
