"""Blobs: put, read by windows, look up, list, delete, verify.

It knows stores by their ports only, and no message, subject or connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.domain.digest import Digest, check_expected, digest_of, is_digest
from holdfast.domain.limits import WINDOW_BYTES
from holdfast.domain.windows import Cursor, Span, clip, decode_cursor, encode_cursor, first_window
from holdfast.errors import CorruptError, HoldfastError, NotFoundError
from holdfast.stores.copies import read_latest
from holdfast.stores.ports import Attributes, BlobInfo, BlobListing, UnreadableObject, freely

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Buffer,
        Callable,
        Iterator,
        Mapping,
        Sequence,
    )
    from datetime import datetime

    from holdfast.domain.kept import KeptBytes
    from holdfast.stores.ports import BlobStore, ForeignObject, Keeping, Stored

BLOBS: Final = "blobs"
PACKS: Final = "packs"
_VERIFIED_PER_PAGE: Final = 256
_VERIFIED_AT_ONCE: Final = 16
"""Blobs of one message that are read back at once."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes ``span`` of something of ``size`` bytes: ``data``, or a window of ``parts`` pieces.

    A window's first ``skip`` bytes are dropped. Pieces are numbered from ``first`` on: as chunks of
    the blob where the store sends them. ``deliver`` has it send them to a subject; where it is
    None, ``pieces`` are to be sent. ``kept`` says which bytes of a partial blob they are.
    """

    size: int
    span: Span
    type: str
    data: Buffer = b""
    parts: int | None = None
    skip: int | None = None
    first: int | None = None
    cursor: str | None = None
    kept: KeptBytes | None = None
    deliver: Callable[[str], Awaitable[None]] | None = None
    pieces: AsyncGenerator[Buffer] | None = None


@dataclass(frozen=True, slots=True)
class Bare:
    """A read that the store answers: ``deliver`` has it send the blob to a subject, and no more."""

    deliver: Callable[[str], Awaitable[None]]


@dataclass(slots=True)
class Verification:
    """The result of reading blobs back. ``cursor`` is None at the end."""

    checked: int = 0
    bytes: int = 0
    damaged: list[CorruptBlob] = field(default_factory=list)
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class CorruptBlob:
    """A blob that cannot be read back."""

    digest: Digest
    code: str
    detail: str


class BlobRepository:
    """The blobs of a deployment, in its spaces: ``blobs`` for users, ``packs`` for snapshots."""

    def __init__(self, spaces: Mapping[str, BlobStore], *, max_inline_bytes: int) -> None:
        """``max_inline_bytes`` is the largest blob that is put or read in one message."""
        self._spaces = spaces
        self.max_inline_bytes = max_inline_bytes

    async def put(
        self,
        data: Buffer,
        *,
        expected: str | None,
        type: str,  # noqa: A002  (the wire's word)
        space: str,
        now: datetime,
        op_id: str | None,
    ) -> Stored:
        """Store ``data``. Raises InvalidError when its digest is not ``expected``."""
        digest = digest_of(data)
        check_expected(digest, expected)
        attributes = Attributes(type=type, created_at=now, pinned=space == BLOBS, op_id=op_id)
        return await self._store(space).put(digest, data, attributes)

    async def read(
        self,
        digest: Digest,
        *,
        offset: int = 0,
        length: int | None = None,
        cursor: str | None = None,
        proxy: bool = False,
        direct: bool = False,
        bare: bool = False,
        partial_too: bool = False,
        space: str = BLOBS,
        named: bool = False,
    ) -> Content | Bare:
        """Bytes of a blob, in one piece if they fit, else the next window of them.

        ``direct`` asks for a window that the store sends, whatever fits; ``bare`` lets it send a
        small blob in one message, of which nothing is known but its digest. ``partial_too`` reads
        the bytes that are kept of a partial blob, which else is not there. A deleted blob that is
        kept is there with a ``cursor``, and if it was found by its keeper (``named``). Raises
        NotFoundError, CorruptError, InvalidError.
        """
        store = self._store(space)
        is_head = cursor is None and not offset and not proxy
        at_most = self.max_inline_bytes if length is None else min(length, self.max_inline_bytes)
        info: BlobInfo | None = None
        if partial_too:
            info = await store.stat(digest, sure=proxy, partial=True)
            bare, direct = False, direct or is_head
        delivery = store.direct_delivery() if bare and is_head else None
        if delivery is not None:
            deliver = delivery.deliver_bare(digest, at_most)
            if deliver is None:
                info = await store.stat(digest)
                deliver = delivery.deliver_bare(digest, at_most)
            if deliver is not None:
                return Bare(deliver)
        elif is_head and not direct:
            fetched = await store.fetch(digest, at_most)
            info = fetched.info
            _check_there(info, named=named)
            if fetched.data is not None:
                whole = Span(0, info.size)
                return Content(size=info.size, span=whole, type=info.type, data=fetched.data)
        if info is None:
            # A proxied window follows one that the store did not deliver: no stale copy.
            info = await store.stat(digest, sure=proxy)

        async def read(copy: BlobInfo) -> Content:
            _check_there(copy, named=named or cursor is not None)
            return await self._read(
                store,
                copy,
                offset=offset,
                length=length,
                cursor=cursor,
                proxy=proxy,
                direct=direct,
            )

        return await read_latest(store, info, read, partial=partial_too)

    async def _read(
        self,
        store: BlobStore,
        info: BlobInfo,
        *,
        offset: int,
        length: int | None,
        cursor: str | None,
        proxy: bool,
        direct: bool,
    ) -> Content:
        if info.damaged:
            msg = f"blob {info.digest} was found damaged: put it again from a good copy"
            raise CorruptError(msg)
        if cursor is not None:
            span = decode_cursor(cursor, info.size).span
        else:
            span = clip(info.size, offset, length)
        windowed = cursor is not None or (direct and not proxy and span.length > 0)
        if span.length <= self.max_inline_bytes and not windowed:
            data = await _read_inline(store, info, span)
            return Content(size=info.size, span=span, type=info.type, data=data, kept=info.kept)
        return await self._window(store, info, span, proxy=proxy)

    async def _window(
        self, store: BlobStore, info: BlobInfo, span: Span, *, proxy: bool
    ) -> Content:
        window = first_window(span, info.part_size, WINDOW_BYTES)
        rest = Span(window.stop, span.stop)
        cursor = encode_cursor(Cursor(info.generation, rest)) if rest.length else None
        content = partial(
            Content, size=info.size, span=window, type=info.type, cursor=cursor, kept=info.kept
        )
        delivery = None if proxy else store.direct_delivery()
        if delivery is None:
            pieces = store.read(info, window.start, window.stop)
            return content(parts=_pieces(window, info.part_size), skip=0, first=0, pieces=pieces)
        first, position = await delivery.locate(info, window.start // info.part_size)
        parts = (max(window.stop, 1) - 1) // info.part_size - first + 1
        skip = window.start - first * info.part_size

        async def deliver(subject: str) -> None:
            await delivery.deliver(info, position, parts, subject)

        return content(parts=parts, skip=skip, first=first, deliver=deliver)

    async def missing(self, digests: Sequence[Digest], *, space: str) -> list[Digest]:
        """Those that are not stored, in order, each once."""
        return await self._store(space).missing(digests)

    async def stat(self, digest: Digest, *, space: str = BLOBS, named: bool = False) -> BlobInfo:
        """A blob's record. Raises NotFoundError; ``named`` as for `read`."""
        info = await self._store(space).stat(digest)
        _check_there(info, named=named)
        return info

    async def list_blobs(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """A page of the users' blobs, but for what was deleted and is kept.

        Raises InvalidError for a foreign cursor.
        """
        page = await self._store(BLOBS).list_blobs(prefix=prefix, cursor=cursor, limit=limit)
        rows = [
            (entry, after)
            for entry, after in zip(page.entries, page.after, strict=True)
            if not (isinstance(entry, BlobInfo) and entry.deleted)
        ]
        return BlobListing(
            entries=[entry for entry, _ in rows],
            after=[after for _, after in rows],
            cursor=page.cursor,
        )

    async def delete(
        self, digest: Digest, *, op_id: str | None, kept: Keeping | None = None
    ) -> bool:
        """Forget one of the users' blobs, whether it was there; or hide it where it is kept.

        ``kept`` tells of what needs it, as `BlobStore.delete` says.
        """
        return await self._store(BLOBS).delete(digest, op_id=op_id, kept=kept)

    async def verify(self, digest: Digest) -> Verification:
        """Read one blob back. Raises NotFoundError."""
        report = Verification()
        try:
            info = await self._store(BLOBS).stat(digest, sure=True)
        except CorruptError as error:  # its record
            report.checked += 1
            report.damaged.append(CorruptBlob(digest, error.code, error.detail))
        else:
            await self._verify_one(info, report)
        return report

    async def verify_page(
        self, *, cursor: str | None, limit: int, has_time: Callable[[], bool]
    ) -> Verification:
        """Read back up to ``limit`` blobs after ``cursor``, for as long as ``has_time``."""
        report = Verification(cursor=cursor)
        while report.checked < limit:
            wanted = min(limit - report.checked, _VERIFIED_PER_PAGE)
            listing = await self._store(BLOBS).list_blobs(
                prefix="", cursor=report.cursor, limit=wanted
            )
            rows = list(zip(listing.entries, listing.after, strict=True))
            for several in _groups(rows):
                await asyncio.gather(*(self._verify_one(entry, report) for entry, _ in several))
                report.cursor = several[-1][1]
                if not has_time():
                    return report
            report.cursor = listing.cursor
            if listing.cursor is None or not has_time():
                break
        return report

    async def _verify_one(self, info: BlobInfo | ForeignObject, report: Verification) -> None:
        """Read a blob back. A damaged one is remembered, so that the next put replaces it."""
        if isinstance(info, UnreadableObject) and is_digest(info.name):
            report.checked += 1
            damaged = CorruptBlob(Digest(info.name), CorruptError.code, info.detail)
            report.damaged.append(damaged)
        if not isinstance(info, BlobInfo):
            return
        store = self._store(BLOBS)
        try:
            await store.read_back(info, freely)
            report.bytes += info.size
        except NotFoundError:
            return  # deleted meanwhile
        except CorruptError as error:
            report.damaged.append(CorruptBlob(info.digest, error.code, error.detail))
            await report_damage(store, info)
        report.checked += 1

    def _store(self, space: str) -> BlobStore:
        return self._spaces[space]


async def report_damage(store: BlobStore, info: BlobInfo) -> bool:
    """Have a blob put anew, or marked; whether it was put anew. If neither, it is met again."""
    try:
        return await store.report_damage(info)
    except HoldfastError as error:
        log.warning("damage_not_recorded", digest=info.digest, code=error.code)
        return False


def _groups(
    rows: Sequence[tuple[BlobInfo | ForeignObject, str]],
) -> Iterator[Sequence[tuple[BlobInfo | ForeignObject, str]]]:
    """``rows`` in order: several that are read at once, or one that is read piece by piece."""
    few: list[tuple[BlobInfo | ForeignObject, str]] = []
    for row in rows:
        is_large = isinstance(row[0], BlobInfo) and row[0].chunks > 1
        if few and (is_large or len(few) == _VERIFIED_AT_ONCE):
            yield few
            few = []
        if is_large:
            yield [row]
        else:
            few.append(row)
    if few:
        yield few


def _check_there(info: BlobInfo, *, named: bool) -> None:
    """Raises NotFoundError of what was deleted and is kept, unless it is asked for by what does."""
    if info.deleted and not named:
        raise NotFoundError("no such blob")


async def _read_inline(store: BlobStore, info: BlobInfo, span: Span) -> Buffer:
    if span == Span(0, info.size):
        return await store.get(info)
    pieces = [bytes(piece) async for piece in store.read(info, span.start, span.stop)]
    return b"".join(pieces)


def _pieces(window: Span, part_size: int) -> int:
    """The number of pieces ``BlobStore.read`` gives: one per part touched."""
    if not window.length:
        return 0
    return (window.stop - 1) // part_size - window.start // part_size + 1
