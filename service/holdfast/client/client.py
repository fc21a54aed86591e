"""The client: puts, reads and looks up blobs by asking the pool. It never reaches the store itself.

async with await holdfast.connect() as hf:
    stored = await hf.put(Path("photo.jpg"), type="image/jpeg")
    await hf.get_to(stored.digest, Path("copy.jpg"))
"""

from __future__ import annotations

import itertools
import os
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Literal, Self

import msgspec

from holdfast.client.care import Care
from holdfast.client.discovery import DISCOVERY_SECONDS, WorkerInfo, find_workers
from holdfast.client.links import make_link
from holdfast.client.long_requests import ask_until_done
from holdfast.client.many import in_order, weight_of
from holdfast.client.names import Names
from holdfast.client.pages import pages, rows
from holdfast.client.puts.put import put_source
from holdfast.client.puts.small_puts import SmallPuts
from holdfast.client.reads.download import read_bytes, stream_blob
from holdfast.client.reads.partial_file import write_to
from holdfast.client.requests import ATTEMPT_SECONDS, Requester
from holdfast.client.small_files import SmallFiles
from holdfast.client.snapshots.api import Snapshots
from holdfast.client.snapshots.retention import SnapshotRetention
from holdfast.client.states.api import States
from holdfast.client.states.machine import StateMachine
from holdfast.client.watch import position, watched
from holdfast.domain.digest import digest_of, parse_digest
from holdfast.domain.limits import MAX_DIGESTS_PER_HAS, max_inline_bytes
from holdfast.errors import CorruptError, InvalidError
from holdfast.protocol.blobs import (
    COLLECT_BLOBS,
    DEFAULT_TYPE,
    DELETE_BLOB,
    HAS_BLOBS,
    LIST_BLOBS,
    STAT_BLOB,
    VERIFY_BLOBS,
    BlobEntry,
    BlobStat,
    BlobStored,
    CollectBlobs,
    CollectionReply,
    DeleteBlob,
    GetBlob,
    HasBlobs,
    ListBlobs,
    OpenUpload,
    PutBlob,
    StatBlob,
    VerifyBlobs,
    VerifyReport,
)
from holdfast.protocol.links import LINK_BLOB, USE_LINK, LinkBlob, LinkMade, LinkUsed, UseLink
from holdfast.protocol.status import GET_STATUS, GetStatus, StoreStatus
from holdfast.protocol.watch import WatchChanges, WatchEvent, WatchKind
from holdfast.tracing import NO_TRACER, Tracer
from holdfast.transport import connection as transport
from holdfast.transport.contexts import options_from_environment
from holdfast.transport.inbox import Inbox
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        Callable,
        Iterable,
        Sequence,
    )

    from holdfast.client.puts.upload import Upload, Uploaded
    from holdfast.client.sources import OnBytes, Source
    from holdfast.transport.connection import Connection

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
MAX_TIMEOUT_SECONDS: Final = 86_400
_LIST_PAGE: Final = 1000
_VERIFY_PAGE: Final = 1000
_COLLECT_SECONDS: Final = 600.0
_VERIFY_SECONDS: Final = 120.0
_VERIFY_BYTES_PER_SECOND: Final = 50 * 1000 * 1000
"""The slowest that a worker may read one blob back."""

_DIGEST_JSON_BYTES: Final = 67


class Client:
    """A connection to a pool of workers. Use it from the event loop that made it.

    ``requester`` is what its calls are made of: for the gateway, which asks as the wire has it.
    """

    def __init__(self, connection: Connection, requester: Requester) -> None:
        """Made by ``connect``."""
        self._connection = connection
        self.requester = requester
        self._files = SmallFiles()
        self.names = Names(requester, self._files)
        self._small_puts = SmallPuts(requester)
        self.snapshots = Snapshots(requester)
        self.retention = SnapshotRetention(requester)
        self.care = Care(requester)
        self.states = States(requester, self.names)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection. May be repeated. Calls under way end with an error.

        Raises InvalidError in another event loop than that which made it.
        """
        self.requester.check_own()
        await self._connection.close()

    async def put(
        self,
        source: Source,
        *,
        type: str = DEFAULT_TYPE,  # noqa: A002  (the wire's word)
        digest: str | None = None,
        progress: OnBytes | None = None,
    ) -> BlobStored:
        """Store bytes, the file at a path, what a file object gives, or an async iterator's bytes.

        Memory is bounded whatever the size. With ``digest``, other bytes are refused, and none are
        sent when that blob is stored already. ``progress`` is told (bytes done, bytes in all or
        None). A worker that dies meanwhile is replaced without the caller noticing. If a file
        changes meanwhile, the bytes that were read are stored, and none that were added after it
        was opened.

        Raises InvalidError (another digest), TooLargeError, QuotaExceededError, RateLimitedError,
        UnavailableError (surely not stored), OutcomeUnknownError.
        """
        expected = parse_digest(digest) if digest is not None else None
        put = _BlobPut(self._small_puts, type, expected)
        return await put_source(self.requester, self._files, source, put, progress)

    def put_many(
        self,
        sources: Iterable[Source] | AsyncIterable[Source],
        *,
        type: str = DEFAULT_TYPE,  # noqa: A002  (the wire's word)
    ) -> AsyncGenerator[BlobStored]:
        """Store each of ``sources``, as ``put`` does; the results in their order, as they come.

        Up to 256 are under way at a time, as far as they hold no more than 32 MiB together, and a
        source is taken when there is room for it: what makes them up may read from disk, but must
        not block the event loop for long. Without ``await`` they are taken in other threads, one
        after the other, and may block.

        When one cannot be stored, the results of those before it come, and then what ``put`` would
        have raised. No more are taken, and those behind it that were under way are given up: they
        may be stored or not. To put all of them again does no harm, for what is stored is not
        stored twice. Stopping early gives up the others likewise.
        """
        return in_order(sources, lambda source: self.put(source, type=type), weight_of)

    async def get(
        self,
        digest: str,
        *,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> bytes:
        """The bytes of a blob, or a range of them; past its end there are none.

        A whole blob is checked against its digest; a range against its length only.
        Raises NotFoundError, CorruptError, InvalidError, UnavailableError.
        """
        request = GetBlob(digest=parse_digest(digest), offset=offset, length=length)
        return await read_bytes(self.requester, request, progress)

    def stream(
        self,
        digest: str,
        *,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> AsyncGenerator[memoryview]:
        """As ``get``, piece by piece, in bounded memory.

        The last piece of a whole blob comes only once all bytes are found right; until
        then nobody checked the bytes.
        """
        request = GetBlob(digest=parse_digest(digest), offset=offset, length=length)
        return stream_blob(self.requester, request, progress)

    async def get_to(
        self,
        digest: str,
        target: str | os.PathLike[str] | IO[bytes],
        *,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> int:
        """Write a blob, or a range, to a path or file object; how many bytes.

        A path appears only when all bytes are there and right; it replaces what was there, whose
        mode and owner stay. A link stays one; pipes and devices are written to. Raises as ``get``,
        and OSError.
        """
        stream = self.stream(digest, offset=offset, length=length, progress=progress)
        return await write_to(target, stream)

    async def has(self, digests: Iterable[str]) -> list[str]:
        """The missing of ``digests``, in order, each once."""
        missing: dict[str, None] = {}
        fitting = max_inline_bytes(self._connection.max_payload) // _DIGEST_JSON_BYTES
        count = max(1, min(MAX_DIGESTS_PER_HAS, fitting))
        for batch in itertools.batched(map(parse_digest, digests), count):
            reply = await self.requester.ask(HAS_BLOBS, HasBlobs(digests=list(batch)))
            missing.update(dict.fromkeys(reply.missing))
        return list(missing)

    async def stat(self, digest: str) -> BlobStat:
        """The record of a blob. Raises NotFoundError."""
        return await self.requester.ask(STAT_BLOB, StatBlob(digest=parse_digest(digest)))

    def list(self, prefix: str = "") -> AsyncGenerator[BlobEntry]:
        """Every blob whose digest starts with ``prefix``, and foreign objects if it is empty."""
        request = ListBlobs(prefix=prefix, limit=_LIST_PAGE)
        return rows(self.requester, LIST_BLOBS, request, lambda page: page.blobs)

    async def delete(self, digest: str) -> bool:
        """Forget a blob; False when it was not there."""
        request = DeleteBlob(digest=parse_digest(digest))
        return (await self.requester.ask(DELETE_BLOB, request)).deleted

    async def link(
        self,
        digest: str,
        ttl_seconds: int,
        *,
        method: Literal["GET", "PUT"] = "GET",
        single_use: bool = False,
    ) -> LinkMade:
        """A URL under which a gateway gives the blob to anybody, for so long (at most seven days).

        With ``method`` PUT it takes the bytes with that digest, once. Raises NotFoundError,
        InvalidError, UnavailableError (also where no worker has keys).
        """
        request = LinkBlob(
            digest=parse_digest(digest),
            ttl_seconds=ttl_seconds,
            method=method,
            single_use=single_use,
        )
        return await make_link(self.requester, LINK_BLOB, request)

    async def use_link(self, link: str, *, ranged: bool = False) -> LinkUsed:
        """Note that the single-use link with the id ``link`` is used, for a range of its bytes.

        For gateways. Raises ForbiddenError: it was used.
        """
        return await self.requester.ask(USE_LINK, UseLink(link=link, ranged=ranged))

    async def verify(self, digest: str | None = None) -> AsyncGenerator[VerifyReport]:
        """Have workers read back one blob, or all, page by page. Raises NotFoundError for one."""
        seconds = _VERIFY_SECONDS
        request = VerifyBlobs(limit=_VERIFY_PAGE)
        if digest is not None:
            request = VerifyBlobs(digest=parse_digest(digest), limit=_VERIFY_PAGE)
            with suppress(CorruptError):  # its record: that is what the report will say
                seconds += (await self.stat(digest)).size / _VERIFY_BYTES_PER_SECOND
        reports = pages(self.requester, VERIFY_BLOBS, request, seconds=seconds)
        async with aclosing(reports) as incoming:
            async for report in incoming:
                yield report

    async def collect(self, *, dry_run: bool = False) -> CollectionReply:
        """Have one worker remove what nothing needs, and wait for the end; what it did.

        With ``dry_run`` it only says what it would remove. Each worker collects by itself now and
        then. Raises UnavailableError.
        """
        request = CollectBlobs(dry_run=dry_run)
        return await ask_until_done(self.requester, COLLECT_BLOBS, request, _COLLECT_SECONDS)

    def watch(
        self, kind: WatchKind, *, prefix: str = "", since: int | None = None
    ) -> AsyncGenerator[WatchEvent]:
        """The changes of names, blobs or snapshots, as they happen, for ever.

        Those whose name, digest or key starts with ``prefix``; from now on, or from behind the
        revision ``since``, which is the ``position`` of the last event that was had before. Each
        event comes once, those of one name in order. No more are taken from a worker than a few
        thousand that were not yet asked for here; another carries on for one that falls silent.

        Raises InvalidError (``since`` is beyond the end), ConflictError (the store was made anew:
        list what is there, and watch from now), UnavailableError where no worker answers in time.
        """
        request = WatchChanges(kind=kind, prefix=prefix, since=since)
        return watched(self.requester, request)

    async def position(self, kind: WatchKind) -> int:
        """The revision of the latest change, to ``watch`` from behind it.

        Asking for it, then listing, then watching misses nothing.
        """
        return await position(self.requester, kind)

    def state(
        self,
        name: str,
        *,
        apply: Callable[[Any, Any], Any],
        initial: object = None,
        save_every: int | None = None,
        only_writer: bool = False,
    ) -> StateMachine:
        """A state of ``states`` as one object, to be entered with ``async with``.

        ``apply(state, command)`` gives the new state, or a tuple of that and of what ``append`` is
        to return, else the state. It may change the state in place. It must depend on its arguments
        only, and take any command without raising: every program applies all of them, in the order
        of the log. ``initial`` is the state before the first.

        It is saved after every ``save_every`` commands (by default as the state's policy says, or
        1,000) by a program that appends. With ``only_writer``, appends fail with ConflictError
        once anybody else has appended. Raises InvalidError.
        """
        return StateMachine(
            self.states,
            self.requester,
            name,
            apply=apply,
            initial=initial,
            save_every=save_every,
            only_writer=only_writer,
        )

    async def store_status(self, *, timeout_seconds: float | None = None) -> StoreStatus:
        """The state of the store: its servers and buckets, and their problems.

        Waits as long as for any other answer unless told otherwise. Raises UnavailableError.
        """
        return await self.requester.ask(
            GET_STATUS,
            GetStatus(),
            timeout_seconds=timeout_seconds,
            attempt_seconds=ATTEMPT_SECONDS,  # a bucket without a leader is waited for a while
        )

    async def workers(self, wait_seconds: float = DISCOVERY_SECONDS) -> Sequence[WorkerInfo]:
        """The pool of this deployment: the workers that answer.

        Once one has answered it ends when no other does for ``wait_seconds``, and in any case after
        four times as long. Answers that are none of a worker's are passed over: anybody may answer.
        """
        return await find_workers(self.requester, wait_seconds)


async def connect(
    options: NatsOptions | None = None,
    *,
    servers: str | Sequence[str] | None = None,
    prefix: str | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    renew: Callable[[], NatsOptions] | None = None,
    tracer: Tracer = NO_TRACER,
) -> Client:
    """A client. Without ``options`` the environment says how to connect, as for ``nats``.

    ``servers`` overrides where to; ``prefix`` is the deployment's (``HOLDFAST_PREFIX``). ``renew``
    gives ``options`` anew, for each time that the connection is made again: without them the
    environment and its NATS context are read again. ``timeout_seconds`` is how long an answer is
    waited for, up to a day. ``tracer`` makes a span of each request, such as
    `holdfast.tracing.otel.OtelTracer`. Raises InvalidError, ForbiddenError, UnavailableError.
    """
    if not 0 < timeout_seconds <= MAX_TIMEOUT_SECONDS:  # nor is it "not a number"
        raise InvalidError(f"a timeout is more than 0 and at most {MAX_TIMEOUT_SECONDS} seconds")
    urls = (servers,) if isinstance(servers, str) else servers

    def now() -> NatsOptions:
        if renew is not None:
            current = renew()
        else:
            current = options if options is not None else options_from_environment()
        return current if urls is None else msgspec.structs.replace(current, servers=tuple(urls))

    head = prefix if prefix is not None else os.environ.get("HOLDFAST_PREFIX", "")
    chosen = now()
    connection = await transport.connect(chosen, timeout_seconds=timeout_seconds, renew=now)
    inbox = Inbox(connection, chosen.inbox_prefix)
    requester = Requester(
        connection, inbox, prefix=head, timeout_seconds=timeout_seconds, tracer=tracer
    )
    return Client(connection, requester)


@dataclass(frozen=True, slots=True)
class _BlobPut:
    """A put of a blob: see ``holdfast.client.puts.put.PutSteps``."""

    small_puts: SmallPuts
    type: str
    expected: str | None

    async def whole(self, data: memoryview) -> BlobStored:
        digest = digest_of(data)
        request = PutBlob(digest=self.expected or digest, type=self.type)
        stored = await self.small_puts.put(request, data)
        if (stored.digest, stored.size) != (digest, len(data)):
            raise CorruptError(f"sent {digest}, but {stored.digest} was stored")
        return stored

    async def open(self, upload: Upload, size: int | None) -> Uploaded | None:
        return await upload.open(OpenUpload(size=size, digest=self.expected, type=self.type))

    def result(self, uploaded: Uploaded) -> BlobStored:
        return BlobStored(digest=uploaded.digest, size=uploaded.size, created=uploaded.created)
