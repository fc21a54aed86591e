"""Live records that nobody carries on any more are given up.

Every worker looks; none needs to be told that another died. A lease has passed when this worker
has itself seen the record unchanged for that long, by its own monotonic clock. It never gives up
a record that it is itself at work on: it would know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from holdfast.errors import ConflictError, HoldfastError
from holdfast.repository.ledger.observations import Observations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast.repository.ledger.ledger import Held, Ledger, RecordKind

SWEEPS_PER_LEASE: Final = 4
"""Calls of ``sweep`` in the shortest lease."""

SWEEPS_THAT_COUNT: Final = 2
"""Between two looks at a record, so many intervals of sweeps count as time that it was seen."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched[RecordT: msgspec.Struct]:
    """A kind of record that has leases.

    ``give_up`` ends one (`Ledger.take`), with all else that has to be done. ``is_ours`` says
    whether this worker is itself at work on one.
    """

    kind: RecordKind[RecordT]
    lease_seconds: Callable[[RecordT], float]
    is_ours: Callable[[Held[RecordT]], bool]
    give_up: Callable[[Held[RecordT]], Awaitable[None]]


class Lapses:
    """Looks after the live records of all workers."""

    def __init__(
        self,
        ledger: Ledger,
        watched: Sequence[Watched[Any]],
        *,
        monotonic: Callable[[], float],
        sweep_seconds: float,
    ) -> None:
        """``monotonic`` gives seconds that only rise; ``sweep`` is called every ``sweep_seconds``.

        The shortest lease has ``SWEEPS_PER_LEASE`` calls.
        """
        self._ledger = ledger
        self._watched = watched
        self._observed = Observations(monotonic, max_gap_seconds=SWEEPS_THAT_COUNT * sweep_seconds)

    def unchanged_seconds(self, held: Held[Any]) -> float:
        """Seconds this worker has itself seen the record as it is."""
        return self._observed.unchanged_seconds(held.key, held.revision)

    async def sweep(self) -> int:
        """Give up lapsed records; their number."""
        given_up = 0
        seen: list[str] = []
        for watched in self._watched:
            async for held in self._ledger.live(watched.kind):
                seen.append(held.key)
                lease_seconds = watched.lease_seconds(held.record)
                if self.unchanged_seconds(held) >= lease_seconds and not watched.is_ours(held):
                    given_up += await _give_up(watched, held)
        self._observed.keep_only(seen)
        return given_up


async def _give_up(watched: Watched[Any], held: Held[Any]) -> bool:
    try:
        await watched.give_up(held)
    except ConflictError:
        return False  # it is alive, or another worker was quicker
    except HoldfastError as error:
        log.warning("lapse_not_recorded", kind=held.kind.noun, name=held.name, code=error.code)
        return False
    log.info("lapsed", kind=held.kind.noun, name=held.name)
    return True
