"""Blobs: put, read by windows, look up, list, delete, verify.

It knows stores by their ports only, and no message, subject or connection.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.limits import WINDOW_BYTES
from holdfast.domain.windows import Cursor, Span, clip, decode_cursor, encode_cursor, first_window
from holdfast.errors import CorruptError, InvalidError, NotFoundError
from holdfast.stores.ports import Attributes, BlobInfo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Buffer, Callable, Mapping, Sequence
    from datetime import datetime

    from holdfast.stores.ports import BlobListing, BlobStore, Stored

BLOBS: Final = "blobs"
PACKS: Final = "packs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inline:
    """A read answered with its bytes."""

    info: BlobInfo
    span: Span
    data: Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A read answered with a window: ``parts`` pieces follow, of which ``skip`` bytes go first.

    They are numbered from ``first`` on: as chunks of the blob where the store sends them.
    ``deliver`` has the store send them to a subject; where it is None, ``pieces`` are to be sent.
    """

    info: BlobInfo
    span: Span
    parts: int
    skip: int
    first: int
    cursor: str | None
    deliver: Callable[[str], Awaitable[None]] | None
    pieces: AsyncGenerator[Buffer] | None


@dataclass(slots=True)
class Verification:
    """What reading blobs back has shown. ``cursor`` is None at the end."""

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
        """``max_inline_bytes`` is what one message may carry."""
        self._spaces = spaces
        self._max_inline_bytes = max_inline_bytes

    @property
    def max_inline_bytes(self) -> int:
        """The largest blob that is put or read in one message."""
        return self._max_inline_bytes

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
        if expected is not None and expected != digest:
            msg = f"the bytes have the digest {digest}, not the one expected"
            raise InvalidError(msg)
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
        space: str = BLOBS,
    ) -> Inline | Window:
        """Bytes of a blob, in one piece if they fit, else the next window of them.

        ``direct`` asks for a window that the store sends, whatever fits. Raises NotFoundError,
        CorruptError, InvalidError.
        """
        store = self._store(space)
        info = await store.stat(digest)
        if cursor is not None:
            span = decode_cursor(cursor, info.size).span
        else:
            span = clip(info.size, offset, length)
        windowed = cursor is not None or (direct and not proxy and span.length > 0)
        if span.length <= self._max_inline_bytes and not windowed:
            return Inline(info=info, span=span, data=await _read_inline(store, info, span))
        return await self._window(store, info, span, proxy=proxy)

    async def _window(self, store: BlobStore, info: BlobInfo, span: Span, *, proxy: bool) -> Window:
        window = first_window(span, info.part_size, WINDOW_BYTES)
        rest = Span(window.stop, span.stop)
        cursor = encode_cursor(Cursor(info.generation, rest)) if rest.length else None
        delivery = None if proxy else store.direct_delivery()
        if delivery is None:
            return Window(
                info=info,
                span=window,
                parts=_pieces(window, info.part_size),
                skip=0,
                first=0,
                cursor=cursor,
                deliver=None,
                pieces=store.read(info, window.start, window.stop),
            )
        first, position = await delivery.locate(info, window.start // info.part_size)
        parts = (max(window.stop, 1) - 1) // info.part_size - first + 1

        async def deliver(subject: str) -> None:
            await delivery.deliver(info, position, parts, subject)

        return Window(
            info=info,
            span=window,
            parts=parts,
            skip=window.start - first * info.part_size,
            first=first,
            cursor=cursor,
            deliver=deliver,
            pieces=None,
        )

    async def missing(self, digests: Sequence[Digest], *, space: str) -> list[Digest]:
        """Those that are not stored, in order, each once."""
        return await self._store(space).missing(digests)

    async def stat(self, digest: Digest, *, space: str = BLOBS) -> BlobInfo:
        """What is recorded. Raises NotFoundError."""
        return await self._store(space).stat(digest)

    async def list_blobs(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """A page of the users' blobs. Raises InvalidError for a foreign cursor."""
        return await self._store(BLOBS).list_blobs(prefix=prefix, cursor=cursor, limit=limit)

    async def delete(self, digest: Digest, *, op_id: str | None) -> bool:
        """Forget one of the users' blobs; whether it was there."""
        return await self._store(BLOBS).delete(digest, op_id=op_id)

    async def verify(self, digest: Digest) -> Verification:
        """Read one blob back. Raises NotFoundError."""
        report = Verification()
        await self._verify_one(await self._store(BLOBS).stat(digest), report)
        return report

    async def verify_page(
        self, *, cursor: str | None, limit: int, has_time: Callable[[], bool]
    ) -> Verification:
        """Read back up to ``limit`` blobs after ``cursor``, for as long as ``has_time``."""
        report = Verification(cursor=cursor)
        while report.checked < limit:
            listing = await self._store(BLOBS).list_blobs(prefix="", cursor=report.cursor, limit=1)
            for entry in listing.entries:
                if isinstance(entry, BlobInfo):
                    await self._verify_one(entry, report)
            report.cursor = listing.cursor
            if listing.cursor is None or not has_time():
                break
        return report

    async def _verify_one(self, info: BlobInfo, report: Verification) -> None:
        report.checked += 1
        try:
            async with aclosing(self._store(BLOBS).read(info, 0, info.size)) as pieces:
                async for piece in pieces:
                    report.bytes += memoryview(piece).nbytes
        except CorruptError as error:
            report.damaged.append(CorruptBlob(info.digest, error.code, error.detail))
        except NotFoundError:
            report.checked -= 1  # deleted meanwhile

    def _store(self, space: str) -> BlobStore:
        return self._spaces[space]


async def _read_inline(store: BlobStore, info: BlobInfo, span: Span) -> Buffer:
    if span == Span(0, info.size):
        return await store.get(info)
    pieces = [bytes(piece) async for piece in store.read(info, span.start, span.stop)]
    return b"".join(pieces)


def _pieces(window: Span, part_size: int) -> int:
    """How many pieces ``BlobStore.read`` gives: one per part touched."""
    if not window.length:
        return 0
    return (window.stop - 1) // part_size - window.start // part_size + 1
