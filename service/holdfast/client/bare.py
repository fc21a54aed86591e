"""Reading small blobs ``bare``: a worker has the store send them, and does no more.

An answer has no head, and only its digest says that it is the blob asked for. After any other
answer, or none, the blob is asked for again without ``bare``.

Where another account imports the service, nothing that the store sends arrives, and nothing tells.
So the first small blob of a connection that has come is asked for once more, bare, while nobody
waits for it: only where that arrives, reads are made so from then on.

Why: docs/decisions.md, "The store answers small gets, once that is seen to work".
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.client.trace import trace_headers
from holdfast.domain.limits import KIB
from holdfast.errors import (
    HoldfastError,
    InvalidError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)
from holdfast.protocol import codec
from holdfast.protocol import headers as names
from holdfast.protocol.blobs import GET_BLOB, BlobHead, GetBlob

if TYPE_CHECKING:
    from holdfast.client.budget import ByteBudget
    from holdfast.tracing import Tracer
    from holdfast.transport.connection import Connection
    from holdfast.transport.inbox import Inbox
    from holdfast.transport.message import Message

SILENCE_SECONDS: Final = 2.0
"""Time to wait for an answer: a worker that has none says so, the store may not."""

MOST_TRIED_BYTES: Final = 64 * KIB
"""Of a blob that is asked for once more only to see whether it arrives."""


class BareReads:
    """Bare reads on one connection: what is known of them, and how they are made."""

    def __init__(
        self,
        connection: Connection,
        inbox: Inbox,
        budget: ByteBudget,
        *,
        subject: str,
        timeout_seconds: float,
        tracer: Tracer,
    ) -> None:
        """``subject`` is that of ``blob.get``; ``timeout_seconds`` the deadline of a request."""
        self._tracer = tracer
        self._liveness = connection.liveness
        self._inbox = inbox
        self._budget = budget
        self._subject = subject
        self._timeout_seconds = timeout_seconds
        self.is_on = False
        self._trying: asyncio.Task[None] | None = None

    def try_once(self, digest: str, size: int) -> None:
        """See whether the blob, which has just come otherwise, arrives; nothing is awaited."""
        if self._trying is None and size <= MOST_TRIED_BYTES:
            self._trying = asyncio.create_task(self._try(GetBlob(digest=digest)))

    async def _try(self, request: GetBlob) -> None:
        try:
            message = await self._request(request)
        except (HoldfastError, TimeoutError):
            return
        is_stored = names.BLOB_SIZE not in message.headers  # else a worker has sent it
        self.is_on = is_stored and whole_blob(message, request.digest) is not None

    async def ask(
        self, request: GetBlob, most_bytes: int
    ) -> tuple[BlobHead | None, bytes | memoryview] | None:
        """The whole blob, or the head and the bytes of an answer that holds up to ``most_bytes``.

        None: ask again without ``bare``. Raises what the worker answered, if that is of no use.
        """
        taken = await self._budget.take(most_bytes)
        asked_at = time.monotonic()
        try:
            message = await self._request(request)
        except TimeoutError:
            self._liveness.unanswered(asked_at)
            # It does not arrive any more: it is not waited for again before it is seen to.
            self.is_on, self._trying = False, None
        except (UnavailableError, OutcomeUnknownError):
            self._liveness.nobody(asked_at)
        except InvalidError:  # of a worker of before there was ``bare``
            self.is_on = False
        except RateLimitedError:
            pass
        else:
            if names.BLOB_SIZE in message.headers:
                return codec.decode_reply_headers(message.headers, BlobHead), message.data
            data = whole_blob(message, request.digest)
            return None if data is None else (None, data)
        finally:
            self._budget.give_back(taken)
        return None

    async def _request(self, request: GetBlob) -> Message:
        """Raises as ``Inbox.request``, and what the worker answered."""
        with self._tracer.asking(GET_BLOB.subject):
            message = await self._inbox.request(
                self._subject,
                codec.encode(msgspec.structs.replace(request, bare=True)),
                headers=trace_headers() or None,
                timeout_seconds=min(SILENCE_SECONDS, self._timeout_seconds),
            )
            codec.raise_error(message.headers, message.data)
        return message


def whole_blob(message: Message, digest: str | None) -> bytes | memoryview | None:
    """The bytes of the blob, by any sender; None: ask again without ``bare``.

    Raises what a worker answered, but InvalidError: one of before there was ``bare`` refuses it.
    """
    headers = message.headers
    try:
        codec.raise_error(headers, message.data)
    except InvalidError:
        return None
    if not message.data and names.BLOB_SIZE not in headers:
        return None  # a status of the server's own, which is not the empty blob
    is_it = hashlib.sha256(message.data).hexdigest() == digest
    return message.data if is_it and names.BLOB_PARTS not in headers else None
