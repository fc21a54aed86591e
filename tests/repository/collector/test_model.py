"""Every interleaving of writers, deleters, readers and collectors, with everybody's crash at each.

Time protects nothing, unless a scenario has a clock: any blob may be removed at the moment it is
listed, and every pause is possible. In every state that can be reached "all crash now" is tried:
what is pending lapses, collections run until nothing changes, and then whatever was acknowledged
must be there, and nothing that nothing needs. Each rule is left out once, and that is found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from tests.repository.collector.explorer import Found, explore, run_alone
from tests.repository.collector.processes import (
    BlobDeleter,
    Clock,
    Collector,
    NameCopier,
    NameDeleter,
    NameLapse,
    NameWriter,
    Putter,
    Reader,
    Rules,
    SnapshotDeleter,
    SnapshotLapse,
    SnapshotWriter,
)
from tests.repository.collector.world import (
    BEGAN,
    R0,
    R1,
    R2,
    RF,
    RG,
    B,
    C,
    Meta,
    P,
    Q,
    Stores,
    lost,
    needed_now,
    snapshot,
)

from holdfast.domain.collection import left_of
from holdfast.repository.names.record import (
    Keep,
    NamedContent,
    NameRecord,
    Step,
    failed,
)

if TYPE_CHECKING:
    from holdfast.domain.digest import Digest
    from holdfast.domain.kept import Ranges

LIMIT: Final = 2_000_000
PACKS: Final = (P, Q, R0, R1)
PARTS: Final = (P, RF, RG)
TWO_VERSIONS: Final = Keep(versions=2)


@dataclass(frozen=True)
class Scenario:
    """The content at first, and those at work beside collectors of all ``blobs``."""

    first: Callable[[Stores], None]
    processes: Callable[[Rules], list[Any]]
    blobs: tuple[Digest, ...] = PACKS
    collectors: int = 1
    grace: float = -1
    keep: Keep = field(default_factory=Keep)
    is_long: bool = False


def stored(s: Stores, *blobs: Digest, pinned: bool = False) -> None:
    """Blobs that were put long ago."""
    for digest in blobs:
        s.write(digest, s.new_chunk("old"), pinned=pinned)


def ok(s: Stores, key: str, root: Digest) -> None:
    """A snapshot that was made long ago."""
    s.put_snapshot(key, snapshot(key, digest=root))


def a_parent(s: Stores) -> None:
    """S0 is ok."""
    stored(s, P, R0)
    ok(s, "S0", R0)


def a_parent_beside(s: Stores) -> None:
    """S1, which has all, is ok, and S0 too."""
    stored(s, *PACKS)
    ok(s, "S0", R0)
    ok(s, "S1", R1)


def a_part_and_all(s: Stores) -> None:
    """SF, which needs a frame of P, is ok, and SG, which needs both."""
    stored(s, P, RF, RG)
    ok(s, "SF", RF)
    ok(s, "SG", RG)


def a_part(s: Stores) -> None:
    """SF, which needs a frame of P, is ok; P is whole."""
    stored(s, P, RF)
    ok(s, "SF", RF)


def old_packs(s: Stores) -> None:
    """Packs that nothing needs."""
    stored(s, P, Q)


def an_old_pack(s: Stores) -> None:
    """A pack that nothing needs."""
    stored(s, P)


def a_name(s: Stores) -> None:
    """A name has B; C is there, and nothing needs it."""
    stored(s, B, C)
    content = NamedContent(digest=B, size=1, type="a/b")
    s.put_name("n", NameRecord(name="n", state="ok", version=1, oldest=1, content=content))


def old_blobs(s: Stores) -> None:
    """A blob without a pin that nothing needs."""
    stored(s, B)


def pinned_blob(s: Stores) -> None:
    """A blob with a pin."""
    stored(s, B, pinned=True)


SCENARIOS: Final = {
    "a child whose parent is deleted, two collectors": Scenario(
        a_parent,
        lambda r: [SnapshotWriter(r, "w", R2, "S0"), SnapshotDeleter("S0")],
        blobs=(P, R0, R2),
        collectors=2,
    ),
    "a larger child whose parent is deleted, two collectors": Scenario(
        a_parent,
        lambda r: [SnapshotWriter(r, "w", R1, "S0"), SnapshotDeleter("S0")],
        is_long=True,
        collectors=2,
    ),
    "a child of all, whose parent is deleted": Scenario(
        a_parent_beside,
        lambda r: [SnapshotWriter(r, "w", R1, "S1"), SnapshotDeleter("S1")],
    ),
    "a writer without a parent finds old packs": Scenario(
        old_packs,
        lambda r: [SnapshotWriter(r, "w", R1)],
        is_long=True,
        collectors=2,
    ),
    "a writer finds an old pack": Scenario(
        an_old_pack,
        lambda r: [SnapshotWriter(r, "w", R0)],
        blobs=(P, R0),
        collectors=2,
    ),
    "two writers of the same packs": Scenario(
        an_old_pack,
        lambda r: [SnapshotWriter(r, "w", R0), SnapshotWriter(r, "v", R0)],
        blobs=(P, R0),
        is_long=True,
    ),
    "a writer that lapses": Scenario(
        a_parent,
        lambda r: [SnapshotWriter(r, "w", R1, "S0"), SnapshotLapse("w"), SnapshotDeleter("S0")],
    ),
    "a reader, a deleter, two collectors": Scenario(
        a_parent,
        lambda r: [Reader(r, "S0", P), SnapshotDeleter("S0"), SnapshotWriter(r, "w", R0)],
        blobs=(P, R0),
        collectors=2,
    ),
    "time passes beside a writer": Scenario(
        an_old_pack,
        lambda r: [SnapshotWriter(r, "w", R0), Clock(6)],
        blobs=(P, R0),
        grace=2,
    ),
    "repack: a writer of all, a deleter": Scenario(
        a_part_and_all,
        lambda r: [SnapshotWriter(r, "w", RG), SnapshotDeleter("SG")],
        blobs=PARTS,
    ),
    "repack: the same, two collectors": Scenario(
        a_part_and_all,
        lambda r: [SnapshotWriter(r, "w", RG), SnapshotDeleter("SG")],
        blobs=PARTS,
        is_long=True,
        collectors=2,
    ),
    "repack: a child that needs more than its parent": Scenario(
        a_part,
        lambda r: [SnapshotWriter(r, "w", RG, "SF"), SnapshotDeleter("SF")],
        blobs=PARTS,
    ),
    "repack: a client's child of what is deleted": Scenario(
        a_part_and_all,
        lambda r: [SnapshotWriter(r, "w", RG, "SG", is_client=True), SnapshotDeleter("SG")],
        blobs=PARTS,
    ),
    "repack: a client's child of a part, two collectors": Scenario(
        a_part_and_all,
        lambda r: [
            SnapshotWriter(r, "w", RF, "SF", is_client=True),
            SnapshotDeleter("SF"),
            SnapshotDeleter("SG"),
        ],
        blobs=PARTS,
        is_long=True,
        collectors=2,
    ),
    "repack: a reader": Scenario(
        a_part_and_all,
        lambda r: [Reader(r, "SF", P), SnapshotDeleter("SG")],
        blobs=PARTS,
        collectors=2,
    ),
    "repack: time passes beside a writer": Scenario(
        a_part,
        lambda r: [SnapshotWriter(r, "w", RG), Clock(6)],
        blobs=PARTS,
        grace=2,
        is_long=True,
    ),
    "names: create, copy, collectors": Scenario(
        old_blobs,
        lambda r: [NameWriter(r, "w", "create", B), NameCopier(r, "v", B)],
        blobs=(B,),
        collectors=2,
    ),
    "names: replace, delete, lapse": Scenario(
        a_name,
        lambda r: [NameWriter(r, "w", "replace", C), NameDeleter(r), NameLapse(r, "w")],
        blobs=(B, C),
    ),
    "names: a streamed write": Scenario(
        old_blobs,
        lambda r: [NameWriter(r, "w", "create", B, streamed=True), NameLapse(r, "w")],
        blobs=(B,),
        collectors=2,
    ),
    "names: versions, one restored": Scenario(
        a_name,
        lambda r: [NameWriter(r, "w", "replace", C), NameDeleter(r)],
        blobs=(B, C),
        keep=TWO_VERSIONS,
        collectors=2,
    ),
    "blobs: a plain put, a deleter by digest, a name": Scenario(
        old_blobs,
        lambda r: [Putter(r, "p"), BlobDeleter(r, "d"), NameWriter(r, "w", "create", B)],
        blobs=(B,),
    ),
    "blobs: a deleter by digest takes the pin, a copy": Scenario(
        pinned_blob,
        lambda r: [BlobDeleter(r, "d"), NameCopier(r, "w", B), NameDeleter(r)],
        blobs=(B,),
        collectors=2,
    ),
}

LOSSES: Final = {
    "touch": "a writer finds an old pack",
    "announce": "a writer finds an old pack",
    "what is announced is a root": "a writer finds an old pack",
    "the listing comes first": "a writer finds an old pack",
    "compare-and-set": "a writer finds an old pack",
    "the scan goes to the end": "a writer finds an old pack",
    "the parent is read again": "a child of all, whose parent is deleted",
    "the commit is conditional": "a writer that lapses",
    "a root that cannot be read ends the run": "a child whose parent is deleted, two collectors",
    "the record goes first": "a writer finds an old pack",
    "the listed copy's chunks go": "two writers of the same packs",
    "a tombstone's chunks stay dead": "a writer finds an old pack",
    "what was put is touched": "time passes beside a writer",
    "lately is by the store's clock": "time passes beside a writer",
    "age is judged at the listing": "time passes beside a writer",
    "a name is announced": "names: create, copy, collectors",
    "hit touches": "names: create, copy, collectors",
    "a copy touches": "names: create, copy, collectors",
    "the touch follows the promise": "names: a streamed write",
    "versions are roots": "names: versions, one restored",
    "a touch asks for the bytes needed": "repack: a writer of all, a deleter",
    "a repack is conditional": "repack: a writer of all, a deleter",
    "the record goes first in a repack": "repack: a writer of all, a deleter",
    "what was put is not vouched for": "repack: a child that needs more than its parent",
    "a reader looks again": "repack: a reader",
    "hit pins": "blobs: a plain put, a deleter by digest, a name",
    "what is pinned stays": "blobs: a plain put, a deleter by digest, a name",
}


def examine(scenario: Scenario, *without: str, limit: int = LIMIT) -> Found:
    """All states of a scenario, under all rules but these."""
    rules = Rules(grace=scenario.grace, without=frozenset(without), keep=scenario.keep)
    first = Stores()
    scenario.first(first)

    def complain(frozen: Any) -> str | None:
        return lost(Stores.thaw(frozen), scenario.keep) or after_the_crash(frozen, scenario, rules)

    collectors = [Collector(rules, me, scenario.blobs) for me in "xy"[: scenario.collectors]]
    processes = [*scenario.processes(rules), *collectors]
    return explore(processes, first.freeze(), Stores.thaw, complain, limit=limit)


def after_the_crash(frozen: Any, scenario: Scenario, rules: Rules) -> str | None:
    """The faults once all have crashed, and collections have come to rest."""
    s = Stores.thaw(frozen)
    s.now += 100
    for key in [*s.snapshots]:
        record = s.snapshot(key)
        if record is not None and record.state == "pending":
            s.put_snapshot(key, msgspec.structs.replace(record, state="failure"))
    name = s.name("n")
    step = Step(worker="l", at=BEGAN, keep=scenario.keep)
    for one in name.pending if name is not None else ():
        name = s.name("n")
        assert name is not None
        s.put_name("n", failed(name, one.op, "lapsed", step))
    collector = Collector(Rules(grace=scenario.grace), "z", scenario.blobs)
    before = None
    after = s.freeze()
    while after != before:
        before, after = after, run_alone(collector, after, Stores.thaw)
    s = Stores.thaw(after)
    complaint = lost(s, scenario.keep)
    if complaint is not None:
        return f"after the collections: {complaint}"
    needed = needed_now(s)
    left = [
        digest
        for digest, meta in s.metas.items()
        if meta.is_there and not meta.is_pinned and is_left(meta, needed.get(digest, ()))
    ]
    return f"{[digest[:1] for digest in left]} are left" if left else None


def is_left(meta: Meta, needed: Ranges | None) -> bool:
    """Whether so little of it is needed that it should be gone, or partial."""
    return needed is not None and left_of(needed, meta.size) is not None


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long) if scenario.is_long else name
        for name, scenario in SCENARIOS.items()
    ],
)
def test_nothing_is_lost_and_nothing_is_left_in_any_interleaving(name: str) -> None:
    found = examine(SCENARIOS[name])

    assert found.complaint is None, "\n".join(found.steps)
    assert found.states > 100


@pytest.mark.parametrize("rule", LOSSES)
def test_without_the_rule_something_is_lost(rule: str) -> None:
    found = examine(SCENARIOS[LOSSES[rule]], rule)

    assert found.complaint is not None


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("two writers of the same packs", marks=pytest.mark.long),
        "a writer finds an old pack",
        "names: create, copy, collectors",
        "blobs: a plain put, a deleter by digest, a name",
    ],
)
def test_a_collector_that_does_not_hear_of_its_own_tombstone_loses_nothing(name: str) -> None:
    found = examine(SCENARIOS[name], "the collector hears of its tombstone")

    assert found.complaint is None, "\n".join(found.steps)


def test_a_put_that_takes_a_partial_pack_for_a_whole_one_is_found_out_by_its_touch() -> None:
    scenario = SCENARIOS["repack: a writer of all, a deleter"]

    assert examine(scenario, "a put finds no partial pack").complaint is None


def test_of_the_parents_root_and_its_second_reading_one_may_come_early_but_not_both() -> None:
    scenario = SCENARIOS["a child whose parent is deleted, two collectors"]
    rules = "the parent's root is a root", "the parent is read again after the announcement"

    assert examine(scenario, *rules).complaint is not None
