"""Writers, deleters, readers and collectors, each step of which is one message.

What they decide is decided by the functions that run (`holdfast.domain.collection`, `roots_of`,
`blobs_of`, and the changes of a name's record). A rule that is left out by its name is a mutant.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from tests.repository.collector.explorer import BLOCKED, END, Next, Steps
from tests.repository.collector.world import (
    NEEDS,
    ROOTS,
    SIZE,
    B,
    Meta,
    Stores,
    at,
    blobs_in,
    is_version,
    merged,
    read_name,
    roots_in,
    snapshot,
)

from holdfast.domain.blob_names import Conditions, Said
from holdfast.domain.collection import left_of, to_touch, why_kept
from holdfast.domain.digest import Digest
from holdfast.domain.kept import Ranges, common
from holdfast.errors import ConflictError, NotFoundError
from holdfast.repository.names.record import (
    Keep,
    Step,
    announced,
    announcing,
    committed,
    deleted,
    failed,
    promised,
    superseded,
)
from holdfast.repository.targets import GivenUpError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.domain.blob_names import Verb

type Needed = tuple[tuple[Digest, Ranges | None], ...]
type Put = Generator[Any, Any, tuple[bool, bool]]

_TRIES: Final = 6
SAID: Final = Said(type="a/b", labels={}, conditions=Conditions())


@dataclass(frozen=True)
class Rules:
    """``grace`` in ticks: below 0 time protects nothing. ``without`` are the rules left out."""

    grace: float = -1
    without: frozenset[str] = frozenset()
    keep: Keep = field(default_factory=Keep)

    def has(self, rule: str) -> bool:
        """Whether the rule is followed."""
        return rule not in self.without


# --- what several of them do ---


def put(rules: Rules, me: str, digest: Digest, *, pin: bool = False, touch: bool = False) -> Put:
    """Chunk, then record by compare-and-set; whether it was made, and whether it is there.

    What is found is pinned, or touched, or left as it is. What is pinned is promised.
    """
    for _ in range(_TRIES):
        is_hit, seen, is_partial = yield lambda s: look(rules, s, digest, pin=pin, touch=touch)
        if is_hit:
            return False, True
        if is_partial:
            if (yield lambda s, seen=seen: put_over(s, me, digest, seen)):
                return True, True
            continue
        nuid = yield lambda s: chunk(rules, s, me, digest)

        def publish(s: Stores, seen: int = seen, nuid: str = nuid) -> bool:
            if s.revision(digest) != seen:
                return False
            former = s.live(digest)
            s.write(digest, nuid, pinned=pin or (former is not None and former.is_pinned))
            if pin:
                s.promised.add(digest)
            return True

        if (yield publish):
            return True, True
        yield lambda s, nuid=nuid: s.chunks.discard(nuid)
    return False, False


def put_over(s: Stores, me: str, digest: Digest, seen: int) -> bool:
    """In the place of a partial blob: chunk and record in one batch."""
    if s.revision(digest) != seen:
        return False
    s.write(digest, s.new_chunk(me))
    return True


def look(
    rules: Rules, s: Stores, digest: Digest, *, pin: bool, touch: bool
) -> tuple[bool, int, bool]:
    """Whether a put finds the blob, at which revision, and whether a partial one is there."""
    meta = s.live(digest)
    is_partial = meta is not None and meta.kept is not None
    wanted = None if rules.has("a put finds no partial pack") else ()
    if meta is None or not s.has(digest, wanted):
        return False, s.revision(digest), is_partial
    if pin and not meta.is_pinned and rules.has("hit pins"):
        s.write(digest, meta.nuid, pinned=True)
    elif touch and rules.has("hit touches"):
        s.touch(digest)
    if pin:
        s.promised.add(digest)
    return True, s.revision(digest), False


def chunk(rules: Rules, s: Stores, me: str, digest: Digest) -> str:
    """A fresh chunk."""
    former = s.metas.get(digest)
    if (
        not rules.has("a tombstone's chunks stay dead")
        and former is not None
        and former.nuid in s.chunks
    ):
        return former.nuid
    return s.new_chunk(me)


def touch(rules: Rules, digest: Digest, *, since: float, needed: Ranges | None = None) -> Steps:
    """Whether it is there; its record has another revision then, unless it was seen ``since``."""
    asked = needed if rules.has("a touch asks for the bytes needed") else ()

    def one(s: Stores) -> bool:
        meta = s.live(digest)
        if meta is None or not s.has(digest, asked):
            return False
        if meta.tick < since and rules.has("touch"):
            s.touch(digest)
        return True

    return (yield one)


# --- snapshots ---


class SnapshotWriter:
    """A worker, or a client, that makes the snapshot ``me`` with ``root``, on top of ``parent``."""

    def __init__(
        self,
        rules: Rules,
        me: str,
        root: Digest,
        parent: str | None = None,
        *,
        is_client: bool = False,
    ) -> None:
        self.rules, self.me, self.root, self.parent = rules, me, root, parent
        self.is_client = is_client
        self.start: Next = ("begin", ())

    def begin(self) -> Steps:
        def parents_root(s: Stores) -> str | None:
            record = s.snapshot(self.parent) if self.parent is not None else None
            return record.digest if record is not None and record.state == "ok" else None

        of_parent = yield parents_root
        told = of_parent if self.rules.has("the parent's root is a root") else None
        yield lambda s: s.put_snapshot(self.me, snapshot(self.me, state="pending", parent=told))
        began = yield lambda s: s.now
        todo = tuple(sorted(ROOTS[self.root] - self.shared(of_parent)))
        return "store", (todo, of_parent, began, (), (), 0)

    def shared(self, of_parent: str | None) -> frozenset[Digest]:
        """Blobs of which the parent needs all that is needed."""
        needs = NEEDS[self.root]
        theirs = NEEDS[Digest(of_parent)] if of_parent else {}
        return frozenset(
            one
            for one in needs
            if one in theirs and Meta(0, 0, "", kept=theirs[one]).has(needs[one])
        )

    def store(
        self,
        todo: tuple[Digest, ...],
        of_parent: str | None,
        began: int,
        made: tuple[Digest, ...],
        found: tuple[Digest, ...],
        tries: int,
    ) -> Steps:
        if not todo:
            return "announce", (of_parent, began, made, found, tries)
        was_made, is_there = yield from put(self.rules, self.me, todo[0])
        if not is_there:
            return END
        made, found = (
            (*made, todo[0]) if was_made else made,
            (found if was_made else (*found, todo[0])),
        )
        return "store", (todo[1:], of_parent, began, made, found, tries)

    def announce(
        self,
        of_parent: str | None,
        began: int,
        made: tuple[Digest, ...],
        found: tuple[Digest, ...],
        tries: int,
    ) -> Steps:
        def announce(s: Stores) -> bool:
            record = s.snapshot(self.me)
            if record is None or record.state != "pending":
                return False
            if self.rules.has("announce"):
                s.put_snapshot(self.me, msgspec.structs.replace(record, digest=self.root))
            return True

        def is_parent_ok(s: Stores) -> bool:
            record = s.snapshot(self.parent or "")
            return record is not None and record.state == "ok" and record.digest == of_parent

        is_ok = False
        early = not self.rules.has("the parent is read again after the announcement")
        if of_parent and early:
            is_ok = yield is_parent_ok
        if not (yield announce):
            return END
        if of_parent and not early:
            is_ok = yield is_parent_ok
        if not self.rules.has("the parent is read again"):
            is_ok = of_parent is not None
        since = (yield lambda s: s.now) - self.rules.grace / 4
        if not self.rules.has("lately is by the store's clock"):
            since -= 3
        young = made if began > since or not self.rules.has("what was put is touched") else ()
        vouches = is_ok and not self.is_client  # no page of a client's is its parent's
        vouched = ROOTS[Digest(of_parent)] if vouches and of_parent else frozenset()
        needed = tuple(sorted(ROOTS[self.root]))
        put = {*made, *found} if self.rules.has("what was put is not vouched for") else ()
        touched = to_touch(needed, vouched=vouched, found=put, young=young)
        looked_at = [one for one in needed if one in vouched and one not in put]
        return "secure", (tuple(touched), tuple(looked_at), since, of_parent, tries)

    def secure(
        self,
        touched: tuple[Digest, ...],
        looked_at: tuple[Digest, ...],
        since: float,
        of_parent: str | None,
        tries: int,
    ) -> Steps:
        if touched:
            needed = NEEDS[self.root][touched[0]] if self.is_client else None
            is_there = yield from touch(self.rules, touched[0], since=since, needed=needed)
            touched = touched[1:]
        elif looked_at:
            is_there = yield lambda s: s.has(looked_at[0], ())
            looked_at = looked_at[1:]
        else:
            return "commit", ()
        if is_there:
            return "secure", (touched, looked_at, since, of_parent, tries)
        if tries:
            return END
        began = yield lambda s: s.now  # everything is read and put again
        return "store", (tuple(sorted(ROOTS[self.root])), of_parent, began, (), (), tries + 1)

    def commit(self) -> Steps:
        def commit(s: Stores) -> None:
            record = s.snapshot(self.me)
            if record is None:
                return
            if record.state == "pending" or not self.rules.has("the commit is conditional"):
                done = msgspec.structs.replace(record, state="ok", digest=self.root)
                s.put_snapshot(self.me, done)

        yield commit
        return END


class SnapshotDeleter:
    """Removes a snapshot."""

    def __init__(self, key: str) -> None:
        self.me, self.key, self.start = "delete", key, ("remove", ())

    def remove(self) -> Steps:
        def remove(s: Stores) -> object:
            record = s.snapshot(self.key)
            if record is None or record.state != "ok":
                return BLOCKED
            s.put_snapshot(self.key, None)
            return None

        yield remove
        return END


class SnapshotLapse:
    """A pending snapshot's lease is over, at any time."""

    def __init__(self, key: str) -> None:
        self.me, self.key, self.start = "lapse", key, ("lapse", ())

    def lapse(self) -> Steps:
        def lapse(s: Stores) -> object:
            record = s.snapshot(self.key)
            if record is None or record.state != "pending":
                return BLOCKED
            s.put_snapshot(self.key, msgspec.structs.replace(record, state="failure"))
            return None

        yield lapse
        return END


# --- names ---


class NameWriter:
    """Creates or replaces a name by bytes; ``streamed``: the bytes are a blob before it is told."""

    def __init__(
        self, rules: Rules, me: str, verb: Verb, digest: Digest, *, streamed: bool = False
    ) -> None:
        self.rules, self.me, self.verb, self.digest = rules, me, verb, digest
        self.streamed = streamed
        self.start: Next = ("announce", ())

    @property
    def step(self) -> Step:
        return Step(worker=self.me, at=at(0), keep=self.rules.keep)

    def announce(self) -> Steps:
        if not self.rules.has("a name is announced"):
            return "bring", ()
        one = announcing(
            self.verb,
            SAID,
            op=self.me,
            at=at(0),
            digest=None if self.streamed else self.digest,
            size=1,
        )

        def announce(s: Stores) -> bool:
            try:
                s.put_name("n", announced(s.name("n"), "n", one, self.step))
            except (ConflictError, NotFoundError):
                return False
            return True

        return ("bring", ()) if (yield announce) else END

    def bring(self) -> Steps:
        _, is_there = yield from put(self.rules, self.me, self.digest, touch=not self.streamed)
        if not is_there:
            return "fail", ()
        return ("promise", ()) if self.streamed else ("commit", ())

    def promise(self) -> Steps:
        def promise(s: Stores) -> bool:
            record = s.name("n")
            try:
                if record is None:
                    return False
                s.put_name("n", promised(record, self.me, self.digest, 1))
            except GivenUpError:
                return False
            return True

        def is_touched() -> Steps:
            return (yield from touch(self.rules, self.digest, since=float("inf")))

        early = not self.rules.has("the touch follows the promise")
        if early and not (yield from is_touched()):
            return "fail", ()
        if not (yield promise):
            return END
        if not early and not (yield from is_touched()):
            return "fail", ()
        return "commit", ()

    def commit(self) -> Steps:
        yield from commit(self.rules, self.me, self.digest, self.step, self.verb)
        return END

    def fail(self) -> Steps:
        yield lambda s: fail(s, self.me, self.step)
        return END


def commit(rules: Rules, op: str, digest: Digest, step: Step, verb: Verb) -> Steps:
    """The version that the name is about to lose is written down, then the record."""

    def keep_version(s: Stores) -> int:
        record = s.name("n")
        former = superseded(record, step) if record is not None else None
        if former is not None and rules.has("a version is written before it is lost"):
            s.put_name(f"n=v{former.version}", former)
        return s.names["n"][0] if "n" in s.names else 0

    for _ in range(_TRIES):
        seen = yield keep_version

        def write(s: Stores, seen: int = seen) -> bool:
            if (s.names["n"][0] if "n" in s.names else 0) != seen:
                return False
            record = s.name("n")
            if not rules.has("a name is announced"):
                record = announced(record, "n", _one(op, verb, digest), step)
            try:
                s.put_name("n", committed(record, op, step))
            except (ConflictError, NotFoundError, GivenUpError):
                if record is not None:
                    s.put_name("n", failed(record, op, "refused", step))
            return True

        if (yield write):
            break
    return END


def _one(op: str, verb: Verb, digest: Digest) -> Any:
    return announcing(verb, SAID, op=op, at=at(0), digest=digest, size=1)


def fail(s: Stores, op: str, step: Step) -> None:
    """The announcement ends without a blob."""
    record = s.name("n")
    if record is not None:
        s.put_name("n", failed(record, op, "failed", step))


class NameCopier:
    """Gives a name a blob that is there: looked up, announced, touched, committed."""

    def __init__(self, rules: Rules, me: str, digest: Digest) -> None:
        self.rules, self.me, self.digest = rules, me, digest
        self.start: Next = ("copy", ())
        self.step = Step(worker=me, at=at(0), keep=rules.keep)

    def copy(self) -> Steps:
        if not (yield lambda s: s.is_whole(self.digest)):
            return END
        one = _one(self.me, "copy", self.digest)
        yield lambda s: s.put_name("n", announced(s.name("n"), "n", one, self.step))
        return "touch", ()

    def touch(self) -> Steps:
        since = float("inf") if self.rules.has("a copy touches") else -1.0
        if not (yield from touch(self.rules, self.digest, since=since)):
            yield lambda s: fail(s, self.me, self.step)
            return END
        return "commit", ()

    def commit(self) -> Steps:
        yield from commit(self.rules, self.me, self.digest, self.step, "copy")
        return END


class NameDeleter:
    """Takes the blob from the name."""

    def __init__(self, rules: Rules) -> None:
        self.me, self.start = "forget", ("remove", ())
        self.step = Step(worker="d", at=at(0), keep=rules.keep)

    def remove(self) -> Steps:
        def remove(s: Stores) -> object:
            record = s.name("n")
            if record is None or record.content is None:
                return BLOCKED
            former = superseded(record, self.step)
            if former is not None:
                s.put_name(f"n=v{former.version}", former)
            s.put_name("n", deleted(record, "d", Conditions(), self.step))
            return None

        yield remove
        return END


class NameLapse:
    """A write of the name lapses, at any time."""

    def __init__(self, rules: Rules, op: str) -> None:
        self.me, self.op, self.start = "lapse", op, ("lapse", ())
        self.step = Step(worker="l", at=at(0), keep=rules.keep)

    def lapse(self) -> Steps:
        def lapse(s: Stores) -> object:
            record = s.name("n")
            if record is None or all(one.op != self.op for one in record.pending):
                return BLOCKED
            s.put_name("n", failed(record, self.op, "lapsed", self.step))
            return None

        yield lapse
        return END


# --- blobs ---


class Putter:
    """A plain put: it pins, and is acknowledged. Nobody deletes it afterwards."""

    def __init__(self, rules: Rules, me: str, digest: Digest = B) -> None:
        self.rules, self.me, self.digest = rules, me, digest
        self.start: Next = ("put", ())

    def put(self) -> Steps:
        yield from put(self.rules, self.me, self.digest, pin=True)
        return END


class BlobDeleter:
    """Deletes by digest: the record is read, then who needs it, then that record is replaced."""

    def __init__(self, rules: Rules, me: str, digest: Digest = B) -> None:
        self.rules, self.me, self.digest = rules, me, digest
        self.start: Next = ("delete", ())

    def delete(self) -> Steps:
        def look(s: Stores) -> object:
            meta = s.live(self.digest)
            return BLOCKED if meta is None or self.digest in s.promised else meta

        meta = yield look
        is_kept = yield lambda s: self.digest in blobs_in(s.names.items())

        def replace(s: Stores) -> bool:
            if s.revision(self.digest) != meta.revision:
                return False
            if not is_kept:
                s.write(self.digest, meta.nuid, there=False)
            elif meta.is_pinned:
                s.write(self.digest, meta.nuid)
            return not is_kept

        if (yield replace):
            yield lambda s: s.chunks.discard(meta.nuid)
        return END


class Reader:
    """Reads a blob of a snapshot: it gets the bytes, or the snapshot is gone."""

    def __init__(self, rules: Rules, key: str, digest: Digest) -> None:
        self.rules, self.key, self.digest = rules, key, digest
        self.me, self.start = "read", ("read", ())

    def read(self) -> Steps:
        before = None
        while True:
            meta = yield lambda s: s.live(self.digest)

            def are_there(s: Stores, meta: Meta | None = meta) -> bool:
                return meta is not None and meta.nuid in s.chunks

            if (yield are_there):
                return END
            if meta == before or not self.rules.has("a reader looks again"):
                break
            before = meta
        record = yield lambda s: s.snapshot(self.key)
        is_ok = record is not None and record.state == "ok"
        return ("end", ("a reader found a blob missing of what is ok",)) if is_ok else END


class Clock:
    """Time passes, tick by tick."""

    def __init__(self, ticks: int) -> None:
        self.me, self.start = "clock", ("tick", (ticks,))

    def tick(self, left: int) -> Steps:
        if not left:
            return END

        def tick(s: Stores) -> None:
            s.now += 1

        yield tick
        return "tick", (left - 1,)


# --- collectors ---


class Collector:
    """Lists blob by blob, then reads all records at once, then each root, then removes."""

    def __init__(self, rules: Rules, me: str, blobs: Iterable[Digest]) -> None:
        self.rules, self.me, self.blobs = rules, me, tuple(blobs)
        first = ("survey", ()) if rules.has("the listing comes first") else ("early", ())
        self.start: Next = first

    def early(self) -> Steps:
        roots = yield lambda s: (roots_in(s.snapshots.items()), blobs_in(s.names.items()))
        return "survey", (*roots,)

    def survey(self, *roots: frozenset[Digest]) -> Steps:
        now = yield lambda s: s.now
        met = []
        for digest in self.blobs:

            def look(s: Stores, digest: Digest = digest) -> Meta | None:
                return s.metas.get(digest)

            meta = yield look
            if meta is not None:
                met.append((digest, meta))
        if roots:
            return "read", (now, tuple(met), tuple(sorted(roots[0])), all_of(roots[1]))
        return "scan", (now, tuple(met))

    def scan(self, now: int, met: tuple[Any, ...]) -> Steps:
        """All records of one moment: the scan went on to the end."""
        if self.rules.has("the scan goes to the end"):
            snapshots, names = yield lambda s: (
                frozenset(s.snapshots.items()),
                frozenset(s.names.items()),
            )
        else:  # what is written anew after the barrier and before the scan comes by is not met
            before = yield lambda s: (frozenset(s.snapshots.items()), frozenset(s.names.items()))
            after = yield lambda s: (frozenset(s.snapshots.items()), frozenset(s.names.items()))
            snapshots, names = before[0] & after[0], before[1] & after[1]
        if not self.rules.has("what is announced is a root"):
            snapshots = frozenset(one for one in snapshots if b'"pending"' not in one[1][1])
            names = frozenset(
                one for one in names if is_version(one[0]) or not read_name(one[1][1]).pending
            )
        if not self.rules.has("versions are roots"):
            names = frozenset(one for one in names if not is_version(one[0]))
        return "read", (now, met, tuple(sorted(roots_in(snapshots))), all_of(blobs_in(names)))

    def read(
        self,
        now: int,
        met: tuple[Any, ...],
        roots: tuple[Digest, ...],
        needed: Needed,
    ) -> Steps:
        if not roots:
            if not self.rules.has("age is judged at the listing"):
                now = yield lambda s: s.now
            return "remove", (self.plan(now, met, needed),)
        if (yield lambda s: s.is_whole(roots[0])):
            needed = tuple(sorted(merged(dict(needed), NEEDS[roots[0]]).items()))
        elif self.rules.has("a root that cannot be read ends the run"):
            return END
        return "read", (now, met, roots[1:], needed)

    def plan(self, now: int, met: tuple[Any, ...], needed: Needed) -> tuple[Any, ...]:
        grace = timedelta(seconds=self.rules.grace)
        plan = []
        for digest, meta in met:
            ranges = dict(needed).get(digest, ())
            kept = None if ranges is None else left_of(ranges, meta.size)
            is_kept = why_kept(
                pinned=meta.is_pinned and self.rules.has("what is pinned stays"),
                seen_at=at(meta.tick),
                listed_from=at(now),
                grace=grace,
            )
            if meta.is_there and kept is not None and is_kept is None:
                plan.append((digest, meta, kept))
        return tuple(plan)

    def remove(self, plan: tuple[Any, ...]) -> Steps:
        if not plan:
            return END
        (digest, meta, kept), rest = plan[0], plan[1:]
        if kept:
            return "repack", (digest, meta, kept, rest)

        def bury(s: Stores) -> bool:
            if s.revision(digest) != meta.revision and self.rules.has("compare-and-set"):
                return False
            s.write(digest, meta.nuid, there=False)
            return True

        def remove_chunks(s: Stores) -> None:
            by_name = not self.rules.has("the listed copy's chunks go")
            s.chunks.discard(s.metas[digest].nuid if by_name else meta.nuid)

        if not self.rules.has("the record goes first"):
            yield remove_chunks
            yield bury
        elif (yield bury):
            if not self.rules.has("the collector hears of its tombstone"):
                # The acknowledgement was lost: it looks, and sees whose tombstone is there.
                is_dead = (
                    yield lambda s: (
                        not s.metas[digest].is_there and s.metas[digest].nuid == meta.nuid
                    )
                )
                if not is_dead:
                    return "remove", (rest,)
            yield remove_chunks
        return "remove", (rest,)

    def repack(self, digest: Digest, meta: Meta, needed: Ranges, rest: tuple[Any, ...]) -> Steps:
        """Chunk and record are replaced in one batch; then the former chunk goes."""

        def swap(s: Stores) -> bool:
            if s.revision(digest) != meta.revision and self.rules.has("a repack is conditional"):
                return False
            present = s.metas[digest]
            kept = common(needed, present.kept or ((0, SIZE),))
            s.write(digest, s.new_chunk(self.me), kept=kept)
            return True

        early = not self.rules.has("the record goes first in a repack")
        if early:
            yield lambda s: s.chunks.discard(meta.nuid)
        if (yield swap) and not early:
            yield lambda s: s.chunks.discard(meta.nuid)
        return "remove", (rest,)


def all_of(blobs: frozenset[Digest]) -> Needed:
    """All of their bytes."""
    return tuple((one, None) for one in sorted(blobs))
