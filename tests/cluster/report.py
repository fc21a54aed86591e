"""A run in a few lines: how long writes stood still, and what was answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.history import Fault, History


_NAMED: Final = 20


def report(history: History) -> str:
    """The faults by kind, in seconds to the next acknowledged put, and the operations.

    Those that were not acknowledged are named, up to a few.
    """
    return "\n".join(
        (*_of_faults(history.faults), "", *_of_operations(history), *_not_acknowledged(history))
    )


def _not_acknowledged(history: History) -> Iterator[str]:
    failed = [str(operation) for operation in history.operations if operation.outcome != "ok"]
    yield from failed[:_NAMED]
    if len(failed) > _NAMED:
        yield f"… and {len(failed) - _NAMED} more"


def _of_faults(faults: list[Fault]) -> Iterator[str]:
    by_kind: defaultdict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    yield f"{'':20}       next ack, s   every writer  settled"
    yield f"{'fault':20} count  p50    max    max            max"
    for kind, some in sorted(by_kind.items()):
        next_acks = [fault.next_ack for fault in some]
        writers = max(fault.all_acks for fault in some)
        settled = max(fault.settled for fault in some)
        yield (
            f"{kind:20} {len(some):5} {median(next_acks):5.1f} {max(next_acks):6.1f}"
            f" {writers:6.1f} {settled:14.1f}"
        )


def _of_operations(history: History) -> Iterator[str]:
    outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for operation in history.operations:
        told = operation.outcome if operation.outcome == "ok" else operation.code
        outcomes[operation.kind][told or operation.outcome] += 1
    for kind, counted in sorted(outcomes.items()):
        told = ", ".join(f"{count} {outcome}" for outcome, count in counted.most_common())
        yield f"{kind:8} {told}"
