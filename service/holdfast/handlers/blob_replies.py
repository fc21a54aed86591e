"""Answers that the handlers of blobs and those of names share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast.errors import TooLargeError
from holdfast.protocol.blobs import UploadState
from holdfast.repository.uploads.owned import Opened

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable

    from holdfast.repository.uploads.record import Result


def check_inline(data: Buffer, most_bytes: int, instead: str) -> None:
    """Raises TooLargeError of more than ``most_bytes``, which says to use ``instead``."""
    if memoryview(data).nbytes > most_bytes:
        msg = f"one message carries at most {most_bytes} bytes: use {instead}"
        raise TooLargeError(msg)


def upload_state(
    state: Opened | Result, part_subject: Callable[[str], str], lease_seconds: float
) -> UploadState:
    """Where to send parts, or what has become of them."""
    if isinstance(state, Opened):
        return UploadState(
            upload=state.upload,
            part_subject=part_subject(state.upload),
            part_size=state.part_size,
            window=state.window,
            next_part=state.next_part,
            lease_seconds=lease_seconds,
            offset=state.size,
        )
    return msgspec.convert(state, UploadState, from_attributes=True)
