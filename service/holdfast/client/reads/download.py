"""Reading a blob: its windows, and its digest where all of it is read.

A blob that fits one answer takes one request. The chunks of a window come straight from the
server; after one that came oddly a worker reads and relays (``proxy``).

Why: docs/decisions.md, "What is checked when reading".
"""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.client.reads.windows import (
    Patience,
    Window,
    WindowReader,
    wanted_bytes,
    window_pieces,
)
from holdfast.domain.digest import digest_of
from holdfast.domain.limits import max_inline_bytes
from holdfast.errors import CorruptError, InvalidError, NotFoundError
from holdfast.protocol.blobs import GET_BLOB, BlobHead, GetBlob

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from holdfast.client.requests import Requester
    from holdfast.client.sources import OnBytes

_PATIENCE: Final = Patience(head_seconds=5.0, silence_seconds=2.0)


async def though_deleted[T](request: GetBlob, ask: Callable[[GetBlob], Awaitable[T]]) -> T:
    """The result of ``ask`` for a blob that a name or a state has, though its digest was deleted.

    The flag is sent only where it is of use: older workers refuse it.
    """
    try:
        return await ask(request)
    except NotFoundError as missing:
        try:
            return await ask(_though_deleted(request))
        except InvalidError:
            raise missing from None


async def read_bytes(
    requester: Requester,
    request: GetBlob,
    progress: OnBytes | None = None,
    *,
    is_kept: bool = False,
) -> bytes:
    """The bytes that ``request`` asks for, in one piece. Raises as ``stream_blob``.

    ``is_kept`` says that a state has the blob, which may have been deleted by its digest.

    One answer holds all of most blobs. It tells of the others how much more there is, which is then
    read by windows; and of a name, which blob it has, whose digest is then asked for.
    """
    most = max_inline_bytes(requester.connection.max_payload)
    begun: Window[BlobHead] | None = None
    if request.name is not None or request.length is None or request.length <= most:
        asked = _first(request, most)
        requester.check_usable()
        is_whole = request.length is None and not request.offset
        is_bare = is_whole and request.name is None and requester.bare.is_on
        came = await requester.bare.ask(asked, most) if is_bare else None

        async def ask(asked: GetBlob) -> tuple[BlobHead | None, bytes | memoryview]:
            return await requester.ask_for_bytes(GET_BLOB, asked, most)

        if came is None:
            came = await though_deleted(asked, ask) if is_kept else await ask(asked)
        head, data = came
        if head is None:
            return _whole(data, progress)
        is_kept = is_kept or request.name is not None
        request = _pinned(request, head)
        if len(data) == head.length:
            if head.length == wanted_bytes(request, head):
                if head.length == head.size and digest_of(data) != request.digest:
                    raise _other_bytes(request)
                if is_whole:
                    requester.bare.try_once(head.digest, head.size)
                return _whole(data, progress)
            begun = Window(head, [memoryview(data)])
    stream = stream_blob(requester, request, progress, begun=begun, is_kept=is_kept)
    async with aclosing(stream) as pieces:
        return b"".join([piece async for piece in pieces])


async def open_named(
    requester: Requester, request: GetBlob, progress: OnBytes | None
) -> AsyncGenerator[memoryview]:
    """The bytes of the blob that a name has: of that one, whatever the name has by the end.

    Raises NotFoundError, InvalidError, UnavailableError.
    """
    most = max_inline_bytes(requester.connection.max_payload)
    requester.check_usable()
    head, data = await requester.ask_for_bytes(GET_BLOB, _first(request, most), most)
    begun = Window(head, [memoryview(data)]) if len(data) == head.length else None
    return stream_blob(requester, _pinned(request, head), progress, begun=begun, is_kept=True)


def _first(request: GetBlob, most_bytes: int) -> GetBlob:
    """Bytes of ``request`` that one answer can hold."""
    length = most_bytes if request.length is None else min(request.length, most_bytes)
    return msgspec.structs.replace(request, length=length)


def _pinned(request: GetBlob, head: BlobHead) -> GetBlob:
    """``request`` for the blob that the answer with ``head`` is of."""
    if request.name is None:
        return request
    return msgspec.structs.replace(request, digest=head.digest, name=None, version=None)


def _though_deleted(request: GetBlob) -> GetBlob:
    return msgspec.structs.replace(request, kept=True)


def _whole(data: bytes | memoryview, progress: OnBytes | None) -> bytes:
    if progress is not None:
        progress(len(data), len(data))
    return bytes(data)


async def stream_blob(
    requester: Requester,
    request: GetBlob,
    progress: OnBytes | None = None,
    *,
    begun: Window[BlobHead] | None = None,
    is_kept: bool = False,
) -> AsyncGenerator[memoryview]:
    """The bytes, in order. The last piece of a whole blob comes only once the digest is right.

    ``begun`` are the first of them. ``is_kept`` says that a name or a state has the blob, so it may
    have been deleted by its digest. Raises NotFoundError, CorruptError, InvalidError,
    UnavailableError.
    """
    sha256 = None if _is_range(request) else hashlib.sha256()
    held: memoryview | None = None
    windows = _windows(requester, request, begun, is_kept=is_kept)
    async with aclosing(window_pieces(windows, request, progress)) as pieces:
        async for piece in pieces:
            if sha256 is not None:
                sha256.update(piece)
            if held is not None:
                yield held
            held = piece
    if sha256 is not None and sha256.hexdigest() != request.digest:
        raise _other_bytes(request)
    if held is not None:
        yield held


async def _windows(
    requester: Requester, request: GetBlob, begun: Window[BlobHead] | None, *, is_kept: bool
) -> AsyncGenerator[Window[BlobHead]]:
    left = request
    if begun is not None:
        yield begun
        if begun.head.length == wanted_bytes(request, begun.head):
            return
        left = _rest(request, begun.head)
    try:
        async with aclosing(_read(requester, left)) as windows:
            async for window in windows:
                left = _rest(left, window.head)
                yield window
    except NotFoundError as missing:
        if not is_kept:
            raise
        async with aclosing(_read(requester, _though_deleted(left), missing)) as windows:
            async for window in windows:
                yield window


async def _read(
    requester: Requester, request: GetBlob, missing: NotFoundError | None = None
) -> AsyncGenerator[Window[BlobHead]]:
    """The windows of ``request``. Raises ``missing`` where a worker does not understand it."""
    reader = WindowReader(
        requester,
        GET_BLOB,
        request,
        _PATIENCE,
        again={"proxy": True},
        single_bytes=max_inline_bytes(requester.connection.max_payload),
    )
    try:
        async with aclosing(reader.windows()) as windows:
            async for window in windows:
                yield window
    except InvalidError as error:
        raise missing or error from None


def _is_range(request: GetBlob) -> bool:
    """Whether it asks for a part of the blob, or of one that is not known to be more."""
    return request.offset > 0 or request.length is not None


def _rest(request: GetBlob, head: BlobHead) -> GetBlob:
    """The rest after the answer with ``head``."""
    length = None if request.length is None else request.length - head.length
    return msgspec.structs.replace(request, offset=head.offset + head.length, length=length)


def _other_bytes(request: GetBlob) -> CorruptError:
    return CorruptError(f"the bytes that came are not those of blob {request.digest}")
