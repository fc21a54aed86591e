"""A collection that would shrink or remove blobs which are not to be had."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import some_bytes
from tests.repository.care.test_scrub import spoil
from tests.repository.collector.test_collector import put, put_snapshot, remaining

from holdfast.domain.collection import Need, Reason
from holdfast.errors import UnavailableError
from holdfast.repository.collector.removals import PREFIX
from holdfast.repository.snapshots.roots import SnapshotRoots
from holdfast.stores.wrappers.forwarding import ForwardingBlobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.repository.collector.conftest import Deployed

    from holdfast.domain.collection import NewsOf
    from holdfast.domain.digest import Digest
    from holdfast.repository.collector.collector import Collector, Space
    from holdfast.stores.ports import BlobStore, SurveyedBlob


class PartNeeded(SnapshotRoots):
    """Those of snapshots, of which each needs only the first bytes of ``pack``."""

    def __init__(self, inner: SnapshotRoots, pack: Digest) -> None:
        super().__init__(inner.records, inner._open_store)
        self.pack = pack

    async def needed(self, root: Digest, news: NewsOf) -> AsyncIterator[Sequence[Need]]:
        """See `RootSource.needed`."""
        del news
        yield [Need(root), Need(self.pack, ((0, 10),))]


def packs_of(collector: Collector) -> Space:
    """Where the packs are."""
    [space] = [one for one in collector.spaces if one.name == "packs"]
    return space


@pytest.mark.fault("D02")
async def test_a_damaged_pack_of_which_little_is_needed_stays_and_the_rest_goes(
    deployed: Deployed,
) -> None:
    packs = deployed.stores.packs
    root, damaged = await put(packs, b"root"), await put(packs, some_bytes(10_000))
    await put_snapshot(deployed, digest=root)
    for number in range(20):
        await put(packs, b"%d" % number)
    await spoil(packs, damaged)
    collector = deployed.collector()
    space = packs_of(collector)
    [roots] = space.roots
    assert isinstance(roots, SnapshotRoots)
    collector.spaces = [replace(space, roots=[PartNeeded(roots, damaged)])]

    [first] = (await collector.run()).spaces
    [second] = (await collector.run()).spaces

    assert (first.failure, first.removed.blobs, first.repacked.blobs) == (None, 20, 0)
    assert (first.kept[Reason.DAMAGED].blobs, first.kept[Reason.NEEDED].blobs) == (1, 1)
    assert (second.failure, second.removed.blobs) == (None, 0)
    assert await remaining(packs) - {damaged} == {root}
    assert [one async for one in deployed.stores.records.list_records(PREFIX)] == []


class Refusing(ForwardingBlobStore):
    """Does not answer when ``digest`` is removed."""

    def __init__(self, inner: BlobStore, digest: Digest) -> None:
        super().__init__(inner)
        self.digest = digest

    async def collect(self, blob: SurveyedBlob) -> bool:
        """See `BlobStore.collect`."""
        if blob.digest == self.digest:
            raise UnavailableError
        return await super().collect(blob)


async def test_what_was_removed_before_a_run_failed_is_counted(deployed: Deployed) -> None:
    packs = deployed.stores.packs
    first, *others = [await put(packs, b"%d" % number) for number in range(5)]
    collector = deployed.collector()
    space = packs_of(collector)
    collector.spaces = [replace(space, store=Refusing(packs, first))]

    [found] = (await collector.run()).spaces

    assert found.failure is not None
    assert found.removed.blobs == len(others)
    assert await remaining(packs) == {first}
