"""``snapshot.*`` from request to reply: made, listed, looked into, compared, checked, removed."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import tarfile
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import zstandard
from tests.handlers.snapshot_service import LEASE_SECONDS, DiskShared, Shared, Site

from holdfast.errors import CorruptError
from holdfast.repository.snapshots.reading.content import MAX_WINDOWS
from holdfast.runtime.dispatch import Dispatcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BIG = bytes(range(256)) * 4096 * 6  # 6 MiB


@pytest.fixture(params=["memory", "disk"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Shared:
    """Stores of either kind, with nothing in them."""
    return Shared() if request.param == "memory" else DiskShared(tmp_path / "store")


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A worker with an app ``shop`` of a few files."""
    async with site_over(Shared(), tmp_path) as site:
        yield site


@asynccontextmanager
async def site_over(shared: Shared, tmp_path: Path) -> AsyncIterator[Site]:
    """A worker over these stores."""
    site = Site(shared, tmp_path / "apps")
    site.write("shop/etc/shop.conf", b"name = shop\n")
    site.write("shop/data/big.bin", BIG)
    site.write("shop/data/empty", b"")
    os.symlink("etc/shop.conf", tmp_path / "apps/shop/conf")
    try:
        yield site
    finally:
        await site.aclose()


async def test_a_snapshot_is_made_listed_read_exported_compared_checked_and_removed(
    anywhere: Shared, tmp_path: Path
) -> None:
    async with site_over(anywhere, tmp_path) as site:
        await live_through(site)


async def live_through(site: Site) -> None:
    """From the first request to the last."""
    # Given an app and a snapshot of it,
    first = await site.create(labels={"release": "1"})

    assert first["app"] == "shop"
    assert first["node"] == "n1"
    assert first["files"] == 3
    assert first["size"] == len(BIG) + 12
    assert first["added"] > 0

    # it is listed and got,
    page = await site.ok("snapshot.list", labels={"release": "1"})
    assert [record["key"] for record in page["snapshots"]] == [first["key"]]
    assert await site.ok("snapshot.get", key=first["key"]) == first

    # its files are listed and read,
    files = await site.ok("snapshot.files", key=first["key"])
    paths = ["", "conf", "data", "data/big.bin", "data/empty", "etc", "etc/shop.conf"]
    assert [entry["path"] for entry in files["entries"]] == paths
    assert files["entries"][1]["target"] == "etc/shop.conf"
    assert await site.content("snapshot.read", key=first["key"], path="data/big.bin") == BIG
    assert await site.content("snapshot.read", key=first["key"], path="data/empty") == b""
    part = await site.content(
        "snapshot.read", key=first["key"], path="etc/shop.conf", offset=7, length=100
    )
    assert part == b"shop\n"

    # it is exported as what tar reads,
    exported = await site.content("snapshot.export", key=first["key"])
    assert len(exported) == first["archive_size"]
    tar = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(exported), read_across_frames=True)
    with tarfile.open(fileobj=io.BytesIO(tar.read())) as archive:
        names = [member.name.removeprefix("./") for member in archive]
        assert [name for name in names if name not in {"", "."}] == paths[1:]

    # another is compared with it,
    site.write("shop/etc/shop.conf", b"name = other shop\n")
    site.write("shop/new", b"x")
    (site.root / "shop/data/empty").unlink()  # type: ignore[operator]  # it has a root
    second = await site.create()
    assert second["parent"] == first["key"]
    assert second["added"] < 64 * 1024
    changes = (await site.ok("snapshot.diff", a=first["key"], b=second["key"]))["changes"]
    found = {change["path"]: change["change"] for change in changes}
    assert found["etc/shop.conf"] == "modified"
    assert found["new"] == "added"
    assert found["data/empty"] == "removed"

    # both are whole, and what is removed is gone.
    for record in (first, second):
        verified = await site.ok("snapshot.verify", key=record["key"])
        assert verified["packs"] > 0
        assert "damaged" not in verified
        assert verified.get("cursor") is None
    assert await site.ok("snapshot.delete", key=first["key"]) == {"deleted": True}
    assert await site.ok("snapshot.delete", key=first["key"]) == {"deleted": False}
    assert (await site.ask("snapshot.get", {"key": first["key"]})).code == "not_found"
    assert await site.content("snapshot.read", key=second["key"], path="data/big.bin") == BIG
    assert await site.ok("snapshot.purge", app="shop") == {"deleted": 1}
    assert await site.ok("snapshot.list") == {"snapshots": []}


# --- making ---


@pytest.mark.fault("S06")
async def test_two_snapshots_of_one_app_at_once_are_both_whole(site: Site) -> None:
    records = await asyncio.gather(site.create(), site.create())

    assert len({record["key"] for record in records}) == 2
    for record in records:
        data = await site.content("snapshot.read", key=record["key"], path="data/big.bin")
        assert data == BIG
    assert site.service.jobs.active == 0


async def test_a_repeated_request_gets_the_first_answer(site: Site) -> None:
    first = await site.ask("snapshot.create", {"app": "shop"}, op_id="op-1")
    again = await site.ask("snapshot.create", {"app": "shop"}, op_id="op-1")
    other = await site.ask("snapshot.create", {"app": "blog"}, op_id="op-1")

    assert first.code == "ok"
    assert again.json["key"] == first.json["key"]
    assert other.code == "not_found"
    assert len((await site.ok("snapshot.list"))["snapshots"]) == 1


async def test_an_op_id_of_another_request_is_a_conflict(site: Site) -> None:
    site.write("blog/post", b"x")
    await site.ask("snapshot.create", {"app": "shop"}, op_id="op-1")

    assert (await site.ask("snapshot.create", {"app": "blog"}, op_id="op-1")).code == "conflict"
    begun = await site.ask("snapshot.begin", {"app": "blog"}, op_id="op-1")
    assert begun.code == "conflict"


async def test_who_does_not_wait_is_told_that_it_is_pending(site: Site) -> None:
    record = await site.ok("snapshot.create", app="shop", wait_seconds=0)

    assert record["state"] == "pending"
    assert "digest" not in record
    assert (await site.ask("snapshot.files", {"key": record["key"]})).code == "conflict"
    await site.service.jobs.drain(30)
    assert (await site.ok("snapshot.get", key=record["key"]))["state"] == "ok"


async def test_progress_is_published_and_ends_with_the_state(site: Site) -> None:
    record = await site.create()

    subjects = {subject for subject, _ in site.published}
    assert subjects == {f"snapshot.progress.{record['key'].partition(':')[2]}"}
    last = site.published[-1][1]
    assert (last["key"], last["state"]) == (record["key"], "ok")
    assert last["entries"] == 7
    assert len(BIG) <= last["bytes"] <= len(BIG) + 12


@pytest.mark.fault("I07")
async def test_an_app_that_is_a_symlink_is_refused(site: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "apps/link").symlink_to(outside)
    (tmp_path / "apps/file").write_bytes(b"x")

    key = (await site.create())["key"]
    for app in ("link", "file"):
        restore = {"key": key, "app": app, "mode": "replace"}
        assert (await site.ask("snapshot.create", {"app": app})).code == "invalid"
        assert (await site.ask("snapshot.restore", restore)).code == "invalid"
    assert list(outside.iterdir()) == []


@pytest.mark.fault("I07")
@pytest.mark.parametrize(
    "app", ["", ".", "..", ".hidden", "a/b", "../shop", "a b", "\u00e4", "x" * 129]
)
async def test_what_is_no_name_of_an_app_is_refused(site: Site, app: str) -> None:
    for subject in ("snapshot.create", "snapshot.begin", "snapshot.list", "snapshot.purge"):
        assert (await site.ask(subject, {"app": app})).code == "invalid"


@pytest.mark.fault("I10")
@pytest.mark.parametrize("labels", [{"a:b": "c"}, {"": "c"}, {"a": ""}, {"a": "x\n"}, {"a": 1}])
async def test_labels_of_the_wrong_shape_are_refused(site: Site, labels: dict[str, object]) -> None:
    for subject in ("snapshot.create", "snapshot.begin", "snapshot.list"):
        assert (await site.ask(subject, {"app": "shop", "labels": labels})).code == "invalid"
    assert (await site.ok("snapshot.list"))["snapshots"] == []


async def test_an_app_that_nobody_has_is_not_found(site: Site) -> None:
    assert (await site.ask("snapshot.create", {"app": "blog"})).code == "not_found"


async def test_the_key_of_another_app_is_not_found(site: Site) -> None:
    site.write("blog/post", b"x")
    record = await site.create()
    other = record["key"].replace("shop:", "blog:")

    for subject in ("snapshot.get", "snapshot.files", "snapshot.export", "snapshot.verify"):
        assert (await site.ask(subject, {"key": other})).code == "not_found"
    assert await site.ok("snapshot.delete", key=other) == {"deleted": False}
    assert (await site.ok("snapshot.get", key=record["key"]))["state"] == "ok"


@pytest.mark.fault("I14")
async def test_a_full_store_makes_it_a_failure_that_says_so(site: Site) -> None:
    site.shared.packs.full = True

    record = await site.ok("snapshot.create", app="shop")

    assert (record["state"], record["code"]) == ("failure", "quota_exceeded")
    assert record["reason"]
    listed = (await site.ok("snapshot.list", state="failure"))["snapshots"]
    assert [entry["key"] for entry in listed] == [record["key"]]


async def test_what_is_gone_of_the_parent_is_read_again(site: Site) -> None:
    first = await site.create()
    await site.shared.forget_packs(await site.shared.stored_packs())

    second = await site.create()

    assert "parent" not in second
    assert second["added"] >= first["added"]
    assert await site.content("snapshot.read", key=second["key"], path="data/big.bin") == BIG


async def test_packs_that_are_collected_after_the_parent_went_are_stored_again(site: Site) -> None:
    # Given a parent that is removed, and a part of what it held, while its child is made:
    first = await site.create()
    packs = await site.shared.stored_packs()
    site.write("shop/new", b"new")
    announced = site.shared.when_announced()
    creating = asyncio.create_task(site.ok("snapshot.create", app="shop"))
    await announced.wait()
    assert await site.ok("snapshot.delete", key=first["key"]) == {"deleted": True}
    await site.shared.forget_packs(packs)
    announced.go_on()

    # when the child goes on,
    second = await creating

    # then it stores them anew, and is whole.
    assert second["state"] == "ok"
    verified = await site.ok("snapshot.verify", key=second["key"])
    assert "damaged" not in verified
    assert await site.content("snapshot.read", key=second["key"], path="data/big.bin") == BIG


async def test_removing_a_pending_snapshot_ends_it_for_good(site: Site) -> None:
    announced = site.shared.when_announced()
    creating = asyncio.create_task(site.ask("snapshot.create", {"app": "shop"}))
    await announced.wait()
    key = (await site.ok("snapshot.list"))["snapshots"][0]["key"]

    assert await site.ok("snapshot.delete", key=key) == {"deleted": True}
    announced.go_on()

    assert (await creating).code == "conflict"
    await site.service.jobs.drain(5)
    assert (await site.ok("snapshot.list"))["snapshots"] == []
    assert (await site.ask("snapshot.get", {"key": key})).code == "not_found"


@pytest.mark.fault("R04")
async def test_what_does_not_end_before_the_deadline_of_a_drain_is_a_failure(site: Site) -> None:
    announced = site.shared.when_announced()
    creating = asyncio.create_task(site.ok("snapshot.create", app="shop"))
    await announced.wait()

    draining = asyncio.create_task(site.service.jobs.drain(0))
    [job] = site.service.jobs._jobs.values()
    await job.wait_stopped()
    announced.go_on()
    await draining

    record = await creating
    assert (record["state"], record["reason"]) == ("failure", "the worker stopped")


@pytest.mark.fault("S01")
async def test_what_a_dead_worker_was_making_is_given_up_by_another(site: Site) -> None:
    other = Site(site.shared, None, node="n2")
    announced = site.shared.when_announced()
    creating = asyncio.create_task(site.ask("snapshot.create", {"app": "shop"}))
    await announced.wait()

    for _ in range(2):
        await other.service.lapses.sweep()
        site.shared.time.advance(LEASE_SECONDS / 2)
    assert await other.service.lapses.sweep() == 1
    announced.go_on()

    # It wakes up, but what was given up stays so.
    assert (await creating).code == "conflict"
    [record] = (await other.ok("snapshot.list"))["snapshots"]
    assert (record["state"], record["reason"]) == ("failure", "its worker stopped")
    assert "digest" not in record
    await other.aclose()


# --- looking into ---


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
async def test_pages_of_files_hold_every_entry_once_in_order(site: Site, limit: int) -> None:
    record = await site.create()

    found, cursor = [], None
    while True:
        request = {"key": record["key"], "limit": limit} | ({"cursor": cursor} if cursor else {})
        page = await site.ok("snapshot.files", **request)
        assert len(page["entries"]) <= limit
        found += [entry["path"] for entry in page["entries"]]
        cursor = page.get("cursor")
        if cursor is None:
            break

    assert found == ["", "conf", "data", "data/big.bin", "data/empty", "etc", "etc/shop.conf"]


async def test_a_page_that_would_not_fit_a_message_is_cut_short(tmp_path: Path) -> None:
    site = Site(Shared(), tmp_path / "apps", max_payload=8192)
    for number in range(60):
        site.write(f"shop/{'x' * 200}{number:02d}", b"x")
    record = await site.create()

    found, changed, cursor = 0, 0, None
    while True:
        page = await site.ask(
            "snapshot.files", {"key": record["key"]} | ({"cursor": cursor} if cursor else {})
        )
        assert len(page.body) <= 4096
        found += len(page.json["entries"])
        cursor = page.json.get("cursor")
        if cursor is None:
            break
    assert found == 61

    for number in range(60):
        site.write(f"shop/{'x' * 200}{number:02d}", b"other")
    second = await site.create()
    while True:
        page = await site.ask(
            "snapshot.diff",
            {"a": record["key"], "b": second["key"]} | ({"cursor": cursor} if cursor else {}),
        )
        assert len(page.body) <= 4096
        changed += sum(change["change"] == "modified" for change in page.json["changes"])
        cursor = page.json.get("cursor")
        if cursor is None:
            break
    assert changed == 60
    await site.aclose()


def hurry(site: Site) -> None:
    """From now on each look at the clock costs half the time that a request has."""
    sources = replace(site.shared.sources, monotonic=itertools.count(0.0, 16.0).__next__)
    site.dispatcher = Dispatcher(sources, timeout_seconds=30)


async def pages_of(site: Site, subject: str, name: str, **request: Any) -> list[list[str]]:
    """The paths of each page."""
    pages = []
    while True:
        page = await site.ok(subject, **request)
        pages.append([row["path"] for row in page[name]])
        if "cursor" not in page:
            return pages
        request["cursor"] = page["cursor"]


async def test_lists_that_take_long_come_in_pages_of_which_some_are_empty(site: Site) -> None:
    first = await site.create()
    site.write("shop/data/a", b"x")
    second = await site.create()
    request = {"a": first["key"], "b": second["key"]}
    [changes] = await pages_of(site, "snapshot.diff", "changes", **request)
    [files] = await pages_of(site, "snapshot.files", "entries", key=second["key"])

    hurry(site)
    slow_changes = await pages_of(site, "snapshot.diff", "changes", **request)
    slow_files = await pages_of(site, "snapshot.files", "entries", key=second["key"])

    assert [path for page in slow_changes for path in page] == changes
    assert [] in slow_changes[:-1]
    assert slow_files == [[path] for path in files]


async def test_contents_for_which_there_is_no_time_are_refused_until_there_is_a_place(
    site: Site,
) -> None:
    key = (await site.create())["key"]
    request = {"key": key, "path": "data/big.bin"}
    held = [await site.ask("snapshot.read", request) for _ in range(MAX_WINDOWS)]
    unhurried = site.dispatcher

    hurry(site)
    refused = await site.ask("snapshot.read", request)
    small = await site.ask("snapshot.read", request | {"length": 5})
    for reply in held:
        assert reply.answer.pieces is not None
        await reply.answer.pieces.aclose()
    served = await site.ask("snapshot.read", request)

    assert (refused.code, refused.answer.pieces) == ("rate_limited", None)
    assert small.body == BIG[:5]
    assert served.code == "ok"
    site.dispatcher = unhurried
    assert await site.content("snapshot.read", **request) == BIG


async def test_files_below_a_directory_are_listed_alone(site: Site) -> None:
    key = (await site.create())["key"]

    below = await site.ok("snapshot.files", key=key, path="./data/")
    one = await site.ok("snapshot.files", key=key, path="etc/shop.conf")

    assert [e["path"] for e in below["entries"]] == ["data", "data/big.bin", "data/empty"]
    assert [e["path"] for e in one["entries"]] == ["etc/shop.conf"]
    missing = await site.ask("snapshot.files", {"key": key, "path": "dat"})
    assert missing.code == "not_found"


async def test_a_name_that_is_not_text_is_told_and_found_by_its_bytes(site: Site) -> None:
    assert site.root is not None
    name = os.fsencode(site.root) + b"/shop/caf\xe9"
    with open(name, "wb") as file:  # noqa: ASYNC230 - pathlib refuses the name's bytes
        file.write(b"coffee")
    key = (await site.create())["key"]

    [entry] = (await site.ok("snapshot.files", key=key, path_bytes="Y2Fm6Q=="))["entries"]
    data = await site.content("snapshot.read", key=key, path_bytes=entry["path_bytes"])

    assert (entry["path"], entry["path_bytes"]) == ("caf\ufffd", "Y2Fm6Q==")
    assert data == b"coffee"


@pytest.mark.fault("I07")
@pytest.mark.parametrize("path", ["/etc/shop.conf", "../shop", "data/../etc", "a\x00b"])
async def test_a_path_that_leaves_the_snapshot_is_refused(site: Site, path: str) -> None:
    key = (await site.create())["key"]

    for subject in ("snapshot.files", "snapshot.read"):
        assert (await site.ask(subject, {"key": key, "path": path})).code == "invalid"


async def test_what_is_no_file_cannot_be_read(site: Site) -> None:
    key = (await site.create())["key"]

    for path, code in (
        ("", "invalid"),
        ("data", "invalid"),
        ("conf", "invalid"),
        ("x", "not_found"),
    ):
        assert (await site.ask("snapshot.read", {"key": key, "path": path})).code == code


@pytest.mark.parametrize(
    ("subject", "cursor"),
    [
        ("snapshot.files", "x"),
        ("snapshot.files", "0000000000000000.0.1"),
        ("snapshot.read", "0000000000000000.0.1"),
        ("snapshot.export", "TAG.99999999999.99999999999"),
        ("snapshot.export", "TAG.2.1"),
        ("snapshot.files", "TAG.7.0"),
        ("snapshot.files", "TAG.0.99"),
        ("snapshot.verify", "x"),
    ],
)
async def test_a_cursor_of_something_else_is_refused(site: Site, subject: str, cursor: str) -> None:
    record = await site.create()
    request = {"key": record["key"], "cursor": cursor.replace("TAG", record["digest"][:16])}
    if subject == "snapshot.read":
        request["path"] = "data/big.bin"

    assert (await site.ask(subject, request)).code == "invalid"


async def test_a_range_of_an_export_is_that_range(site: Site) -> None:
    key = (await site.create())["key"]
    whole = await site.content("snapshot.export", key=key)

    for offset, length in ((0, 1), (len(whole) - 20, 100), (1000, 5_000_000), (len(whole), 5)):
        found = await site.content("snapshot.export", key=key, offset=offset, length=length)
        assert found == whole[offset : offset + length]


@pytest.mark.fault("D02")
@pytest.mark.parametrize("damage", ["missing", "altered"])
async def test_a_damaged_pack_is_named_and_the_rest_is_still_readable(
    site: Site, damage: str
) -> None:
    # Given a snapshot, a pack of which is gone or altered,
    site.write("shop/zzz", os.urandom(3_000_000))
    key = (await site.create())["key"]
    other = Site(site.shared, None, node="n2")  # has nothing of it in memory
    digest = await site.shared.damage_a_large_pack(damage)

    # when it is read and checked,
    with pytest.raises(CorruptError, match=digest):
        await other.content("snapshot.read", key=key, path="zzz")
    part = {"key": key, "path": "zzz", "offset": 900_000, "length": 900_000}
    read = await other.ask("snapshot.read", part)
    verified = await other.ok("snapshot.verify", key=key)

    # then the pack is named, and nothing wrong is served.
    assert read.code == "corrupt"
    assert digest in read.json["detail"]
    assert [pack["digest"] for pack in verified["damaged"]] == [digest]
    assert verified["damaged"][0]["paths"] == ["zzz"]
    data = await other.content("snapshot.read", key=key, path="etc/shop.conf")
    assert data == b"name = shop\n"
    await other.aclose()
