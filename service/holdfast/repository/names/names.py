"""Names of blobs: create, replace, copy, rename, delete, read, history.

There is no lock. Each write is announced in the record of the name, then its blob is stored or
touched, then it is committed (`holdfast.repository.names.record`). Any worker may do any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import structs

from holdfast.domain.blob_names import (
    Conditions,
    Said,
    Verb,
    check_blob_name,
    version_key,
)
from holdfast.domain.digest import Digest, check_expected, digest_of, parse_digest
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InternalError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from holdfast.repository.blobs import Bare, BlobRepository, Content
from holdfast.repository.names.moves import SourceChangedError, bringing
from holdfast.repository.names.record import (
    MISSING,
    VERSION,
    Keep,
    NamedContent,
    NameRecord,
    VersionRecord,
    announcing,
    check_same_bytes,
    content_of,
    counts,
    deleted,
    made_by,
    present_version,
)
from holdfast.repository.names.writes import MadeBeforeError, NameWrites, named
from holdfast.repository.targets import GivenUpError, Named
from holdfast.stores.record_ports import MAX_GET_MANY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Buffer, Callable, Sequence

    from holdfast.repository.ledger.ledger import Held
    from holdfast.repository.names.bytes import NamedBytes
    from holdfast.repository.names.rules import NameRules
    from holdfast.sources import Sources

_CURSOR_JOINT: Final = "."
_READS: Final = 3
"""Attempts to read a name whose blob goes away while it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A name with the versions that count, newest first, the present one among them."""

    record: NameRecord
    versions: Sequence[VersionRecord]


class NameRepository:
    """The names of a deployment."""

    def __init__(
        self,
        blobs: BlobRepository,
        stored: NamedBytes,
        writes: NameWrites,
        rules: NameRules,
        *,
        sources: Sources,
    ) -> None:
        """``writes`` and ``rules`` are of the same bucket."""
        self.rules = rules
        self._blobs = blobs
        self._stored = stored
        self._writes = writes
        self._sources = sources

    # --- bytes under a name ---

    async def put(
        self,
        verb: Verb,
        name: str,
        data: Buffer,
        said: Said,
        *,
        expected: str | None,
        op_id: str | None,
    ) -> Named:
        """Store ``data`` under ``name``, which is free (``create``) or is there (``replace``).

        One that fails leaves what the name has. ``expected`` is the digest that the caller expects.
        Raises InvalidError, ConflictError (with the version that there is), NotFoundError (nothing
        to replace), RateLimitedError, UnavailableError, OutcomeUnknownError.
        """
        check_blob_name(name)
        said.check(verb)
        view = memoryview(data).cast("B")
        digest = digest_of(view)
        check_expected(digest, expected)
        one = announcing(
            verb,
            said,
            op=op_id or self._sources.new_id(),
            at=self._sources.clock(),
            digest=digest,
            size=len(view),
        )
        try:
            held, staged = await self._stored.stage(view, self._writes.announce(name, one))
        except MadeBeforeError as error:
            return error.made
        if isinstance(staged, BaseException):
            await self._writes.fail(name, one.op, str(staged))
            raise staged
        made = made_by(held.record, one.op)
        if made is not None:
            await self._stored.discard(staged)
            check_same_bytes(made, one)
            return named(held.record, one.op)
        try:
            await self._stored.make(staged, digest, view, said.type)
        except HoldfastError as error:
            await self._writes.fail(name, one.op, error.detail)
            raise
        try:
            return await self._writes.commit(held, one.op)
        except GivenUpError as error:
            return await self._writes.refuse(name, one.op, error)

    # --- blobs that there are ---

    async def copy(
        self,
        name: str,
        *,
        source: str | None,
        version: int | None,
        digest: Digest | None,
        conditions: Conditions,
        op_id: str | None,
    ) -> Named:
        """Give ``name`` the blob of ``source``, of a version of it, or the blob ``digest``.

        Raises NotFoundError, and then the name has what it had; else as `put`.
        """
        if (source is None) == (digest is None) or (version is not None and source is None):
            raise InvalidError("a copy is from a name, perhaps a version of it, or from a digest")
        if source == name and version is None:
            raise InvalidError("a name is copied onto itself only from a version of it")
        look = partial(self._source, source, version, digest)
        return await self._bring(name, op_id, conditions, look)

    async def _bring(
        self,
        name: str,
        op_id: str | None,
        conditions: Conditions,
        look: Callable[[], Awaitable[NamedContent]],
        moved_from: str | None = None,
    ) -> Named:
        """Give ``name`` what ``look`` finds; that is taken away from ``moved_from``."""
        check_blob_name(name)
        conditions.check(may_be_absent=True, may_be_present=True)
        op = op_id or self._sources.new_id()
        target = await self._writes.look(name)
        if target is not None and made_by(target.record, op) is not None:
            return named(target.record, op)
        for _ in range(_READS):
            try:
                content = await look()
                if moved_from is None:  # an end is of a name, not of what it has
                    content = structs.replace(content, expires_at=None)
                target = await self._announce_copy(name, content, conditions, op, target)
                await self._touch(name, op, content.digest, look)
                beside = bringing(self._writes, op, content, moved_from)
                return await self._writes.commit(target, op, beside=beside)
            except MadeBeforeError as error:
                return error.made
            except SourceChangedError:
                target = await self._writes.look(name)
            except (NotFoundError, GivenUpError) as error:
                return await self._writes.refuse(name, op, error)
        kept_changing = ConflictError("the source kept changing: try again")
        return await self._writes.refuse(name, op, kept_changing)

    async def _source(
        self, source: str | None, version: int | None, digest: Digest | None
    ) -> NamedContent:
        if source is not None:
            return (await self.find(source, version=version)).content
        if digest is None:
            raise NotFoundError(MISSING)
        info = await self._blobs.stat(digest)
        return NamedContent(digest=info.digest, size=info.size, type=info.type)

    async def _announce_copy(
        self,
        name: str,
        content: NamedContent,
        conditions: Conditions,
        op: str,
        seen: Held[NameRecord] | None,
    ) -> Held[NameRecord]:
        expires_at = content.expires_at
        said = Said(
            type=content.type,
            labels=content.labels,
            expires_at=None if expires_at is None else datetime.fromisoformat(expires_at),
            conditions=conditions,
        )
        one = announcing(
            "copy",
            said,
            op=op,
            at=self._sources.clock(),
            digest=content.digest,
            size=content.size,
        )
        held = await self._writes.announce(name, one, seen=seen)
        return await self._writes.restate(held, one)

    async def _touch(
        self, name: str, op: str, digest: str, look: Callable[[], Awaitable[NamedContent]]
    ) -> None:
        """Touch the blob that was announced. Raises NotFoundError, SourceChangedError."""
        try:
            is_there = await self._stored.touch(Digest(digest))
        except HoldfastError as error:
            await self._writes.fail(name, op, error.detail)
            raise
        if is_there:
            return
        if (await look()).digest != digest:
            raise SourceChangedError
        raise NotFoundError("the blob to be copied is not there, or cannot be read back")

    async def rename(
        self, name: str, source: str, *, conditions: Conditions, op_id: str | None
    ) -> Named:
        """Give ``name`` the blob of ``source``, and take it from there, in one step.

        The versions that ``source`` had stay its own. Raises as `copy`.
        """
        if source == name:
            raise InvalidError("a name is renamed to another")
        look = partial(self._source, source, None, None)
        return await self._bring(name, op_id, conditions, look, moved_from=source)

    async def delete(self, name: str, *, conditions: Conditions, op_id: str | None) -> bool:
        """Take the blob from a name; whether it had one. Raises InvalidError, ConflictError."""
        check_blob_name(name)
        conditions.check(may_be_absent=False, may_be_present=True)
        held = await self._writes.look(name)
        if held is None:
            failure = conditions.failure(0, None)
            if failure is not None:
                raise ConflictError(failure, version=0)
            return False
        op = op_id or self._sources.new_id()
        past = await self._writes.past.find(held.record, op)
        if past is not None:
            return past.digest is not None
        step = await self._writes.step(name, may_lose=True)
        made = await self._writes.lose(
            held, lambda record: deleted(record, op, conditions, step), step
        )
        transition = made_by(made.record, op)
        return transition is not None and transition.digest is not None

    # --- reads ---

    async def find(self, name: str, *, version: int | None = None) -> VersionRecord:
        """The content of ``name``, now or as ``version``. Raises InvalidError, NotFoundError."""
        check_blob_name(name)
        held = await self._writes.look(name)
        keep = await self.rules.of(name)
        now = self._sources.clock()
        content = content_of(held.record if held is not None else None, now, keep)
        if (
            held is not None
            and version is not None
            and (content is None or version != held.record.version)
        ):
            return await self._former(held.record, version, now, keep)
        if held is None or content is None:
            is_coming = held is not None and bool(held.record.pending)
            yet = " yet: a write of it is under way" if is_coming else ""
            raise NotFoundError(f"{MISSING}{yet}")
        return present_version(held.record, content)

    async def _former(
        self, record: NameRecord, version: int, now: datetime, keep: Keep
    ) -> VersionRecord:
        missing = f"the name has no version {version}, or does not keep it"
        try:
            held = await self._writes.ledger.get(VERSION, version_key(record.name, version))
        except NotFoundError as error:
            raise NotFoundError(missing) from error
        if not counts(held.record, record, now, keep):
            raise NotFoundError(missing)
        return held.record

    async def read(
        self,
        name: str,
        *,
        version: int | None = None,
        offset: int = 0,
        length: int | None = None,
        cursor: str | None = None,
        proxy: bool = False,
        direct: bool = False,
    ) -> tuple[Digest, VersionRecord | None, Content]:
        """The digest of a name's blob, and bytes of it as `BlobRepository.read` gives them.

        The content's cursor goes on with the same blob, whatever the name has by then: with one
        nothing is said of the name. Raises NotFoundError, CorruptError, InvalidError.
        """
        read = partial(
            self._blobs.read, offset=offset, length=length, proxy=proxy, direct=direct, named=True
        )
        if cursor is not None:
            of, _, cursor = cursor.partition(_CURSOR_JOINT)
            digest = parse_digest(of)
            return digest, None, _followed(digest, await read(digest, cursor=cursor))
        found = await self.find(name, version=version)
        for _ in range(_READS):
            digest = Digest(found.content.digest)
            try:
                content = _followed(digest, await read(digest))
            except NotFoundError as error:
                found = await self.find(name, version=version)
                if found.content.digest == digest:
                    raise CorruptError("the blob that the name has is not there") from error
            else:
                return digest, found, content
        raise UnavailableError("the name kept changing while it was read")

    async def history(self, name: str) -> History:
        """The history of a name. Raises InvalidError, NotFoundError: there never was one."""
        check_blob_name(name)
        held = await self._writes.look(name)
        if held is None:
            raise NotFoundError(MISSING)
        record, now = held.record, self._sources.clock()
        keep = await self.rules.of(name)
        versions = await self._versions(record, now, keep)
        content = content_of(record, now, keep)
        if content is not None:
            versions.insert(0, present_version(record, content))
        return History(record=record, versions=versions)

    async def _versions(self, record: NameRecord, now: datetime, keep: Keep) -> list[VersionRecord]:
        """Former ones that count, newest first."""
        newest = record.version if record.content is None else record.version - 1
        numbers = range(newest, max(record.oldest, 1) - 1, -1)[:MAX_GET_MANY]
        keys = [version_key(record.name, number) for number in numbers]
        found, _ = await self._writes.ledger.get_many(VERSION, keys)
        held = [found[key].record for key in keys if key in found]
        return [one for one in held if counts(one, record, now, keep)]


def _followed(digest: Digest, content: Content | Bare) -> Content:
    """The content, with a cursor that goes on with the same blob."""
    if isinstance(content, Bare):
        raise InternalError
    if content.cursor is None:
        return content
    return replace(content, cursor=f"{digest}{_CURSOR_JOINT}{content.cursor}")
