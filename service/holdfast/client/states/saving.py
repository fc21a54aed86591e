"""Saves of states: small ones in one message, others as a blob that is put before.

Such a blob is held by a name of its own until it is the save's: a put without one would keep it for
ever.

Why: docs/decisions.md, "A large save is held by a name while it is made".
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw, structs

from holdfast.client.long_requests import ask_long
from holdfast.client.pages import rows
from holdfast.client.reads.download import read_bytes
from holdfast.client.states.values import SavedState, value_of
from holdfast.domain.blob_names import quote_text
from holdfast.domain.canonical import canonical, json_of
from holdfast.domain.limits import KIB, max_inline_bytes
from holdfast.errors import CorruptError, HoldfastError, NotFoundError, TooLargeError
from holdfast.protocol.blobs import GetBlob
from holdfast.protocol.states import (
    GET_LATEST,
    LIST_SAVES,
    SAVE_BYTES,
    SAVE_STATE,
    GetLatest,
    ListSaves,
    LoadedState,
    SaveBytes,
    Saved,
    SaveKind,
    SaveState,
)
from holdfast.transport.fresh_ids import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.client.names import Names
    from holdfast.client.requests import Requester
    from holdfast.client.sources import Source

HOLDERS: Final = ".holdfast/states/"
"""The beginning of the names that hold blobs while they become saves."""

HELD: Final = timedelta(days=1)
_PAGE: Final = 1000
_THREAD_BYTES: Final = 256 * KIB
_SAVE_SECONDS: Final = 120.0
_SAVE_BYTES_PER_SECOND: Final = 50 * 1000 * 1000
"""The slowest that a worker may read a large state back."""


class Saves:
    """Writes saves, and reads what they hold."""

    def __init__(self, requester: Requester, names: Names) -> None:
        """``names`` are those of the deployment."""
        self._requester = requester
        self._names = names

    async def save(self, request: SaveState, state: object) -> Saved:
        """Save a JSON value or bytes, as ``request`` says but for them. See ``States.save``."""
        if isinstance(state, bytes | bytearray | memoryview):
            return await self.save_bytes(request, state)
        # It is written out before anybody goes on to change it.
        return await self.save_json(request, json_of(state))

    async def save_json(self, request: SaveState, text: bytes) -> Saved:
        """Save a state that is written as JSON. Raises InvalidError."""
        if len(text) > _THREAD_BYTES:
            return await self._save_canonical(request, await asyncio.to_thread(canonical, text))
        return await self._save_canonical(request, canonical(text))

    async def _save_canonical(self, request: SaveState, text: bytes) -> Saved:
        if self._is_small(len(text)):
            with suppress(TooLargeError):  # the worker's server takes less than ours
                return await self._requester.ask(
                    SAVE_STATE, structs.replace(request, state=Raw(text))
                )
        return await self._save_source(request, text, "json")

    async def save_bytes(self, request: SaveState, source: Source) -> Saved:
        """Save what ``source`` gives, in bounded memory."""
        if isinstance(source, bytes | bytearray | memoryview) and self._is_small(len(source)):
            header = SaveBytes(
                quoted_name=quote_text(request.name),
                last_applied_index=request.last_applied_index,
                last_applied_hlc=request.last_applied_hlc,
                lineage=request.lineage,
                force=request.force,
            )
            with suppress(TooLargeError):
                return await self._requester.ask(SAVE_BYTES, header, memoryview(source))
        return await self._save_source(request, source, "bytes")

    def _is_small(self, size: int) -> bool:
        return size <= max_inline_bytes(self._requester.connection.max_payload)

    async def _save_source(self, request: SaveState, source: Source, kind: SaveKind) -> Saved:
        async with self._held(source) as (digest, size):
            seconds = _SAVE_SECONDS + size / _SAVE_BYTES_PER_SECOND
            asked = structs.replace(request, digest=digest, kind=kind)
            return await ask_long(self._requester, SAVE_STATE, asked, seconds)

    @asynccontextmanager
    async def _held(self, source: Source) -> AsyncGenerator[tuple[str, int]]:
        """Digest and size of the blob of ``source``, which is not collected meanwhile."""
        name = f"{HOLDERS}{new_id()}"
        until = datetime.fromtimestamp(time.time(), UTC) + HELD
        stored = await self._names.create(name, source, expires_at=until)
        try:
            yield stored.digest, stored.size
        finally:
            with suppress(HoldfastError):  # else it ends by itself
                await self._names.delete(name)

    async def newest(self, name: str, known: str | None = None) -> LoadedState:
        """The newest save, with its state where that is small. Raises NotFoundError."""
        return await self._requester.ask(GET_LATEST, GetLatest(name=name, if_none_match=known))

    async def newest_whole(self, found: LoadedState) -> SavedState:
        """The newest save, ``found``, with its state; where that is damaged, the one before."""
        try:
            return await self.whole(found)
        except CorruptError as error:
            return await self._before(found, error)

    async def _before(self, found: LoadedState, error: CorruptError) -> SavedState:
        """The newest save before ``found`` that is whole. Raises ``error`` where none is."""
        damaged = [*found.fell_back, found.number]
        request = ListSaves(name=found.name, limit=_PAGE)
        records = rows(self._requester, LIST_SAVES, request, lambda page: page.saves)
        async with aclosing(records) as older:
            async for record in older:
                if record.number >= found.number:
                    continue
                try:
                    state = await self._state_of(record)
                except CorruptError:
                    damaged.append(record.number)
                else:
                    return SavedState(
                        record=record, state=state, fell_back=damaged, lineage=found.lineage
                    )
        raise error

    async def whole(self, found: LoadedState) -> SavedState:
        """The save that a worker has found, with its state.

        Raises CorruptError where its blob is not what it was, or not there.
        """
        state: Any
        if isinstance(found.state, Raw):
            state = value_of(found.state)
        else:
            state = await self._state_of(found)
        return SavedState(
            record=saved_record(found),
            state=state,
            fell_back=found.fell_back,
            lineage=found.lineage,
        )

    async def _state_of(self, record: Saved) -> Any:
        """The state of a save, a JSON value or bytes. Raises CorruptError."""
        try:
            request = GetBlob(digest=record.digest)
            data = await read_bytes(self._requester, request, is_kept=True)
        except NotFoundError as error:
            raise CorruptError(f"the blob of save {record.number} is not there") from error
        return data if record.kind == "bytes" else value_of(data)


def saved_record(found: Saved) -> Saved:
    """The record of a save, without its state."""
    return Saved(**{field: getattr(found, field) for field in Saved.__struct_fields__})
