"""Packs over the wire, for archives that are made and unpacked here.

A pack is one message each way. Before one is sent the pool is asked whether it has it; questions
that come up while one is being answered travel together.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast.archive.bridge import DEFAULT_WINDOW_BYTES, BridgedPackStore
from holdfast.client.reads.windows import Patience, WindowReader
from holdfast.deadline import Gathering
from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.kept import KeptBytes, PartialBytes
from holdfast.domain.limits import KIB, MAX_DIGESTS_PER_HAS, max_inline_bytes
from holdfast.errors import CorruptError, InvalidError, NotFoundError
from holdfast.form.packing import PACK_BYTES
from holdfast.protocol.blobs import GET_BLOB, HAS_BLOBS, PUT_BLOB, GetBlob, HasBlobs, PutBlob

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Sequence

    from holdfast.archive.ports import Pack
    from holdfast.client.requests import Requester

    Question = tuple[Digest, asyncio.Future[bool]]

PUT_ATTEMPT_SECONDS: Final = 10.0
"""One pack over a slow line, with the rest of the window before it."""

PUT_SECONDS: Final = 120.0

SMALL_BYTES: Final = 256 * KIB
"""Packs up to this size are hashed by the thread that asked: handing them over costs as much."""

_PATIENCE: Final = Patience(head_seconds=10.0, silence_seconds=5.0)
"""A pack is one large message, and several are on their way over the same line."""


@dataclass(frozen=True, slots=True)
class SmallPack:
    """The bytes that came for a pack; ``kept`` says what is left of it, None: all."""

    digest: Digest
    kept: str | None
    data: bytes

    def __len__(self) -> int:
        """See UncheckedPack."""
        return len(self.data)

    def checked(self) -> Pack:
        """See UncheckedPack."""
        return _checked(self.digest, self.kept, [self.data])


class PackTransport:
    """Gets and puts packs of one connection's pool."""

    def __init__(
        self, requester: Requester, doubted: Collection[str] = (), *, doubts_all: bool = False
    ) -> None:
        """Nothing is sent yet. Packs that are ``doubted`` are put also where they are said to be.

        A store that has lost a part of one replaces it then.
        """
        self._requester = requester
        self._doubted = doubted
        self._doubts_all = doubts_all
        self._is_partial_known = True
        self._questions: list[Question] = []
        self._gathering = Gathering(self._take, at_once=1)

    def bridged(
        self, *, cache_bytes: int, window_bytes: int = DEFAULT_WINDOW_BYTES
    ) -> BridgedPackStore:
        """These packs for a thread. See ``BridgedPackStore``."""
        return BridgedPackStore(
            asyncio.get_running_loop(),
            self.get,
            self.put,
            get_latest=self.get_latest,
            window_bytes=window_bytes,
            cache_bytes=cache_bytes,
        )

    async def get(self, digest: Digest) -> Pack | SmallPack:
        """The stored bytes of the pack, or of what is kept of it.

        An older worker knows no partial packs and refuses to be asked for one: then there are none.
        Raises NotFoundError, UnavailableError.
        """
        if self._is_partial_known:
            try:
                return await self._get(digest, partial=True)
            except InvalidError:
                self._is_partial_known = False
        try:
            return await self._get(digest, partial=False)
        except NotFoundError as missing:
            try:
                return await self._get(digest, partial=True)
            except InvalidError:
                raise missing from None

    async def get_latest(self, digest: Digest) -> Pack | SmallPack:
        """The same as it is at this moment, to be asked for where a part of it was met."""
        return await self._get(digest, partial=True, proxy=True)

    async def _get(self, digest: Digest, *, partial: bool, proxy: bool = False) -> Pack | SmallPack:
        request = GetBlob(
            digest=digest, direct=not proxy, proxy=proxy, space="packs", partial=partial
        )
        reader = WindowReader(
            self._requester,
            GET_BLOB,
            request,
            _PATIENCE,
            again={"proxy": True, "direct": False},
            windows_ahead=1,
            single_bytes=max_inline_bytes(self._requester.connection.max_payload),
            most_bytes=PACK_BYTES,
        )
        window = await reader.whole()
        if window.head.length > SMALL_BYTES:
            return await asyncio.to_thread(_checked, digest, window.head.kept, window.pieces)
        # A copy: what is received holds a large buffer, and packs wait for their turn.
        return SmallPack(digest, window.head.kept, b"".join(window.pieces))

    async def put(self, digest: Digest, data: bytes) -> bool:
        """Store a pack where it is missing; whether it was.

        Raises UnavailableError, OutcomeUnknownError, QuotaExceededError.
        """
        is_doubted = self._doubts_all or digest in self._doubted
        if not is_doubted and not await self._is_missing(digest):
            return False
        stored = await self._requester.ask(
            PUT_BLOB,
            PutBlob(digest=digest, space="packs"),
            data,
            timeout_seconds=max(PUT_SECONDS, self._requester.timeout_seconds),
            attempt_seconds=PUT_ATTEMPT_SECONDS,
        )
        if stored.digest != digest:
            raise CorruptError(f"sent {digest}, but {stored.digest} was stored")
        return stored.created

    async def _is_missing(self, digest: Digest) -> bool:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._questions.append((digest, answer))
        self._gathering.schedule()
        return await answer

    def _take(self) -> Coroutine[Any, Any, None] | None:
        questions = self._questions[:MAX_DIGESTS_PER_HAS]
        del self._questions[:MAX_DIGESTS_PER_HAS]
        return self._answer(questions) if questions else None

    async def _answer(self, questions: Sequence[Question]) -> None:
        try:
            request = HasBlobs(digests=[digest for digest, _ in questions], space="packs")
            missing = frozenset((await self._requester.ask(HAS_BLOBS, request)).missing)
            for digest, answer in questions:
                if not answer.done():
                    answer.set_result(digest in missing)
        except Exception as error:  # noqa: BLE001 - raised again where an answer is waited for
            for _, answer in questions:
                if not answer.done():
                    answer.set_exception(error)
        finally:
            for _, answer in questions:
                answer.cancel()  # the loop is ending


def _checked(digest: Digest, text: str | None, pieces: Sequence[bytes | memoryview]) -> Pack:
    """The bytes, if they are the pack's, or what the ``text`` says is kept of it."""
    data = b"".join(pieces)
    kept = None if text is None else KeptBytes.written(text)
    if digest_of(data) != (digest if kept is None else kept.digest):
        raise CorruptError(f"the bytes that came are not those of pack {digest}")
    return data if kept is None else PartialBytes(data, kept)
