"""The whole service but for its connection: bytes and headers in, bytes and headers out."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from tests.repository.pool import PART_BYTES, Pool

from holdfast.errors import ERRORS
from holdfast.handlers.blobs import BlobHandlers
from holdfast.handlers.names import NameHandlers
from holdfast.handlers.uploads import UploadHandlers
from holdfast.repository.blobs import BLOBS, PACKS, BlobRepository
from holdfast.repository.keepers import Keepers
from holdfast.repository.names.bytes import NamedBytes
from holdfast.repository.names.index.index import NameIndex
from holdfast.repository.names.names import NameRepository
from holdfast.repository.names.past import PastWrites
from holdfast.repository.names.rules import NameRules
from holdfast.repository.names.targets import NameTargets
from holdfast.repository.names.writes import NameWrites
from holdfast.runtime.dispatch import Answer, Dispatcher
from holdfast.stores.memory import MemoryBlobStore, MemoryRecordStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from holdfast.handlers.endpoint import AnyEndpoint
    from holdfast.stores.ports import BlobStore

MAX_INLINE_BYTES: Final = 4 * PART_BYTES
PART_SUBJECT: Final = "blob.part.w1."
CODES: Final = {error.code: error.status for error in ERRORS}


def _part_subject(worker: str, upload: str) -> str:
    return f"blob.part.{worker}.{upload}"


class Reply(NamedTuple):
    """An answer, with its body read."""

    answer: Answer
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body of an answer in JSON."""
        decoded: dict[str, Any] = msgspec.json.decode(self.body)
        return decoded

    @property
    def code(self) -> str:
        """``ok``, or the code of the failure, whose form is checked on the way."""
        if self.answer.error is None:
            assert "Nats-Service-Error" not in self.headers
            return "ok"
        if self.headers["Content-Type"] == "application/msgpack":
            problem = msgspec.msgpack.decode(self.body)
        else:
            problem = msgspec.json.decode(self.body)
        code = problem["code"]
        assert problem["status"] == CODES[code]
        assert self.headers["Nats-Service-Error-Code"] == str(CODES[code])
        assert self.headers["Nats-Service-Error"]
        assert self.headers["Nats-Service-Error"].isprintable()
        assert problem["type"] == f"urn:holdfast:error:{code}"
        return str(code)


class Service:
    """One worker's endpoints, over stores in memory."""

    def __init__(
        self,
        blobs: BlobStore | None = None,
        *,
        timeout_seconds: float = 30,
        max_inline_bytes: int = MAX_INLINE_BYTES,
    ) -> None:
        self.pool = Pool()
        self.blobs = blobs or self.pool.blobs
        self.packs = MemoryBlobStore()
        repository = BlobRepository(
            {BLOBS: self.blobs, PACKS: self.packs}, max_inline_bytes=max_inline_bytes
        )
        names = self._names(repository)
        blob_handlers = BlobHandlers(repository, names, self.index, Keepers((self.index,)))
        name_handlers = NameHandlers(names, self.index, max_inline_bytes=max_inline_bytes)
        uploads = UploadHandlers(self.uploads, worker="w1", part_subject=_part_subject)
        self.endpoints: dict[str, AnyEndpoint] = {
            endpoint.operation.subject: endpoint
            for handlers in (blob_handlers, name_handlers, uploads)
            for endpoint in handlers.endpoints()
        }
        self.dispatcher = Dispatcher(self.pool.time.sources, timeout_seconds=timeout_seconds)

    def _names(self, blobs: BlobRepository) -> NameRepository:
        """The names, with what else goes by them: the uploads and the index."""
        sources = self.pool.time.sources
        records = MemoryRecordStore(sources.monotonic)
        rules = NameRules(records, monotonic=sources.monotonic)
        past = PastWrites(self.pool.records, sources.clock)
        writes = NameWrites(records, rules, past, worker="w1", sources=sources)
        stored = NamedBytes(self.blobs, sources)
        self.index = NameIndex(records, keep=rules.known, sources=sources)
        self.uploads = self.pool.worker("w1", targets=NameTargets(writes, stored, sources))
        return NameRepository(blobs, stored, writes, rules, sources=sources)

    async def ask(self, subject: str, body: bytes | dict[str, Any] = b"", **headers: str) -> Reply:
        """Ask for ``subject``. ``_`` in a header's name stands for ``-``."""
        verb = "blob.part" if subject.startswith(PART_SUBJECT) else subject
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.dispatcher.answer(self.endpoints[verb], subject, named, data)
        return Reply(answer, answer.headers, bytes(answer.body))

    async def put(self, data: bytes, **headers: str) -> str:
        """Put ``data``; its digest."""
        return str((await self.ask("blob.put", data, **headers)).json["digest"])


@asynccontextmanager
async def serving(*, max_inline_bytes: int = MAX_INLINE_BYTES) -> AsyncIterator[Service]:
    """A service whose index of names is ready."""
    service = Service(max_inline_bytes=max_inline_bytes)
    service.index.start()
    try:
        while not service.index.state.is_ready:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        yield service
    finally:
        await service.index.aclose()
