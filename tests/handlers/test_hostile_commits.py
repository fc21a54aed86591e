"""Manifests that a client made up: none is ``ok`` that cannot be read, none costs a worker much."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import pytest_asyncio
from tests.archive.test_restore_hostile import Forger
from tests.form.trees import directory, file
from tests.handlers.snapshot_service import Shared, Site

from holdfast.domain.digest import digest_of
from holdfast.form.entries import Entry, Kind
from holdfast.form.packing import PACK_BYTES
from holdfast.form.root import PIECES_MAGIC
from holdfast.form.sparse import padding
from holdfast.form.tar_header import member_header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ROOT = directory(b"")
LARGE = os.urandom(1 << 20)
"""Of random bytes: too much for a commit to look at."""


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A worker with a directory of apps, where nothing is."""
    (tmp_path / "apps").mkdir()
    site = Site(Shared(), tmp_path / "apps")
    yield site
    await site.aclose()


async def commit(site: Site, blobs: dict[Any, bytes], root: str) -> tuple[str, dict[str, Any]]:
    """Put all blobs and commit the root; the key and the answer."""
    for data in blobs.values():
        await site.shared.put_pack(data)
    key = (await site.ok("snapshot.begin", app="shop"))["key"]
    reply = await site.ask("snapshot.commit", {"key": key, "digest": root})
    return key, reply.json


def link(path: bytes, kind: Kind, target: bytes) -> Entry:
    """A link of either kind."""
    return Entry(path=path, kind=kind, mode=0o644, uid=0, gid=0, target=target)


def lying(forger: Forger, data: bytes, *, path: bytes, says: bytes) -> None:
    """Add a page whose tar calls the file ``path`` ``says``."""
    entry = file(path, len(data))
    header = member_header(msgspec.structs.replace(entry, path=says))
    raw = member_header(ROOT) + header + data + bytes(padding(len(data)))
    assert len(header) == len(member_header(entry))
    forger.add(ROOT, (entry, data), frames=lambda _: [forger.frame(raw)])


def no_zstd(forger: Forger) -> None:
    """A frame that is something else."""
    forger.add(
        ROOT,
        (file(b"z", 100), b"0" * 100),
        frames=lambda raw: [forger.stored(raw, b"PK\x03\x04 no zstd at all")],
    )


def pages(*first: Any) -> Callable[[Forger], None]:
    """A page with these members, and one with ``then``."""

    def add(forger: Forger) -> None:
        forger.add(ROOT, *first[:-1])
        forger.add(first[-1])

    return add


HOSTILE: dict[str, Callable[[Forger], None]] = {
    "another name in the tar": lambda f: lying(f, b"x", path=b"readme", says=b"../../x"),
    "a frame that is none": no_zstd,
    "below a symlink of another page": pages(
        link(b"a", Kind.SYMLINK, b"/etc"), (file(b"a/x", 1), b"x")
    ),
    "below nothing": pages((file(b"a", 1), b"x"), (file(b"b/x", 1), b"x")),
    "a hard link to a symlink of another page": pages(
        link(b"a", Kind.SYMLINK, b"/etc"), link(b"h", Kind.HARDLINK, b"a")
    ),
    "a hard link to nothing": pages((file(b"b", 1), b"x"), link(b"h", Kind.HARDLINK, b"a")),
}


@pytest.mark.fault("T07")
@pytest.mark.parametrize("add", HOSTILE.values(), ids=HOSTILE)
async def test_a_manifest_that_cannot_be_read_is_never_ok(
    site: Site, add: Callable[[Forger], None]
) -> None:
    forger = Forger()
    add(forger)
    root = forger.snapshot(unchecked=True).digest

    key, answer = await commit(site, forger.store.packs, root)

    assert answer["code"] == "corrupt"
    assert (await site.ok("snapshot.get", key=key))["state"] == "pending"


@pytest.mark.fault("T07")
@pytest.mark.parametrize("what", ["a page that is noise", "a page of another root"])
async def test_a_page_that_is_none_is_found_before_anything_is_announced(
    site: Site, what: str
) -> None:
    forger = Forger()
    forger.add(ROOT, (file(b"a", 1), b"x"))
    genuine = forger.frame
    if what == "a page that is noise":
        forger.frame = lambda _, **lies: genuine(b"noise" * 9, **lies)  # type: ignore[method-assign]
    else:
        other = Forger()
        other.add(ROOT, (file(b"b", 1), b"x"))
        encoded = b"".join(map(other.snapshot().fresh_frame, other.snapshot().root.page_frames(0)))
        forger.frame = lambda _, **lies: genuine(encoded, **lies)  # type: ignore[method-assign]
    root = forger.snapshot(unchecked=True).digest

    key, answer = await commit(site, forger.store.packs, root)

    assert answer["code"] == "corrupt"
    record = await site.ok("snapshot.get", key=key)
    assert (record["state"], "digest" in record) == ("pending", False)


@pytest.mark.fault("T07")
async def test_a_large_tar_that_says_something_else_is_found_by_verify_and_not_exported(
    site: Site,
) -> None:
    forger = Forger()
    half = file(b"data/bin", len(LARGE))
    raw = member_header(msgspec.structs.replace(half, path=b"../../bi")) + LARGE
    whole = [member_header(ROOT), member_header(directory(b"data")), raw]
    cut = b"".join(whole)
    frames = [cut[at : at + 800_000] for at in range(0, len(cut), 800_000)]
    forger.add(
        ROOT, directory(b"data"), (half, LARGE), frames=lambda _: [*map(forger.frame, frames)]
    )

    key, answer = await commit(site, forger.store.packs, forger.snapshot().digest)
    report = await site.ok("snapshot.verify", key=key)
    exported = await site.ask("snapshot.export", {"key": key, "length": 1000})

    assert answer["state"] == "ok"
    assert [pack["paths"] for pack in report["damaged"]] == [["", "data", "data/bin"]]
    assert exported.code == "corrupt"


@pytest.mark.fault("T07")
async def test_what_a_client_made_is_exported_frame_by_frame_as_it_is_checked(site: Site) -> None:
    """A frame of data that is longer than it says would shift what follows: another member."""
    forger = Forger()
    entry = file(b"data", len(LARGE))
    header = member_header(ROOT) + member_header(entry)
    data = [LARGE[:500_000], LARGE[500_000:]]
    refs = [forger.frame(header), forger.frame(data[0])]
    short = msgspec.structs.replace(forger.frame(data[1] + bytes(512)), raw_size=len(data[1]))
    forger.add(ROOT, (entry, LARGE), frames=lambda _: [*refs, short])

    key, answer = await commit(site, forger.store.packs, forger.snapshot().digest)
    first = await site.ask("snapshot.export", {"key": key, "length": 100_000})
    last = await site.ask("snapshot.export", {"key": key, "offset": 600_000, "length": 100})

    assert answer["state"] == "ok"
    assert first.code == "ok"
    assert last.code == "corrupt"


def large_root() -> tuple[dict[str, bytes], str]:
    """A root in more pieces than a client's may have."""
    blobs = [bytes([number]) * (PACK_BYTES // 64) for number in range(100)]
    head = PIECES_MAGIC + b"".join(hashlib.sha256(blob).digest() for blob in blobs)
    return {str(number): blob for number, blob in enumerate([*blobs, head])}, digest_of(head)


@pytest.mark.fault("T07")
async def test_a_root_that_is_too_large_is_refused_before_it_is_read(site: Site) -> None:
    blobs, root = large_root()

    _, answer = await commit(site, blobs, root)

    assert answer["code"] == "too_large"


async def test_manifests_are_looked_through_one_at_a_time_and_a_repeat_joins(site: Site) -> None:
    roots = []
    for name in (b"a", b"b"):
        forger = Forger()
        forger.add(ROOT, (file(name, 1), b"x"))
        roots.append(forger.snapshot().digest)
        for data in forger.store.packs.values():
            await site.shared.put_pack(data)
    keys = [(await site.ok("snapshot.begin", app="shop"))["key"] for _ in roots]
    gate = site.shared.when_read()

    first = asyncio.create_task(site.ok("snapshot.commit", key=keys[0], digest=roots[0]))
    await gate.wait()
    asked = site.shared.packs.gets
    others = [
        asyncio.create_task(site.ok("snapshot.commit", key=key, digest=root))
        for key, root in zip([*keys, keys[0]], [*roots, roots[0]], strict=True)
    ]
    await asyncio.wait(others, timeout=0.2)
    reads_meanwhile = site.shared.packs.gets - asked
    gate.go_on()

    assert reads_meanwhile == 0
    records = await asyncio.gather(first, *others)
    assert [record["state"] for record in records] == ["ok"] * 4


async def revision_of(site: Site, key: str) -> int:
    """Of a snapshot's record."""
    return (await site.shared.records.get("s." + key.replace(":", "."))).revision


async def test_a_lease_goes_on_while_a_manifest_is_looked_through() -> None:
    forger = Forger()
    forger.add(ROOT, (file(b"a", 1), b"x"))
    root = forger.snapshot().digest
    shared = Shared()
    shared.lease_seconds = 0.03
    site = Site(shared, None)
    for data in forger.store.packs.values():
        await shared.put_pack(data)
    key = (await site.ok("snapshot.begin", app="shop"))["key"]
    gate = site.shared.when_read()

    committing = asyncio.create_task(site.ok("snapshot.commit", key=key, digest=root))
    await gate.wait()
    before = await revision_of(site, key)
    while await revision_of(site, key) < before + 3:  # noqa: ASYNC110 - by the worker's own timer
        await asyncio.sleep(0)
    gate.go_on()

    assert (await committing)["state"] == "ok"
    await site.aclose()
