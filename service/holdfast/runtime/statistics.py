"""A worker's counts, in the form of ADR-32 answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol.message import WIRE_VERSION
from holdfast.protocol.operation import QUEUE_GROUP, AnyOperation

if TYPE_CHECKING:
    from collections.abc import Mapping


SERVICE_NAME: Final = "holdfast"
_PING: Final = "io.nats.micro.v1.ping_response"
_INFO: Final = "io.nats.micro.v1.info_response"
_STATS: Final = "io.nats.micro.v1.stats_response"


@dataclass(slots=True)
class EndpointStats:
    """Counters of one endpoint. Times in nanoseconds, as ADR-32 has them.

    ``refused_replies`` are requests that were dropped because of their reply subject, ``codes`` how
    often each code was the error.
    """

    requests: int = 0
    refused_replies: int = 0
    errors: int = 0
    last_error: str = ""
    processing_ns: int = 0
    codes: Counter[str] = field(default_factory=Counter)

    def count(self, elapsed_ns: int, error: str | None) -> None:
        """One request was answered."""
        self.requests += 1
        self.processing_ns += elapsed_ns
        if error is not None:
            self.errors += 1
            self.last_error = error
            self.codes[error] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """This worker's identity. ``metadata`` adds to discovery."""

    id: str
    version: str
    started: str
    metadata: Mapping[str, str]


@dataclass(slots=True)
class Discovery:
    """The answers to ``$SRV.PING``, ``INFO`` and ``STATS`` (ADR-32)."""

    identity: Identity
    subjects: Mapping[AnyOperation, str]
    stats: Mapping[AnyOperation, EndpointStats]

    def ping(self) -> dict[str, Any]:
        """Answer PING."""
        return self._answer(_PING)

    def info(self) -> dict[str, Any]:
        """Answer INFO."""
        return {
            **self._answer(_INFO),
            "description": "Keeps blobs and snapshots for services that speak NATS",
            "endpoints": [
                {
                    **self._endpoint(operation),
                    "metadata": {
                        "wire": str(WIRE_VERSION),
                        "request_schema": operation.schema_id("request"),
                        "reply_schema": operation.schema_id("reply"),
                    },
                }
                for operation in self.subjects
            ],
        }

    def statistics(self) -> dict[str, Any]:
        """Answer STATS."""
        return {
            **self._answer(_STATS),
            "started": self.identity.started,
            "endpoints": [self._counted(operation) for operation in self.subjects],
        }

    def _endpoint(self, operation: AnyOperation) -> dict[str, Any]:
        return {
            "name": operation.name,
            "subject": self.subjects[operation],
            "queue_group": QUEUE_GROUP if operation.queue else "",
        }

    def _counted(self, operation: AnyOperation) -> dict[str, Any]:
        stats = self.stats[operation]
        return {
            **self._endpoint(operation),
            "num_requests": stats.requests,
            "num_errors": stats.errors,
            "last_error": stats.last_error,
            "processing_time": stats.processing_ns,
            "average_processing_time": stats.processing_ns // max(stats.requests, 1),
            # Optional in ADR-32, but nats-py fails to read an answer without it.
            "data": {"refused_replies": stats.refused_replies},
        }

    def _answer(self, kind: str) -> dict[str, Any]:
        return {
            "type": kind,
            "name": SERVICE_NAME,
            "id": self.identity.id,
            "version": self.identity.version,
            "metadata": dict(self.identity.metadata),
        }
