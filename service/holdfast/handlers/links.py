"""``snapshot.link``, ``blob.link``, ``link.use``: requests to what they point at, and to links."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from holdfast.archive.paths import parse_path
from holdfast.domain.digest import Digest
from holdfast.domain.link_targets import (
    LINK_CREATE,
    LINK_DIGEST,
    LINK_ONCE,
    archive_path,
    blob_path,
    file_path,
    name_place,
)
from holdfast.domain.names import SnapshotKey
from holdfast.errors import InvalidError, NotFoundError
from holdfast.handlers.endpoint import AnyEndpoint, Call, Endpoint
from holdfast.protocol.links import (
    LINK_BLOB,
    LINK_SNAPSHOT,
    USE_LINK,
    LinkBlob,
    LinkMade,
    LinkSnapshot,
    LinkUsed,
    UseLink,
)
from holdfast.protocol.times import wire_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.domain.link_keys import LinkSigner
    from holdfast.repository.blobs import BlobRepository
    from holdfast.repository.links.uses import LinkUses
    from holdfast.repository.names.names import NameRepository
    from holdfast.repository.snapshots.making import SnapshotLedger
    from holdfast.repository.snapshots.reading.reads import SnapshotReads


class LinkUseHandlers:
    """Notes that links were used: every worker does."""

    def __init__(self, uses: LinkUses) -> None:
        """``uses`` are those of this deployment."""
        self._uses = uses

    async def use(self, request: UseLink, call: Call) -> LinkUsed:
        """``link.use``."""
        first_at = await self._uses.use(
            request.link, ranged=request.ranged, op_id=call.op_id, now=call.now
        )
        return LinkUsed(first_at=wire_time(first_at))

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (Endpoint(USE_LINK, self.use),)


class LinkHandlers:
    """Makes links: for workers that have keys."""

    def __init__(
        self,
        signer: LinkSigner,
        *,
        blobs: BlobRepository,
        names: NameRepository,
        snapshots: SnapshotLedger,
        reads: SnapshotReads,
        new_id: Callable[[], str],
    ) -> None:
        """``new_id`` gives the ids of single-use links."""
        self._signer = signer
        self._blobs = blobs
        self._names = names
        self._snapshots = snapshots
        self._reads = reads
        self._new_id = new_id

    async def link_snapshot(self, request: LinkSnapshot, call: Call) -> LinkMade:
        """``snapshot.link``."""
        _, root = await self._snapshots.get_readable(SnapshotKey.parse(request.key))
        path = archive_path(request.key)
        named = request.path if request.path_bytes is None else request.path_bytes
        if named is not None:
            file = parse_path(named)
            await self._check_file(root, file, call)
            path = file_path(request.key, file)
        return self._made("GET", path, {LINK_DIGEST: root}, request, call)

    async def _check_file(self, root: Digest, path: bytes, call: Call) -> None:
        """Raises NotFoundError, InvalidError (not a file)."""
        await self._reads.read(
            root, path, offset=0, length=0, cursor=None, wait_seconds=call.seconds_left()
        )

    async def link_blob(self, request: LinkBlob, call: Call) -> LinkMade:
        """``blob.link``."""
        if (request.digest is None) == (request.name is None):
            raise InvalidError("give the digest of a blob, or a name")
        of_name = request.version is not None, request.latest
        if any(of_name) and (request.digest is not None or request.method == "PUT" or all(of_name)):
            raise InvalidError("a version, or else the latest, is of a name that is read")
        if request.digest is not None:
            if request.method == "GET":
                await self._blobs.stat(Digest(request.digest))
            return self._made(request.method, blob_path(request.digest), {}, request, call)
        return await self._link_name(request.name or "", request, call)

    async def _link_name(self, name: str, request: LinkBlob, call: Call) -> LinkMade:
        path, query = name_place(name)
        bound: dict[str, str] = {}
        if request.method == "PUT":
            if not await self._is_there(name):
                bound = {LINK_CREATE: "1"}
        elif not request.latest:
            found = await self._names.find(name, version=request.version)
            bound = {"version": str(found.version)}
        return self._made(request.method, path, bound, request, call, query)

    async def _is_there(self, name: str) -> bool:
        with suppress(NotFoundError):
            await self._names.find(name)
            return True
        return False

    def _made(
        self,
        method: str,
        path: str,
        bound: dict[str, str],
        request: LinkSnapshot | LinkBlob,
        call: Call,
        query: str = "",
    ) -> LinkMade:
        """The link. An upload is for one use, whatever was asked."""
        if request.single_use or method == "PUT":
            bound = {**bound, LINK_ONCE: self._new_id()}
        query = "&".join(part for part in (query, urlencode(bound)) if part)
        url, expires_at = self._signer.make(
            method, path, query, now=call.now, seconds=request.ttl_seconds
        )
        return LinkMade(url=url, expires_at=wire_time(expires_at))

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (
            Endpoint(LINK_SNAPSHOT, self.link_snapshot),
            Endpoint(LINK_BLOB, self.link_blob),
        )
