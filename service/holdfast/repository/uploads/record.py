"""The record of an upload, ``u.<upload>``: what any worker needs to take it over or clean it up."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from holdfast.errors import CorruptError

UPLOADS: Final = "u"

State = Literal["open", "copying", "committing", "committed", "aborted", "failed"]
LIVE: Final = frozenset({"open", "copying", "committing"})


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What the commit was answered with."""

    digest: str
    size: int
    created: bool


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Written before the blob's record is: from here on ``nuid`` may be the blob ``digest``."""

    nuid: str
    digest: str


class UploadRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``nuids``: every staging the upload has used, the present one last; each had one writer."""

    owner: str
    nuids: tuple[str, ...]
    part_size: int
    type: str
    created_at: str
    state: State = "open"
    beat: int = 0
    size: int | None = None
    digest: str | None = None
    op_id: str | None = None
    claims: tuple[Claim, ...] = ()
    result: Result | None = None


def upload_key(upload: str) -> str:
    """The key of an upload's record."""
    return f"{UPLOADS}.{upload}"


def decode_upload(value: bytes) -> UploadRecord:
    """Raises CorruptError."""
    try:
        return msgspec.json.decode(value, type=UploadRecord)
    except msgspec.MsgspecError as error:
        msg = "the upload's record is unreadable"
        raise CorruptError(msg) from error
