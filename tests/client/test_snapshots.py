"""Snapshots through the client: made by workers, made here, read, restored, removed."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import stat
import subprocess
import tarfile
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from nats.aio.client import Client as NatsClient
from tests.client.test_partial_file import SlowFile
from tests.contracts.blob_store import some_bytes
from tests.deployment import Deployment, deployed
from tests.programs import needs_zstd

from holdfast.client import Client, connect, connect_sync
from holdfast.client.from_thread import PIPE_STOP_SECONDS
from holdfast.errors import ConflictError, InvalidError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from holdfast.protocol.snapshots import SnapshotProgress
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

LARGE = some_bytes(5_000_000, seed=5)
ABSENT = "blog:01935f9e-7b1c-7000-8000-000000000000"


def make_tree(root: Path) -> Path:
    """A little of everything."""
    (root / "sub/deep").mkdir(parents=True)
    (root / "empty").write_bytes(b"")
    (root / "text.txt").write_bytes(b"hello\n")
    (root / "large").write_bytes(LARGE)
    (root / "sub/deep/script").write_bytes(b"#!/bin/sh\n")
    (root / "sub/deep/script").chmod(0o751)
    (root / "sub/link").symlink_to("deep/script")
    os.link(root / "text.txt", root / "sub/same")
    (root / os.fsdecode(b"not-\xff-utf8")).write_bytes(b"odd")
    os.utime(root / "empty", ns=(1, 1_234_567_890_123_456_789))
    return root


def look(root: Path) -> dict[str, tuple[Any, ...]]:
    """A tree, as far as a snapshot keeps it."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: bytes | str = b""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[os.fsdecode(os.fsencode(path.relative_to(root)))] = (
            stat.filemode(status.st_mode),
            status.st_uid,
            status.st_gid,
            0 if path.is_symlink() else status.st_mtime_ns,
            status.st_nlink if path.is_file() else 0,
            content,
        )
    return found


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workers' apps are."""
    return tmp_path_factory.mktemp("apps")


@pytest.fixture(scope="module")
def deployment(nats_server: EmbeddedServer, apps: Path) -> Iterator[Deployment]:
    """Two workers that have the same apps."""
    with deployed(nats_server.url, "one", "two", apps=str(apps)) as deployment:
        yield deployment


async def all_of[T](items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


# --- made by workers ---


async def test_an_app_is_archived_and_restored_as_another(holdfast: Client, apps: Path) -> None:
    make_tree(apps / "blog")

    record = await holdfast.snapshots.create("blog", labels={"why": "test"})
    restored = await holdfast.snapshots.restore(record.key, app="blog-copy")

    assert (record.state, record.app, record.labels) == ("ok", "blog", {"why": "test"})
    assert (record.files, record.size) == (5, 5_000_000 + 6 + 10 + 3)
    assert (restored.state, restored.app, restored.key) == ("ok", "blog-copy", record.key)
    assert look(apps / "blog-copy") == look(apps / "blog")
    assert await holdfast.snapshots.get(record.key) == record
    assert await holdfast.snapshots.get_restore(restored.restore) == restored


async def test_progress_is_told_until_the_end(holdfast: Client, apps: Path) -> None:
    make_tree(apps / "told")
    told: list[SnapshotProgress] = []

    record = await holdfast.snapshots.create("told", on_progress=told.append)

    assert record.state == "ok"
    assert all(progress.key == record.key for progress in told)
    if told:  # unless it was done at once
        assert told[-1].state == "ok" or told[-1].bytes <= record.size


async def test_whoever_does_not_wait_finds_out_later(holdfast: Client, apps: Path) -> None:
    make_tree(apps / "later")

    record = await holdfast.snapshots.create("later", wait=False)
    while record.state == "pending":
        await asyncio.sleep(0.02)
        record = await holdfast.snapshots.get(record.key)

    assert record.state == "ok"


async def test_an_app_that_is_not_there_is_not_found(holdfast: Client) -> None:
    with pytest.raises(NotFoundError):
        await holdfast.snapshots.create("nobody-has-this")


async def test_a_directory_that_is_there_is_not_restored_over(holdfast: Client, apps: Path) -> None:
    make_tree(apps / "there")
    record = await holdfast.snapshots.create("there")
    (apps / "there/new").write_bytes(b"new")

    with pytest.raises(ConflictError):
        await holdfast.snapshots.restore(record.key)
    planned = await holdfast.snapshots.restore(record.key, mode="replace", dry_run=True)
    assert (apps / "there/new").exists()
    await holdfast.snapshots.restore(record.key, mode="replace")

    assert planned.dry_run
    assert not (apps / "there/new").exists()


@pytest.mark.parametrize("key", ["blog", "../x:1", "blog:latest", ""])
async def test_a_key_that_is_none_is_invalid(holdfast: Client, key: str) -> None:
    with pytest.raises(InvalidError):
        await holdfast.snapshots.get(key)


async def test_what_is_not_there_is_not_found(holdfast: Client) -> None:
    with pytest.raises(NotFoundError):
        await holdfast.snapshots.get(ABSENT)
    with pytest.raises(NotFoundError):
        await holdfast.snapshots.read(ABSENT, "x")
    with pytest.raises(NotFoundError):
        await holdfast.snapshots.newest("nobody-has-this")
    assert await holdfast.snapshots.delete(ABSENT) is False
    assert await holdfast.snapshots.purge("nobody-has-this") == 0


# --- made here ---


async def test_a_directory_of_this_machine_comes_back_as_it_was(
    holdfast: Client, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree")
    told: list[SnapshotProgress] = []

    record = await holdfast.snapshots.create_from(tree, app="here", on_progress=told.append)
    restored = await holdfast.snapshots.restore_to(record.key, tmp_path / "copy")

    assert (record.state, record.files, record.warning_count) == ("ok", 5, 0)
    assert record.added > 0
    assert look(tmp_path / "copy") == look(tree)
    assert (restored.state, restored.files) == ("ok", 5)
    assert told[-1].phase == "done"


async def test_what_the_pool_has_is_not_sent_again(holdfast: Client, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    first = await holdfast.snapshots.create_from(tree, app="again")
    other = await holdfast.snapshots.create_from(tree, app="again-elsewhere")
    (tree / "text.txt").write_bytes(b"changed\n")

    second = await holdfast.snapshots.create_from(tree, app="again")

    assert second.parent == first.key
    assert 0 < second.added < 100_000
    assert (other.parent, other.added) == (None, 0)
    changes = await all_of(holdfast.snapshots.diff(first.key, second.key))
    assert ("sub/same", "modified") in [(change.path, change.change) for change in changes]


async def test_packs_that_went_missing_are_put_again(
    deployment: Deployment, holdfast: Client, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree")
    first = await holdfast.snapshots.create_from(tree, app="lost")
    await lose_packs(deployment, besides=first.digest or "")

    second = await holdfast.snapshots.create_from(tree, app="lost")

    assert second.state == "ok"
    assert await holdfast.snapshots.read(second.key, "large") == LARGE


async def lose_packs(deployment: Deployment, *, besides: str) -> None:
    """Drop every pack but one, as a collector gone wrong might."""
    client = NatsClient()
    await client.connect(deployment.url)
    bucket = f"{deployment.prefix}_packs"
    stream = f"OBJ_{bucket}"
    kept = base64.urlsafe_b64encode(besides.encode()).decode()
    info = await client.jetstream().stream_info(stream, subjects_filter=f"$O.{bucket}.M.>")
    for subject in info.state.subjects or {}:
        if not subject.endswith(f".{kept}"):
            await client.jetstream().purge_stream(stream, subject=subject)
    await client.close()


@pytest.mark.parametrize("compression", ["", "gz"])
@pytest.mark.parametrize("kind", ["path", "stream"])
async def test_a_tar_becomes_a_snapshot(
    holdfast: Client, tmp_path: Path, compression: str, kind: str
) -> None:
    tree = make_tree(tmp_path / "tree")
    archive = tmp_path / "tree.tar"
    with tarfile.open(archive, f"w:{compression}") as tar:  # type: ignore[call-overload]
        tar.add(tree, arcname=".")
    source = archive if kind == "path" else io.BytesIO(archive.read_bytes())

    record = await holdfast.snapshots.create_from(source, app=f"tar{compression}{kind}")
    await holdfast.snapshots.restore_to(record.key, tmp_path / "copy")

    copy, was = look(tmp_path / "copy"), look(tree)
    assert {path: row[5] for path, row in copy.items()} == {p: row[5] for p, row in was.items()}


@needs_zstd
async def test_an_exported_snapshot_is_one_to_archive_again(
    holdfast: Client, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree")
    record = await holdfast.snapshots.create_from(tree, app="exported")
    archive = tmp_path / "exported.tar.zst"

    size = await holdfast.snapshots.export_to(record.key, archive)
    again = await holdfast.snapshots.create_from(archive, app="exported-again")
    await holdfast.snapshots.restore_to(again.key, tmp_path / "copy")

    assert size == archive.stat().st_size == record.archive_size
    assert without_fractions(look(tmp_path / "copy")) == without_fractions(look(tree))
    listed = await asyncio.to_thread(listing_of, archive)
    assert b"\nsub/deep/script\n" in listed
    part = await all_of(holdfast.snapshots.export(record.key, offset=1000, length=3_000_000))
    assert b"".join(part) == archive.read_bytes()[1000:3_001_000]


async def test_an_export_to_a_slow_file_does_not_go_on_behind_the_caller(
    holdfast: Client, tmp_path: Path
) -> None:
    record = await holdfast.snapshots.create_from(make_tree(tmp_path / "tree"), app="slowly")
    file = SlowFile()
    exporting = asyncio.create_task(holdfast.snapshots.export_to(record.key, file))
    await asyncio.to_thread(file.begun.wait)

    exporting.cancel()
    asyncio.get_running_loop().call_later(2 * PIPE_STOP_SECONDS, file.may_end.set)
    await asyncio.wait([exporting])

    assert exporting.cancelled()
    assert file.taken > 0, "the write that was under way has ended"


def without_fractions(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """With times as a tar has them."""
    return {path: (*row[:3], row[3] // 10**9, *row[4:]) for path, row in found.items()}


def listing_of(archive: Path) -> bytes:
    """The names that tar lists."""
    command = ["tar", "--zstd", "-tf", str(archive)]
    return subprocess.run(command, capture_output=True, check=True).stdout


async def test_a_directory_that_is_not_there_leaves_no_record(
    holdfast: Client, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError):
        await holdfast.snapshots.create_from(tmp_path / "gone", app="gone")

    assert await all_of(holdfast.snapshots.list(app="gone")) == []


async def test_what_is_no_tar_leaves_no_record(holdfast: Client) -> None:
    with pytest.raises(InvalidError):
        await holdfast.snapshots.create_from(io.BytesIO(b"x" * 10_000), app="no-tar")
    with pytest.raises(InvalidError):
        await holdfast.snapshots.create_from(io.BytesIO(b""), app="no-tar", exclude=["x"])

    assert await all_of(holdfast.snapshots.list(app="no-tar")) == []


async def test_a_cancelled_archive_leaves_nothing_pending(holdfast: Client, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    begun = asyncio.Event()
    task = asyncio.create_task(
        holdfast.snapshots.create_from(tree, app="cancelled", on_progress=lambda _: begun.set())
    )
    await begun.wait()

    task.cancel()
    done, _ = await asyncio.wait([task])

    listed = await all_of(holdfast.snapshots.list(app="cancelled"))
    if task in done and task.cancelled():
        assert listed == []
    else:  # it was quicker
        assert [record.state for record in listed] == ["ok"]


async def test_excluded_files_are_not_in_the_snapshot(holdfast: Client, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")

    record = await holdfast.snapshots.create_from(tree, app="less", exclude=["large", "sub/"])

    paths = [entry.path for entry in await all_of(holdfast.snapshots.files(record.key))]
    assert paths == ["", "empty", "not-\N{REPLACEMENT CHARACTER}-utf8", "text.txt"]


@pytest.mark.parametrize("mode", ["new", "replace", "merge"])
async def test_a_restore_here_treats_what_is_there_as_its_mode_says(
    holdfast: Client, tmp_path: Path, mode: Any
) -> None:
    tree = make_tree(tmp_path / "tree")
    record = await holdfast.snapshots.create_from(tree, app="modes")
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_bytes(b"mine")

    if mode == "new":
        with pytest.raises(ConflictError):
            await holdfast.snapshots.restore_to(record.key, target, mode=mode)
    else:
        await holdfast.snapshots.restore_to(record.key, target, mode=mode)

    assert (target / "mine").exists() == (mode != "replace")
    assert (target / "text.txt").exists() == (mode != "new")


async def test_a_target_may_be_relative_but_must_have_a_name(
    holdfast: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "tree")
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    record = await holdfast.snapshots.create_from(tree, app="named")

    for root in ("/", "/..", "/tree/.."):
        with pytest.raises(InvalidError, match="name"):
            await holdfast.snapshots.restore_to(record.key, root, mode="merge", dry_run=True)
    await holdfast.snapshots.restore_to(record.key, ".", mode="merge")
    await holdfast.snapshots.restore_to(record.key, "..", mode="merge", paths=["text.txt"])

    assert set(look(tmp_path / "here" / "below")) == set(look(tree))
    assert (tmp_path / "here" / "text.txt").exists()


async def test_a_plan_says_how_long_it_is_and_paths_replace_nothing(
    holdfast: Client, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree")
    record = await holdfast.snapshots.create_from(tree, app="planned")

    planned = await holdfast.snapshots.restore_to(record.key, tmp_path / "new", dry_run=True)
    with pytest.raises(InvalidError, match="merge"):
        await holdfast.snapshots.restore_to(record.key, tree, paths=["sub"], mode="replace")

    assert planned.plan_count == len(planned.plan) == record.entries


async def test_some_paths_can_be_restored_and_a_plan_be_had(
    holdfast: Client, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree")
    record = await holdfast.snapshots.create_from(tree, app="some")

    planned = await holdfast.snapshots.restore_to(
        record.key, tmp_path / "plan", paths=["sub"], dry_run=True
    )
    await holdfast.snapshots.restore_to(record.key, tmp_path / "some", paths=["sub/deep", "*.txt"])

    assert not (tmp_path / "plan").exists()
    assert planned.dry_run
    assert set(look(tmp_path / "some")) == {"sub", "sub/deep", "sub/deep/script", "text.txt"}


# --- read ---


async def test_a_file_is_read_whole_and_in_ranges(holdfast: Client, tmp_path: Path) -> None:
    record = await holdfast.snapshots.create_from(make_tree(tmp_path / "tree"), app="read")
    read = holdfast.snapshots.read

    assert await read(record.key, "large") == LARGE
    assert (
        await read(record.key, "large", offset=700_000, length=900_001) == LARGE[700_000:1_600_001]
    )
    assert await read(record.key, "empty") == b""
    assert await read(record.key, "sub/same") == b"hello\n"
    assert await read(record.key, b"not-\xff-utf8") == b"odd"
    assert await read(record.key, "text.txt", offset=100) == b""
    with pytest.raises(NotFoundError):
        await read(record.key, "gone")
    assert await holdfast.snapshots.read_to(record.key, "text.txt", tmp_path / "out") == 6
    assert (tmp_path / "out").read_bytes() == b"hello\n"


async def test_whoever_stops_reading_early_leaves_nothing_running(
    holdfast: Client, tmp_path: Path
) -> None:
    record = await holdfast.snapshots.create_from(make_tree(tmp_path / "tree"), app="early")
    before = len(asyncio.all_tasks())

    stream: Any = holdfast.snapshots.stream(record.key, "large")
    async with aclosing(stream) as incoming:
        await anext(incoming)

    assert len(asyncio.all_tasks()) == before


async def test_files_can_be_listed_below_a_path(holdfast: Client, tmp_path: Path) -> None:
    record = await holdfast.snapshots.create_from(make_tree(tmp_path / "tree"), app="listed")

    below = await all_of(holdfast.snapshots.files(record.key, "sub"))

    assert [(entry.path, entry.kind) for entry in below] == [
        ("sub", "directory"),
        ("sub/deep", "directory"),
        ("sub/deep/script", "file"),
        ("sub/link", "symlink"),
        ("sub/same", "file"),
    ] or [entry.kind for entry in below].count("hardlink") == 1
    assert next(entry for entry in below if entry.path == "sub/link").target == "deep/script"


async def test_all_that_a_snapshot_needs_is_verified(holdfast: Client, tmp_path: Path) -> None:
    record = await holdfast.snapshots.create_from(make_tree(tmp_path / "tree"), app="verified")

    reports = await all_of(holdfast.snapshots.verify(record.key))

    assert sum(report.bytes for report in reports) > 0
    assert [report.damaged for report in reports] == [[]] * len(reports)


async def test_a_list_is_that_of_its_conditions_newest_first(
    holdfast: Client, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    keys = [
        (
            await holdfast.snapshots.create_from(
                tmp_path / "tree", app=f"cond{number % 2}", labels={"n": str(number), "t": "c"}
            )
        ).key
        for number in range(4)
    ]

    async def listed(**conditions: Any) -> list[str]:
        records = holdfast.snapshots.list(**({"labels": {"t": "c"}} | conditions))
        return [record.key for record in await all_of(records)]

    assert await listed() == keys[::-1]
    assert await listed(app="cond0") == [keys[2], keys[0]]
    assert await listed(apps=["cond0", "cond1"]) == keys[::-1]
    assert await listed(labels={"t": "c", "n": "3"}) == [keys[3]]
    assert await listed(state="failure") == []
    assert (await holdfast.snapshots.newest("cond1")).key == keys[3]
    assert await holdfast.snapshots.delete(keys[0])
    assert await holdfast.snapshots.purge("cond1") == 2
    assert await listed() == [keys[2]]


def test_scripts_need_no_event_loop(deployment: Deployment, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")

    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as client:
        record = client.snapshots.create_from(tree, app="sync")
        client.snapshots.restore_to(record.key, tmp_path / "copy")
        first = next(iter(client.snapshots.export(record.key)))

        assert look(tmp_path / "copy") == look(tree)
        assert client.snapshots.read(record.key, "large") == LARGE
        assert bytes(first[:4]) == b"\x28\xb5\x2f\xfd"
        assert [found.key for found in client.snapshots.list(app="sync")] == [record.key]
        assert client.snapshots.delete(record.key)


def test_workers_that_die_amid_an_archive_and_a_restore_are_not_missed(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(30):
        (tree / str(number)).write_bytes(some_bytes(1_000_000, seed=number))

    async def archive_and_restore(own: Deployment) -> None:
        async with await connect(servers=own.url, prefix=own.prefix) as client:
            begun = asyncio.Event()
            creating = asyncio.create_task(
                client.snapshots.create_from(tree, app="dying", on_progress=lambda _: begun.set())
            )
            await begun.wait()
            own.kill("one")
            record = await creating
            begun.clear()
            restoring = asyncio.create_task(
                client.snapshots.restore_to(
                    record.key, tmp_path / "copy", on_progress=lambda _: begun.set()
                )
            )
            await begun.wait()
            own.kill("two")
            await restoring

    with deployed(nats_server.url, "one", "two", "three") as own:
        asyncio.run(archive_and_restore(own))

    assert look(tmp_path / "copy") == look(tree)


def test_a_snapshot_and_a_restore_whose_workers_are_killed_are_made_anew(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    tree = tmp_path / "apps/app"
    tree.mkdir(parents=True)
    for number in range(40):
        (tree / str(number)).write_bytes(some_bytes(1_000_000, seed=number))
    settings = {"apps": str(tree.parent), "snapshot_lease_seconds": "1"}

    async def replace_worker(own: Deployment) -> None:
        own.kill("one")
        await asyncio.to_thread(own.start, "one", **settings)

    async def archive_and_restore(own: Deployment) -> None:
        async with await connect(servers=own.url, prefix=own.prefix) as client:
            begun = asyncio.Event()
            creating = asyncio.create_task(
                client.snapshots.create("app", on_progress=lambda _: begun.set())
            )
            await begun.wait()
            await replace_worker(own)
            record = await creating
            begun.clear()
            restoring = asyncio.create_task(
                client.snapshots.restore(record.key, app="copy", on_progress=lambda _: begun.set())
            )
            await begun.wait()
            await replace_worker(own)
            await restoring
            states = [found.state async for found in client.snapshots.list(app="app")]
            assert states[0] == "ok"

    with Deployment(nats_server.url) as own:
        own.start("one", **settings)
        asyncio.run(archive_and_restore(own))

    assert look(tree.parent / "copy") == look(tree)


async def test_who_asks_for_progress_is_told_of_the_end_even_if_it_came_at_once(
    holdfast: Client, apps: Path
) -> None:
    (apps / "quick").mkdir()
    (apps / "quick/file").write_bytes(b"x")
    told: list[SnapshotProgress] = []

    await holdfast.snapshots.create("quick", on_progress=told.append)

    assert told[-1].state == "ok"
