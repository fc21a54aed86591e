"""``blob.*``: requests to repository calls, results to replies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from holdfast.domain.digest import Digest
from holdfast.domain.op_id import bind_op_id, split_op_id
from holdfast.errors import HoldfastError, InternalError, InvalidError, TooLargeError
from holdfast.handlers.endpoint import AnyEndpoint, BytesReply, Call, Endpoint, Sent
from holdfast.protocol import codec
from holdfast.protocol.blobs import (
    ABORT_UPLOAD,
    DELETE_BLOB,
    GET_BLOB,
    HAS_BLOBS,
    LIST_BLOBS,
    OPEN_UPLOAD,
    PUT_BLOB,
    PUT_BLOBS,
    PUT_PART,
    RESUME_UPLOAD,
    STAT_BLOB,
    VERIFY_BLOBS,
    AbortUpload,
    BlobDeleted,
    BlobEntry,
    BlobHead,
    BlobPage,
    BlobsStored,
    BlobStat,
    BlobStored,
    BlobToPut,
    DamagedBlob,
    DeleteBlob,
    GetBlob,
    HasBlobs,
    ListBlobs,
    MissingBlobs,
    OpenUpload,
    PartStored,
    PutBlob,
    PutBlobs,
    PutPart,
    PutResult,
    ResumeUpload,
    StatBlob,
    UploadAborted,
    UploadState,
    VerifyBlobs,
    VerifyReport,
)
from holdfast.protocol.problem import problem_of
from holdfast.protocol.times import wire_time
from holdfast.repository.blobs import Bare
from holdfast.repository.uploads.owned import Opened
from holdfast.stores.ports import BlobInfo, ForeignObject

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.repository.blobs import BlobRepository
    from holdfast.repository.uploads.record import Result
    from holdfast.repository.uploads.uploads import UploadService


_ENTRY_BYTES: Final = 700
"""What one blob takes of a page, at the most: its digest, its type and the rest."""

_NAME_BYTES: Final = 512
"""Of the name of a foreign object: one long name is not to keep a page from fitting a message."""


class BlobHandlers:
    """Answers ``blob.*``."""

    def __init__(
        self,
        blobs: BlobRepository,
        uploads: UploadService,
        *,
        part_subject: Callable[[str], str],
    ) -> None:
        """``part_subject`` gives the subject on which this worker takes an upload's parts."""
        self._blobs = blobs
        self._uploads = uploads
        self._part_subject = part_subject

    async def put(self, request: PutBlob, call: Call) -> BlobStored:
        """``blob.put``."""
        size = memoryview(call.data).nbytes
        if size > self._blobs.max_inline_bytes:
            msg = f"one message carries at most {self._blobs.max_inline_bytes} bytes: use blob.open"
            raise TooLargeError(msg)
        stored = await self._blobs.put(
            call.data,
            expected=request.digest,
            type=request.type,
            space=request.space,
            now=call.now,
            op_id=call.op_id,
        )
        return BlobStored(digest=stored.info.digest, size=size, created=stored.created)

    async def put_many(self, request: PutBlobs, call: Call) -> BlobsStored:
        """``blob.put_many``: each as ``blob.put``, at the same time. One that fails fails alone."""
        if sum(len(blob.data) for blob in request.blobs) > self._blobs.max_inline_bytes:
            most = self._blobs.max_inline_bytes
            msg = f"the blobs of one request hold at most {most} bytes together"
            raise TooLargeError(msg)
        async with asyncio.TaskGroup() as group:
            puts = [
                group.create_task(self._put_one(blob, number, call))
                for number, blob in enumerate(request.blobs)
            ]
        return BlobsStored(results=[put.result() for put in puts])

    async def _put_one(self, blob: BlobToPut, number: int, call: Call) -> PutResult:
        request = PutBlob(digest=blob.digest, type=blob.type)
        op_id = _op_id_of_one(call.op_id, number, request)
        try:
            stored = await self.put(request, replace(call, data=blob.data, op_id=op_id))
        except InternalError:
            raise  # a bug: it is logged, and answered, where all are
        except HoldfastError as error:
            return PutResult(problem=problem_of(error))
        return PutResult(digest=stored.digest, size=stored.size, created=stored.created)

    async def get(self, request: GetBlob, _: Call) -> BytesReply[BlobHead] | Sent:
        """``blob.get``."""
        found = await self._blobs.read(
            Digest(request.digest),
            offset=request.offset,
            length=request.length,
            cursor=request.cursor,
            proxy=request.proxy,
            direct=request.direct,
            bare=request.bare,
            space=request.space,
        )
        if isinstance(found, Bare):
            return Sent(found.deliver)
        head = BlobHead(
            digest=request.digest,
            size=found.size,
            offset=found.span.start,
            length=found.span.length,
            type=found.type,
            parts=found.parts,
            skip=found.skip,
            first=found.first,
            cursor=found.cursor,
        )
        return BytesReply(head=head, data=found.data, deliver=found.deliver, pieces=found.pieces)

    async def has(self, request: HasBlobs, _: Call) -> MissingBlobs:
        """``blob.has``."""
        digests = [Digest(digest) for digest in request.digests]
        missing = await self._blobs.missing(digests, space=request.space)
        return MissingBlobs(missing=list(missing))

    async def stat(self, request: StatBlob, _: Call) -> BlobStat:
        """``blob.stat``."""
        info = await self._blobs.stat(Digest(request.digest), space=request.space)
        return BlobStat(
            digest=info.digest,
            size=info.size,
            chunks=info.chunks,
            type=info.type,
            created_at=wire_time(info.created_at),
            pinned=info.pinned,
        )

    async def list_blobs(self, request: ListBlobs, _: Call) -> BlobPage:
        """``blob.list``."""
        fitting = max(1, self._blobs.max_inline_bytes // _ENTRY_BYTES)
        listing = await self._blobs.list_blobs(
            prefix=request.prefix, cursor=request.cursor, limit=min(request.limit, fitting)
        )
        return BlobPage(blobs=[_entry(e) for e in listing.entries], cursor=listing.cursor)

    async def delete(self, request: DeleteBlob, call: Call) -> BlobDeleted:
        """``blob.delete``."""
        deleted = await self._blobs.delete(Digest(request.digest), op_id=call.op_id)
        return BlobDeleted(deleted=deleted)

    async def open(self, request: OpenUpload, call: Call) -> UploadState:
        """``blob.open``."""
        digest = Digest(request.digest) if request.digest is not None else None
        return self._upload_state(
            await self._uploads.open(
                size=request.size, digest=digest, type=request.type, op_id=call.op_id
            )
        )

    async def part(self, request: PutPart, call: Call) -> PartStored:
        """A message to a part subject: a part, the end, both in one, or a word that more comes."""
        size = memoryview(call.data).nbytes
        if request.keep:
            if request.part is not None or request.final is not None or size:
                msg = "Blob-Keep comes alone, and without bytes"
                raise InvalidError(msg)
            await self._uploads.keep(call.target)
            return PartStored()
        if request.part is None and (request.final is None or size):
            msg = "a part is numbered by Blob-Part; the end, without bytes, says Blob-Final"
            raise InvalidError(msg)
        part = None
        if request.part is not None:
            part = await self._uploads.part(call.target, request.part, call.data)
        if request.final is None:
            return PartStored(part=part)
        digest = Digest(request.digest) if request.digest is not None else None
        result = await self._uploads.final(call.target, request.final, digest)
        return PartStored(part=part, digest=result.digest, size=result.size, created=result.created)

    async def resume(self, request: ResumeUpload, _: Call) -> UploadState:
        """``blob.resume``."""
        return self._upload_state(await self._uploads.resume(request.upload))

    async def abort(self, request: AbortUpload, _: Call) -> UploadAborted:
        """``blob.abort``."""
        return UploadAborted(aborted=await self._uploads.abort(request.upload))

    async def verify(self, request: VerifyBlobs, call: Call) -> VerifyReport:
        """``blob.verify``."""
        if request.digest is not None:
            found = await self._blobs.verify(Digest(request.digest))
        else:
            found = await self._blobs.verify_page(
                cursor=request.cursor, limit=request.limit, has_time=call.has_time
            )
        damaged = [
            DamagedBlob(digest=d.digest, code=d.code, detail=d.detail) for d in found.damaged
        ]
        return VerifyReport(
            checked=found.checked, bytes=found.bytes, damaged=damaged, cursor=found.cursor
        )

    def _upload_state(self, state: Opened | Result) -> UploadState:
        if isinstance(state, Opened):
            return UploadState(
                upload=state.upload,
                part_subject=self._part_subject(state.upload),
                part_size=state.part_size,
                window=state.window,
                next_part=state.next_part,
                lease_seconds=self._uploads.lease_seconds,
            )
        return UploadState(digest=state.digest, size=state.size, created=state.created)

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """Which method answers which operation."""
        return (
            Endpoint(PUT_BLOB, self.put),
            Endpoint(PUT_BLOBS, self.put_many),
            Endpoint(GET_BLOB, self.get),
            Endpoint(HAS_BLOBS, self.has),
            Endpoint(STAT_BLOB, self.stat),
            Endpoint(LIST_BLOBS, self.list_blobs),
            Endpoint(DELETE_BLOB, self.delete),
            Endpoint(OPEN_UPLOAD, self.open),
            Endpoint(PUT_PART, self.part, lane="parts"),
            Endpoint(RESUME_UPLOAD, self.resume),
            Endpoint(ABORT_UPLOAD, self.abort),
            Endpoint(VERIFY_BLOBS, self.verify),
        )


def _op_id_of_one(op_id: str | None, number: int, request: PutBlob) -> str | None:
    """That of the put that stands for blob ``number`` of a request with ``op_id``."""
    if op_id is None:
        return None
    said, _ = split_op_id(op_id)
    return bind_op_id(f"{said}.{number}", PUT_BLOB.subject, codec.meaning(request))


def _shown(name: str) -> str:
    """``name``, or its beginning and an ellipsis."""
    written = name.encode(errors="replace")
    if len(msgspec.json.encode(written.decode())) <= _NAME_BYTES:
        return written.decode()
    return written[: _NAME_BYTES // _MOST_PER_BYTE].decode(errors="ignore") + "…"


_MOST_PER_BYTE: Final = 6
"""A control character takes six bytes in JSON."""


def _entry(entry: BlobInfo | ForeignObject) -> BlobEntry:
    if isinstance(entry, ForeignObject):
        return BlobEntry(size=entry.size, foreign=True, name=_shown(entry.name))
    return BlobEntry(
        digest=entry.digest,
        size=entry.size,
        type=entry.type,
        created_at=wire_time(entry.created_at),
        pinned=entry.pinned,
    )
