"""The record of a name, ``n.<tokens>``, and how one write of it follows on another.

A write **announces** itself in the record before the last touch of the blob that it brings, and is
**committed** (or **failed**) by taking the announcement away: the collector counts what is
announced as needed. An announcement is no lock. The name keeps the blob that it has, others may
replace it meanwhile, and the conditions of a write are looked at both times. Only a ``create`` that
is announced takes the name.

Each function here makes of a record the next one and does no more; the ledger writes it by
compare-and-set, and may ask again. So each bears to meet a record that it was applied to before:
``op`` tells, which an announcement and the transition that ends it have in common.

A deletion is a record, too: versions go on counting over it. A version that a name had before lies
under ``v.<tokens>.=v<version>``, written before the record that supersedes it.

Why: docs/decisions.md, "A write is announced, and that is no lock", "The record of a name knows
where its steps were taken", and "A deleted name is a record".
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from holdfast.domain.blob_names import Conditions, NameState, Said, Verb, name_key
from holdfast.domain.op_id import is_repeat
from holdfast.errors import (
    ConflictError,
    NotFoundError,
    RateLimitedError,
)
from holdfast.repository.ledger.ledger import RecordKind
from holdfast.repository.targets import GivenUpError

MAX_ANNOUNCED: Final = 16
MAX_TRANSITIONS: Final = 16
MAX_OVERTAKEN: Final = 100
"""Each write announced for one name is written twice, and so may be all others."""

_REASON_CHARS: Final = 200
_END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)
TAKEN: Final = "the name is taken"
BEING_CREATED: Final = "the name is being created"
MISSING: Final = "there is no blob of that name"
GIVEN_UP: Final = "the write was given up before it was done: try again"


class NamedContent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A name's content: a blob, and what was said of it."""

    digest: str
    size: int
    type: str
    labels: dict[str, str] = {}
    expires_at: str | None = None


class Announcement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A write that is under way. ``op`` names it: its Op-Id, bound to the request, or a fresh id.

    ``digest`` and ``size`` are not known while a write is streamed: ``upload`` is its upload. The
    rest is what the name will have beside its blob.
    """

    op: str
    verb: Verb
    at: str
    digest: str | None = None
    size: int = 0
    upload: str | None = None
    type: str = ""
    labels: dict[str, str] = {}
    expires_at: str | None = None
    conditions: Conditions = Conditions()


class Transition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step of the name. ``revision`` is that of the record which the step made.

    It is not known when that is written: the next write fills it in (0: it is the record's own).
    """

    at: str
    state: NameState
    version: int = 0
    digest: str | None = None
    size: int = 0
    reason: str = ""
    worker: str = ""
    op: str = ""
    revision: int = 0


class NameRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``version`` rises with each blob that the name gets, and goes on over a deletion.

    ``oldest`` is the first version that still counts. ``content`` is None where the name has none.
    """

    name: str
    state: NameState
    version: int = 0
    oldest: int = 0
    content: NamedContent | None = None
    modified_at: str = ""
    pending: tuple[Announcement, ...] = ()
    transitions: tuple[Transition, ...] = ()


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version that the name had, and when it got and lost it."""

    name: str
    version: int
    content: NamedContent
    modified_at: str = ""
    replaced_at: str = ""


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """A name's retention: so many ``versions``, the present one among them; for how long.

    ``seconds`` after one was replaced it is not kept any more. ``expire_seconds`` after its last
    change the name is not there any more. None: for ever.
    """

    versions: int = 1
    seconds: int | None = None
    expire_seconds: int | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step's worker and time, and the name's retention."""

    worker: str
    at: datetime
    keep: Keep = Keep()


def announcing(
    verb: Verb,
    said: Said,
    *,
    op: str,
    at: datetime,
    digest: str | None = None,
    size: int = 0,
    upload: str | None = None,
) -> Announcement:
    """The announcement of a write of which so much is ``said``."""
    return Announcement(
        op=op,
        verb=verb,
        at=at.isoformat(),
        digest=digest,
        size=size,
        upload=upload,
        type=said.type,
        labels=dict(said.labels),
        expires_at=None if said.expires_at is None else said.expires_at.isoformat(),
        conditions=said.conditions,
    )


def content_of(record: NameRecord | None, at: datetime, keep: Keep) -> NamedContent | None:
    """The name's content at the time ``at``: None once it has expired."""
    if record is None or record.content is None:
        return None
    expires = expires_at(record, keep)
    return record.content if expires is None or at < expires else None


def expires_at(record: NameRecord, keep: Keep) -> datetime | None:
    """When the name expires: when was said of it, or the rule has it, whichever is first."""
    times = []
    if record.content is not None and record.content.expires_at is not None:
        times.append(datetime.fromisoformat(record.content.expires_at))
    if keep.expire_seconds is not None and record.modified_at:
        times.append(_after(record.modified_at, keep.expire_seconds))
    return min(times, default=None)


def _after(at: str, seconds: int) -> datetime:
    """The time ``seconds`` after ``at``, or the last of the calendar."""
    try:
        return datetime.fromisoformat(at) + timedelta(seconds=seconds)
    except OverflowError:
        return _END_OF_TIME


def made_by(record: NameRecord | None, op: str) -> Transition | None:
    """The transition by which ``op`` was carried out, if it is among those that are kept.

    Raises ConflictError when the same Op-Id was used for another request.
    """
    for one in reversed(record.transitions if record is not None else ()):
        if one.state in {"ok", "deleted"} and is_repeat(one.op, op):
            return one
    return None


def announcement_of(record: NameRecord | None, op: str) -> Announcement | None:
    """The announcement of ``op``, if not ended. Raises ConflictError as `made_by` does."""
    for one in record.pending if record is not None else ():
        if is_repeat(one.op, op):
            return one
    return None


def announced(record: NameRecord | None, name: str, one: Announcement, step: Step) -> NameRecord:
    """The record with ``one`` in it; as it is where that was announced, or made.

    Raises ConflictError, NotFoundError (nothing to replace), RateLimitedError.
    """
    if record is not None:
        if made_by(record, one.op) is not None:
            return record
        present = announcement_of(record, one.op)
        if present is not None:
            if one.upload is None and one.verb != "copy":
                check_same_bytes(present, one)
            return record
        if len(record.pending) >= MAX_ANNOUNCED:
            raise RateLimitedError(f"{MAX_ANNOUNCED} writes of the name are under way: try again")
    content = _check(record, one, step)
    if record is None:
        record = NameRecord(name=name, state="pending")
    if one.verb == "create" and any(other.verb == "create" for other in record.pending):
        raise ConflictError(BEING_CREATED, version=0)
    record = msgspec.structs.replace(record, pending=(*record.pending, one))
    return record if content is not None else _stepped(record, "pending", step, one)


def check_same_bytes(before: Announcement | Transition, again: Announcement) -> None:
    """Raises ConflictError of an Op-Id that comes with other bytes than ``before``."""
    if before.digest != again.digest:
        raise ConflictError("the Op-Id was used for other bytes")


def promised(record: NameRecord, op: str, digest: str, size: int) -> NameRecord:
    """The record in which the announcement of ``op`` says its blob; as it is where it does.

    Raises GivenUpError where there is no such announcement.
    """
    return _announcing_again(record, op, digest=digest, size=size)


def restated(record: NameRecord, again: Announcement) -> NameRecord:
    """The record in which a copy says what it brings by now. Raises GivenUpError as `promised`."""
    return _announcing_again(
        record,
        again.op,
        digest=again.digest,
        size=again.size,
        type=again.type,
        labels=again.labels,
        expires_at=again.expires_at,
    )


def _announcing_again(record: NameRecord, op: str, **said: Any) -> NameRecord:
    """The record with ``said`` of the write ``op``; as it is where that was said, or made."""
    one = announcement_of(record, op)
    if one is None:
        if made_by(record, op) is None:
            raise GivenUpError(GIVEN_UP)
        return record
    now = msgspec.structs.replace(one, **said)
    if now == one:
        return record
    pending = tuple(now if other is one else other for other in record.pending)
    return msgspec.structs.replace(record, pending=pending)


def _check(record: NameRecord | None, one: Announcement, step: Step) -> NamedContent | None:
    """The name's content. Raises ConflictError, with its version, and NotFoundError."""
    content = _content_under(one.conditions, record, step)
    if one.verb == "create" and record is not None and content is not None:
        raise ConflictError(f"{TAKEN}, by version {record.version}", version=record.version)
    if one.verb == "replace" and content is None:
        raise NotFoundError(MISSING)
    return content


def _content_under(
    conditions: Conditions, record: NameRecord | None, step: Step
) -> NamedContent | None:
    """The name's content. Raises ConflictError, with its version, where ``conditions`` fail."""
    content = content_of(record, step.at, step.keep)
    version = 0 if record is None or content is None else record.version
    failure = conditions.failure(version, None if content is None else content.digest)
    if failure is not None:
        raise ConflictError(failure, version=version)
    return content


def committed(record: NameRecord | None, op: str, step: Step) -> NameRecord:
    """The record with what ``op`` announced; as it is where that was done.

    Raises ConflictError and NotFoundError where the conditions do not hold any more, and
    GivenUpError where the announcement is gone, or never said a digest.
    """
    if record is not None and made_by(record, op) is not None:
        return record
    one = announcement_of(record, op)
    if record is None or one is None or one.digest is None:
        raise GivenUpError(GIVEN_UP)
    _check(record, one, step)
    version = record.version + 1
    record = msgspec.structs.replace(
        record,
        pending=_without(record, one),
        version=version,
        oldest=max(record.oldest, version - step.keep.versions + 1),
        content=NamedContent(
            digest=one.digest,
            size=one.size,
            type=one.type,
            labels=one.labels,
            expires_at=one.expires_at,
        ),
        modified_at=step.at.isoformat(),
    )
    return _stepped(record, "ok", step, one)


def failed(record: NameRecord, op: str, reason: str, step: Step) -> NameRecord:
    """The record once nothing came of the write ``op``; as it is where that is not under way.

    The name is a ``failure`` if it has no blob, and nobody else is about to bring one; not for want
    of a source to copy.
    """
    one = announcement_of(record, op)
    if one is None:
        return record
    record = msgspec.structs.replace(record, pending=_without(record, one))
    state = record.state
    if state == "pending" and not record.pending:
        state = "deleted" if one.verb == "copy" else "failure"
    stepped = _stepped(record, "failure", step, one, reason=reason)
    return msgspec.structs.replace(stepped, state=state)


def deleted(
    record: NameRecord,
    op: str,
    conditions: Conditions,
    step: Step,
    *,
    reason: str = "",
) -> NameRecord:
    """The record of the name once it has no blob any more; as it is where it had none.

    A ``failure`` is forgotten, too. The transition says which blob the name lost, if one. Writes
    that are announced stay so. Raises ConflictError.
    """
    if made_by(record, op) is not None:
        return record
    content = _content_under(conditions, record, step)
    if record.content is None and record.state != "failure":
        return record
    bare = msgspec.structs.replace(
        record,
        content=None,
        oldest=max(record.oldest, record.version - step.keep.versions + 2),
        modified_at=step.at.isoformat(),
    )
    one = Announcement(op=op, verb="copy", at="")
    if content is not None:
        one = msgspec.structs.replace(one, digest=content.digest, size=content.size)
    return _stepped(bare, "deleted", step, one, reason=reason)


def superseded(record: NameRecord, step: Step) -> VersionRecord | None:
    """The version to write down before the record loses its blob, if that is to be kept."""
    content = content_of(record, step.at, step.keep)
    if content is None or step.keep.versions <= 1:
        return None
    present = present_version(record, content)
    return msgspec.structs.replace(present, replaced_at=step.at.isoformat())


def present_version(record: NameRecord, content: NamedContent) -> VersionRecord:
    """The version that the name has now."""
    return VersionRecord(
        name=record.name,
        version=record.version,
        content=content,
        modified_at=record.modified_at,
    )


def counts(version: VersionRecord, record: NameRecord, at: datetime, keep: Keep) -> bool:
    """Whether ``version``, found under its key, still is one of the name ``record``.

    One that is not older than its record was written down by somebody who did not supersede it.
    """
    is_former = version.version < record.version or (
        version.version == record.version and record.content is None
    )
    if not is_former or version.version < record.oldest:
        return False
    if keep.seconds is None or not version.replaced_at:
        return True
    return at < _after(version.replaced_at, keep.seconds)


def _without(record: NameRecord, one: Announcement) -> tuple[Announcement, ...]:
    return tuple(other for other in record.pending if other is not one)


def _located(record: NameRecord, revision: int) -> NameRecord:
    """The record found at ``revision``: where its last steps were taken, unless that is said."""
    if not record.transitions or record.transitions[-1].revision:
        return record
    steps = [
        one if one.revision else msgspec.structs.replace(one, revision=revision)
        for one in record.transitions
    ]
    return msgspec.structs.replace(record, transitions=tuple(steps))


def _stepped(
    record: NameRecord, state: NameState, step: Step, one: Announcement, *, reason: str = ""
) -> NameRecord:
    """The record with one more transition, to ``state``."""
    transition = Transition(
        at=step.at.isoformat(),
        state=state,
        version=record.version,
        digest=one.digest,
        size=one.size,
        reason=reason[:_REASON_CHARS],
        worker=step.worker,
        op=one.op,
    )
    transitions = (*record.transitions, transition)[-MAX_TRANSITIONS:]
    return msgspec.structs.replace(record, state=state, transitions=transitions)


NAME: Final = RecordKind(
    noun="name",
    form=NameRecord,
    prefix="n",
    name=lambda record: name_key(record.name),
    is_grave=lambda record: record.state == "deleted",
    located=_located,
    overtaken=MAX_OVERTAKEN,
)
VERSION: Final = RecordKind(noun="version", form=VersionRecord, prefix="v")
