"""Keeping what an announced root needs from the collector, before its snapshot is ``ok``.

A blob that the parent needs, too, is safe while that is ``ok``: it is read again after the root was
announced, so a removal after that finds the root. But the parent vouches for the bytes that it
needs and for no others of the same pack: whatever was put, found, or may be more than these is
touched, and is gone if it does not keep what the root needs of it.

Why: docs/decisions.md, "Times".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING, Final

from holdfast.domain.collection import to_touch
from holdfast.domain.digest import Digest
from holdfast.domain.names import SnapshotKey
from holdfast.errors import CorruptError, NotFoundError
from holdfast.form.frame_table import ranges_of
from holdfast.repository.snapshots.needs import Needed, needs_of_pages, own_pages, packs_of_pages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.form.root import Root
    from holdfast.repository.snapshots.packs import Packs
    from holdfast.repository.snapshots.record import StoredSnapshot

TOUCHES_PER_BEAT: Final = 1024
"""Packs that are kept from the collector between two signs of life. It takes a few seconds."""

_TURN_DIGITS: Final = 8
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Packs put in one attempt, all of them after ``began`` by the clock of their store.

    ``created`` were stored anew, ``found`` were there. Without either nothing was begun.
    """

    began: datetime | None = None
    created: frozenset[Digest] = frozenset()
    found: frozenset[Digest] = frozenset()


class Securing:
    """Secures roots; ``beat`` is awaited now and then, to say that this goes on."""

    def __init__(
        self, packs: Packs, get: Callable[[SnapshotKey], Awaitable[StoredSnapshot]]
    ) -> None:
        """``get`` gives the record of a snapshot as it surely is now, or raises NotFoundError.

        No compare-and-set would find out that a parent was removed before.
        """
        self._packs = packs
        self._get = get

    async def of_attempt(
        self,
        record: StoredSnapshot,
        needed: Needed,
        placed: Placed,
        beat: Callable[[], Awaitable[None]],
    ) -> list[Digest]:
        """Secure a worker's snapshot made upon its parent; the blobs that are gone.

        It took over nothing but what the parent has, so what it did not put it need not touch.
        A touched pack has to be whole: it was, when it was put.
        """
        vouched = await self._vouched(record, needed)
        put = placed.created | placed.found
        shared = [one for one in needed if one in vouched and one not in put]
        gone = await self._look(record, shared, beat)
        if len(shared) == len(needed):
            return gone
        since = self._packs.lately(await self._packs.now())
        is_young = placed.began is not None and placed.began > since
        young = placed.created if is_young else frozenset()
        touched = to_touch(needed, vouched=vouched, found=put, young=young)
        for batch in batched(touched, TOUCHES_PER_BEAT):
            await beat()
            gone += await self._packs.touch_all(dict.fromkeys(batch), since=since)
        return gone

    async def of_manifest(
        self,
        record: StoredSnapshot,
        reader: SnapshotReader,
        beat: Callable[[], Awaitable[None]],
    ) -> list[Digest]:
        """Secure blobs that a client says its snapshot needs; those that are gone.

        Nobody knows what it has put. So the parent vouches for nothing but pages that it has, too;
        of each other page is touched what it needs.
        """
        since = self._packs.lately(await self._packs.now())
        root = reader.root
        pages = await self._own_pages(record, root)
        of_pages = {Digest(pack.hex()): ranges for pack, ranges in ranges_of(root.pieces).items()}
        whole = dict.fromkeys(reader.root_blobs)
        gone = await self._packs.touch_all({**of_pages, **whole}, since=since)
        if gone:
            return gone  # which would have to be read
        own = packs_of_pages(root, pages)
        shared = [one for one in map(_digest, root.packs) if one not in own]
        gone = await self._look(record, shared, beat)
        touched = 0
        async for needs in needs_of_pages(reader, pages):
            gone += await self._packs.touch_all(needs, since=since)
            touched += len(needs)
            if touched > TOUCHES_PER_BEAT:
                await beat()
                touched = 0
        return list(dict.fromkeys(gone))

    async def _look(
        self, record: StoredSnapshot, shared: Sequence[Digest], beat: Callable[[], Awaitable[None]]
    ) -> list[Digest]:
        """Blobs that are gone of those for which the parent vouches.

        The bytes of one batch are looked for, each time of another: a loss is found by a few
        snapshots, of most apps by each.
        """
        gone: list[Digest] = []
        turn = int(record.id[-_TURN_DIGITS:], 16) % max(-(-len(shared) // TOUCHES_PER_BEAT), 1)
        for number, batch in enumerate(batched(shared, TOUCHES_PER_BEAT)):
            if number:
                await beat()
            # A replica may lag behind: what it lacks is gone only if the leader says so.
            doubted = await self._packs.missing(batch, limit=len(batch), counted=number == turn)
            nothing = dict.fromkeys(doubted, ())
            gone += await self._packs.touch_all(nothing, since=_EVER)  # looks, and changes nothing
        return gone

    async def _vouched(self, record: StoredSnapshot, needed: Needed) -> Needed:
        """The needs of the parent if it is ``ok`` now, where nothing has changed those of all."""
        if not await self._is_parent_ok(record):
            return Needed()
        if record.parent_digest == record.digest:
            return needed
        parent = await self._parent(record)
        return parent[1] if parent is not None else Needed()

    async def _own_pages(self, record: StoredSnapshot, root: Root) -> list[int]:
        """The pages for which no parent vouches that is ``ok`` now."""
        parent = None
        if await self._is_parent_ok(record):
            if record.parent_digest == record.digest:
                return []
            parent = await self._parent(record)
        return own_pages(root, parent[0]) if parent is not None else list(range(root.page_count))

    async def _is_parent_ok(self, record: StoredSnapshot) -> bool:
        if record.parent is None:
            return False
        try:
            parent = await self._get(SnapshotKey.parse(record.parent))
        except (NotFoundError, CorruptError):
            return False
        return parent.state == "ok" and parent.digest == record.parent_digest

    async def _parent(self, record: StoredSnapshot) -> tuple[Root, Needed] | None:
        """The parent's root and needs, if they can be read."""
        try:
            return await self._packs.root(Digest(record.parent_digest or ""))
        except (NotFoundError, CorruptError):
            return None


def _digest(pack: bytes) -> Digest:
    return Digest(pack.hex())
