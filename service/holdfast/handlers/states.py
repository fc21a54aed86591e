"""``snapshot.*`` of states: requests to repository calls, results to replies."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET, Raw

from holdfast.domain.blob_names import check_blob_name, unquote_text
from holdfast.domain.digest import Digest, check_expected, digest_of
from holdfast.domain.op_id import bind_op_id, split_op_id
from holdfast.errors import InvalidError, TooLargeError
from holdfast.handlers.endpoint import AnyEndpoint, Call, Endpoint
from holdfast.handlers.pages import cursor_of, cursor_text, page_of
from holdfast.protocol.blobs import OPEN_UPLOAD
from holdfast.protocol.states import (
    APPEND_BYTES,
    APPEND_COMMANDS,
    GET_LATEST,
    GET_SAVE,
    LIST_SAVES,
    LIST_STATES,
    REMOVE_STATE,
    REPAIR_STATE,
    REPLAY_LOG,
    SAVE_BYTES,
    SAVE_STATE,
    STATE_POLICY,
    TRIM_LOG,
    AppendBytes,
    AppendCommands,
    Appended,
    ExpectedIndex,
    GetLatest,
    GetSave,
    KeptPolicy,
    ListSaves,
    ListStates,
    LoadedState,
    LogEntry,
    LogPage,
    RemoveState,
    RepairState,
    ReplayLog,
    SaveBytes,
    Saved,
    SavePage,
    SaveState,
    StateEntry,
    StatePage,
    StatePolicy,
    StateRemoved,
    StateRepaired,
    TrimLog,
    Trimmed,
)
from holdfast.protocol.times import as_utc, told_time
from holdfast.repository.states.appending import MAX_APPEND_SECONDS, Appender
from holdfast.repository.states.groups import Command, LoggedCommand
from holdfast.repository.states.saves import Loaded, NewSave, StateSaves, canonical_form

if TYPE_CHECKING:
    from holdfast.repository.states.op_ids import AppendedRun
    from holdfast.repository.states.record import Lineage, SaveEntry, StateRecord
    from holdfast.repository.states.replays import Replays
    from holdfast.repository.states.upkeep import Upkeep

FRESH_SECONDS: Final = 5.0
"""Time an append may be under way: its Op-Id is known for that longer than it lives."""

_LINEAGES: Final = 1024
_POLICY: Final = ("save_every", "keep", "keep_seconds", "trim")


class StateHandlers:
    """Answers ``snapshot.*`` of states, but for ``snapshot.follow``."""

    def __init__(
        self,
        appender: Appender,
        saves: StateSaves,
        replays: Replays,
        upkeep: Upkeep,
        *,
        append_subjects: tuple[str, str],
        prefix: str,
        max_inline_bytes: int,
    ) -> None:
        """``append_subjects`` are those of this worker alone, for JSON and for bytes.

        They are without ``prefix``, which is the deployment's. ``max_inline_bytes`` is what one
        message may carry.
        """
        self._appender = appender
        self._saves = saves
        self._replays = replays
        self._upkeep = upkeep
        self._for_json, self._for_bytes = append_subjects
        self._prefix = f"{prefix}." if prefix else ""
        self._max_inline_bytes = max_inline_bytes

    # --- the log ---

    async def append(self, request: AppendCommands, call: Call) -> Appended:
        """``snapshot.append``."""
        _check_seconds(call)
        run = await self._appender.append(
            request.name,
            _commands(request),
            expected=_expected(request.expected_index),
            lineage=lineage_of(request.lineage),
            hlc=request.hlc,
            op_id=call.op_id,
        )
        return _appended(run, self._prefix + self._for_json)

    async def append_bytes(self, request: AppendBytes, call: Call) -> Appended:
        """``snapshot.append_bytes``."""
        _check_seconds(call)
        index = request.expected_index
        run = await self._appender.append(
            unquote_text(request.quoted_name),
            [Command(bytes(call.data), is_json=False)],
            expected=_expected(
                "any" if index == "any" else "none" if index == "none" else int(index)
            ),
            lineage=lineage_of(request.lineage),
            hlc=request.hlc,
            op_id=_with_bytes(call, APPEND_BYTES.subject),
        )
        return _appended(run, self._prefix + self._for_bytes)

    async def replay(self, request: ReplayLog, _: Call) -> LogPage:
        """``snapshot.replay``."""
        lineage = lineage_of(request.lineage)
        found = await self._replays.tell(
            request.name, request.from_index, request.limit, lineage=lineage
        )
        return LogPage(
            entries=[log_entry(entry) for entry in found.entries],
            next_index=found.next_index,
            first_index=found.first,
            last_index=found.last,
            lineage=wire_lineage(found.lineage),
        )

    async def trim(self, request: TrimLog, _: Call) -> Trimmed:
        """``snapshot.trim``."""
        record = await self._upkeep.trim(request.name, request.through_index)
        through = record.trimmed_through
        return Trimmed(trimmed_through=through, first_index=through + 1)

    async def repair(self, request: RepairState, call: Call) -> StateRepaired:
        """``snapshot.repair_state``."""
        record = await self._upkeep.repair(request.name, request.from_index, op_id=call.op_id)
        return StateRepaired(
            first_index=record.trimmed_through + 1, last_index=request.from_index - 1
        )

    # --- saves ---

    async def save(self, request: SaveState, call: Call) -> Saved:
        """``snapshot.save``."""
        has_state = not isinstance(request.state, msgspec.UnsetType)
        if has_state == (request.digest is not None):
            raise InvalidError("give a state, or the digest of a blob, and not both")
        data = None
        if not isinstance(request.state, msgspec.UnsetType):
            if request.kind != "json":
                msg = "a state in the request is JSON: bytes go with snapshot.save_bytes"
                raise InvalidError(msg)
            data = await self._canonical(bytes(request.state))
        new = NewSave(
            last_applied_index=request.last_applied_index,
            last_applied_hlc=request.last_applied_hlc,
            lineage=lineage_of(request.lineage),
            kind=request.kind,
            data=data,
            digest=None if request.digest is None else Digest(request.digest),
            force=request.force,
        )
        return await self._save(request.name, new, call.op_id)

    async def save_bytes(self, request: SaveBytes, call: Call) -> Saved:
        """``snapshot.save_bytes``."""
        call.check_inline(self._max_inline_bytes, OPEN_UPLOAD.subject)
        data = bytes(call.data)
        check_expected(digest_of(data), request.digest)
        new = NewSave(
            last_applied_index=request.last_applied_index,
            last_applied_hlc=request.last_applied_hlc,
            lineage=lineage_of(request.lineage),
            kind="bytes",
            data=data,
            force=bool(request.force),
        )
        op_id = _with_bytes(call, SAVE_BYTES.subject)
        return await self._save(unquote_text(request.quoted_name), new, op_id)

    async def _save(self, name: str, new: NewSave, op_id: str | None) -> Saved:
        made = await self._saves.save(name, new, op_id=op_id)
        self._upkeep.saved(name)
        return _saved(name, made)

    async def _canonical(self, text: bytes) -> bytes:
        data = await canonical_form(text)
        if len(data) > self._max_inline_bytes:
            msg = f"the state takes {len(data)} bytes: put it as a blob, and save its digest"
            raise TooLargeError(msg)
        return data

    async def latest(self, request: GetLatest, _: Call) -> LoadedState:
        """``snapshot.latest``."""
        found = await self._saves.latest(request.name, unless=request.if_none_match)
        is_same = found.save.digest == request.if_none_match
        return _loaded(request.name, found, unchanged=is_same)

    async def at(self, request: GetSave, _: Call) -> LoadedState:
        """``snapshot.at``."""
        found = await self._saves.at(
            request.name,
            index=request.index,
            time=told_time(request.time, "time"),
            digest=request.hash,
        )
        return _loaded(request.name, found, unchanged=False)

    async def saves(self, request: ListSaves, _: Call) -> SavePage:
        """``snapshot.saves``."""
        below = _number(request.cursor)
        rows, has_more = await self._saves.page(request.name, below=below, limit=request.limit)
        saves, cursor = page_of(
            rows,
            lambda one: _saved(request.name, one),
            lambda one: str(one.number),
            str(rows[-1].number) if rows and has_more else None,
            self._max_inline_bytes,
        )
        return SavePage(saves=saves, cursor=cursor)

    # --- states ---

    async def states(self, request: ListStates, _: Call) -> StatePage:
        """``snapshot.states``."""
        after = None if request.cursor is None else check_blob_name(cursor_text(request.cursor))
        rows, last = await self._upkeep.page(request.prefix, after=after, limit=request.limit)
        states, cursor = page_of(
            rows,
            _state_entry,
            lambda one: cursor_of(one.name),
            None if last is None else cursor_of(last),
            self._max_inline_bytes,
        )
        return StatePage(states=states, cursor=cursor)

    async def remove(self, request: RemoveState, call: Call) -> StateRemoved:
        """``snapshot.remove_state``."""
        return StateRemoved(removed=await self._upkeep.remove(request.name, op_id=call.op_id))

    async def policy(self, request: StatePolicy, _: Call) -> KeptPolicy:
        """``snapshot.state_policy``."""
        given = {field: getattr(request, field) for field in _POLICY}
        changes = {field: value for field, value in given.items() if value is not None}
        kept = await self._upkeep.policy(request.name, changes)
        self._upkeep.saved(request.name)
        return msgspec.convert(kept, KeptPolicy, from_attributes=True)

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (
            Endpoint(
                APPEND_COMMANDS,
                self.append,
                own_subject=self._for_json,
                fresh_seconds=FRESH_SECONDS,
            ),
            Endpoint(
                APPEND_BYTES,
                self.append_bytes,
                own_subject=self._for_bytes,
                fresh_seconds=FRESH_SECONDS,
            ),
            Endpoint(SAVE_STATE, self.save),
            Endpoint(SAVE_BYTES, self.save_bytes),
            Endpoint(GET_LATEST, self.latest),
            Endpoint(GET_SAVE, self.at),
            Endpoint(LIST_SAVES, self.saves),
            Endpoint(LIST_STATES, self.states),
            Endpoint(REMOVE_STATE, self.remove),
            Endpoint(REPLAY_LOG, self.replay),
            Endpoint(TRIM_LOG, self.trim),
            Endpoint(STATE_POLICY, self.policy),
            Endpoint(REPAIR_STATE, self.repair),
        )


def log_entry(entry: LoggedCommand) -> LogEntry:
    """The command as it travels."""
    command = entry.command
    if command.is_json:
        return LogEntry(index=entry.index, hlc=entry.hlc, command=Raw(command.data))
    return LogEntry(index=entry.index, hlc=entry.hlc, data=command.data)


@lru_cache(maxsize=_LINEAGES)
def wire_lineage(lineage: Lineage | None) -> str | None:
    """The lineage as it travels."""
    return None if lineage is None else ".".join(map(str, lineage))


def lineage_of(text: str | None) -> Lineage | None:
    """The lineage that was told."""
    if text is None:
        return None
    log, start, through = text.split(".")
    return log, int(start), int(through)


def _check_seconds(call: Call) -> None:
    if call.seconds > MAX_APPEND_SECONDS:
        raise InvalidError(f"the Timeout of an append is at most {MAX_APPEND_SECONDS:.0f} seconds")


def _commands(request: AppendCommands) -> list[Command]:
    one = [] if isinstance(request.command, msgspec.UnsetType) else [request.command]
    if bool(one) == bool(request.commands):
        raise InvalidError("give a command, or commands, and not both")
    return [Command(bytes(command)) for command in one or request.commands]


def _expected(index: ExpectedIndex) -> int | None:
    """As the repository has it: 0 for none, None for any."""
    if isinstance(index, int):
        return index
    return None if index == "any" else 0


def _with_bytes(call: Call, subject: str) -> str | None:
    """The Op-Id, bound to the bytes of the request, too."""
    if call.op_id is None:
        return None
    said, request = split_op_id(call.op_id)
    return bind_op_id(said, subject, request.encode() + bytes(call.data))


def _appended(run: AppendedRun, append_subject: str) -> Appended:
    hlc = str(run.hlc)
    return Appended(
        index=run.index,
        count=run.count,
        hlc=hlc,
        last_hlc=hlc if run.last_hlc is run.hlc else str(run.last_hlc),
        append_subject=append_subject,
        lineage=wire_lineage(run.lineage),
    )


def _saved(name: str, save: SaveEntry) -> Saved:
    return Saved(
        name=name,
        number=save.number,
        state_hash=save.digest,
        digest=save.digest,
        size=save.size,
        kind=save.kind,
        last_applied_index=save.last_applied_index,
        at=as_utc(save.at),
        last_applied_hlc=save.last_applied_hlc,
        previous=save.previous,
    )


def _loaded(name: str, found: Loaded, *, unchanged: bool) -> LoadedState:
    fields = msgspec.structs.asdict(_saved(name, found.save))
    return LoadedState(
        **fields,
        state=UNSET if found.data is None else Raw(found.data),
        fell_back=list(found.fell_back),
        unchanged=unchanged,
        lineage=wire_lineage(found.lineage),
    )


def _state_entry(record: StateRecord) -> StateEntry:
    newest = record.saves[0] if record.saves else None
    return StateEntry(
        name=record.name,
        trimmed_through=record.trimmed_through,
        last_applied_index=0 if newest is None else newest.last_applied_index,
        state_hash=None if newest is None else newest.digest,
        size=0 if newest is None else newest.size,
        saved_at=None if newest is None else as_utc(newest.at),
        saves=len(record.saves),
    )


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdigit() or len(cursor) > 16:
        raise InvalidError("not a cursor of saves")
    return int(cursor)
