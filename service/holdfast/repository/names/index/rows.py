"""Records as rows of the index, and rows as records again.

A row has of a record what lists tell and what says whether a blob is needed. A record that cannot
be read as the one that should lie under its key hides no other: it is set apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from holdfast.domain.blob_names import NameState, key_name, split_version_key, version_key
from holdfast.errors import CorruptError, InvalidError
from holdfast.repository.names.record import (
    NAME,
    VERSION,
    NamedContent,
    NameRecord,
    content_of,
    expires_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.repository.names.record import Keep
    from holdfast.stores.record_ports import Changed

log = structlog.get_logger(__name__)

type NameRow = tuple[
    bytes, int, str, int, int, bytes | None, int, str | None, bytes | None, str, str | None
]
"""Name, revision, state, version, oldest, digest, size, type, labels, modified_at, expires_at."""

type AnnouncedRow = tuple[bytes, int, int, str, str, bytes | None]
"""Name, number, revision, op, at, digest."""

_DIGEST_BYTES: Final = 32
_MAX_NUMBER: Final = 2**53
"""Bound of versions and sizes: JSON carries these exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedName:
    """A name as lists tell it. One that has no blob has no ``digest``."""

    name: str
    state: NameState
    version: int
    digest: str | None
    size: int
    type: str
    modified_at: str
    labels: dict[str, str]
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class Rows:
    """Changes as rows of the tables, and the names, versions and keys that they concern.

    ``graves``: name, version, oldest. ``announced``: name, number, revision, op, at, digest.
    ``versions``: name, version, digest. ``others``: key, and whether a name or version should have
    been there.
    """

    changed_names: list[tuple[bytes]] = field(default_factory=list)
    changed_versions: list[tuple[bytes, int]] = field(default_factory=list)
    keys: list[tuple[str]] = field(default_factory=list)
    names: list[NameRow] = field(default_factory=list)
    graves: list[tuple[bytes, int, int]] = field(default_factory=list)
    announced: list[AnnouncedRow] = field(default_factory=list)
    versions: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    others: list[tuple[str, bool]] = field(default_factory=list)

    def add(self, changed: Changed) -> None:
        """Take one change in."""
        self.keys.append((changed.key,))
        try:
            if NAME.lies_at(changed.key):
                self._add_name(changed, NAME.name_at(changed.key))
            elif VERSION.lies_at(changed.key):
                self._add_version(changed, VERSION.name_at(changed.key))
            elif changed.value is not None:
                self.others.append((changed.key, False))
        except (CorruptError, InvalidError, ValueError):
            log.warning("name_unreadable", key=changed.key, revision=changed.revision)
            self.others.append((changed.key, True))

    def _add_name(self, changed: Changed, tokens: str) -> None:
        try:
            held = NAME.of(changed)
        except CorruptError:
            self.changed_names.append((key_name(tokens).encode(),))
            raise
        if held is None:
            self.changed_names.append((key_name(tokens).encode(),))
            return
        record = held.record
        name = record.name.encode()
        self.changed_names.append((name,))
        row = _name_row(record, name, changed.revision)
        self.announced.extend(_announced_rows(record, name, changed.revision))
        if record.state == "deleted":
            self.graves.append((name, record.version, record.oldest))
        else:
            self.names.append(row)

    def _add_version(self, changed: Changed, tokens: str) -> None:
        name, version = split_version_key(tokens)
        self.changed_versions.append((name.encode(), version))
        held = VERSION.of(changed)
        if held is None:
            return
        record = held.record
        if version_key(record.name, record.version) != tokens:
            raise CorruptError("the record is another's")
        self.versions.append((name.encode(), version, _binary(record.content.digest)))


def read_rows(changes: Iterable[Changed]) -> Rows:
    """The rows of ``changes``, of different keys. An unreadable record is logged."""
    rows = Rows()
    for changed in changes:
        rows.add(changed)
    return rows


def record_of(row: NameRow) -> NameRecord:
    """The record of ``row``, without announcements and history."""
    name, _, state, version, oldest, digest, size, media_type, labels, modified_at, expires = row
    content = None
    if digest is not None:
        content = NamedContent(
            digest=digest.hex(),
            size=size,
            type=media_type or "",
            labels={} if labels is None else msgspec.msgpack.decode(labels, type=dict[str, str]),
            expires_at=expires,
        )
    return NameRecord(
        name=name.decode(),
        state=state,  # type: ignore[arg-type]  # it was one when the row was made
        version=version,
        oldest=oldest,
        content=content,
        modified_at=modified_at,
    )


def listed(record: NameRecord, now: datetime, keep: Keep) -> IndexedName | None:
    """The name as lists tell it at the time ``now``; None where they do not: it has expired."""
    content = content_of(record, now, keep)
    if content is None and record.state == "ok":
        return None
    expires = None if content is None else expires_at(record, keep)
    return IndexedName(
        name=record.name,
        state=record.state,
        version=record.version,
        digest=None if content is None else content.digest,
        size=0 if content is None else content.size,
        type="" if content is None else content.type,
        modified_at=record.modified_at,
        labels={} if content is None else content.labels,
        expires_at=None if expires is None else expires.isoformat(),
    )


def _name_row(record: NameRecord, name: bytes, revision: int) -> NameRow:
    """Raises ValueError of what no worker has written."""
    content = record.content
    size = 0 if content is None else content.size
    if not all(0 <= number <= _MAX_NUMBER for number in (record.version, record.oldest, size)):
        raise ValueError("a number out of bounds")
    _check_time(record.modified_at)
    head = (name, revision, record.state, record.version, record.oldest)
    if content is None:
        return (*head, None, 0, None, None, record.modified_at, None)
    _check_time(content.expires_at)
    labels = msgspec.msgpack.encode(content.labels) if content.labels else None
    digest = _binary(content.digest)
    told = (digest, content.size, content.type, labels)
    return (*head, *told, record.modified_at, content.expires_at)


def _announced_rows(record: NameRecord, name: bytes, revision: int) -> list[AnnouncedRow]:
    """Raises ValueError of what no worker has written."""
    return [
        (name, number, revision, one.op, one.at, _binary(one.digest) if one.digest else None)
        for number, one in enumerate(record.pending)
    ]


def _check_time(text: str | None) -> None:
    if text and datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without a zone")


def _binary(digest: str) -> bytes:
    binary = bytes.fromhex(digest)
    if len(binary) != _DIGEST_BYTES:
        raise ValueError("no digest")
    return binary
