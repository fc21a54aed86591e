"""The stores of a deployment as small values, and what is done to them in one message."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from holdfast.domain.digest import Digest
from holdfast.domain.kept import KeptBytes, Ranges, has_bytes, joined, size_of
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.names.record import NameRecord, VersionRecord, content_of, counts
from holdfast.repository.names.roots import blobs_of
from holdfast.repository.snapshots.record import StoredSnapshot
from holdfast.repository.snapshots.roots import roots_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holdfast.repository.names.record import Keep

BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)


def blob(letter: str) -> Digest:
    """A digest."""
    return Digest(letter * 64)


P: Final = blob("a")
Q: Final = blob("b")
R0: Final = blob("0")
R1: Final = blob("1")
R2: Final = blob("2")
B: Final = blob("c")
C: Final = blob("d")
RF: Final = blob("5")
RG: Final = blob("6")
SIZE: Final = 1000
F: Final[Ranges] = ((0, 300),)
"""A frame of P; the other one is the rest."""

NEEDS: Final[dict[Digest, dict[Digest, Ranges | None]]] = {
    R0: {R0: None, P: None},
    R1: {R1: None, P: None, Q: None},
    R2: {R2: None, P: None},
    RF: {RF: None, P: F},
    RG: {RG: None, P: ((0, SIZE),)},
}
"""What each root needs, itself among it, and what of it; None: all."""

ROOTS: Final = {root: frozenset(needs) for root, needs in NEEDS.items()}


class Meta(NamedTuple):
    """The record of a blob. Each change gives it another ``revision``; ``tick`` is when."""

    revision: int
    tick: int
    nuid: str
    is_there: bool = True
    is_pinned: bool = False
    kept: Ranges | None = None

    def has(self, needed: Ranges | None) -> bool:
        """Whether these bytes are kept."""
        kept = None if self.kept is None else KeptBytes(P, self.kept)
        return has_bytes(kept, needed)

    @property
    def size(self) -> int:
        """Of what is stored."""
        return SIZE if self.kept is None else size_of(self.kept)


type Frozen = tuple[object, ...]


@dataclass(slots=True)
class Stores:
    """The stores. Records are as they are encoded, under a revision."""

    metas: dict[Digest, Meta] = field(default_factory=dict)
    chunks: set[str] = field(default_factory=set)
    snapshots: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    names: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    now: int = 0
    promised: set[Digest] = field(default_factory=set)
    made: dict[str, int] = field(default_factory=dict)

    def freeze(self) -> Frozen:
        """The same, to be hashed."""
        return (
            frozenset(self.metas.items()),
            frozenset(self.chunks),
            frozenset(self.snapshots.items()),
            frozenset(self.names.items()),
            self.now,
            frozenset(self.promised),
            frozenset(self.made.items()),
        )

    @classmethod
    def thaw(cls, frozen: Frozen) -> Stores:
        """The stores that were frozen."""
        metas, chunks, snapshots, names, now, promised, made = frozen
        return cls(
            metas=dict(metas),  # type: ignore[call-overload]
            chunks=set(chunks),  # type: ignore[call-overload]
            snapshots=dict(snapshots),  # type: ignore[call-overload]
            names=dict(names),  # type: ignore[call-overload]
            now=now,  # type: ignore[arg-type]
            promised=set(promised),  # type: ignore[call-overload]
            made=dict(made),  # type: ignore[call-overload]
        )

    # --- blobs ---

    def revision(self, digest: Digest) -> int:
        """Of its record; 0 if there never was one."""
        return self.metas[digest].revision if digest in self.metas else 0

    def live(self, digest: Digest) -> Meta | None:
        """Its record, if that says that it is there."""
        meta = self.metas.get(digest)
        return meta if meta is not None and meta.is_there else None

    def has(self, digest: Digest, needed: Ranges | None) -> bool:
        """Whether these bytes of it are there."""
        meta = self.live(digest)
        return meta is not None and meta.nuid in self.chunks and meta.has(needed)

    def is_whole(self, digest: Digest) -> bool:
        """Whether all of it is there."""
        return self.has(digest, None)

    def write(
        self,
        digest: Digest,
        nuid: str,
        *,
        there: bool = True,
        pinned: bool = False,
        kept: Ranges | None = None,
    ) -> None:
        """Replace its record."""
        revision = self.revision(digest) + 1
        self.metas[digest] = Meta(revision, self.now, nuid, there, pinned, kept)

    def touch(self, digest: Digest) -> None:
        """Write its record again as it is."""
        meta = self.metas[digest]
        self.write(digest, meta.nuid, pinned=meta.is_pinned, kept=meta.kept)

    def new_chunk(self, writer: str) -> str:
        """A chunk under a nuid that has this one writer for ever."""
        self.made[writer] = self.made.get(writer, 0) + 1
        nuid = f"{writer}{self.made[writer]}"
        self.chunks.add(nuid)
        return nuid

    # --- records ---

    def snapshot(self, key: str) -> StoredSnapshot | None:
        """The record of a snapshot."""
        return read_snapshot(self.snapshots[key][1]) if key in self.snapshots else None

    def put_snapshot(self, key: str, record: StoredSnapshot | None) -> None:
        """Replace it; None: it is removed."""
        revision = self.snapshots[key][0] + 1 if key in self.snapshots else 1
        self.snapshots.pop(key, None)
        if record is not None:
            self.snapshots[key] = revision, msgspec.json.encode(record)

    def name(self, name: str) -> NameRecord | None:
        """The record of a name."""
        return read_name(self.names[name][1]) if name in self.names else None

    def put_name(self, name: str, record: NameRecord | VersionRecord) -> None:
        """Replace it."""
        revision = self.names[name][0] + 1 if name in self.names else 1
        self.names[name] = revision, msgspec.json.encode(record)


@cache
def read_snapshot(value: bytes) -> StoredSnapshot:
    """The decoded value."""
    return msgspec.json.decode(value, type=StoredSnapshot)


@cache
def read_name(value: bytes) -> NameRecord:
    """The decoded value."""
    return msgspec.json.decode(value, type=NameRecord)


@cache
def read_version(value: bytes) -> VersionRecord:
    """The decoded value."""
    return msgspec.json.decode(value, type=VersionRecord)


def is_version(key: str) -> bool:
    """Whether a version lies there, and not a name."""
    return "=v" in key


def snapshot(
    key: str, *, state: str = "ok", digest: Digest | None = None, parent: Digest | None = None
) -> StoredSnapshot:
    """A record."""
    return StoredSnapshot(
        app="app",
        id=key,
        state=state,  # type: ignore[arg-type]
        lease=Lease(owner="w", seconds=60),
        created_at="",
        digest=digest,
        parent_digest=parent,
    )


def at(tick: int) -> datetime:
    """The time of a tick."""
    return BEGAN + timedelta(seconds=tick)


@cache
def _snapshot_roots(value: bytes) -> tuple[Digest, ...]:
    return roots_of(read_snapshot(value))


@cache
def _name_blobs(key: str, value: bytes) -> tuple[Digest, ...]:
    return blobs_of(read_version(value) if is_version(key) else read_name(value))


def roots_in(snapshots: Iterable[tuple[str, tuple[int, bytes]]]) -> frozenset[Digest]:
    """The roots that records of snapshots keep."""
    return frozenset(root for _, (_, value) in snapshots for root in _snapshot_roots(value))


def blobs_in(names: Iterable[tuple[str, tuple[int, bytes]]]) -> frozenset[Digest]:
    """The blobs that records of names keep."""
    return frozenset(one for key, (_, value) in names for one in _name_blobs(key, value))


def lost(stores: Stores, keep: Keep) -> str | None:
    """Something that was acknowledged and cannot be read; None: nothing."""
    for key in stores.snapshots:
        record = stores.snapshot(key)
        if record is not None and record.state == "ok":
            for digest, needed in NEEDS[Digest(record.digest or "")].items():
                if not stores.has(digest, needed):
                    return f"snapshot {key} is ok and lacks some of {digest[:1]}"
    for key, (_, value) in stores.names.items():
        for digest in _readable(stores, key, value, keep):
            if not stores.is_whole(digest):
                return f"name {key} lacks {digest[:1]}"
    for digest in stores.promised:
        if not stores.is_whole(digest):
            return f"the acknowledged blob {digest[:1]} is lost"
    return None


def _readable(stores: Stores, key: str, value: bytes, keep: Keep) -> list[Digest]:
    """The blobs that a reader of a name, or of a version that counts, may ask for."""
    if not is_version(key):
        content = content_of(read_name(value), BEGAN, keep)
        return [] if content is None else [Digest(content.digest)]
    version = read_version(value)
    record = stores.name(version.name)
    if record is None or not counts(version, record, BEGAN, keep):
        return []
    return [Digest(version.content.digest)]


def merged(
    needed: dict[Digest, Ranges | None], more: Mapping[Digest, Ranges | None]
) -> dict[Digest, Ranges | None]:
    """The needs of both."""
    result = dict(needed)
    for digest, ranges in more.items():
        known = result.get(digest, ())
        result[digest] = None if known is None or ranges is None else joined((*known, *ranges))
    return result


def needed_now(stores: Stores) -> dict[Digest, Ranges | None]:
    """Every blob that a record keeps, and what of it."""
    needed: dict[Digest, Ranges | None] = dict.fromkeys(blobs_in(stores.names.items()))
    for root in roots_in(stores.snapshots.items()):
        needed = merged(needed, NEEDS[root])
    return needed
