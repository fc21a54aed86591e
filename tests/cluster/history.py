"""The clients' calls and their outcomes, in order: the checker judges them.

Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

type Kind = Literal["put", "upload", "get", "delete", "create", "restore", "read", "verify"]
type Outcome = Literal["under way", "ok", "failed", "unknown", "wrong"]
type Fate = Literal["kept", "doomed"]

WRITES: frozenset[Kind] = frozenset({"put", "upload"})


@dataclass(slots=True, kw_only=True)
class Operation:
    """One call of a client.

    ``key`` is a digest, or a snapshot's key, or while that is not known the app's name;
    ``target`` where a restore goes. Besides what the client raised (``failed`` and ``unknown``,
    with the ``code``) an answer may be ``wrong``: it was given, and is not what was stored.
    """

    kind: Kind
    key: str
    client: str
    start: float
    end: float = math.inf
    outcome: Outcome = "under way"
    code: str = ""
    note: str = ""
    target: str = ""

    def __str__(self) -> str:
        took = f"{self.start:.3f} to {self.end:.3f} s"
        told = " ".join(filter(None, (self.outcome, self.code, self.note)))
        return f"{took} {self.client}: {self.kind} {self.key}: {told}"


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault: on what, from when to when, and how long until writes went on.

    ``next_ack`` counts from ``start``, to the answer to the first put sent after it; ``all_acks``
    until each client had one. ``settled`` counts from ``end`` to when all replicas were current.
    """

    kind: str
    on: str
    start: float
    end: float = math.inf
    next_ack: float = math.inf
    all_acks: float = 0.0
    settled: float = math.inf

    def __str__(self) -> str:
        return f"{self.start:.3f} to {self.end:.3f} s fault: {self.kind} ({self.on})"


class History:
    """Operations as they begin, and the faults."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic; the history counts from now."""
        self._clock = clock
        self._zero = clock()
        self.operations: list[Operation] = []
        self.faults: list[Fault] = []
        self._waiting: list[tuple[Callable[[Operation], bool], asyncio.Future[Operation]]] = []

    def now(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._zero

    def begin(self, kind: Kind, key: str, client: str, target: str = "") -> Operation:
        """An operation is about to be sent."""
        operation = Operation(kind=kind, key=key, client=client, start=self.now(), target=target)
        self.operations.append(operation)
        return operation

    def end(self, operation: Operation, outcome: Outcome, code: str = "", note: str = "") -> None:
        """It was answered, or given up."""
        operation.end = self.now()
        operation.outcome, operation.code, operation.note = outcome, code, note
        for entry in [*self._waiting]:
            wanted, future = entry
            if not future.done() and wanted(operation):
                future.set_result(operation)

    async def wait_acknowledged(
        self, since: float, clients: frozenset[str] = frozenset()
    ) -> Operation:
        """The next acknowledged put that was sent after ``since`` by one of ``clients``, or any."""

        def wanted(operation: Operation) -> bool:
            return (
                operation.kind == "put"
                and operation.outcome == "ok"
                and operation.start >= since
                and (not clients or operation.client in clients)
            )

        for operation in self.operations:
            if wanted(operation):
                return operation
        future: asyncio.Future[Operation] = asyncio.get_running_loop().create_future()
        entry = (wanted, future)
        self._waiting.append(entry)
        try:
            return await future
        finally:
            self._waiting.remove(entry)

    def around(self, key: str) -> str:
        """The calls on ``key``, and the faults meanwhile, as lines."""
        operations = [operation for operation in self.operations if operation.key == key]
        last = max((o.end for o in operations if o.end < math.inf), default=math.inf)
        first = min((o.start for o in operations), default=0.0)
        faults = [f for f in self.faults if f.end >= first and f.start <= last]
        lines: list[Operation | Fault] = [*operations, *faults]
        lines.sort(key=lambda each: each.start)
        return "\n".join(f"  {line}" for line in lines)
