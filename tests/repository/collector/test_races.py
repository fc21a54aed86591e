"""The code that runs, with pauses drawn at random, beside collectors whom no time holds back.

`test_model` tries every order of few steps of a model. Here snapshots are made of real files, names
are written, read and removed, on stores in memory whose every answer comes late by chance.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.handlers.snapshot_service import Shared, Site
from tests.repository.names.pool import NamesWorker

from holdfast.bootstrap.collector import assemble_collector
from holdfast.bootstrap.names import NameParts
from holdfast.bootstrap.setup import Setup
from holdfast.bootstrap.snapshots import opener_of
from holdfast.bootstrap.stores import LOCAL
from holdfast.domain.collection import left_of
from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.kept import has_bytes, joined
from holdfast.domain.limits import MIB
from holdfast.errors import ConflictError, NotFoundError
from holdfast.repository.snapshots.roots import SnapshotRoots
from holdfast.runtime.config import Config
from holdfast.stores.deployment import write_deployment
from holdfast.stores.memory import MemoryBlobStore, MemoryRecordStore
from holdfast.stores.ports import Attributes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from holdfast.domain.kept import Range
    from holdfast.repository.collector.collector import Collector

LATEST_SECONDS = 0.02
CONTENTS = [b"one" * 1000, b"two" * 1000, b"three" * 1000]


def late(chance: random.Random) -> float:
    """Mostly at once, now and then for as long as others take for several steps."""
    return LATEST_SECONDS * chance.random() if chance.random() < 0.2 else 0.0


class LateBlobStore(MemoryBlobStore):
    """Answers come late, by chance."""

    def __init__(self, clock: Callable[[], datetime], chance: random.Random) -> None:
        super().__init__(clock)
        self._chance = chance

    async def _reach(self) -> None:
        await asyncio.sleep(late(self._chance))
        await super()._reach()


class LateRecordStore(MemoryRecordStore):
    """The same for records."""

    def __init__(self, monotonic: Callable[[], float], chance: random.Random) -> None:
        super().__init__(monotonic)
        self._chance = chance

    async def _reach(self) -> None:
        await asyncio.sleep(late(self._chance))
        await super()._reach()


class Racing(Shared):
    """The stores that the workers share."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.grace = timedelta(seconds=-1)

        def records() -> LateRecordStore:
            return LateRecordStore(self.time.monotonic, chance)

        self.stores = replace(
            self.stores,
            blobs=LateBlobStore(self.time.clock, chance),
            packs=LateBlobStore(self.time.clock, chance),
            snapshots=records(),
            names=records(),
            records=records(),
        )

    async def begin(self) -> None:
        """Time protects nothing."""
        await write_deployment(self.stores.records, replace_grace())

    def collector(self) -> Collector:
        """That of one more worker."""
        config = Config(collect_bytes_per_second=1 << 40)
        setup = Setup(
            config=config,
            sources=self.time.sources,
            worker="c",
            max_payload=MIB,
            grace=self.grace,
        )
        return assemble_collector(setup, self.stores, NameParts(setup, self.stores))

    def names(self, worker: str) -> NamesWorker:
        """Those of one more worker."""
        return NamesWorker(
            worker, self.stores.blobs, self.stores.names, self.stores.records, self.time
        )


def replace_grace() -> Any:
    """A deployment's record whose grace time is over at once."""
    return LOCAL.__class__(
        **{field: getattr(LOCAL, field) for field in LOCAL.__struct_fields__}
        | {"grace_seconds": -1}
    )


async def collect(shared: Racing, until: asyncio.Event) -> int:
    """Collect now and then; how much was removed."""
    removed = 0
    while not until.is_set():
        report = await shared.collector().run()
        assert report.off is None
        removed += sum(space.removed.blobs for space in report.spaces)
        await asyncio.sleep(LATEST_SECONDS * shared.chance.random())
    return removed


async def make_snapshots(shared: Racing, site: Site, rounds: int) -> int:
    """Make snapshots, and remove some; how many were ok."""
    made: list[str] = []
    count = 0
    for number in range(rounds):
        site.write(f"{site.node}/{number % 2}", b"%d" % (number % 3) * 3000)
        reply = await site.ask("snapshot.create", {"app": site.node})
        if reply.code == "ok" and reply.json["state"] == "ok":
            count += 1
            made.append(reply.json["key"])
            verified = await site.ok("snapshot.verify", key=made[-1])
            assert verified.get("damaged", []) == [], verified
        if len(made) > shared.chance.randrange(2):
            await site.ask("snapshot.delete", {"key": made.pop(0)})
    return count


async def write_names(worker: NamesWorker, chance: random.Random, rounds: int) -> int:
    """Create, replace, copy, remove; how often that was done."""
    done = 0
    for number in range(rounds):
        name = f"n{chance.randrange(3)}"
        data = chance.choice(CONTENTS)
        try:
            await chance.choice(
                (
                    lambda name=name, data=data: worker.create(name, data),
                    lambda name=name, data=data: worker.replace(name, data),
                    lambda name=name, number=number: worker.copy(f"n{number % 3}", f"m{name}"),
                    lambda name=name: worker.copy(f"m{name}", name),
                    lambda name=name: worker.delete(name),
                    lambda name=name: worker.rename(f"m{name}", name),
                )
            )()
            done += 1
        except (NotFoundError, ConflictError):
            pass
    return done


async def put_and_delete(shared: Racing, rounds: int) -> None:
    """Plain puts and deletions of bytes that names have, too."""
    for _ in range(rounds):
        data = shared.chance.choice(CONTENTS)
        attributes = Attributes(type="a/b", created_at=shared.time.clock())
        await shared.stores.blobs.put(digest_of(data), data, attributes)
        info = await shared.stores.blobs.stat(digest_of(data), sure=True)
        assert await shared.stores.blobs.get(info) == data
        await unpin(shared, digest_of(data))


async def unpin(shared: Racing, digest: Digest) -> None:
    """Take the pin, as a deletion does of what a name has."""

    async def kept() -> bool:
        return True

    await shared.stores.blobs.delete(digest, kept=kept)


async def all_news(keys: Sequence[bytes]) -> Sequence[bool]:
    """Nothing is left out."""
    return [True for _ in keys]


async def check_all(shared: Racing, site: Site) -> None:
    """All that is there can be read, and nothing is there that nothing needs."""
    needed: dict[Digest, list[Range] | None] = {}
    open_store = opener_of(site.service.restores._packs)
    roots = SnapshotRoots(shared.stores.snapshots, open_store)
    changes = (await shared.stores.snapshots.changes(0, limit=10_000)).changes
    for changed in changes:
        for root in roots.named(changed):
            async for some in roots.needed(root, all_news):
                for digest, ranges in some:
                    known = needed.setdefault(digest, [])
                    needed[digest] = None if ranges is None or known is None else [*known, *ranges]
    packs = shared.stores.packs
    for digest, parts in needed.items():
        info = await packs.stat(digest, sure=True, partial=True)
        await packs.get(info)
        assert has_bytes(info.kept, None if parts is None else joined(parts))
        assert parts is None or left_of(joined(parts), info.size) is None
    assert {blob.digest for blob in (await packs.survey(None, limit=10_000)).blobs} == set(needed)
    names = shared.names("r")
    for number in range(3):
        for name in f"n{number}", f"mn{number}":
            try:
                await names.read(name)
            except NotFoundError:
                continue


@pytest.fixture(
    params=[1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 8))]
)
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Random draws, by seed."""
    return random.Random(request.param)  # noqa: S311  (test data, not secrets)


async def sites_of(shared: Racing, root: Path) -> AsyncIterator[Site]:
    """Workers with apps of their own."""
    for number in range(3):
        site = Site(shared, root / f"apps{number}", node=f"n{number}")
        site.write(f"{site.node}/a", b"a" * 2000)
        yield site


async def test_collectors_beside_all_that_writes_lose_and_leave_nothing(
    chance: random.Random, tmp_path: Path
) -> None:
    shared = Racing(chance)
    await shared.begin()
    sites = [site async for site in sites_of(shared, tmp_path)]
    is_over = asyncio.Event()
    collecting = [asyncio.ensure_future(collect(shared, is_over)) for _ in range(2)]

    made = await asyncio.gather(
        *(make_snapshots(shared, site, 12) for site in sites),
        *(write_names(shared.names(f"w{n}"), chance, 60) for n in range(4)),
        put_and_delete(shared, 40),
    )
    is_over.set()
    removed = await asyncio.gather(*collecting)

    last = await shared.collector().run()
    assert [space.failure for space in last.spaces] == [None, None]
    await check_all(shared, sites[0])
    assert sum(removed) > 0
    assert sum(one or 0 for one in made[:3]) > 0
    assert sum(one or 0 for one in made[3:-1]) > 0
    for site in sites:
        await site.service.aclose()
        site.apps.close()
