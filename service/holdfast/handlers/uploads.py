"""``blob.*`` of uploads, of blobs and of named blobs: requests to repository calls, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from holdfast.domain.digest import Digest
from holdfast.errors import InvalidError
from holdfast.handlers.endpoint import AnyEndpoint, Call, Endpoint
from holdfast.handlers.names import said
from holdfast.protocol.blobs import (
    ABORT_UPLOAD,
    LOOK_UPLOAD,
    OPEN_UPLOAD,
    PUT_PART,
    RESUME_UPLOAD,
    AbortUpload,
    LookUpload,
    OpenUpload,
    PartStored,
    PutPart,
    ResumeUpload,
    UploadAborted,
    UploadState,
)
from holdfast.protocol.names import OPEN_NAME, OpenName
from holdfast.repository.targets import NewTarget
from holdfast.repository.uploads.owned import Opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.repository.uploads.record import Result
    from holdfast.repository.uploads.uploads import UploadService


class UploadHandlers:
    """Answers for the uploads of this worker, and says where those of others go on."""

    def __init__(
        self, uploads: UploadService, *, worker: str, part_subject: Callable[[str, str], str]
    ) -> None:
        """``worker`` is this one; ``part_subject`` says where one takes an upload's parts."""
        self._uploads = uploads
        self._worker = worker
        self._part_subject = part_subject

    async def open(self, request: OpenUpload, call: Call) -> UploadState:
        """``blob.open``."""
        digest = Digest(request.digest) if request.digest is not None else None
        return self._state(
            await self._uploads.open(
                size=request.size,
                digest=digest,
                type=request.type,
                op_id=call.op_id,
                note=request.note,
            )
        )

    async def open_name(self, request: OpenName, call: Call) -> UploadState:
        """``blob.open_name``."""
        new = NewTarget(name=request.name, verb=request.mode, said=said(request, request.labels))
        return self._state(
            await self._uploads.open(
                size=request.size,
                digest=None if request.digest is None else Digest(request.digest),
                type=request.type,
                op_id=call.op_id,
                new=new,
                note=request.note,
            )
        )

    async def look(self, request: LookUpload, _: Call) -> UploadState:
        """``blob.look``: where an upload goes on, whichever worker owns it."""
        record = await self._uploads.look(request.upload)
        if record.result is not None:
            return replace(self._state(record.result), note=record.note)
        return UploadState(
            upload=request.upload,
            part_subject=self._part_subject(record.owner, request.upload),
            part_size=record.part_size,
            lease_seconds=self._uploads.lease_seconds,
            length=record.size,
            note=record.note,
        )

    async def part(self, request: PutPart, call: Call) -> PartStored:
        """A message to a part subject: a part, the end, both in one, or a word that more comes."""
        size = memoryview(call.data).nbytes
        if request.keep:
            if (request.part, request.final, request.tail) != (None, None, None) or size:
                raise InvalidError("Blob-Keep comes alone, and without bytes")
            return PartStored(offset=await self._uploads.keep(call.target))
        if request.part is None and (request.final is None or request.tail is not None or size):
            msg = "a part is numbered by Blob-Part; the end, without bytes, says Blob-Final"
            raise InvalidError(msg)
        part = offset = None
        if request.part is not None and request.tail is not None:
            offset = await self._uploads.tail(call.target, request.part, request.tail, call.data)
        elif request.part is not None:
            part = await self._uploads.part(call.target, request.part, call.data)
        if request.final is None:
            return PartStored(part=part, offset=offset)
        digest = Digest(request.digest) if request.digest is not None else None
        result = await self._uploads.final(call.target, request.final, digest)
        return replace(msgspec.convert(result, PartStored, from_attributes=True), part=part)

    async def resume(self, request: ResumeUpload, _: Call) -> UploadState:
        """``blob.resume``."""
        return self._state(await self._uploads.resume(request.upload))

    async def abort(self, request: AbortUpload, _: Call) -> UploadAborted:
        """``blob.abort``."""
        return UploadAborted(aborted=await self._uploads.abort(request.upload))

    def _state(self, state: Opened | Result) -> UploadState:
        """Where to send parts, or what has become of them."""
        if not isinstance(state, Opened):
            return msgspec.convert(state, UploadState, from_attributes=True)
        return UploadState(
            upload=state.upload,
            part_subject=self._part_subject(self._worker, state.upload),
            part_size=state.part_size,
            window=state.window,
            next_part=state.next_part,
            lease_seconds=self._uploads.lease_seconds,
            offset=state.size,
        )

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (
            Endpoint(OPEN_UPLOAD, self.open),
            Endpoint(OPEN_NAME, self.open_name),
            Endpoint(LOOK_UPLOAD, self.look),
            Endpoint(PUT_PART, self.part, lane="parts"),
            Endpoint(RESUME_UPLOAD, self.resume),
            Endpoint(ABORT_UPLOAD, self.abort),
        )
