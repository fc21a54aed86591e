"""``blob.*`` of names: requests to repository calls, results to replies."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.blob_names import Conditions, Said, Verb, unquote_labels, unquote_text
from holdfast.domain.digest import Digest
from holdfast.errors import InvalidError
from holdfast.handlers.endpoint import AnyEndpoint, Call, Endpoint
from holdfast.handlers.pages import page_of
from holdfast.protocol.names import (
    COPY_NAME,
    CREATE_NAME,
    GET_HISTORY,
    GET_RULES,
    LIST_NAMES,
    OPEN_NAME,
    RENAME_NAME,
    REPLACE_NAME,
    SET_RULES,
    CopyName,
    CreateName,
    GetHistory,
    GetRules,
    KeptRule,
    ListNames,
    NameEntry,
    NameHistory,
    NamePage,
    NameStored,
    NameTransition,
    NameVersion,
    OpenName,
    RenameName,
    ReplaceName,
    RuleList,
    SetRules,
)
from holdfast.protocol.times import as_utc, told_time
from holdfast.repository.names.index.listing import NamesPage, make_listing
from holdfast.repository.names.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.repository.names.index.index import NameIndex
    from holdfast.repository.names.index.rows import IndexedName
    from holdfast.repository.names.names import NameRepository
    from holdfast.repository.names.record import Transition, VersionRecord
    from holdfast.repository.targets import Named

_VERSION: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)


class NameHandlers:
    """Answers ``blob.*`` of names."""

    def __init__(
        self,
        names: NameRepository,
        index: NameIndex,
        *,
        max_inline_bytes: int,
    ) -> None:
        """``max_inline_bytes`` is what one message may carry."""
        self._names = names
        self._index = index
        self._max_inline_bytes = max_inline_bytes

    # --- writes ---

    async def create(self, request: CreateName, call: Call) -> NameStored:
        """``blob.create``."""
        return await self._put("create", request, call)

    async def replace(self, request: ReplaceName, call: Call) -> NameStored:
        """``blob.replace``."""
        return await self._put("replace", request, call)

    async def _put(self, verb: Verb, request: CreateName, call: Call) -> NameStored:
        call.check_inline(self._max_inline_bytes, OPEN_NAME.subject)
        stored = await self._names.put(
            verb,
            unquote_text(request.quoted_name),
            call.data,
            said(request, unquote_labels(request.quoted_labels or "")),
            expected=request.digest,
            op_id=call.op_id,
        )
        return _stored(stored)

    async def copy(self, request: CopyName, call: Call) -> NameStored:
        """``blob.copy``."""
        copied = await self._names.copy(
            request.name,
            source=request.source,
            version=request.version,
            digest=None if request.digest is None else Digest(request.digest),
            conditions=_conditions(request),
            op_id=call.op_id,
        )
        return _stored(copied)

    async def rename(self, request: RenameName, call: Call) -> NameStored:
        """``blob.rename``."""
        renamed = await self._names.rename(
            request.name, request.source, conditions=_conditions(request), op_id=call.op_id
        )
        return _stored(renamed)

    # --- reads ---

    async def list_names(self, request: ListNames, call: Call) -> NamePage:
        """``blob.names``."""
        listing = make_listing(
            prefix=request.prefix,
            delimiter=request.delimiter,
            labels=request.labels,
            start_after=request.start_after,
            cursor=request.cursor,
            limit=request.limit,
            now=call.now,
        )
        while True:
            page = _page(await self._index.page(listing))
            size = len(msgspec.json.encode(page))
            if size <= self._max_inline_bytes or listing.limit == 1:
                return page
            limit = max(1, listing.limit * self._max_inline_bytes // size)
            listing = replace(listing, limit=limit)

    async def history(self, request: GetHistory, _: Call) -> NameHistory:
        """``blob.history``."""
        found = await self._names.history(request.name)
        record = found.record
        history = NameHistory(
            name=record.name,
            state=record.state,
            version=record.version,
            transitions=[_transition(one) for one in reversed(record.transitions)],
            versions=[],
        )
        before = _version_before(request.cursor)
        rows = [one for one in found.versions if before is None or one.version < before]
        wanted = rows[: request.limit]
        versions, cursor = page_of(
            wanted,
            _version,
            lambda one: str(one.version),
            str(wanted[-1].version) if len(rows) > len(wanted) else None,
            self._max_inline_bytes - len(msgspec.json.encode(history)),
        )
        return msgspec.structs.replace(history, versions=versions, cursor=cursor)

    # --- rules ---

    async def rules(self, _request: GetRules, _: Call) -> RuleList:
        """``blob.rules``."""
        return _rules(*await self._names.rules.read())

    async def set_rules(self, request: SetRules, _: Call) -> RuleList:
        """``blob.set_rules``."""
        rules = msgspec.convert(request.rules, list[Rule], from_attributes=True)
        return _rules(*await self._names.rules.change(rules, expected=request.if_revision))

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (
            Endpoint(CREATE_NAME, self.create),
            Endpoint(REPLACE_NAME, self.replace),
            Endpoint(COPY_NAME, self.copy),
            Endpoint(RENAME_NAME, self.rename),
            Endpoint(LIST_NAMES, self.list_names),
            Endpoint(GET_HISTORY, self.history),
            Endpoint(GET_RULES, self.rules),
            Endpoint(SET_RULES, self.set_rules),
        )


def said(request: CreateName | OpenName, labels: dict[str, str]) -> Said:
    """What ``request`` says beside the bytes, with these ``labels``. Raises InvalidError."""
    return Said(
        type=request.type,
        labels=labels,
        expires_at=told_time(request.expires, "expires"),
        conditions=_conditions(request),
    )


def _conditions(request: CreateName | OpenName | CopyName | RenameName) -> Conditions:
    return Conditions(
        if_absent=bool(request.if_absent),
        if_version=request.if_version,
        if_digest=request.if_digest,
    )


def _stored(named: Named) -> NameStored:
    return msgspec.convert(named, NameStored, from_attributes=True)


def _page(found: NamesPage) -> NamePage:
    return NamePage(
        names=[_entry(name) for name in found.names],
        prefixes=list(found.prefixes),
        cursor=found.cursor,
    )


def _entry(one: IndexedName) -> NameEntry:
    return NameEntry(
        name=one.name,
        state=one.state,
        version=one.version,
        digest=one.digest,
        size=one.size,
        type=one.type,
        modified_at=as_utc(one.modified_at),
        labels=one.labels,
        expires_at=None if one.expires_at is None else as_utc(one.expires_at),
    )


def _version_before(cursor: str | None) -> int | None:
    """The version that the page before ended with. Raises InvalidError."""
    if cursor is None:
        return None
    if _VERSION.fullmatch(cursor) is None:
        raise InvalidError("not a cursor of a history")
    return int(cursor)


def _transition(one: Transition) -> NameTransition:
    return NameTransition(
        at=as_utc(one.at),
        state=one.state,
        version=one.version,
        digest=one.digest,
        size=one.size,
        reason=one.reason,
        worker=one.worker,
    )


def _version(one: VersionRecord) -> NameVersion:
    content = one.content
    return NameVersion(
        version=one.version,
        digest=content.digest,
        size=content.size,
        type=content.type,
        modified_at=as_utc(one.modified_at),
        labels=content.labels,
    )


def _rules(rules: Sequence[Rule], revision: int) -> RuleList:
    return RuleList(
        rules=msgspec.convert(rules, list[KeptRule], from_attributes=True),
        revision=revision,
    )
