"""A streamed put: parts in a window, and a new worker when the old one falls silent.

The client keeps exactly what is not acknowledged, so even a pipe survives the death of the worker
that took it: ``blob.resume`` says which part the new owner wants next, and that is never one that
was let go of (a part is acknowledged when JetStream has it).

Why: docs/decisions.md, "The end may ride on the last part", and "A sender that has nothing to send
says so".
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from holdfast.client.requests import ATTEMPT_SECONDS, Requester, worker_seconds
from holdfast.client.trace import trace_headers
from holdfast.domain.digest import Digest
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InternalError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)
from holdfast.protocol import codec
from holdfast.protocol import headers as names
from holdfast.protocol.blobs import (
    ABORT_UPLOAD,
    OPEN_UPLOAD,
    PUT_PART,
    RESUME_UPLOAD,
    AbortUpload,
    OpenUpload,
    PartStored,
    PutPart,
    ResumeUpload,
    UploadState,
)
from holdfast.protocol.names import OPEN_NAME, OpenName
from holdfast.transport.backoff import Backoff
from holdfast.transport.inbox import Mailbox, NoRespondersError, raise_for_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from holdfast.client.sources import OnBytes
    from holdfast.transport.message import Message

STALL_SECONDS: Final = 5.0
"""No part acknowledged for so long: the worker is taken for dead."""

RESUME_TIMEOUTS: Final = 2
"""Time-outs of the client that an upload may go on without progress: a worker may die and a leader
too."""

COPY_BYTES_PER_SECOND: Final = 20 * 1024 * 1024
"""The slowest that a new owner may copy stored bytes before resuming is given up."""

FIRST_WAIT_SECONDS: Final = 0.05
MAX_WAIT_SECONDS: Final = 2.0
"""Before an upload is resumed."""

_RENEWALS_PER_LEASE: Final = 4
_SETTLE_SECONDS: Final = 2.0
RESUMABLE: Final = (UnavailableError, OutcomeUnknownError, ConflictError, RateLimitedError)
"""Failures after which any worker is asked to own the upload; see ``is_of_name``."""


class Uploaded(NamedTuple):
    """The result of an upload: a blob, and perhaps a version of a name."""

    digest: str
    size: int
    created: bool
    name: str | None
    version: int | None

    @property
    def offset(self) -> int:
        """Bytes that it holds: all of them."""
        return self.size


class Upload:
    """One upload, from open to commit. Used once."""

    def __init__(
        self,
        requester: Requester,
        *,
        progress: OnBytes | None,
        total: int | None,
    ) -> None:
        """``progress`` is told (bytes acknowledged, ``total``: what is expected in all)."""
        self._requester = requester
        self._progress = progress
        self._state = UploadState()
        self._sha256 = hashlib.sha256()
        self._unacked: OrderedDict[int, memoryview] = OrderedDict()
        self._mailboxes: dict[int, Mailbox] = {}
        self._sent = 0
        self._size = 0
        self._acked_bytes = 0
        self._total = total
        self._changed = asyncio.Event()
        self._failure: HoldfastError | None = None
        self._end_was_sent = False
        self._stuck_since: float | None = None
        self._stuck_bytes = 0
        self._backoff = Backoff(FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS)
        self._turn = asyncio.Lock()

    async def open(self, request: OpenUpload | OpenName) -> Uploaded | None:
        """Begin; the stored blob when there is nothing to upload."""
        if isinstance(request, OpenUpload):
            self._state = await self._requester.ask(OPEN_UPLOAD, request)
        else:
            self._state = await self._requester.ask(OPEN_NAME, request)
        stored = uploaded_of(self._state)
        if self._state.next_part or (stored is not None and request.digest is None):
            msg = "the answer is to another request: nothing has been sent of this upload"
            raise CorruptError(msg)
        return stored

    @property
    def part_size(self) -> int:
        """The exact size of every part but the last, in bytes."""
        return self._state.part_size or 1

    async def send(self, parts: AsyncIterator[memoryview]) -> Uploaded:
        """Send all parts and commit; the caller has ``open``ed. Every byte's digest is compared.

        While ``parts`` give nothing the upload is kept alive. Until its end was sent, nothing is
        stored for sure: UnavailableError says so.
        """
        keeping = asyncio.create_task(self._keep_alive())
        try:
            async for data in parts:
                async with self._turn:
                    self._sha256.update(data)
                    self._size += len(data)
                    await self._wait_for_room(len(data))
                    self._unacked[self._sent] = data
                    self._send_part(self._sent)
                    self._sent += 1
            async with self._turn:
                keeping.cancel()
            return await self._finish()
        except BaseException as error:
            keeping.cancel()
            await asyncio.shield(self._abort())
            if isinstance(error, OutcomeUnknownError) and not self._end_was_sent:
                raise UnavailableError(error.detail) from error
            raise
        finally:
            self._forget_mailboxes()

    async def _keep_alive(self) -> None:
        """Renew the lease while nothing is sent, and find another worker if that one is gone."""
        while self._state.lease_seconds is not None:  # an older worker takes no word of it
            sent = self._sent
            await asyncio.sleep(self._state.lease_seconds / _RENEWALS_PER_LEASE)
            if self._sent != sent:
                continue
            async with self._turn:
                try:
                    await self._renew()
                except HoldfastError as error:
                    self._fail(error)
                    return

    async def _renew(self) -> None:
        failure = self._failure
        if failure is None:
            try:
                await ask_owner(self._requester, self._state, PutPart(keep=True))
            except HoldfastError as error:
                failure = error
        if failure is not None:
            await self._recover(failure)

    async def _wait_for_room(self, size: int) -> None:
        window = self._state.window or self.part_size
        while self._unacked and (len(self._unacked) * self.part_size + size) > window:
            await self._wait_for_acks()

    async def _wait_for_acks(self) -> None:
        """Wait for any news; when there are none, find another worker."""
        if self._failure is None:
            waiting_since = time.monotonic()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                self._requester.connection.liveness.unanswered(waiting_since)
                self._failure = UnavailableError("the worker that took the parts fell silent")
        self._changed.clear()
        if self._failure is not None:
            await self._recover(self._failure)

    def _send_part(self, part: int) -> None:
        subject = self._state.part_subject or ""
        mailbox = self._requester.inbox.open(lambda message: self._receive(part, message), subject)
        self._mailboxes[part] = mailbox
        try:
            self._requester.connection.send(
                subject,
                self._unacked[part],
                reply=mailbox.subject,
                headers={names.BLOB_PART: str(part)} | trace_headers(),
            )
        except UnavailableError as error:
            self._fail(error)

    def _receive(self, part: int, message: Message) -> None:
        """An answer to a part, or that nobody is there to give one."""
        mailbox = self._mailboxes.pop(part, None)
        if mailbox is None:
            return
        mailbox.close()
        try:
            _raise_failure(message)
        except HoldfastError as error:
            self._fail(error)
            return
        data = self._unacked.pop(part, None)
        if data is not None:
            self._acked_bytes += len(data)
            if self._progress is not None:
                self._progress(self._acked_bytes, self._total)
        self._changed.set()

    def _fail(self, error: HoldfastError) -> None:
        if self._failure is None:
            self._failure = error
        self._changed.set()

    async def _recover(self, failure: HoldfastError) -> None:
        """Have any worker take over, and send again what it lacks."""
        if not isinstance(failure, RESUMABLE) or is_of_name(failure):
            raise failure
        self._forget_mailboxes()  # what the former owner still says counts no more
        await self._back_off(failure)
        await self._resume(failure)
        self._failure = None
        if uploaded_of(self._state) is not None:
            return
        wanted = self._state.next_part or 0
        oldest = next(iter(self._unacked), self._sent)
        if not oldest <= wanted <= self._sent:
            msg = (
                f"the upload lost parts: part {wanted} is wanted, part {oldest} is the oldest kept"
            )
            raise CorruptError(msg) from failure
        for part in list(self._unacked):
            if part < wanted:
                self._acked_bytes += len(self._unacked.pop(part))
            else:
                self._send_part(part)

    async def _back_off(self, failure: HoldfastError) -> None:
        """Wait longer before each recovery without progress; in the end raise ``failure``."""
        now = asyncio.get_running_loop().time()
        if self._stuck_since is None or self._acked_bytes > self._stuck_bytes:
            self._stuck_since, self._stuck_bytes = now, self._acked_bytes
            self._backoff = Backoff(FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS)
            return
        if now - self._stuck_since >= patience_seconds(self._requester, self._size):
            raise failure
        await asyncio.sleep(self._backoff.next())

    async def _resume(self, failure: HoldfastError) -> None:
        try:
            self._state = await resume(self._requester, self._state.upload or "", self._size)
        except NotFoundError as error:
            raise UnavailableError(_GIVEN_UP) from error
        if self._state.upload is None and uploaded_of(self._state) is None:
            raise InternalError(_NO_STATE) from failure

    async def _finish(self) -> Uploaded:
        while self._unacked and uploaded_of(self._state) is None:
            await self._wait_for_acks()
        digest = Digest(self._sha256.hexdigest())
        while True:
            stored = uploaded_of(self._state)
            if stored is None:
                stored = await self._commit(digest)
            if stored is None:
                continue
            if stored.digest != digest or stored.size != self._size:
                raise CorruptError(f"sent {digest}, but {stored.digest} was stored")
            return stored

    async def _commit(self, digest: Digest) -> Uploaded | None:
        """Ask for the commit; None when another worker had to be found and must be asked."""
        request = PutPart(final=self._sent, digest=digest)
        self._end_was_sent = True
        try:
            return uploaded_of(await ask_owner(self._requester, self._state, request))
        except HoldfastError as error:
            failure = error
        await self._recover(failure)
        while self._unacked and uploaded_of(self._state) is None:
            await self._wait_for_acks()
        return None

    async def _abort(self) -> None:
        """Give the upload up; a worker that cannot be told frees the space after its lease."""
        if self._state.upload is None:
            return
        try:
            # Any worker may take the abort; parts still on their way would be stored after it.
            async with asyncio.timeout(_SETTLE_SECONDS):
                while self._unacked and self._failure is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass  # the owner notices within seconds, and removes them
        try:
            await self._requester.ask(
                ABORT_UPLOAD, AbortUpload(upload=self._state.upload), timeout_seconds=2.0
            )
        except HoldfastError:
            return

    def _forget_mailboxes(self) -> None:
        for mailbox in self._mailboxes.values():
            mailbox.close()
        self._mailboxes.clear()


_GIVEN_UP: Final = "the upload was given up meanwhile: put the blob again"
_NO_STATE: Final = "the answer says neither where to send parts nor what was stored"


async def ask_owner(
    requester: Requester, state: UploadState, request: PutPart, data: bytes = b""
) -> PartStored:
    """The answer of the worker that owns an upload.

    Raises what it answered, UnavailableError, OutcomeUnknownError (it is silent).
    """
    headers = codec.encode_headers(request)
    headers[names.TIMEOUT] = worker_seconds(requester.timeout_seconds)
    try:
        with requester.tracer.asking(PUT_PART.subject):
            message = await requester.inbox.request(
                state.part_subject or "",
                data,
                headers=headers | trace_headers(),
                timeout_seconds=STALL_SECONDS,
            )
            _raise_failure(message)
    except TimeoutError as error:
        raise OutcomeUnknownError("the worker that took the parts fell silent") from error
    return codec.decode_reply(message.data, PUT_PART.reply)


async def resume(requester: Requester, upload: str, size: int) -> UploadState:
    """Have any worker own an upload; ``size`` is that of what it has to copy, at the most."""
    return await requester.ask(
        RESUME_UPLOAD,
        ResumeUpload(upload=upload),
        timeout_seconds=patience_seconds(requester, size),
        attempt_seconds=ATTEMPT_SECONDS + size / COPY_BYTES_PER_SECOND,
    )


def patience_seconds(requester: Requester, size: int) -> float:
    """Time that an upload of ``size`` bytes may go on without progress."""
    return RESUME_TIMEOUTS * requester.timeout_seconds + size / COPY_BYTES_PER_SECOND


def _raise_failure(message: Message) -> None:
    try:
        raise_for_status(message, PUT_PART.subject)
    except NoRespondersError as error:
        raise UnavailableError("the worker that took the parts is gone") from error
    except TimeoutError as error:
        raise OutcomeUnknownError("the connection was lost before an answer came") from error
    codec.raise_error(message.headers, message.data)


def is_of_name(failure: HoldfastError) -> bool:
    """Whether it is the name that is in the way, and not the state of the upload."""
    return isinstance(failure, ConflictError) and failure.version is not None


def uploaded_of(state: Any) -> Uploaded | None:
    """The blob that an upload in ``state`` has become; None where it has not."""
    if state.digest is None or state.size is None or state.created is None:
        return None
    return Uploaded(state.digest, state.size, state.created, state.name, state.version)
