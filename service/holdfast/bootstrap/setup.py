"""The values from which every part of a worker is put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.domain import limits
from holdfast.tracing import NO_TRACER, Tracer

if TYPE_CHECKING:
    from datetime import timedelta

    from holdfast.runtime.config import Config
    from holdfast.sources import Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The configuration of a worker, and the stores that it found.

    ``worker`` is its id, ``max_payload`` the server's, in bytes, and ``grace`` the collector's.
    """

    config: Config
    sources: Sources
    worker: str
    max_payload: int
    grace: timedelta
    tracer: Tracer = NO_TRACER

    @property
    def max_inline_bytes(self) -> int:
        """See `limits.max_inline_bytes`."""
        return limits.max_inline_bytes(self.max_payload)

    @property
    def part_bytes(self) -> int:
        """See `limits.part_bytes`."""
        return limits.part_bytes(self.max_payload)
