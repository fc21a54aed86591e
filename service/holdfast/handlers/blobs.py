"""``blob.*``: requests to repository calls, results to replies."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from holdfast.deadline import deadline
from holdfast.domain.blob_names import Conditions, quote_text
from holdfast.domain.digest import Digest
from holdfast.domain.op_id import bind_op_id, split_op_id
from holdfast.errors import (
    CorruptError,
    HoldfastError,
    InternalError,
    InvalidError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from holdfast.handlers.endpoint import AnyEndpoint, BytesReply, Call, Endpoint, Sent
from holdfast.protocol import codec
from holdfast.protocol.blobs import (
    DELETE_BLOB,
    GET_BLOB,
    HAS_BLOBS,
    LIST_BLOBS,
    OPEN_UPLOAD,
    PUT_BLOB,
    PUT_BLOBS,
    STAT_BLOB,
    VERIFY_BLOBS,
    BlobDeleted,
    BlobEntry,
    BlobHead,
    BlobPage,
    BlobsStored,
    BlobStat,
    BlobStored,
    BlobToPut,
    DeleteBlob,
    GetBlob,
    HasBlobs,
    ListBlobs,
    MissingBlobs,
    PutBlob,
    PutBlobs,
    PutResult,
    StatBlob,
    VerifyBlobs,
    VerifyReport,
)
from holdfast.protocol.problem import problem_of
from holdfast.protocol.times import as_utc, wire_time
from holdfast.repository.blobs import BLOBS, Bare, BlobRepository, Content
from holdfast.stores.ports import BlobInfo, ForeignObject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from holdfast.repository.keepers import Keepers
    from holdfast.repository.names.index.index import NameIndex
    from holdfast.repository.names.names import NameRepository
    from holdfast.repository.names.record import VersionRecord


_ENTRY_BYTES: Final = 700
"""Bytes that one blob takes of a page, at the most: its digest, its type and the rest."""

_NAMES_TOLD: Final = 100
_KEPT_TOLD: Final = 16
"""Names of a blob that are told when it is looked up, and when it is deleted."""

_NAMES_SECONDS: Final = 1.0
"""Time the look at a blob waits for its names: it does not need the bucket of names."""

_NAME_BYTES: Final = 512
"""Of the name of a foreign object: one long name is not to keep a page from fitting a message."""


class BlobHandlers:
    """Answers ``blob.*``."""

    def __init__(
        self,
        blobs: BlobRepository,
        names: NameRepository,
        index: NameIndex,
        keepers: Keepers,
    ) -> None:
        """``keepers`` are all that keep users' blobs."""
        self._blobs = blobs
        self._names = names
        self._index = index
        self._keepers = keepers

    async def put(self, request: PutBlob, call: Call) -> BlobStored:
        """``blob.put``."""
        call.check_inline(self._blobs.max_inline_bytes, OPEN_UPLOAD.subject)
        stored = await self._blobs.put(
            call.data,
            expected=request.digest,
            type=request.type,
            space=request.space,
            now=call.now,
            op_id=call.op_id,
        )
        size = memoryview(call.data).nbytes
        return BlobStored(digest=stored.info.digest, size=size, created=stored.created)

    async def put_many(self, request: PutBlobs, call: Call) -> BlobsStored:
        """``blob.put_many``: each as ``blob.put``, at the same time. One that fails fails alone."""
        if sum(len(blob.data) for blob in request.blobs) > self._blobs.max_inline_bytes:
            most = self._blobs.max_inline_bytes
            raise TooLargeError(f"the blobs of one request hold at most {most} bytes together")
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
        if request.name is not None:
            return await self._get_named(request.name, request)
        digest = _digest_of(request)
        found = await self._blobs.read(
            digest,
            offset=request.offset,
            length=request.length,
            cursor=request.cursor,
            proxy=request.proxy,
            direct=request.direct,
            bare=request.bare,
            partial_too=request.partial,
            space=request.space,
            named=request.kept,
        )
        if isinstance(found, Bare):
            return Sent(found.deliver)
        return _bytes_reply(digest, found)

    async def _get_named(self, name: str, request: GetBlob) -> BytesReply[BlobHead]:
        _check_named(request)
        digest, found, content = await self._names.read(
            name,
            version=request.version,
            offset=request.offset,
            length=request.length,
            cursor=request.cursor,
            proxy=request.proxy,
            direct=request.direct,
        )
        reply = _bytes_reply(digest, content)
        if found is None:  # a further window: of that blob, whatever the name has by now
            return reply
        head = replace(
            reply.head,
            quoted_name=quote_text(name),
            version=found.version,
            type=found.content.type,
        )
        return dataclasses.replace(reply, head=head)

    async def has(self, request: HasBlobs, _: Call) -> MissingBlobs:
        """``blob.has``."""
        digests = [Digest(digest) for digest in request.digests]
        missing = await self._blobs.missing(digests, space=request.space)
        return MissingBlobs(missing=list(missing))

    async def stat(self, request: StatBlob, _: Call) -> BlobStat:
        """``blob.stat``."""
        if request.name is not None:
            return await self._stat_named(request.name, request)
        info = await self._blobs.stat(_digest_of(request), space=request.space)
        return await self._stat_reply(info, has_names=request.space == BLOBS)

    async def _stat_named(self, name: str, request: StatBlob) -> BlobStat:
        _check_named(request)
        found = await self._names.find(name, version=request.version)
        content = found.content
        info = await self._stat_kept(found, request.version)
        return replace(
            await self._stat_reply(info),
            name=name,
            version=found.version,
            type=content.type,
            labels=dict(content.labels),
            expires_at=as_utc(content.expires_at) if content.expires_at is not None else None,
            modified_at=as_utc(found.modified_at),
        )

    async def _stat_kept(self, found: VersionRecord, version: int | None) -> BlobInfo:
        """The blob that was found under a name, where ``version`` was asked for."""
        digest = found.content.digest
        try:
            return await self._blobs.stat(Digest(digest), named=True)
        except NotFoundError as error:
            latest = await self._names.find(found.name, version=version)
            if latest.content.digest == digest:
                raise CorruptError("the blob that the name has is not there") from error
            raise UnavailableError("the name changed while it was looked up") from error

    async def _stat_reply(self, info: BlobInfo, *, has_names: bool = True) -> BlobStat:
        names: Sequence[str] = ()
        kept_by: Sequence[str] = ()
        if has_names:
            names, kept_by = await asyncio.gather(
                self._soon(self._index.names_of(info.digest, _NAMES_TOLD)),
                self._soon(self._keepers.kept_for(info.digest, _KEPT_TOLD)),
            )
        return BlobStat(
            digest=info.digest,
            size=info.size,
            chunks=info.chunks,
            type=info.type,
            created_at=wire_time(info.created_at),
            pinned=info.pinned,
            state="ok",
            names=list(names),
            kept_by=list(kept_by),
        )

    async def _soon(self, looking: Awaitable[Sequence[str]]) -> Sequence[str]:
        """The names that are found; none where that cannot be told soon."""
        with suppress(UnavailableError), deadline(_NAMES_SECONDS):
            return await looking
        return ()

    async def list_blobs(self, request: ListBlobs, _: Call) -> BlobPage:
        """``blob.list``."""
        fitting = max(1, self._blobs.max_inline_bytes // _ENTRY_BYTES)
        listing = await self._blobs.list_blobs(
            prefix=request.prefix, cursor=request.cursor, limit=min(request.limit, fitting)
        )
        return BlobPage(blobs=[_entry(e) for e in listing.entries], cursor=listing.cursor)

    async def delete(self, request: DeleteBlob, call: Call) -> BlobDeleted:
        """``blob.delete``."""
        if request.name is not None:
            _check_named(request)
            conditions = Conditions(if_version=request.if_version, if_digest=request.if_digest)
            deleted = await self._names.delete(
                request.name, conditions=conditions, op_id=call.op_id
            )
            return BlobDeleted(deleted=deleted)
        digest = _digest_of(request)
        kept_by: list[str] = []

        async def is_kept() -> bool:
            kept_by[:] = await self._keepers.kept_for(digest, _KEPT_TOLD)
            return bool(kept_by) or await self._keepers.keeps(digest)

        deleted = await self._blobs.delete(digest, op_id=call.op_id, kept=is_kept)
        return BlobDeleted(deleted=deleted, kept_by=kept_by)

    async def verify(self, request: VerifyBlobs, call: Call) -> VerifyReport:
        """``blob.verify``."""
        if request.digest is not None:
            found = await self._blobs.verify(Digest(request.digest))
        else:
            found = await self._blobs.verify_page(
                cursor=request.cursor, limit=request.limit, has_time=call.has_time
            )
        return msgspec.convert(found, VerifyReport, from_attributes=True)

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (
            Endpoint(PUT_BLOB, self.put),
            Endpoint(PUT_BLOBS, self.put_many),
            Endpoint(GET_BLOB, self.get),
            Endpoint(HAS_BLOBS, self.has),
            Endpoint(STAT_BLOB, self.stat),
            Endpoint(LIST_BLOBS, self.list_blobs),
            Endpoint(DELETE_BLOB, self.delete),
            Endpoint(VERIFY_BLOBS, self.verify),
        )


def _digest_of(request: GetBlob | StatBlob | DeleteBlob) -> Digest:
    """The digest that is asked for. Raises InvalidError of what goes with a name alone."""
    if request.digest is None:
        raise InvalidError("give the digest of a blob, or a name")
    if isinstance(request, DeleteBlob):
        of_name = request.if_version, request.if_digest
    else:
        of_name = request.version, None
    if of_name != (None, None):
        raise InvalidError("a version and conditions go with a name, not with a digest")
    return Digest(request.digest)


def _check_named(request: GetBlob | StatBlob | DeleteBlob) -> None:
    """Raises InvalidError of what does not go with a name."""
    if request.digest is not None:
        raise InvalidError("give the digest of a blob, or a name, and not both")
    if not isinstance(request, DeleteBlob) and request.space != BLOBS:
        raise InvalidError(f"names are of the space {BLOBS} alone")


def _bytes_reply(digest: Digest, found: Content) -> BytesReply[BlobHead]:
    head = BlobHead(
        digest=digest,
        size=found.size,
        offset=found.span.start,
        length=found.span.length,
        type=found.type,
        parts=found.parts,
        skip=found.skip,
        first=found.first,
        cursor=found.cursor,
        kept=None if found.kept is None else found.kept.text,
    )
    return BytesReply(head=head, data=found.data, deliver=found.deliver, pieces=found.pieces)


def _op_id_of_one(op_id: str | None, number: int, request: PutBlob) -> str | None:
    """The id of the put for blob ``number`` of a request with ``op_id``."""
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
