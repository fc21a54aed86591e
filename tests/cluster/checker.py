"""Judges a run: what was answered to whom, and what was found when all was over.

Plain functions of a history and of what was found; they reach nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from tests.cluster.history import WRITES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.cluster.history import History, Operation
    from tests.cluster.servers import View

type Sight = Literal["right", "missing", "wrong"]

UNDER_FAULTS: Final = frozenset({"unavailable", "outcome_unknown", "rate_limited"})
"""The outcomes that a fault may give any operation."""


@dataclass(slots=True, kw_only=True)
class Found:
    """The content once all servers and workers were well again.

    ``sights`` holds one or more of each blob and snapshot, each with who saw it; ``restored`` what
    lies at the targets of restores that were not acknowledged.
    """

    sights: dict[str, list[tuple[str, Sight]]] = field(default_factory=lambda: defaultdict(list))
    restored: dict[str, Sight] = field(default_factory=dict)
    views: dict[str, dict[str, View]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept, with the history of its key."""

    says: str
    key: str
    story: str = ""

    def __str__(self) -> str:
        return f"{self.says}: {self.key}\n{self.story}"


def violations(history: History, found: Found) -> list[Violation]:
    """Everything that is not as promised."""
    by_key: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        by_key[operation.key].append(operation)
    told: list[tuple[str, str]] = []
    for operation in history.operations:
        told += ((says, operation.key) for says in _of_answer(operation, by_key[operation.key]))
        if operation.target in found.restored:
            sight = found.restored[operation.target]
            told += ((says, operation.key) for says in _of_target(operation, sight))
    for key, operations in by_key.items():
        told += ((says, key) for says in _of_end(operations, found.sights.get(key, [])))
    told += _of_views(found.views)
    return [Violation(says, key, history.around(key)) for says, key in dict.fromkeys(told)]


def _of_answer(operation: Operation, same_key: list[Operation]) -> Iterator[str]:
    """The faults of an answer, whatever is found in the end."""
    if operation.outcome == "under way":
        yield f"a {operation.kind} never ended"
    if operation.outcome == "wrong":
        yield f"a {operation.kind} was answered with what was not stored"
    if operation.outcome not in {"failed", "unknown"}:
        return
    if operation.code == "not_found":
        if _surely_there(operation, same_key):
            yield f"a {operation.kind} did not find what was acknowledged and not deleted"
    elif operation.code not in UNDER_FAULTS:
        yield f"a {operation.kind} failed with {operation.code}, which no fault explains"


def _surely_there(operation: Operation, same_key: list[Operation]) -> bool:
    """Acknowledged before it was asked for, and not asked to be deleted until it was answered."""
    acknowledged = any(
        o.kind in WRITES | {"create"} and o.outcome == "ok" and o.end <= operation.start
        for o in same_key
    )
    deleted = any(o.kind == "delete" and o.start <= operation.end for o in same_key)
    return acknowledged and not deleted


def _of_end(operations: list[Operation], sights: list[tuple[str, Sight]]) -> Iterator[str]:
    """The faults of the content found under one key."""
    makings = [o for o in operations if o.kind in WRITES | {"create"}]
    if not makings or all(o.kind == "create" and o.outcome != "ok" for o in makings):
        return  # a snapshot whose key nobody was told
    allowed = _allowed(makings, [o for o in operations if o.kind == "delete"])
    if not sights:
        yield "nobody looked whether it is there"
    for seer, sight in sights:
        if sight not in allowed:
            yield f"{seer} found it {sight}, and it should be {' or '.join(sorted(allowed))}"


def _allowed(makings: list[Operation], deletions: list[Operation]) -> set[Sight]:
    """How it may be found: applied, surely not applied, and unknown are three outcomes."""
    if any(o.outcome == "ok" for o in deletions):
        return {"missing"}
    may_be_deleted = any(o.outcome == "unknown" for o in deletions)
    if any(o.outcome == "ok" for o in makings):
        return {"right", "missing"} if may_be_deleted else {"right"}
    if any(o.outcome == "unknown" for o in makings):
        return {"right", "missing"}
    return {"missing"}


def _of_target(operation: Operation, sight: Sight) -> Iterator[str]:
    """The faults of the place where a restore went."""
    allowed: set[Sight] = {"missing"} if operation.outcome == "failed" else {"missing", "right"}
    if sight not in allowed:
        yield f"a restore ended {operation.outcome}, and its target is {sight}: {operation.target}"


def _of_views(views: Mapping[str, Mapping[str, View]]) -> Iterator[tuple[str, str]]:
    for stream, by_server in views.items():
        if len(set(by_server.values())) > 1:
            shown = "; ".join(f"{server}: {view}" for server, view in sorted(by_server.items()))
            yield f"the replicas differ ({shown})", stream
