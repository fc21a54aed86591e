"""Blobs by name: written, read, listed, copied, with their history and versions.

hf.names.create("notes/today.txt", b"hello", labels={"why": "trying"})
"""

from __future__ import annotations

import heapq
from contextlib import aclosing
from typing import IO, TYPE_CHECKING, Final, Literal

from holdfast.client.links import make_link
from holdfast.client.puts.named_put import NamedPut, named_write
from holdfast.client.puts.put import put_source
from holdfast.client.reads.download import open_named, read_bytes
from holdfast.client.reads.partial_file import write_to
from holdfast.client.upgrades import NewVerbs, on_old_subjects
from holdfast.domain.blob_names import check_blob_name
from holdfast.domain.digest import parse_digest
from holdfast.protocol.blobs import (
    DEFAULT_TYPE,
    DELETE_BLOB,
    STAT_BLOB,
    BlobStat,
    DeleteBlob,
    GetBlob,
    StatBlob,
)
from holdfast.protocol.links import LINK_BLOB, LinkBlob, LinkMade
from holdfast.protocol.names import (
    COPY_NAME,
    GET_HISTORY,
    GET_RULES,
    LIST_NAMES,
    RENAME_NAME,
    SET_RULES,
    CopyName,
    GetHistory,
    GetRules,
    ListNames,
    NameEntry,
    NameHistory,
    NamePage,
    NameRule,
    NameStored,
    NameVersion,
    RenameName,
    RuleList,
    SetRules,
)

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
    from datetime import datetime

    from holdfast.client.requests import Requester
    from holdfast.client.small_files import SmallFiles
    from holdfast.client.sources import OnBytes, Source

_PAGE: Final = 1000


class Names:
    """The names of a deployment. ``Client.names`` is one.

    A name is any text of 1 to 512 bytes of UTF-8. Each blob that it gets raises its version.
    ``if_absent``, ``if_version`` and ``if_digest`` are conditions: where one does not hold, nothing
    is changed, and ConflictError says the version that there is (0: no blob). Everything here
    raises InvalidError, UnavailableError (surely not applied), OutcomeUnknownError.
    """

    def __init__(self, requester: Requester, files: SmallFiles) -> None:
        """Made by ``connect``."""
        self._requester = requester
        self._files = files
        self._verbs = NewVerbs(requester)

    # --- writes ---

    async def create(
        self,
        name: str,
        source: Source,
        *,
        type: str = DEFAULT_TYPE,  # noqa: A002  (the wire's word)
        digest: str | None = None,
        labels: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
        progress: OnBytes | None = None,
    ) -> NameStored:
        """Store what ``Client.put`` takes under a name that is free.

        With ``digest``, other bytes are refused. From ``expires_at`` on, which has a time zone, the
        name is not there any more. Raises ConflictError, and what ``Client.put`` does.
        """
        write = named_write(name, type, digest, labels, expires_at)
        return await self._put(NamedPut(self._requester, write, ("create",)), source, progress)

    async def replace(
        self,
        name: str,
        source: Source,
        *,
        type: str = DEFAULT_TYPE,  # noqa: A002  (the wire's word)
        digest: str | None = None,
        labels: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
        if_version: int | None = None,
        if_digest: str | None = None,
        progress: OnBytes | None = None,
    ) -> NameStored:
        """As ``create``, under a name that there is; until it is done the name has what it had.

        Type, labels and expiry are those that are said now. Raises NotFoundError, ConflictError,
        and what ``Client.put`` does.
        """
        write = named_write(
            name, type, digest, labels, expires_at, if_version=if_version, if_digest=if_digest
        )
        return await self._put(NamedPut(self._requester, write, ("replace",)), source, progress)

    async def put(
        self,
        name: str,
        source: Source,
        *,
        type: str = DEFAULT_TYPE,  # noqa: A002  (the wire's word)
        digest: str | None = None,
        labels: Mapping[str, str] | None = None,
        expires_at: datetime | None = None,
        progress: OnBytes | None = None,
    ) -> NameStored:
        """As ``create`` where the name is free, and as ``replace`` where it is not.

        While others make and delete it both are tried, for as long as an answer is waited for. A
        streamed source is tried no more once a part of it has been sent: then it raises what
        either raises.
        """
        write = named_write(name, type, digest, labels, expires_at)
        put = NamedPut(self._requester, write, ("create", "replace"))
        return await self._put(put, source, progress)

    async def _put(self, put: NamedPut, source: Source, progress: OnBytes | None) -> NameStored:
        async with self._verbs:
            return await put_source(self._requester, self._files, source, put, progress)

    async def copy(
        self,
        name: str,
        *,
        source: str | None = None,
        digest: str | None = None,
        version: int | None = None,
        if_absent: bool = False,
        if_version: int | None = None,
        if_digest: str | None = None,
    ) -> NameStored:
        """Give ``name`` the blob of ``source``, or of a version of it, or the blob ``digest``.

        No bytes move. Type and labels of a source come along. Raises NotFoundError (then ``name``
        has what it had), ConflictError.
        """
        request = CopyName(
            name=check_blob_name(name),
            source=source if source is None else check_blob_name(source),
            digest=digest if digest is None else parse_digest(digest),
            version=version,
            if_absent=if_absent,
            if_version=if_version,
            if_digest=if_digest,
        )
        return await self._verbs.ask(COPY_NAME, request)

    async def rename(
        self,
        name: str,
        *,
        source: str,
        if_absent: bool = False,
        if_version: int | None = None,
        if_digest: str | None = None,
    ) -> NameStored:
        """Give ``name`` the blob of ``source``, and take it from there, in one step.

        Conditions are of ``name``. Raises NotFoundError, ConflictError.
        """
        request = RenameName(
            name=check_blob_name(name),
            source=check_blob_name(source),
            if_absent=if_absent,
            if_version=if_version,
            if_digest=if_digest,
        )
        return await self._verbs.ask(RENAME_NAME, request)

    async def delete(
        self, name: str, *, if_version: int | None = None, if_digest: str | None = None
    ) -> bool:
        """Take the blob from a name; False when it had none. Raises ConflictError."""
        request = DeleteBlob(name=check_blob_name(name), if_version=if_version, if_digest=if_digest)
        async with on_old_subjects(self._requester):
            return (await self._requester.ask(DELETE_BLOB, request)).deleted

    async def restore(
        self,
        name: str,
        version: int,
        *,
        if_version: int | None = None,
        if_digest: str | None = None,
    ) -> NameStored:
        """Give a name the blob of a version that it had, as a new version.

        Raises NotFoundError, ConflictError.
        """
        return await self.copy(
            name, source=name, version=version, if_version=if_version, if_digest=if_digest
        )

    # --- reads ---

    async def get(
        self,
        name: str,
        *,
        version: int | None = None,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> bytes:
        """The bytes that a name has, or had as ``version``; or a range of them.

        They are of one blob, whatever happens to the name meanwhile, and are checked as by
        ``Client.get``. Raises NotFoundError, CorruptError.
        """
        request = _get(name, version, offset, length)
        async with on_old_subjects(self._requester):
            return await read_bytes(self._requester, request, progress)

    async def stream(
        self,
        name: str,
        *,
        version: int | None = None,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> AsyncGenerator[memoryview]:
        """As ``get``, piece by piece, in bounded memory: see ``Client.stream``."""
        async with on_old_subjects(self._requester):
            request = _get(name, version, offset, length)
            pieces = await open_named(self._requester, request, progress)
        async with aclosing(pieces) as incoming:
            async for piece in incoming:
                yield piece

    async def get_to(
        self,
        name: str,
        target: str | os.PathLike[str] | IO[bytes],
        *,
        version: int | None = None,
        offset: int = 0,
        length: int | None = None,
        progress: OnBytes | None = None,
    ) -> int:
        """Write what a name has to a path or file object; how many bytes. See ``Client.get_to``."""
        stream = self.stream(name, version=version, offset=offset, length=length, progress=progress)
        return await write_to(target, stream)

    async def stat(self, name: str, *, version: int | None = None) -> BlobStat:
        """The record of a name, or a version, and of its blob. Raises NotFoundError."""
        request = StatBlob(name=check_blob_name(name), version=version)
        async with on_old_subjects(self._requester):
            return await self._requester.ask(STAT_BLOB, request)

    def list(
        self,
        prefix: str = "",
        *,
        delimiter: str = "",
        labels: Mapping[str, str] | None = None,
        start_after: str = "",
    ) -> AsyncGenerator[NameEntry | str]:
        """The names that start with ``prefix``, in the order of their UTF-8 bytes.

        With a ``delimiter``, names that have it behind the prefix come once, as the text up to and
        with it: a ``str``. ``labels`` are those that a name must have. Writes acknowledged
        before are there. A name without a blob is listed while ``pending``, and as a ``failure``.
        """
        request = ListNames(
            prefix=prefix,
            delimiter=delimiter,
            labels=dict(labels or {}),
            start_after=start_after,
            limit=_PAGE,
        )
        return self._verbs.rows(LIST_NAMES, request, _in_order)

    async def link(
        self,
        name: str,
        ttl_seconds: int,
        *,
        version: int | None = None,
        latest: bool = False,
        method: Literal["GET", "PUT"] = "GET",
        single_use: bool = False,
    ) -> LinkMade:
        """A URL under which a gateway gives the blob of a name to anybody.

        The blob is the one that it has now, or had as ``version``; or with ``latest`` has by
        then. With ``method`` PUT it takes the bytes that the name is to have, once. Raises
        as ``Client.link``.
        """
        request = LinkBlob(
            name=check_blob_name(name),
            ttl_seconds=ttl_seconds,
            version=version,
            latest=latest,
            method=method,
            single_use=single_use,
        )
        return await make_link(self._requester, LINK_BLOB, request)

    async def history(self, name: str) -> NameHistory:
        """The last 16 steps of a name and its newest versions. Raises NotFoundError.

        A name that was deleted has a history too.
        """
        return await self._verbs.ask(GET_HISTORY, GetHistory(name=check_blob_name(name)))

    def versions(self, name: str) -> AsyncGenerator[NameVersion]:
        """The blobs that a name has, had and still keeps, newest first. Raises NotFoundError."""
        request = GetHistory(name=check_blob_name(name), limit=_PAGE)
        return self._verbs.rows(GET_HISTORY, request, lambda page: page.versions)

    # --- rules ---

    async def rules(self) -> RuleList:
        """The rules of names: what is kept, and for how long."""
        return await self._verbs.ask(GET_RULES, GetRules())

    async def set_rules(
        self, rules: Sequence[NameRule], *, if_revision: int | None = None
    ) -> RuleList:
        """Replace all rules; with ``if_revision`` only those of that revision.

        Raises ConflictError.
        """
        return await self._verbs.ask(
            SET_RULES, SetRules(rules=list(rules), if_revision=if_revision)
        )


def _get(name: str, version: int | None, offset: int, length: int | None) -> GetBlob:
    return GetBlob(name=check_blob_name(name), version=version, offset=offset, length=length)


def _in_order(page: NamePage) -> Iterator[NameEntry | str]:
    """Names and prefixes, as one list."""
    rows: tuple[Sequence[NameEntry | str], ...] = (page.names, page.prefixes)
    return heapq.merge(*rows, key=_text)


def _text(row: NameEntry | str) -> bytes:
    return (row if isinstance(row, str) else row.name).encode()
