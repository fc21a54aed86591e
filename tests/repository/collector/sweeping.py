"""Writers of chunks and then a record, uploads, deleters and sweepers, one message at a time.

What they decide is decided by the functions that run (`standing` and `may_go`, `stagings_of`, and
the changes of an upload's record). A rule that is left out by its name is a mutant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from tests.repository.collector.explorer import BLOCKED, END, Next, Steps
from tests.repository.collector.world import Frozen, blob

from holdfast.domain.collection import ClaimState, Standing, may_go, standing
from holdfast.repository.uploads.record import (
    LIVE,
    Claim,
    Result,
    UploadRecord,
    at,
    claimed,
    committed,
    taken_over,
)
from holdfast.repository.uploads.stagings import stagings_of

if TYPE_CHECKING:
    from holdfast.domain.digest import Digest

B: Final = blob("b")
UPLOAD: Final = "u"
_TRIES: Final = 3
_LOOKS: Final = 4


class Meta(NamedTuple):
    """The record of a blob, of so many chunks."""

    revision: int
    nuid: str
    chunks: int
    is_there: bool = True


class Claimed(NamedTuple):
    """The claim of a copy."""

    revision: int
    state: ClaimState


@dataclass(slots=True)
class Bucket:
    """A bucket of blobs, and the records of uploads.

    ``promised``: somebody was told that the blob is stored. ``acknowledged`` are parts of a living
    upload of which its sender was told that they are. ``is_deleted``: somebody asked for that.
    """

    metas: dict[Digest, Meta] = field(default_factory=dict)
    chunks: dict[str, int] = field(default_factory=dict)
    claims: dict[str, Claimed] = field(default_factory=dict)
    uploads: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    promised: frozenset[Digest] = frozenset()
    acknowledged: int = 0
    is_deleted: bool = False
    made: dict[str, int] = field(default_factory=dict)

    def freeze(self) -> Frozen:
        """The same, to be hashed."""
        return (
            frozenset(self.metas.items()),
            frozenset(self.chunks.items()),
            frozenset(self.claims.items()),
            frozenset(self.uploads.items()),
            self.promised,
            self.acknowledged,
            self.is_deleted,
            frozenset(self.made.items()),
        )

    @classmethod
    def thaw(cls, frozen: Any) -> Bucket:
        """The bucket that was frozen."""
        metas, chunks, claims, uploads, promised, acknowledged, deleted, made = frozen
        return cls(
            metas=dict(metas),
            chunks=dict(chunks),
            claims=dict(claims),
            uploads=dict(uploads),
            promised=promised,
            acknowledged=acknowledged,
            is_deleted=deleted,
            made=dict(made),
        )

    def revision(self, digest: Digest) -> int:
        """Of its record; 0 if there never was one."""
        return self.metas[digest].revision if digest in self.metas else 0

    def live(self, digest: Digest) -> Meta | None:
        """Its record, if that says that it is there."""
        meta = self.metas.get(digest)
        return meta if meta is not None and meta.is_there else None

    def write(self, digest: Digest, nuid: str, chunks: int, *, there: bool = True) -> None:
        """Replace its record."""
        self.metas[digest] = Meta(self.revision(digest) + 1, nuid, chunks, there)

    def fresh(self, writer: str) -> str:
        """A nuid that has this one writer for ever."""
        self.made[writer] = self.made.get(writer, 0) + 1
        return f"{writer}{self.made[writer]}"

    def named(self) -> frozenset[str]:
        """The nuids that records name."""
        return frozenset(meta.nuid for meta in self.metas.values() if meta.is_there)

    def claim(self, nuid: str, state: ClaimState) -> int:
        """Write a claim; its revision, which no other has."""
        self.made[f"claims of {nuid}"] = revision = self.made.get(f"claims of {nuid}", 0) + 1
        self.claims[nuid] = Claimed(revision, state)
        return revision

    def upload(self) -> UploadRecord | None:
        """The record of the upload."""
        return _read(self.uploads[UPLOAD][1]) if UPLOAD in self.uploads else None

    def put_upload(self, record: UploadRecord) -> None:
        """Replace it."""
        revision = self.uploads[UPLOAD][0] + 1 if UPLOAD in self.uploads else 1
        self.uploads[UPLOAD] = revision, msgspec.json.encode(record)


@cache
def _read(value: bytes) -> UploadRecord:
    return msgspec.json.decode(value, type=UploadRecord)


@dataclass(frozen=True)
class Rules:
    """``without`` are the rules left out."""

    without: frozenset[str] = frozenset()

    def has(self, rule: str) -> bool:
        """Whether the rule is followed."""
        return rule not in self.without


def complaint(s: Bucket) -> str | None:
    """Something that was acknowledged and is lost; None: nothing."""
    for digest in s.promised:
        meta = s.live(digest)
        if meta is None or s.chunks.get(meta.nuid, 0) != meta.chunks:
            return "the acknowledged blob is lost"
    record = s.upload()
    if record is not None and record.state in LIVE:
        most = max(s.chunks.get(nuid, 0) for nuid in record.nuids)
        if most < s.acknowledged and not s.promised:
            return "acknowledged parts of an upload are lost"
    return None


# --- what several of them do ---


def claim_state(rules: Rules, nuid: str, s: Bucket) -> ClaimState | None:
    """The claim of a copy, as somebody reads it who counts on the copy."""
    found = s.claims.get(nuid)
    if found is None or not rules.has("claims are looked at"):
        return None
    is_going = found.state is ClaimState.GOING and rules.has("what goes is not counted on")
    return ClaimState.GOING if is_going else ClaimState.CLAIMED


def take_claim(rules: Rules, nuid: str, s: Bucket) -> None:
    """Take the claim of a copy that is not going."""
    if claim_state(rules, nuid, s) is ClaimState.CLAIMED:
        del s.claims[nuid]


def look(rules: Rules, meta: Meta) -> Any:
    """How the chunks are that a record names: by one message, or without the rule by two."""
    nuid = meta.nuid
    if rules.has("claims are looked at with the chunks"):
        count, state = yield lambda s: (s.chunks.get(nuid, 0), claim_state(rules, nuid, s))
    else:
        count = yield lambda s: s.chunks.get(nuid, 0)
        state = yield partial(claim_state, rules, nuid)
    if not rules.has("chunks are counted"):
        count = meta.chunks
    return standing(chunks=count, expected=meta.chunks, claim=state)


def is_whole(rules: Rules, meta: Meta, *, takes: bool = True) -> Any:
    """Whether the chunks may be counted on that a record names; a claim of them is taken."""
    for _ in range(_LOOKS):
        found = yield from look(rules, meta)
        if found is not Standing.CLAIMED:
            return found is Standing.WHOLE
        if not takes:
            return False
        if not rules.has("the claim is taken"):
            return True
        yield partial(take_claim, rules, meta.nuid)
    yield lambda _: BLOCKED
    return False


def hit(rules: Rules, digest: Digest, seen: Meta) -> Any:
    """Count on a blob that is there; whether it may be: its record is written again."""
    if rules.has("who finds a blob looks") and not (yield from is_whole(rules, seen)):
        return False

    def touch(s: Bucket) -> bool:
        if s.revision(digest) != seen.revision:
            return False
        s.write(digest, seen.nuid, seen.chunks)
        promise(digest, s)
        return True

    return (yield touch)


def publish(digest: Digest, nuid: str, chunks: int, expected: int, s: Bucket) -> bool:
    """Write the record of a blob over what was seen."""
    if s.revision(digest) != expected:
        return False
    s.write(digest, nuid, chunks)
    return True


def promise(digest: Digest, s: Bucket) -> None:
    """Somebody is told that it is stored; whether it still is, is their affair."""
    if not s.is_deleted:
        s.promised |= {digest}


def settle(rules: Rules, digest: Digest, nuid: str, chunks: int) -> Any:
    """Look once the record is there: the blob is promised, or the record withdrawn."""
    takes = rules.has("nobody withdraws")
    if not rules.has("the writer looks") or (
        yield from is_whole(rules, Meta(0, nuid, chunks), takes=takes)
    ):
        yield partial(promise, digest)
        return True

    def bury(s: Bucket) -> None:
        live = s.live(digest)
        if live is not None and live.nuid == nuid:
            s.write(digest, nuid, chunks, there=False)

    yield bury
    return False


class Writer:
    """A put: chunks, then the record. ``unheard``: the answer to the latter is lost."""

    def __init__(self, rules: Rules, me: str, *, chunks: int = 1, unheard: bool = False) -> None:
        self.rules, self.me, self.chunks, self.unheard = rules, me, chunks, unheard
        self.start: Next = ("look", (_TRIES,))

    def look(self, tries: int) -> Steps:
        seen = yield lambda s: s.live(B)
        if seen is not None and (yield from hit(self.rules, B, seen)):
            return END
        return ("write", (tries, 0, "")) if tries else END

    def write(self, tries: int, part: int, nuid: str) -> Steps:
        def write(s: Bucket) -> str:
            own = nuid or s.fresh(self.me)
            s.chunks[own] = s.chunks.get(own, 0) + 1
            return own

        own = yield write
        if part + 1 < self.chunks:
            return "write", (tries, part + 1, own)
        expected = yield lambda s: s.revision(B)
        return "publish", (tries, own, expected)

    def publish(self, tries: int, nuid: str, expected: int) -> Steps:
        seen = yield lambda s: s.live(B)
        if seen is not None and seen.nuid != nuid and expected and not self.unheard:
            if (yield from hit(self.rules, B, seen)):
                yield lambda s: s.chunks.pop(nuid, None)
                return END
            expected = yield lambda s: s.revision(B)
        done = yield partial(publish, B, nuid, self.chunks, expected)
        if self.unheard:
            live = yield lambda s: s.live(B)
            done = live is not None and live.nuid == nuid
        if not done:
            return "look", (tries - 1,)
        yield from settle(self.rules, B, nuid, self.chunks)
        return END


class Toucher:
    """Counts on the blob, if it is there and whole."""

    def __init__(self, rules: Rules, me: str = "touch") -> None:
        self.rules, self.me, self.start = rules, me, ("touch", ())

    def touch(self) -> Steps:
        seen = yield lambda s: s.live(B) or BLOCKED
        yield from hit(self.rules, B, seen)
        return END


class Uploader:
    """Streams a blob of two parts: the record names the nuid before the first is written."""

    def __init__(self, rules: Rules, me: str = "up") -> None:
        self.rules, self.me, self.start = rules, me, ("open", ())

    def open(self) -> Steps:
        def open_(s: Bucket) -> str:
            nuid = s.fresh(self.me)
            record = UploadRecord(owner=self.me, nuids=(nuid,), part_size=1, type="", created_at="")
            s.put_upload(record)
            return nuid

        nuid = yield open_
        return "part", (nuid, 0)

    def part(self, nuid: str, number: int) -> Steps:
        def write(s: Bucket) -> bool:
            record = s.upload()
            if record is None or record.state not in LIVE or record.nuids[-1] != nuid:
                return False
            s.chunks[nuid] = s.chunks.get(nuid, 0) + 1
            s.acknowledged = max(s.acknowledged, number + 1)
            return True

        if not (yield write):
            return END
        return ("part", (nuid, number + 1)) if number == 0 else ("commit", (nuid,))

    def commit(self, nuid: str) -> Steps:
        expected = yield lambda s: s.revision(B)

        def claim(s: Bucket) -> bool:
            record = s.upload()
            if record is None or record.state not in LIVE or record.nuids[-1] != nuid:
                return False
            s.put_upload(claimed(Claim(nuid=nuid, digest=B), record))
            return True

        if not (yield claim):
            return END
        if not (yield partial(publish, B, nuid, 2, expected)):
            return END
        return ("end", ()) if (yield from settle(self.rules, B, nuid, 2)) else END

    def end(self) -> Steps:
        def end(s: Bucket) -> None:
            record = s.upload()
            if record is not None and record.state in LIVE and B in s.promised:
                result = Result(digest=B, size=2, created=True)
                s.put_upload(committed(result, record))

        yield end
        return END


class Successor:
    """Takes the upload over, and copies what was acknowledged to a nuid of its own."""

    def __init__(self, rules: Rules, me: str = "next") -> None:
        self.rules, self.me, self.start = rules, me, ("take", ())

    def take(self) -> Steps:
        def take(s: Bucket) -> object:
            record = s.upload()
            if record is None or record.state not in LIVE or B in s.promised:
                return BLOCKED
            nuid = s.fresh(self.me)
            s.put_upload(taken_over(self.me, nuid, record))
            return nuid

        nuid = yield take
        return "copy", (nuid,)

    def copy(self, nuid: str) -> Steps:
        def copy(s: Bucket) -> None:
            record = s.upload()
            if record is not None:
                s.chunks[nuid] = max(s.chunks.get(one, 0) for one in record.nuids)

        yield copy
        return END


class UploadLapse:
    """The upload lapses, at any time."""

    def __init__(self) -> None:
        self.me, self.start = "lapse", ("lapse", ())

    def lapse(self) -> Steps:
        def lapse(s: Bucket) -> object:
            record = s.upload()
            if record is None or record.state not in LIVE:
                return BLOCKED
            s.put_upload(at("failed", record))
            return None

        yield lapse
        return END


class Deleter:
    """Deletes a blob that nobody was told of: the record first, then the chunks."""

    def __init__(self) -> None:
        self.me, self.start = "delete", ("delete", ())

    def delete(self) -> Steps:
        def bury(s: Bucket) -> object:
            meta = s.live(B)
            if meta is None or B in s.promised:
                return BLOCKED
            s.is_deleted = True
            s.write(B, meta.nuid, meta.chunks, there=False)
            return meta.nuid

        nuid = yield bury
        yield lambda s: s.chunks.pop(nuid, None)
        return END


class Sweeper:
    """Claims what no record names, looks again at uploads and records, and removes what it may.

    ``takes_over``: claims of others count as abandoned.
    """

    def __init__(self, rules: Rules, me: str, *, takes_over: bool = False) -> None:
        self.rules, self.me, self.takes_over = rules, me, takes_over
        self.start: Next = ("survey", ())

    def survey(self) -> Steps:
        named = yield lambda s: s.named()
        loose = yield lambda s: tuple(sorted(set(s.chunks) - named))
        uploading = yield self.uploading
        copies = tuple(copy for copy in loose if copy not in uploading)
        return ("claim", (copies, (), named)) if copies else END

    def uploading(self, s: Bucket) -> frozenset[str]:
        record = s.upload()
        if record is None or not self.rules.has("uploads are looked at"):
            return frozenset()
        return frozenset(stagings_of(record))

    def claim(
        self, left: tuple[str, ...], claims: tuple[tuple[str, int], ...], named: frozenset[str]
    ) -> Steps:
        if not left:
            return "again", (claims, named)

        def claim(s: Bucket) -> int | str | None:
            found = s.claims.get(left[0])
            if found is not None and found.state is ClaimState.GOING:
                return "going"
            if found is not None and not self.takes_over:
                return None
            return s.claim(left[0], ClaimState.CLAIMED)

        mark: int | str | None = 0
        if self.rules.has("a copy is claimed"):
            mark = yield claim
        if isinstance(mark, str):
            yield from self.purge(left[0])
            return "claim", (left[1:], claims, named)
        claims = claims if mark is None else (*claims, (left[0], mark))
        return "claim", (left[1:], claims, named)

    def again(self, claims: tuple[tuple[str, int], ...], named: frozenset[str]) -> Steps:
        uploading = yield self.uploading
        if not self.rules.has("records are looked at again"):
            pass
        elif self.rules.has("the look goes to the end"):
            named |= yield lambda s: s.named()
        else:  # what is written anew after the barrier and before the look comes by is not met
            before = yield lambda s: frozenset(s.metas.values())
            after = yield lambda s: frozenset(s.metas.values())
            named |= frozenset(meta.nuid for meta in before & after if meta.is_there)
        return "finish", (claims, named, uploading)

    def finish(
        self,
        claims: tuple[tuple[str, int], ...],
        named: frozenset[str],
        uploading: frozenset[str],
    ) -> Steps:
        if not claims:
            return END
        (copy, mark), rest = claims[0], claims[1:]

        def release(s: Bucket) -> None:
            if copy in s.claims and s.claims[copy].revision <= mark:
                del s.claims[copy]

        def doom(s: Bucket) -> bool:
            found = s.claims.get(copy)
            is_mine = found is not None and found.revision == mark
            if not is_mine and self.rules.has("the claim is one's own"):
                return False
            s.claim(copy, ClaimState.GOING)
            return True

        if not may_go(copy, named=named, uploading=uploading):
            yield release
        elif (
            not self.rules.has("a copy is claimed")
            or not self.rules.has("the claim is asked again")
            or (yield doom)
        ):
            yield from self.purge(copy)
        return "finish", (rest, named, uploading)

    def purge(self, copy: str) -> Steps:
        def purge(s: Bucket) -> None:
            s.chunks.pop(copy, None)

        def end(s: Bucket) -> None:
            s.claims.pop(copy, None)

        if self.rules.has("the claim ends last"):
            yield purge
            yield end
        else:
            yield end
            yield purge
        return END
