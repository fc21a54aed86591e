"""The record of an upload, ``u.<upload>``, by which any worker takes it over or cleans it up."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from holdfast.errors import ConflictError
from holdfast.repository.ledger.ledger import RecordKind
from holdfast.repository.targets import Named, UploadTarget

if TYPE_CHECKING:
    from collections.abc import Collection

ENDED_TTL: Final = timedelta(hours=1)
"""The end of an upload may be asked for again so long."""

State = Literal["open", "copying", "committing", "committed", "aborted", "failed"]
LIVE: Final = frozenset({"open", "copying", "committing"})


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The commit's answer. ``version``: of the name that the upload was for."""

    digest: str
    size: int
    created: bool
    name: str | None = None
    version: int | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why the name that the upload was for did not get its blob.

    ``version`` is what that has where it is in the way, as in `ConflictError`.
    """

    detail: str
    version: int | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Written before the blob's record is: from here on ``nuid`` may be the blob ``digest``."""

    nuid: str
    digest: str


class PartTail(msgspec.Struct, frozen=True, kw_only=True):
    """The first ``size`` bytes of part ``part``, stored as the only part of ``nuid``."""

    nuid: str
    part: int
    size: int


class UploadRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``nuids``: every staging the upload has used, the present one last; each had one writer.

    ``tail`` is the beginning of the part behind those that are whole, unless it is of an earlier
    one. ``spares`` are stagings of tails that do not count; who owns it wrote, or is about to
    write, to the last of them. ``note`` is what the client wants to be told again.
    """

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
    target: UploadTarget | None = None
    refusal: Refusal | None = None
    tail: PartTail | None = None
    spares: tuple[str, ...] = ()
    note: str = ""

    @property
    def stagings(self) -> tuple[str, ...]:
        """Wherever bytes of it may be."""
        return (*self.nuids, *self.spares, *([self.tail.nuid] if self.tail is not None else ()))

    def check_not_refused(self) -> None:
        """Raises ConflictError where the name did not get the blob."""
        if self.refusal is not None:
            raise ConflictError(self.refusal.detail, version=self.refusal.version)


UPLOAD: Final = RecordKind(
    noun="upload",
    form=UploadRecord,
    prefix="u",
    is_live=lambda record: record.state in LIVE,
    renewed=lambda record: msgspec.structs.replace(record, beat=record.beat + 1),
    ttl=lambda record: None if record.state in LIVE else ENDED_TTL,
)


def at(state: State, record: UploadRecord) -> UploadRecord:
    """``record`` in another state."""
    return msgspec.structs.replace(record, state=state)


def claimed(claim: Claim, record: UploadRecord) -> UploadRecord:
    """``record`` once its owner has made a claim, before it makes the blob."""
    *former, present = record.nuids
    return msgspec.structs.replace(
        record,
        state="committing",
        claims=tuple(dict.fromkeys((*record.claims, claim))),
        nuids=record.nuids if claim.nuid in record.nuids else (*former, claim.nuid, present),
    )


def without_claims(claims: set[Claim], record: UploadRecord) -> UploadRecord:
    """``record`` once it is sure that nothing came of ``claims``."""
    left = tuple(claim for claim in record.claims if claim not in claims)
    return msgspec.structs.replace(record, state="open", claims=left)


def committed(result: Result, record: UploadRecord) -> UploadRecord:
    """``record`` when the blob has been made."""
    return msgspec.structs.replace(record, state="committed", result=result)


def delivered(result: Result, named: Named) -> Result:
    """``result`` once a name has the blob."""
    return msgspec.structs.replace(result, name=named.name, version=named.version)


def refused(error: ConflictError, record: UploadRecord) -> UploadRecord:
    """``record`` when the name did not get the blob."""
    refusal = Refusal(detail=error.detail, version=error.version)
    return msgspec.structs.replace(record, state="failed", refusal=refusal)


def with_spare(spare: str, record: UploadRecord) -> UploadRecord:
    """``record`` when its owner is about to store a tail in ``spare``, the first that it does."""
    return msgspec.structs.replace(record, spares=(*record.spares, spare))


def with_tail(
    tail: PartTail, spent: Collection[str], spare: str, record: UploadRecord
) -> UploadRecord:
    """``record`` once its owner has stored ``tail``; ``spent`` hold nothing any more."""
    former = [record.tail.nuid] if record.tail is not None else []
    spares = [nuid for nuid in (*record.spares, *former) if nuid not in {*spent, tail.nuid}]
    return msgspec.structs.replace(record, tail=tail, spares=(*spares, spare))


def taken_over(owner: str, nuid: str, record: UploadRecord) -> UploadRecord:
    """``record`` when ``owner`` goes on with it, and writes to ``nuid``."""
    return msgspec.structs.replace(
        record,
        owner=owner,
        nuids=(*record.nuids, nuid),
        state="copying",
        beat=record.beat + 1,
    )
