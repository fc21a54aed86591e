"""The workers of a pool, as each answers for itself (ADR-32)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.protocol.blobs import PUT_BLOB
from holdfast.transport.inbox import NoRespondersError, raise_for_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.client.requests import Requester
    from holdfast.transport.message import Message

DISCOVERY_SECONDS: Final = 0.5
_SUBJECT: Final = "$SRV.STATS.holdfast"
_WAITS: Final = 4
_UNDECODABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class EndpointInfo(msgspec.Struct, frozen=True):
    """A worker's account of one endpoint (ADR-32)."""

    name: str
    subject: str
    num_requests: int = 0
    num_errors: int = 0


class WorkerInfo(msgspec.Struct, frozen=True):
    """A worker's account of itself (ADR-32 STATS)."""

    name: str
    id: str
    version: str
    started: str = ""
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    endpoints: list[EndpointInfo] = msgspec.field(default_factory=list)

    @property
    def features(self) -> frozenset[str]:
        """Abilities of it that earlier workers lack."""
        return frozenset(filter(None, self.metadata.get("features", "").split(",")))

    @property
    def requests(self) -> int:
        """The count of requests answered."""
        return sum(endpoint.num_requests for endpoint in self.endpoints)

    @property
    def errors(self) -> int:
        """Those with an error."""
        return sum(endpoint.num_errors for endpoint in self.endpoints)


async def find_workers(requester: Requester, wait_seconds: float) -> Sequence[WorkerInfo]:
    """The workers of this deployment that answer, by node. See ``Client.workers``."""
    deadline = asyncio.get_running_loop().time() + _WAITS * wait_seconds
    requester.check_usable()
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    mailbox = requester.inbox.open(arrived.put_nowait, _SUBJECT)
    of_pool = requester.subject(PUT_BLOB)
    found: list[WorkerInfo] = []
    try:
        requester.connection.send(_SUBJECT, reply=mailbox.subject)
        async with asyncio.timeout_at(deadline):
            message = await arrived.get()
            while True:
                raise_for_status(message, _SUBJECT)
                worker = _worker_of(message)
                if worker is not None and any(e.subject == of_pool for e in worker.endpoints):
                    found.append(worker)
                async with asyncio.timeout(wait_seconds):
                    message = await arrived.get()
    except (TimeoutError, NoRespondersError):
        pass
    finally:
        mailbox.close()
    return sorted(found, key=lambda worker: (worker.metadata.get("node", ""), worker.id))


def _worker_of(message: Message) -> WorkerInfo | None:
    try:
        return msgspec.json.decode(message.data, type=WorkerInfo)
    except _UNDECODABLE:
        return None
