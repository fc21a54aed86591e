"""The interfaces of stores of blobs: docstrings specify them, ``tests/contracts`` checks them.

Every store may raise UnavailableError (not reached: surely not applied), OutcomeUnknownError (a
change that may have been applied) and QuotaExceededError (full), from any method; what a method
raises beyond these is said there. "Not there" is never inferred from "not reached".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self

import msgspec

from holdfast.domain.kept import KeptBytes  # at run time too: messages of it may be decoded
from holdfast.stores.record_ports import CHANGES_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Buffer, Iterator, Sequence
    from datetime import datetime

    from holdfast.domain.chunk_index import ChunkIndex
    from holdfast.domain.digest import Digest
    from holdfast.domain.kept import Ranges
    from holdfast.stores.leftover_ports import Leftovers
    from holdfast.stores.record_ports import Extent


class BlobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A store's record of a blob.

    ``generation`` names this one stored copy: a blob that was deleted and put again has another.
    ``part_size`` is the size of every stored chunk but the last. ``index`` locates chunks where
    the store needs that. ``damaged``: it was found that it cannot be read back, and the next put
    of the bytes replaces it. ``deleted``: somebody has deleted it, and something keeps the bytes;
    a request by the digest does not find it. ``kept``: it is partial, and size, chunks and
    parts are those of the bytes that are kept, one after the other; the next put of the whole
    replaces it, too.
    """

    digest: Digest
    size: int
    chunks: int
    part_size: int
    type: str
    created_at: datetime
    pinned: bool
    generation: str
    index: ChunkIndex | None = None
    damaged: bool = False
    deleted: bool = False
    kept: KeptBytes | None = None

    @property
    def stored_digest(self) -> Digest:
        """The digest of the stored bytes, which is ``digest`` unless it is partial."""
        return self.digest if self.kept is None else self.kept.digest


def info_of(
    digest: Digest,
    size: int,
    attributes: Attributes,
    *,
    part_size: int,
    generation: str,
    index: ChunkIndex | None = None,
) -> BlobInfo:
    """The record of a blob that is put, stored as ``generation`` in parts of ``part_size``."""
    return BlobInfo(
        digest=digest,
        size=size,
        chunks=-(-size // part_size),
        part_size=part_size,
        type=attributes.type,
        created_at=attributes.created_at,
        pinned=attributes.pinned,
        generation=generation,
        index=index,
    )


def reduced_info(info: BlobInfo, kept: KeptBytes, generation: str) -> BlobInfo:
    """``info`` of a copy that has ``kept`` alone, in parts that are no larger than before."""
    part_size = min(info.part_size, kept.size)
    return msgspec.structs.replace(
        info,
        size=kept.size,
        chunks=-(-kept.size // part_size),
        part_size=part_size,
        generation=generation,
        index=None,
        damaged=False,
        kept=kept,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignObject:
    """Something in the store that holdfast did not put there. Listed, never read or removed."""

    name: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableObject(ForeignObject):
    """Something that lies where a blob's record does and cannot be read as one.

    ``name`` is the address that it lies at. A put of the blob or a delete mends it.
    """

    detail: str


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a put: ``created`` is False when the blob was there already."""

    info: BlobInfo
    created: bool


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A blob's record, and its bytes unless they are more than was asked for."""

    info: BlobInfo
    data: Buffer | None


class Attributes(msgspec.Struct, frozen=True, kw_only=True):
    """A putter's word on a blob. The first of two putters is believed, but for ``pinned``.

    ``op_id`` makes a repeat of the put that created the blob answer ``created`` again. As it comes
    from dispatch it is bound to its request (`holdfast.domain.op_id`): another request under the
    same id is a ConflictError, wherever a store finds the one that it kept. With ``touches`` a blob
    that is found is touched, as by `BlobStore.touch`, before the put ends in any way.
    """

    type: str
    created_at: datetime
    pinned: bool = True
    op_id: str | None = None
    touches: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobListing:
    """A page. ``cursor`` is None when the listing has reached the end.

    ``after`` has a cursor for each entry, with which a listing goes on behind that one. ``reached``
    is told where the order is that of writing: all that was there when `Extent.last` was that, and
    has not changed since, was listed before ``cursor``.
    """

    entries: Sequence[BlobInfo | ForeignObject]
    after: Sequence[str]
    cursor: str | None
    reached: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobChanged:
    """The last change of a blob, ``at`` a time by the store's clock; deleted without ``info``.

    ``changed``: it stays, but was touched, pinned, unpinned or found damaged: of no concern to
    watchers, and a store may leave it out. ``put_at`` is the revision at which it was put.
    """

    digest: Digest
    revision: int
    put_at: int
    at: datetime
    info: BlobInfo | None
    kind: Literal["put", "deleted", "changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobChanges:
    """A page of changes, in ascending order, with a position and an end as `Changes` has."""

    changes: Sequence[BlobChanged]
    position: int
    is_end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyedBlob:
    """A blob as a collector met it, last seen (put or touched) at a time by the store's clock.

    ``mark`` stands for the blob as it was then: a put, touch, pin, unpin or found damage gives it
    another one. ``generation`` is the stored copy, of ``size`` bytes: of a partial blob those that
    are ``kept``. ``damaged`` is as in `BlobInfo`.
    """

    digest: Digest
    generation: str
    size: int
    pinned: bool
    seen_at: datetime
    mark: str
    damaged: bool = False
    kept: KeptBytes | None = None

    @classmethod
    def of(cls, info: BlobInfo, *, seen_at: datetime, mark: str) -> Self:
        """The blob of ``info`` as it is met."""
        return cls(
            digest=info.digest,
            generation=info.generation,
            size=info.size,
            pinned=info.pinned,
            seen_at=seen_at,
            mark=mark,
            damaged=info.damaged,
            kept=info.kept,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A page of a survey. ``cursor`` is None at its end.

    ``others``: how many objects were met that are foreign or unreadable, of which ``unreadable``
    do not tell which copy they name. ``copies`` are those that all others name, and ``records`` the
    keys of what was met, also of what was removed, where the store has `BlobStore.leftovers`.
    """

    blobs: Sequence[SurveyedBlob]
    cursor: str | None
    others: int = 0
    unreadable: int = 0
    copies: Sequence[str] = ()
    records: Sequence[str] = ()


def part_ranges(start: int, stop: int, part_size: int) -> Iterator[tuple[int, int]]:
    """The range ``start`` to ``stop`` of a blob, cut wherever a part of ``part_size`` ends."""
    while start < stop:
        end = min((start // part_size + 1) * part_size, stop)
        yield start, end
        start = end


Claiming = Callable[[str], Awaitable[None]]
Keeping = Callable[[], Awaitable[bool]]
Spending = Callable[[int], Awaitable[None]]


async def freely(_size: int) -> None:
    """Spend as many bytes as there are: a `Spending` without a limit."""


class StagedBlob(Protocol):
    """Parts that are not a blob yet. It has one writer for ever; nobody else adds to it."""

    async def write(self, part: int, data: Buffer) -> None:
        """Store ``data`` as part ``part``. It is durable when this returns.

        Calls begin in the order of ``part``, from 0, without gaps; the next may begin before the
        last has returned. ``data`` must not change until then.
        """

    async def commit(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        *,
        claim: Claiming | None = None,
        likely_new: bool = False,
    ) -> Stored:
        """Make the parts the blob ``digest`` of ``size`` bytes, all at once.

        The caller has computed both over the bytes it wrote. All parts have been written. When
        the blob exists, the parts are removed and the existing blob is the answer, pinned as by
        `BlobStore.put`. May be repeated after OutcomeUnknownError. ``likely_new``: the caller
        expects that there is no such blob, so a store may look only if it is refused. Raises
        ConflictError when the parts were removed, CorruptError.

        ``claim`` is awaited with the identifier of the parts before each attempt to make the blob,
        after the store has looked and seen none, or was told to expect none; where they have to be
        written once more, also with the fresh one that they get, before the first is written and
        now and then until all are. Its error ends the commit. A worker that finds (`stat` with
        ``sure``), after a claim, the blob made of other parts may discard these, however long this
        commit is held up: the attempt counts on what was seen before the claim, and fails.
        """

    async def discard(self) -> None:
        """Remove the parts, unless they have become a blob. May be repeated."""


class BlobStore(Protocol):
    """A map from digest to immutable bytes, with a record of each.

    Identical bytes have the identical address in every store. A blob is there whole or not at
    all, and what is read has been checked: bytes that do not match raise CorruptError, and are
    not returned. A collector may have made it partial (`repack`): then it is not there, but for
    those who ask for what is kept of it.
    """

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        """Store ``data``, whose digest is ``digest``, unless it is there.

        Exactly one of racing puts of one blob creates it and nothing is left of the others.
        ``data`` is at most ``max_inline_bytes`` long. A put that pins also pins what it finds there
        unpinned, before it answers; another leaves a pin as it is. Any put takes the mark of a blob
        that is ``deleted`` and kept. A put heals, also by a staged commit: a blob that cannot be
        read back, as far as that is cheap to see or was reported, is stored anew. Raises
        ConflictError where a foreign object is in the way.
        """

    async def get(self, info: BlobInfo) -> bytes:
        """All bytes that are stored, checked against their digest. For blobs that fit in memory.

        Raises NotFoundError when this generation is gone, CorruptError.
        """

    async def fetch(self, digest: Digest, at_most: int) -> Fetched:
        """The results of `stat` and then `get`; only the former of over ``at_most`` bytes.

        A blob that was deleted elsewhere may be found for some seconds more, if its bytes could
        not be removed: a decision by its presence asks `stat`.
        Raises NotFoundError, CorruptError.
        """

    def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """Bytes ``start`` to ``stop`` (0 <= start <= stop <= size) in order, in pieces.

        One piece per stored part that the range touches. When the range is the whole blob, the
        last piece is returned only after the digest was found right.
        Raises NotFoundError when this generation is gone, CorruptError.
        """

    async def stat(self, digest: Digest, *, sure: bool = False, partial: bool = False) -> BlobInfo:
        """The record of a blob, or a former one; bytes that are read are right in any case.

        With ``sure`` it is what is recorded at this moment, and ``damaged`` is also set where the
        store sees that bytes are gone. Acknowledgements and removals are decided by this one.
        A partial blob is not there, unless ``partial``.
        Raises NotFoundError of what is surely not there, CorruptError.
        """

    async def missing(
        self, digests: Sequence[Digest], *, partial: bool = False, counted: bool = False
    ) -> list[Digest]:
        """Those of ``digests`` (at most 1,024) that are not stored, in order, each once.

        One that was reported as damaged, whose record is unreadable, or that was deleted and is
        kept, is missing; so is a partial one, unless ``partial``, and with ``counted`` one of which
        the store sees that bytes are gone. It may not know of a put or deletion a moment ago.
        """

    async def delete(
        self, digest: Digest, *, op_id: str | None = None, kept: Keeping | None = None
    ) -> bool:
        """Forget a blob; whether it was there. Deleting a missing one succeeds.

        A record that cannot be read is removed as well.

        ``kept`` tells whether something needs the blob. It is awaited after the record was read,
        and only that record is replaced: where others have put, touched or pinned the blob since,
        all is done again, ``kept`` too. A blob that is kept stays: its pin is taken, and it is
        marked as ``deleted``; a put or a touch takes the mark. A blob that has it counts as not
        there. ``kept`` does not call the store.

        A repeat with the ``op_id`` that deleted the blob answers True again while the store
        remembers it (memory and disk: until restarted; object store: until it is put again).
        """

    async def touch(
        self, digest: Digest, *, unless_seen_since: datetime, needed: Ranges | None = None
    ) -> bool:
        """Mark a blob as seen now, unless it was at or after ``unless_seen_since``; is it there?

        A partial one is there if it keeps ``needed``; None: only a whole one is.

        The time is by the store's clock, as `now` tells it: the caller's is never compared. A blob
        is seen when it is put or touched. Its attributes stay as they are, but a collector that
        listed it before a touch can no longer remove it. False: it is surely gone, or must be put
        again because it cannot be read back.
        """

    async def read_back(self, info: BlobInfo, spend: Spending) -> None:
        """Read all bytes of a blob, and where the store has several copies as often, from any.

        ``spend`` is awaited for each piece, with its size. Raises NotFoundError when this
        generation is gone, CorruptError: a copy is damaged.
        """

    async def report_damage(self, info: BlobInfo) -> bool:
        """Mend a copy that cannot be read back, or remember that for all who use the store.

        True: another copy of the store's had the bytes, and the blob was put anew from them, as it
        was. A remembered damage makes the blob `missing`, and the next put replaces it. A copy that
        is gone by now, or that a store finds intact, is left as it is.
        """

    async def now(self) -> datetime:
        """The present time by the clock that says when blobs are seen."""

    async def list_blobs(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """Up to ``limit`` blobs whose digest starts with ``prefix``, after ``cursor``.

        In the store's own order, which is stable: a blob that stays is listed at least once,
        exactly once if it does not change meanwhile. Foreign and unreadable objects are listed
        where ``prefix`` is empty. A page may be short or empty and still have a cursor.
        Raises InvalidError for a cursor that this store did not make.
        """

    async def extent(self) -> Extent:
        """The extent of the store: every change that was acknowledged before is counted."""

    async def count(self) -> tuple[int, int] | None:
        """The number of blobs with a record, or a note of a removal: at least, and at the most.

        Neither gets less, for notes stay for good. Counted is also what a store knows of and cannot
        read. None where it keeps no such notes.
        """

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> BlobChanges:
        """The last change of each blob, of those whose revision is greater than ``after``.

        At most ``limit`` (1 to ``MAX_CHANGES``, else InvalidError), and perhaps fewer. A reader
        that goes on from `BlobChanges.position` until ``is_end`` is told of every blob put or
        deleted, perhaps twice; where both happened, of the latter. Foreign and unreadable objects
        are left out. Positions are of one `Extent.created`, while `Extent.last` does not fall.
        """

    async def survey(self, cursor: str | None, *, limit: int) -> Survey:
        """Up to ``limit`` blobs after ``cursor``, for a collector.

        A blob that stays is met at least once. It may be met as it was a while ago, and one that is
        gone by now: `collect` then refuses. A page may be short or empty and still have a cursor.
        Raises InvalidError for a cursor that this store did not make.
        """

    async def collect(self, blob: SurveyedBlob) -> bool:
        """Forget a blob, record first and then bytes, if it still is as it was met; whether it was.

        Nothing else is touched: not the blob that was put, touched or pinned since, nor bytes of
        another copy. After an error it may be repeated; what was removed before is then refused.
        """

    async def repack(self, blob: SurveyedBlob, needed: Ranges) -> int | None:
        """Make a blob partial if it still is as it was met: of its bytes only ``needed`` are kept.

        Another copy takes its place in one change; then the former bytes go. Bytes that a partial
        blob did not keep before are not brought back. The bytes stored now; None: it is not as
        it was met, and nothing was done. It is for blobs that fit in memory. After an error it may
        be repeated, as `collect`. Raises CorruptError if it cannot be read back.
        """

    def stage(self, staging: str, part_size: int) -> StagedBlob:
        """A place for parts, under the fresh identifier ``staging`` (22 of A-Z a-z 0-9)."""

    def staged_parts(self, staging: str) -> AsyncIterator[Buffer]:
        """The parts found under ``staging``, from part 0 up to the first gap."""

    async def discard_staged(self, staging: str) -> None:
        """Remove the parts of ``staging``, which the caller knows are no blob's. Repeatable."""

    def leftovers(self) -> Leftovers | None:
        """The finder of bytes that are no blob's, where writers that are killed leave any."""

    def direct_delivery(self) -> DirectDelivery | None:
        """The store's own way to send chunks to a subject, where it has one."""

    async def check(self) -> None:
        """Whether the store is there and fit for use.

        Raises UnavailableError with a sentence that says what to change.
        """

    async def aclose(self) -> None:
        """Release the store's resources. May be repeated."""


class DirectDelivery(Protocol):
    """A store that can send chunks to a subject itself, so that no worker touches them."""

    async def locate(self, info: BlobInfo, part: int) -> tuple[int, int]:
        """``(first, position)``: from ``position`` on, chunks from ``first`` on (<= part) follow.

        Raises NotFoundError when this generation is gone.
        """

    def deliver_bare(self, digest: Digest, at_most: int) -> Callable[[str], Awaitable[None]] | None:
        """A way to have a whole blob sent to a subject, in one message that carries nothing else.

        None unless the store knows where the blob's only chunk is (after `BlobStore.stat` it does,
        for a moment) and it has ``at_most`` bytes. Nothing tells whether it arrives: the receiver
        compares its digest.
        """

    async def deliver(self, info: BlobInfo, position: int, chunks: int, subject: str) -> None:
        """Have ``chunks`` chunks from ``position`` on sent to ``subject``, in order.

        Returns when the request is sent. Nothing tells whether they arrive: the receiver counts.
        """
