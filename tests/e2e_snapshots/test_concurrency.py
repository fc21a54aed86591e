"""Many snapshots and restores at once, of different apps and of one, while files change."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.e2e_snapshots.site import RefusedError
from tests.e2e_snapshots.trees import contents, difference, leftovers, look, plain_tree
from tests.programs import needs_zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e_snapshots.site import Record, Site

pytestmark = pytest.mark.nats

_AT_ONCE = int(os.environ.get("SNAPSHOTS_AT_ONCE", "16"))
_ADMITTED_SECONDS = 60


async def admitted(site: Site, what: str, *given: str, **more: str) -> Record:
    """The ended record, asked for again while the worker is at its limit."""
    async with asyncio.timeout(_ADMITTED_SECONDS):
        while True:
            try:
                return await (site.create if what == "create" else site.restore)(*given, **more)
            except RefusedError as refused:
                if refused.code != "rate_limited":
                    raise
                await asyncio.sleep(0.1)


async def test_many_apps_are_archived_and_restored_at_once_without_being_mixed_up(
    site: Site,
) -> None:
    names = [f"many-{number}" for number in range(_AT_ONCE)]
    trees = [
        look(plain_tree(site.apps / name, files=25, size=8_000, seed=number))
        for number, name in enumerate(names)
    ]

    created = await asyncio.gather(*(admitted(site, "create", name) for name in names))
    restored = await asyncio.gather(
        *(
            admitted(site, "restore", record["key"], app=f"{name}-again")
            for name, record in zip(names, created, strict=True)
        )
    )

    assert {record["state"] for record in (*created, *restored)} == {"ok"}
    assert [record["app"] for record in created] == names
    for name, before in zip(names, trees, strict=True):
        assert not difference(before, look(site.apps / f"{name}-again"))


@pytest.mark.fault("S06")
async def test_two_snapshots_of_one_app_at_once_are_two_that_are_whole(site: Site) -> None:
    before = look(plain_tree(site.apps / "doubled", files=100, size=30_000, seed=3))

    first, second = await asyncio.gather(site.create("doubled"), site.create("doubled"))

    assert first["key"] != second["key"]
    for number, record in enumerate((first, second)):
        assert record["state"] == "ok"
        assert (await site.verified(record["key"]))["damaged"] == []
        await site.restore(record["key"], app=f"doubled-{number}")
        assert difference(before, look(site.apps / f"doubled-{number}")) == []


@pytest.mark.fault("S04")
async def test_of_two_restores_into_a_new_directory_one_is_a_conflict(site: Site) -> None:
    before = look(plain_tree(site.apps / "raced", files=50, size=20_000, seed=4))
    record = await site.create("raced")

    ended = await asyncio.gather(
        *(outcome_of_restore(site, record["key"], app="raced-new") for _ in range(2))
    )

    assert sorted(ended) == ["conflict", "ok"]
    assert difference(before, look(site.apps / "raced-new")) == []


@pytest.mark.fault("S04")
async def test_a_directory_that_is_there_is_not_restored_into_unless_told(site: Site) -> None:
    plain_tree(site.apps / "kept", files=5, size=1000, seed=5)
    record = await site.create("kept")
    (site.apps / "kept" / "newer").write_bytes(b"newer")
    before = look(site.apps / "kept")

    ended = await outcome_of_restore(site, record["key"])

    assert ended == "conflict"
    assert difference(before, look(site.apps / "kept")) == []


async def test_of_two_replacing_restores_the_tree_is_one_of_the_two(site: Site) -> None:
    tree = plain_tree(site.apps / "replaced", files=60, size=20_000, seed=6)
    old, old_key = contents(tree), (await site.create("replaced"))["key"]
    plain_tree(tree, files=60, size=20_000, seed=66)
    (tree / "only in the new one").write_bytes(b"new")
    new, new_key = contents(tree), (await site.create("replaced"))["key"]

    ended = await asyncio.gather(
        *(outcome_of_restore(site, key, mode="replace") for key in (old_key, new_key))
    )

    assert ended == ["ok", "ok"]
    assert contents(tree) in (old, new)
    assert leftovers(site.apps) == []


async def test_a_restore_replaces_an_app_whose_files_change_meanwhile(site: Site) -> None:
    tree = plain_tree(site.apps / "busy", files=60, size=20_000, seed=8)
    before = contents(tree)
    record = await site.create("busy")

    with writing(tree):
        ended = await outcome_of_restore(site, record["key"], mode="replace")

    # The writer goes on in the new tree, by path: only its own file may differ.
    after = contents(tree)
    after.pop(b"busy", None)
    assert ended == "ok"
    assert after == before
    assert leftovers(site.apps) == []


@pytest.mark.fault("S02")
@needs_zstd
async def test_an_app_whose_files_change_while_archived_gives_a_valid_archive(
    site: Site, tmp_path: Path
) -> None:
    tree = plain_tree(site.apps / "changing", files=300, size=20_000, seed=9)

    with writing(tree), churning(tree):
        records = [await site.create("changing") for _ in range(3)]

    for number, record in enumerate(records):
        assert record["state"] == "ok", record.get("reason")
        assert (await site.verified(record["key"]))["damaged"] == []
        assert {warning["kind"] for warning in record.get("warnings", [])} <= {
            "changed",
            "vanished",
        }
        restored = await site.restore(record["key"], app=f"changing-{number}")
        assert restored["state"] == "ok"
        archive = tmp_path / f"{number}.tar.zst"
        archive.write_bytes(await site.content("snapshot.export", key=record["key"]))
        listing = await asyncio.create_subprocess_exec(
            "tar", "--zstd", "-tf", archive, stdout=asyncio.subprocess.DEVNULL
        )
        assert await listing.wait() == 0


@pytest.mark.fault("S05")
async def test_a_snapshot_deleted_while_it_is_restored_leaves_a_whole_tree_or_none(
    site: Site,
) -> None:
    before = contents(plain_tree(site.apps / "deleted", files=60, size=20_000, seed=10))
    record = await site.create("deleted")

    ended, deleted = await asyncio.gather(
        outcome_of_restore(site, record["key"], app="deleted-again"),
        site.ask("snapshot.delete", key=record["key"]),
    )

    assert deleted == {"deleted": True}
    if ended == "ok":
        assert contents(site.apps / "deleted-again") == before
    else:
        assert ended in ("not_found", "conflict", "corrupt")
        assert not (site.apps / "deleted-again").exists()


async def outcome_of_restore(site: Site, key: str, **request: str) -> str:
    """``ok``, or the code with which a restore was refused or ended."""
    try:
        record = await site.restore(key, **request)
    except RefusedError as refused:
        return refused.code
    return "ok" if record["state"] == "ok" else str(record["code"])


@contextmanager
def writing(tree: Path) -> Iterator[None]:
    """A file of ``tree`` is written to all the time, by path."""
    with _repeated(lambda number: (tree / "busy").write_bytes(b"%d" % number * (number % 5000))):
        yield


@contextmanager
def churning(tree: Path) -> Iterator[None]:
    """Files of ``tree`` grow, shrink, vanish and come back all the time."""
    files = sorted(path for path in tree.rglob("f*") if path.is_file())

    def churn(number: int) -> None:
        path = files[number * 7919 % len(files)]
        if number % 3 == 0:
            path.unlink(missing_ok=True)
        elif number % 3 == 1:
            path.write_bytes(os.urandom(number % 40_000))
        elif path.exists():
            os.truncate(path, number % 100)

    with _repeated(churn):
        yield


@contextmanager
def _repeated(step: Callable[[int], object]) -> Iterator[None]:
    ended = threading.Event()
    failed: list[OSError] = []

    def run() -> None:
        number = 0
        while not ended.wait(0.0005):
            number += 1
            try:
                step(number)
            except FileNotFoundError:
                continue  # the tree is being exchanged
            except OSError as error:
                failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert failed == []
