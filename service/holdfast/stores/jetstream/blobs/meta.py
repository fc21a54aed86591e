"""The stored form of a blob's record: a plain ADR-20 object info, with ours in its metadata.

Any client's object store reads what this writes. An object without ``hf-format`` is not ours. A
record of another program is not trusted: one that cannot be read is ``corrupt``, and links are
refused.

Why: docs/decisions.md, "A record keeps the Op-Ids of the last deletions".
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.domain.chunk_index import ChunkIndex
from holdfast.domain.digest import Digest, is_digest, to_object_digest
from holdfast.domain.kept import KeptBytes
from holdfast.domain.limits import MAX_BLOB_BYTES, MAX_OP_ID_CHARS, MAX_TYPE_CHARS
from holdfast.domain.op_id import join_op_id, split_op_id
from holdfast.errors import CorruptError
from holdfast.stores.ports import Attributes, BlobInfo, ForeignObject, UnreadableObject

if TYPE_CHECKING:
    from collections.abc import Buffer, Collection, Sequence

FORMAT: Final = "1"
PARTIAL_FORMAT: Final = "2"
"""A partial blob's: a version that does not know these neither reads nor replaces it."""

HF_FORMAT: Final = "hf-format"
HF_CREATED: Final = "hf-created"
HF_PINNED: Final = "hf-pinned"
HF_PART_SIZE: Final = "hf-part-size"
HF_INDEX: Final = "hf-index"
HF_KEPT: Final = "hf-kept"
HF_TYPE: Final = "hf-type"
HF_OP: Final = "hf-op"
_MAX_SIZE: Final = 2**63 - 1
HF_OP_REQUEST: Final = "hf-op-request"
HF_DAMAGED: Final = "hf-damaged"
HF_DELETED: Final = "hf-deleted"
HF_DELETED_BY: Final = "hf-deleted-by"
HF_CLAIM: Final = "hf-claim"
_SEPARATOR: Final = "\n"
_DELETIONS_KEPT: Final = 16
DELETIONS_BYTES: Final = _DELETIONS_KEPT * (2 * MAX_OP_ID_CHARS + 40)
"""Bytes of a record's notes of deletions, at the most: JSON may double each character."""

_DIGEST_TOKEN_CHARS: Final = 88
"""A digest in base64."""

_NUID_RE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class _Options(msgspec.Struct, frozen=True, omit_defaults=True):
    max_chunk_size: int | None = None
    link: Any = None


class NewerFormatError(CorruptError):
    """A record that a later version wrote. Unlike one that is damaged it is never replaced."""


class ObjectMeta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An ADR-20 object info."""

    name: str
    bucket: str
    nuid: str
    # Written even when 0 (a factory is never omitted): stock clients wait for chunks without it.
    size: int = msgspec.field(default_factory=int)
    mtime: str = ""
    chunks: int = msgspec.field(default_factory=int)
    digest: str = ""
    deleted: bool = False
    metadata: dict[str, str] | None = None
    options: _Options | None = None

    @property
    def is_ours(self) -> bool:
        """Whether holdfast wrote it."""
        return bool(self.metadata) and HF_FORMAT in (self.metadata or {})

    @property
    def op_id(self) -> str | None:
        """The ``Op-Id`` of the request that wrote this record, bound to it."""
        metadata = self.metadata or {}
        op_id = metadata.get(HF_OP)
        return None if op_id is None else join_op_id(op_id, metadata.get(HF_OP_REQUEST, ""))

    @property
    def deletions(self) -> tuple[str, ...]:
        """The ``Op-Id`` of each of the last deletions of the blob, kept when it is put again.

        A request that was held up on its way may yet ask a worker for one of them.
        """
        kept = (self.metadata or {}).get(HF_DELETED_BY)
        earlier = tuple(kept.split(_SEPARATOR)) if kept else ()
        op_id = self.op_id if self.deleted else None
        return earlier if op_id is None else (*earlier, op_id)[-_DELETIONS_KEPT:]

    @property
    def claim(self) -> str:
        """The state of the claim of which this is the record; empty: of none."""
        return (self.metadata or {}).get(HF_CLAIM, "")

    @property
    def is_pinned(self) -> bool:
        """Whether the blob is kept although nothing may name it. No tombstone is."""
        return (self.metadata or {}).get(HF_PINNED) == "true"

    @property
    def is_hidden(self) -> bool:
        """Whether somebody has deleted the blob, which is there for its keepers alone."""
        return HF_DELETED in (self.metadata or {})

    @property
    def kept(self) -> KeptBytes | None:
        """The bytes kept of a partial blob; None: it is whole. Raises CorruptError."""
        metadata = self.metadata or {}
        if metadata.get(HF_FORMAT) != PARTIAL_FORMAT:
            return None
        return KeptBytes.written(metadata.get(HF_KEPT, ""))

    @property
    def is_damaged(self) -> bool:
        """Whether it was reported that the chunks cannot be read back."""
        return HF_DAMAGED in (self.metadata or {})


def meta_subject(bucket: str, name: str) -> str:
    """The subject of the record of object ``name``."""
    return f"$O.{bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def meta_subjects(bucket: str) -> str:
    """The subjects of all records."""
    return f"$O.{bucket}.M.>"


def is_of_blob(subject: str) -> bool:
    """Whether it may be that of a blob's record, by its length."""
    return len(subject.rpartition(".")[2]) == _DIGEST_TOKEN_CHARS


def chunk_subject(bucket: str, nuid: str) -> str:
    """The subject of the chunks of one stored copy.

    Raises CorruptError for a nuid that is none: a record's wildcard would reach, and purge, the
    chunks of others.
    """
    if _NUID_RE.fullmatch(nuid) is None:
        raise CorruptError("the record does not say where its chunks are")
    return f"$O.{bucket}.C.{nuid}"


def claim_subject(bucket: str, nuid: str) -> str:
    """The subject of the claim of one stored copy. No name of an object has a record there."""
    return f"$O.{bucket}.M.{chunk_subject(bucket, nuid).rpartition('.')[2]}"


def copy_subjects(bucket: str, nuid: str) -> str:
    """The chunks of one stored copy and the claim of it, in one filter."""
    return f"$O.{bucket}.*.{chunk_subject(bucket, nuid).rpartition('.')[2]}"


def claim_record(bucket: str, nuid: str, state: str) -> bytes:
    """The record of the claim of a copy. Other programs see a deleted object."""
    metadata = {HF_FORMAT: FORMAT, HF_CLAIM: state}
    return msgspec.json.encode(
        ObjectMeta(name=nuid, bucket=bucket, nuid=nuid, deleted=True, metadata=metadata)
    )


def decode_meta(data: Buffer) -> ObjectMeta:
    """The record in ``data``. Raises CorruptError."""
    try:
        return msgspec.json.decode(data, type=ObjectMeta)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CorruptError("an object's record is unreadable") from error


def to_meta(bucket: str, info: BlobInfo, attributes: Attributes) -> ObjectMeta:
    """The record of ``info``."""
    created_at = _write_time(info.created_at)
    metadata = {
        HF_FORMAT: FORMAT,
        HF_CREATED: created_at,
        HF_PINNED: "true" if info.pinned else "false",
        HF_PART_SIZE: str(info.part_size),
        HF_TYPE: info.type,
    }
    if info.index is not None:
        metadata[HF_INDEX] = info.index.text
    metadata |= _op_fields(attributes.op_id)
    return ObjectMeta(
        name=info.digest,
        bucket=bucket,
        nuid=info.generation,
        size=info.size,
        mtime=created_at,
        chunks=info.chunks,
        digest=to_object_digest(info.digest),
        metadata=metadata,
        options=_Options(max_chunk_size=info.part_size),
    )


def mark_damaged(meta: ObjectMeta) -> bytes:
    """The record ``meta`` with a note that the chunks cannot be read back."""
    return _rewritten(meta, {HF_DAMAGED: "true"})


def mark_counted_on(meta: ObjectMeta, *, pinned: bool) -> bytes:
    """The record ``meta`` of a blob that is there for all, with a pin if it had or gets one."""
    return _rewritten(meta, {HF_PINNED: "true"} if pinned else {}, without={HF_DELETED})


def mark_moved(meta: ObjectMeta, nuid: str, index: ChunkIndex | None) -> bytes:
    """The record ``meta`` of a blob whose bytes are whole again, and lie under ``nuid``."""
    fields = {HF_INDEX: index.text} if index is not None else {}
    return _rewritten(meta, fields, without={HF_DAMAGED, HF_INDEX}, nuid=nuid)


def mark_hidden(meta: ObjectMeta, op_id: str, *, moved_to: str | None = None) -> bytes:
    """The record ``meta`` of a blob that is deleted and kept, for the bytes' sake, without a pin.

    ``op_id`` is noted among those of deletions; ``moved_to`` is the nuid of a copy that takes the
    place of this one.
    """
    by = (*meta.deletions, op_id)[-_DELETIONS_KEPT:]
    fields = {HF_PINNED: "false", HF_DELETED: "true", **_deleted_by(by)}
    if moved_to is None:
        return _rewritten(meta, fields)
    return _rewritten(meta, fields, without={HF_INDEX}, nuid=moved_to)


def mark_partial(meta: ObjectMeta, info: BlobInfo, kept: KeptBytes) -> bytes:
    """The record ``meta`` of a copy that is as ``info`` says, and has ``kept`` alone."""
    fields = {HF_FORMAT: PARTIAL_FORMAT, HF_PART_SIZE: str(info.part_size), HF_KEPT: kept.text}
    return _rewritten(
        meta,
        fields,
        without={HF_INDEX, HF_DAMAGED},
        nuid=info.generation,
        size=info.size,
        chunks=info.chunks,
        digest=to_object_digest(kept.digest),
        options=_Options(max_chunk_size=info.part_size),
    )


def inherit(record: bytes, former: ObjectMeta | None) -> bytes:
    """``record`` with what ``former``, which it replaces, leaves it.

    It leaves the notes of deletions, and the pin of a blob that is healed.
    """
    if former is None:
        return record
    left = _deleted_by(former.deletions)
    if former.is_pinned:
        left[HF_PINNED] = "true"
    return _rewritten(decode_meta(record), left) if left else record


def _rewritten(
    meta: ObjectMeta, fields: dict[str, str], *, without: Collection[str] = (), **changes: Any
) -> bytes:
    """The record ``meta`` with ``changes``, and in its metadata ``fields`` and not ``without``."""
    left = {key: text for key, text in (meta.metadata or {}).items() if key not in without}
    return msgspec.json.encode(msgspec.structs.replace(meta, metadata=left | fields, **changes))


def _deleted_by(deletions: Sequence[str]) -> dict[str, str]:
    return {HF_DELETED_BY: _SEPARATOR.join(deletions)} if deletions else {}


def tombstone(
    bucket: str,
    digest: Digest,
    nuid: str,
    now: datetime,
    op_id: str | None,
    *,
    deletions: Sequence[str] = (),
) -> bytes:
    """The record of a deleted object, as ADR-20 has it, with the ``deletions`` before this one."""
    metadata = {HF_FORMAT: FORMAT, **_op_fields(op_id), **_deleted_by(deletions)}
    return msgspec.json.encode(
        ObjectMeta(
            name=digest,
            bucket=bucket,
            nuid=nuid,
            mtime=_write_time(now),
            deleted=True,
            metadata=metadata,
        )
    )


def _op_fields(op_id: str | None) -> dict[str, str]:
    """An ``Op-Id`` in two fields: earlier versions know the first, and go on comparing it."""
    if op_id is None:
        return {}
    text, request = split_op_id(op_id)
    return {HF_OP: text, HF_OP_REQUEST: request} if request else {HF_OP: text}


def check_address(meta: ObjectMeta, digest: Digest) -> None:
    """Raises CorruptError when ``meta``, found where ``digest`` has its record, names another."""
    if meta.name != digest:
        raise CorruptError("the blob's record is another object's")


def _checked(meta: ObjectMeta) -> tuple[int, datetime, str, KeptBytes | None]:
    """Size of parts, time, type and what is kept of ``meta``, ours and not deleted.

    Raises CorruptError.
    """
    metadata = meta.metadata or {}
    if metadata.get(HF_FORMAT) not in {FORMAT, PARTIAL_FORMAT}:
        raise NewerFormatError("the blob's record has a format this version does not know")
    kept = meta.kept
    stored = Digest(meta.name) if kept is None else kept.digest
    if not is_digest(meta.name) or meta.digest != to_object_digest(stored):
        raise CorruptError("the blob's record names another digest than its address")
    if meta.options is not None and meta.options.link is not None:
        raise CorruptError("the blob's record is a link")
    chunk_subject(meta.bucket, meta.nuid)
    try:
        part_size = int(metadata[HF_PART_SIZE])
        created_at = datetime.fromisoformat(metadata[HF_CREATED])
    except (KeyError, ValueError) as error:
        raise CorruptError("the blob's record is incomplete") from error
    if created_at.tzinfo is None:
        raise CorruptError("the blob's record says no time zone")
    media_type = metadata.get(HF_TYPE, "application/octet-stream")
    if not (media_type.isascii() and media_type.isprintable()) or len(media_type) > MAX_TYPE_CHARS:
        raise CorruptError("the blob's record has an invalid media type")
    if (
        part_size < 1
        or not 0 <= meta.size <= MAX_BLOB_BYTES
        or meta.chunks != -(-meta.size // part_size)
        or (kept is not None and kept.size != meta.size)
    ):
        raise CorruptError("the blob's record contradicts itself about sizes")
    return part_size, created_at, media_type, kept


def to_info(meta: ObjectMeta) -> BlobInfo:
    """The blob of ``meta``, which is ours and not deleted. Raises CorruptError."""
    part_size, created_at, media_type, kept = _checked(meta)
    metadata = meta.metadata or {}
    return BlobInfo(
        digest=Digest(meta.name),
        size=meta.size,
        chunks=meta.chunks,
        part_size=part_size,
        type=media_type,
        created_at=created_at,
        pinned=meta.is_pinned,
        generation=meta.nuid,
        index=_index(metadata, meta.chunks),
        damaged=meta.is_damaged,
        deleted=meta.is_hidden,
        kept=kept,
    )


def read_record(data: Buffer, digest: Digest) -> ObjectMeta:
    """The record in ``data``, found where ``digest`` has its own. Raises CorruptError.

    It belongs there, and what is ours makes sense; an object of another program may be anything.
    """
    meta = decode_meta(data)
    check_address(meta, digest)
    if meta.is_ours and not meta.deleted:
        _checked(meta)
    return meta


def to_entry(data: Buffer, subject: str) -> BlobInfo | ForeignObject | None:
    """The row of a listing for the record in ``data`` on ``subject``; None for a blob that is gone.

    Damaged and unknown records have one too, so that they are seen.
    """
    name = name_at(subject)
    try:
        meta = decode_meta(data)
        if meta.deleted:
            return None
        if meta.is_ours:
            check_address(meta, Digest(name))
            return to_info(meta)
    except CorruptError as error:
        return UnreadableObject(name=name, size=0, detail=error.detail)
    return ForeignObject(name=meta.name, size=min(max(meta.size, 0), _MAX_SIZE))


def name_at(subject: str) -> str:
    """The name of the object whose record lies on ``subject``; the token where that is none."""
    token = subject.rpartition(".")[2]
    try:
        return base64.urlsafe_b64decode(token).decode()
    except ValueError:
        return token


def _index(metadata: dict[str, str], chunks: int) -> ChunkIndex | None:
    text = metadata.get(HF_INDEX)
    return ChunkIndex.written(text) if text is not None and chunks else None


def _write_time(at: datetime) -> str:
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return at.isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"
