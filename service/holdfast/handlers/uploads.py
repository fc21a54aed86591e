"""``blob.look``: where an upload goes on, whichever worker owns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast.handlers.endpoint import AnyEndpoint, Call, Endpoint
from holdfast.protocol.blobs import LOOK_UPLOAD, LookUpload, UploadState

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.repository.uploads.uploads import UploadService


class UploadHandlers:
    """Answers for all uploads, those of other workers too."""

    def __init__(self, uploads: UploadService, *, part_subject: Callable[[str, str], str]) -> None:
        """``part_subject`` gives the subject on which a worker takes an upload's parts."""
        self._uploads = uploads
        self._part_subject = part_subject

    async def look(self, request: LookUpload, _: Call) -> UploadState:
        """``blob.look``."""
        record = await self._uploads.look(request.upload)
        if record.result is not None:
            stored = msgspec.convert(record.result, UploadState, from_attributes=True)
            return msgspec.structs.replace(stored, note=record.note)
        return UploadState(
            upload=request.upload,
            part_subject=self._part_subject(record.owner, request.upload),
            part_size=record.part_size,
            lease_seconds=self._uploads.lease_seconds,
            length=record.size,
            note=record.note,
        )

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (Endpoint(LOOK_UPLOAD, self.look),)
