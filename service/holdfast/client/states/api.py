"""States with a log: commands appended, states saved, and all of it loaded again.

position = await hf.states.append("orders", {"add": "apple"})
await hf.states.save("orders", {"apple": 1}, last_applied_index=position.index)
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from holdfast.client.reads.download import stream_blob
from holdfast.client.reads.partial_file import write_to
from holdfast.client.states.ahead import Ahead
from holdfast.client.states.appending import Appends, Fence, ToAppend
from holdfast.client.states.following import PAGE, ReadLog, followed, log_page, replayed
from holdfast.client.states.saving import Saves, saved_record
from holdfast.client.states.values import LogCommand, LogPosition, SavedState, positions
from holdfast.client.states.verify import StateVerified, verified
from holdfast.client.upgrades import UPGRADE_FOR_STATES, NewVerbs
from holdfast.domain.blob_names import check_blob_name
from holdfast.domain.canonical import json_of
from holdfast.domain.digest import parse_digest
from holdfast.errors import NotFoundError
from holdfast.protocol.blobs import GetBlob
from holdfast.protocol.states import (
    GET_SAVE,
    LIST_SAVES,
    LIST_STATES,
    REMOVE_STATE,
    REPAIR_STATE,
    STATE_POLICY,
    STATES_FEATURE,
    TRIM_LOG,
    ExpectedIndex,
    GetSave,
    KeptPolicy,
    ListSaves,
    ListStates,
    LoadedState,
    LogPage,
    RemoveState,
    RepairState,
    Saved,
    SaveState,
    StateEntry,
    StatePolicy,
    StateRepaired,
    TrimLog,
    Trimmed,
)
from holdfast.protocol.times import wire_time

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Iterable
    from datetime import datetime
    from typing import IO

    from holdfast.client.names import Names
    from holdfast.client.requests import Requester
    from holdfast.client.sources import Source

T = TypeVar("T")


class States:
    """The states of a deployment. ``Client.states`` is one.

    A state has a name, as a blob may have, but without * and >, and a log of commands, numbered
    from 1 without gaps.
    Commands and states are JSON values (dicts, lists, texts, numbers, booleans, None), or bytes.
    Everything here raises InvalidError, UnavailableError (surely not applied),
    OutcomeUnknownError.
    """

    def __init__(self, requester: Requester, names: Names) -> None:
        """Made by ``connect``."""
        self._requester = requester
        self._verbs = NewVerbs(requester, STATES_FEATURE, UPGRADE_FOR_STATES)
        self.appends = Appends(requester)
        self.saving = Saves(requester, names)

    # --- the log ---

    async def append(
        self,
        name: str,
        command: object,
        *,
        expected_index: ExpectedIndex = "any",
        lineage: str | None = None,
        hlc: str | None = None,
        ordered: bool = True,
    ) -> LogPosition:
        """Append a command, and wait until it is replicated and synced.

        Only while the last command has ``expected_index``: a number, ``"none"`` or 0 where there
        is none, ``"any"``; and with the ``lineage`` of an answer only to that log, not to one that
        was begun since. Its time comes after ``hlc``. A command appended while another
        append is under way goes with the next one, in order; one that is not ``ordered`` goes by
        itself, at once. Raises ConflictError (``index`` is the last one; None where the log is
        another), TooLargeError, QuotaExceededError, CorruptError (the log is damaged: see
        ``repair``).
        """
        one = to_append(command, expected_index=expected_index, lineage=lineage, hlc=hlc)
        return (await self._append(name, one, ordered=ordered))[0]

    async def append_many(
        self,
        name: str,
        commands: Iterable[object],
        *,
        expected_index: ExpectedIndex = "any",
        lineage: str | None = None,
        hlc: str | None = None,
        ordered: bool = True,
    ) -> list[LogPosition]:
        """Append all of ``commands``, or none, one right after the other; at most 1,000.

        None of them may be bytes. As ``append``.
        """
        texts = [json_of(command) for command in commands]
        if not texts:
            return []
        one = ToAppend(texts, expected_index=expected_index, lineage=lineage, hlc=hlc)
        return await self._append(name, one, ordered=ordered)

    async def _append(self, name: str, one: ToAppend, *, ordered: bool) -> list[LogPosition]:
        reply, before = await self.appends.append(check_blob_name(name), one, ordered=ordered)
        return positions(reply, before, len(one.commands) or 1)

    async def replay(
        self, name: str, from_index: int = 1, *, lineage: str | None = None
    ) -> AsyncGenerator[LogCommand]:
        """The commands from ``from_index`` to the end, in order.

        Everything that was appended before is among them. ``lineage`` is of the log that those
        before were taken from, or a save that includes them. Raises NotFoundError where there is no
        such state, or that command was trimmed (then ``index`` is the first one that is there),
        ConflictError where a removal or a repair took back what was given, or is before
        ``from_index``; CorruptError where the log is damaged there, or has lost its end, and
        InvalidError where it ends before ``from_index``, perhaps since it has lost its end.
        """
        log = ReadLog(check_blob_name(name), lineage)
        async with self._verbs:
            source = replayed(self._requester, log, from_index)
            async with aclosing(Ahead(source, 1)) as pages:
                async for page in pages.items():
                    for one in page:
                        yield one

    async def page(
        self, name: str, from_index: int, limit: int = PAGE, *, lineage: str | None = None
    ) -> LogPage:
        """Up to ``limit`` commands, as they are in the log, and where it begins and ends.

        As ``replay``, going on with the log of that ``lineage``.
        """
        log = ReadLog(check_blob_name(name), lineage)
        async with self._verbs:
            return await log_page(self._requester, log, from_index, limit)

    async def first_index(self, name: str) -> int:
        """The first command that the log still has. Raises NotFoundError."""
        try:
            return (await self.page(name, 1, limit=1)).first_index
        except NotFoundError as error:
            if error.index is None:
                raise
            return error.index

    async def follow(
        self, name: str, from_index: int = 1, *, lineage: str | None = None
    ) -> AsyncGenerator[LogCommand]:
        """As ``replay``, and then further commands as they are appended, for ever.

        A worker that ends or falls silent is replaced by another. Raises as ``replay``, also
        NotFoundError where the next command was trimmed meanwhile, and UnavailableError where no
        worker answers in time.
        """
        log = ReadLog(check_blob_name(name), lineage)
        async with self._verbs:
            stream = followed(self._requester, log, from_index)
            async with aclosing(stream) as batches:
                async for batch in batches:
                    for command in batch:
                        yield command

    async def trim(self, name: str, through_index: int) -> Trimmed:
        """Forget the commands up to and with ``through_index``.

        Raises ConflictError beyond the save before the newest: both are kept loadable.
        """
        request = TrimLog(name=check_blob_name(name), through_index=through_index)
        return await self._verbs.ask(TRIM_LOG, request)

    async def repair(self, name: str, from_index: int) -> StateRepaired:
        """Go on with a damaged log: the next command gets ``from_index``, what follows is lost."""
        request = RepairState(name=check_blob_name(name), from_index=from_index)
        return await self._verbs.ask(REPAIR_STATE, request)

    # --- saves ---

    async def save(
        self,
        name: str,
        state: object,
        *,
        last_applied_index: int,
        last_applied_hlc: str = "",
        lineage: str | None = None,
        force: bool = False,
    ) -> Saved:
        """Save a state, which includes the log up to ``last_applied_index``.

        A JSON value is stored as RFC 8785 writes it, so equal states have one ``state_hash``.
        Raises ConflictError for an older one than the newest, but with ``force``; and where the log
        is not the one of that ``lineage`` any more.
        """
        request = _saving(name, last_applied_index, last_applied_hlc, lineage, force=force)
        async with self._verbs:
            return await self.saving.save(request, state)

    async def save_json(
        self,
        name: str,
        text: bytes,
        *,
        last_applied_index: int,
        last_applied_hlc: str = "",
        lineage: str | None = None,
        force: bool = False,
    ) -> Saved:
        """As ``save``, of a state that is written as JSON."""
        request = _saving(name, last_applied_index, last_applied_hlc, lineage, force=force)
        async with self._verbs:
            return await self.saving.save_json(request, text)

    async def save_from(
        self,
        name: str,
        source: Source,
        *,
        last_applied_index: int,
        last_applied_hlc: str = "",
        lineage: str | None = None,
        force: bool = False,
    ) -> Saved:
        """As ``save``, of the bytes that a file, a file object or an async iterator gives.

        They are streamed: memory is bounded whatever the size. Raises what ``Client.put`` does.
        """
        request = _saving(name, last_applied_index, last_applied_hlc, lineage, force=force)
        async with self._verbs:
            return await self.saving.save_bytes(request, source)

    async def latest(self, name: str, *, if_none_match: str | None = None) -> SavedState | None:
        """The newest save with its state, or None where that has the hash ``if_none_match``.

        Where it is damaged it is the one before, and ``fell_back`` says so. Raises NotFoundError
        where there is none, CorruptError where all are damaged.
        """
        known = None if if_none_match is None else parse_digest(if_none_match)
        async with self._verbs:
            found = await self.saving.newest(check_blob_name(name), known)
            return None if found.unchanged else await self.saving.newest_whole(found)

    async def at(
        self,
        name: str,
        *,
        index: int | None = None,
        time: datetime | None = None,
        hash: str | None = None,  # noqa: A002  (the wire's word)
    ) -> SavedState:
        """The newest save up to an index or a time, or one by its hash. Raises NotFoundError."""
        return await self.saving.whole(await self._at(name, index, time, hash))

    async def read_to(
        self,
        name: str,
        target: str | os.PathLike[str] | IO[bytes],
        *,
        index: int | None = None,
        time: datetime | None = None,
        hash: str | None = None,  # noqa: A002  (the wire's word)
    ) -> Saved:
        """Write the bytes of the newest save, or of one as ``at`` has it, to a path or file.

        A path appears only when all bytes are there and right. Raises NotFoundError, CorruptError,
        OSError.
        """
        record = await self.record(name, index=index, time=time, hash=hash)
        await write_to(target, self._stream(record.digest))
        return record

    async def record(
        self,
        name: str,
        *,
        index: int | None = None,
        time: datetime | None = None,
        hash: str | None = None,  # noqa: A002  (the wire's word)
    ) -> Saved:
        """The record of the newest save, or of one as ``at`` has it."""
        return saved_record(await self.found(name, index=index, time=time, hash=hash))

    async def found(
        self,
        name: str,
        *,
        index: int | None = None,
        time: datetime | None = None,
        hash: str | None = None,  # noqa: A002  (the wire's word)
    ) -> LoadedState:
        """As ``record``, with the ``lineage`` of the log; not all of its state may be there."""
        if index is None and time is None and hash is None:
            async with self._verbs:
                return await self.saving.newest(check_blob_name(name))
        return await self._at(name, index, time, hash)

    def saves(self, name: str) -> AsyncGenerator[Saved]:
        """The records of the saves that are kept, newest first. Raises NotFoundError."""
        request = ListSaves(name=check_blob_name(name), limit=PAGE)
        return self._verbs.rows(LIST_SAVES, request, lambda page: page.saves)

    async def verify(self, name: str) -> StateVerified:
        """Read back all saves and the log behind the oldest of them. Raises NotFoundError."""
        saves, replay = partial(self.saves, name), partial(self.replay, name)
        return await verified(saves, self._stream, replay)

    # --- states ---

    def list(self, prefix: str = "") -> AsyncGenerator[StateEntry]:
        """The states whose name starts with ``prefix``, in an order of their own."""
        request = ListStates(prefix=prefix, limit=PAGE)
        return self._verbs.rows(LIST_STATES, request, lambda page: page.states)

    async def remove(self, name: str) -> bool:
        """Remove a state, its saves and its log; False where there was none."""
        reply = await self._verbs.ask(REMOVE_STATE, RemoveState(name=check_blob_name(name)))
        return reply.removed

    async def policy(self, name: str) -> KeptPolicy:
        """The policy of a state: which saves are kept, and how often its writers save it."""
        return await self._verbs.ask(STATE_POLICY, StatePolicy(name=check_blob_name(name)))

    async def set_policy(
        self,
        name: str,
        *,
        save_every: int | None = None,
        keep: int | None = None,
        keep_seconds: int | None = None,
        trim: bool | None = None,
    ) -> KeptPolicy:
        """Change what is said, the rest stays: see ``StatePolicy`` of the wire."""
        request = StatePolicy(
            name=check_blob_name(name),
            save_every=save_every,
            keep=keep,
            keep_seconds=keep_seconds,
            trim=trim,
        )
        return await self._verbs.ask(STATE_POLICY, request)

    async def _at(
        self,
        name: str,
        index: int | None,
        time: datetime | None,
        hash: str | None,  # noqa: A002  (the wire's word)
    ) -> LoadedState:
        request = GetSave(
            name=check_blob_name(name),
            index=index,
            time=None if time is None else wire_time(time),
            hash=None if hash is None else parse_digest(hash),
        )
        return await self._verbs.ask(GET_SAVE, request)

    def _stream(self, digest: str) -> AsyncGenerator[memoryview]:
        return stream_blob(self._requester, GetBlob(digest=digest), is_kept=True)


def to_append(
    command: object,
    *,
    expected_index: ExpectedIndex,
    hlc: str | None,
    lineage: str | None = None,
    fence: Fence | None = None,
) -> ToAppend:
    """One command, to be appended. Raises InvalidError of what is neither JSON nor bytes."""
    data = bytes(command) if isinstance(command, bytes | bytearray | memoryview) else None
    return ToAppend(
        [json_of(command)] if data is None else (),
        data=data,
        expected_index=expected_index,
        lineage=lineage,
        fence=fence,
        hlc=hlc,
    )


def _saving(name: str, index: int, hlc: str, lineage: str | None, *, force: bool) -> SaveState:
    return SaveState(
        name=check_blob_name(name),
        last_applied_index=index,
        last_applied_hlc=hlc,
        lineage=lineage,
        force=force,
    )
