"""Every verb of ``snapshot.*`` by plain NATS requests, as a service in any language sends them."""

from __future__ import annotations

import base64
import json
import os
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from tests.deployment import code_of
from tests.e2e_snapshots.site import RefusedError
from tests.e2e_snapshots.trees import call, plain_tree
from tests.programs import needs_zstd

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e_snapshots.site import Record, Site

pytestmark = pytest.mark.nats

MSGPACK = "application/msgpack"


def small_tree(apps: Path, app: str) -> Path:
    tree = apps / app
    (tree / "conf").mkdir(parents=True)
    (tree / "conf" / "settings.toml").write_bytes(b"answer = 42\n")
    (tree / "data").write_bytes(os.urandom(3_000_000))
    (tree / "link").symlink_to("data")
    with open(os.fsencode(tree) + b"/b\xffd", "wb") as file:
        file.write(b"not UTF-8")
    return tree


async def refusal(site: Site, operation: str, **request: Any) -> str:
    with pytest.raises(RefusedError) as refused:
        await site.ask(operation, **request)
    return refused.value.code


async def test_an_app_is_archived_and_its_record_says_what_is_in_it(site: Site) -> None:
    tree = small_tree(site.apps, "recorded")

    record = await site.create("recorded", labels={"reason": "before upgrade", "by": "tests"})

    app, _, identifier = record["key"].partition(":")
    assert (app, uuid.UUID(identifier).version) == ("recorded", 7)
    assert record["state"] == "ok"
    assert record["labels"] == {"reason": "before upgrade", "by": "tests"}
    assert (record["files"], record["entries"]) == (3, 6)
    assert record["size"] == sum(
        path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink()
    )
    assert record["created_at"] <= record["finished_at"]
    assert await site.get(record) == record


async def test_files_are_listed_and_read_also_by_names_that_are_not_utf_8(site: Site) -> None:
    tree = small_tree(site.apps, "listed")
    record = await site.create("listed")

    page = await site.ask("snapshot.files", key=record["key"])
    below = await site.ask("snapshot.files", key=record["key"], path="conf")
    odd = next(entry for entry in page["entries"] if "path_bytes" in entry)

    paths = [entry["path"] for entry in page["entries"]]
    assert paths == ["", "b�d", "conf", "conf/settings.toml", "data", "link"]
    assert base64.b64decode(odd["path_bytes"]) == b"b\xffd"
    assert [entry["path"] for entry in below["entries"]] == ["conf", "conf/settings.toml"]
    read = await site.content("snapshot.read", key=record["key"], path_bytes=odd["path_bytes"])
    assert read == b"not UTF-8"
    data = (tree / "data").read_bytes()
    assert await site.content("snapshot.read", key=record["key"], path="data") == data
    part = await site.content(
        "snapshot.read", key=record["key"], path="data", offset=1_234_567, length=700_000
    )
    assert part == data[1_234_567 : 1_234_567 + 700_000]


async def test_lists_page_through_what_matches_newest_first(site: Site) -> None:
    small_tree(site.apps, "paged")
    made = [
        (await site.create("paged", labels={"turn": str(number % 2)}))["key"] for number in range(5)
    ]

    first = await site.ask("snapshot.list", app="paged", limit=2)
    everything = await site.snapshots(app="paged", limit=2)
    odd = await site.snapshots(app="paged", labels={"turn": "1"})

    assert len(first["snapshots"]) == 2
    assert [record["key"] for record in everything] == made[::-1]
    assert [record["key"] for record in odd] == [made[3], made[1]]
    assert await site.snapshots(apps=["paged", "absent"], state="failure") == []


async def test_two_snapshots_are_compared(site: Site) -> None:
    tree = small_tree(site.apps, "compared")
    before = await site.create("compared")
    (tree / "conf" / "settings.toml").write_bytes(b"answer = 43\n")
    (tree / "added").write_bytes(b"added")
    (tree / "link").unlink()
    (tree / "data").chmod(0o600)
    after = await site.create("compared")

    page = await site.ask("snapshot.diff", a=before["key"], b=after["key"])

    changes = {change["path"]: change["change"] for change in page["changes"]}
    assert changes.pop("", "metadata") == "metadata"  # the directory's own time
    assert changes == {
        "added": "added",
        "conf/settings.toml": "modified",
        "data": "metadata",
        "link": "removed",
    }


@needs_zstd
async def test_an_export_is_a_plain_archive_and_any_range_of_it_is_the_same_bytes(
    site: Site,
) -> None:
    tree = small_tree(site.apps, "archived")
    record = await site.create("archived")

    whole = await site.content("snapshot.export", key=record["key"])
    part = await site.content(
        "snapshot.export", key=record["key"], offset=100_001, length=1_500_000
    )

    assert len(whole) == record["archive_size"]
    assert part == whole[100_001:1_600_001]
    unpacked = call("tar", "--zstd", "-xOf", "-", "data", input=whole)
    assert unpacked == (tree / "data").read_bytes()


async def test_verifying_reads_everything_back(site: Site) -> None:
    small_tree(site.apps, "verified")
    record = await site.create("verified")

    report = await site.verified(record["key"])

    assert report["damaged"] == []
    assert report["packs"] > 0
    assert report["bytes"] >= 3_000_000


async def test_a_deleted_snapshot_is_gone_and_what_others_share_stays(site: Site) -> None:
    tree = small_tree(site.apps, "shared")
    first, second = await site.create("shared"), await site.create("shared")

    assert await site.ask("snapshot.delete", key=first["key"]) == {"deleted": True}
    assert await site.ask("snapshot.delete", key=first["key"]) == {"deleted": False}

    assert await refusal(site, "snapshot.get", key=first["key"]) == "not_found"
    assert await refusal(site, "snapshot.files", key=first["key"]) == "not_found"
    data = await site.content("snapshot.read", key=second["key"], path="data")
    assert data == (tree / "data").read_bytes()
    assert await site.ask("snapshot.purge", app="shared") == {"deleted": 1}
    assert await site.snapshots(app="shared") == []


async def test_a_dry_run_says_what_would_change_and_changes_nothing(site: Site) -> None:
    tree = small_tree(site.apps, "dry")
    record = await site.create("dry")
    (tree / "data").write_bytes(b"other")

    restored = await site.restore(record["key"], mode="merge", dry_run=True)

    assert restored["state"] == "ok"
    assert restored["dry_run"] is True
    assert "data" in {change["path"] for change in restored["plan"]}
    assert (tree / "data").read_bytes() == b"other"


async def test_only_the_wanted_paths_are_restored(site: Site) -> None:
    small_tree(site.apps, "partly")
    record = await site.create("partly")

    restored = await site.restore(record["key"], app="partly-conf", paths=["conf/*.toml"])

    assert restored["state"] == "ok"
    kept = {
        path.relative_to(site.apps / "partly-conf").as_posix()
        for path in (site.apps / "partly-conf").rglob("*")
    }
    assert kept == {"conf", "conf/settings.toml"}


async def test_a_repeat_with_the_same_op_id_is_the_same_snapshot(site: Site) -> None:
    small_tree(site.apps, "repeated")
    body = json.dumps({"app": "repeated", "wait_seconds": 10}).encode()
    subject = site.deployment.subject("snapshot.create")

    answers = [
        await site.client.request(subject, body, timeout=30, headers={"Op-Id": "once"})
        for _ in range(2)
    ]

    keys = {json.loads(answer.data)["key"] for answer in answers}
    assert [code_of(answer) for answer in answers] == ["ok", "ok"]
    assert len(keys) == 1


async def test_the_same_in_msgpack(site: Site) -> None:
    small_tree(site.apps, "packed")
    record = await site.create("packed")

    answer = await site.client.request(
        site.deployment.subject("snapshot.files"),
        msgspec.msgpack.encode({"key": record["key"]}),
        timeout=30,
        headers={"Content-Type": MSGPACK},
    )

    entries = msgspec.msgpack.decode(answer.data)["entries"]
    assert b"b\xffd" in [entry.get("path_bytes") for entry in entries]


@pytest.mark.parametrize(
    ("operation", "request_", "code"),
    [
        ("snapshot.create", {"app": "../etc"}, "invalid"),
        ("snapshot.create", {"app": ".hidden"}, "invalid"),
        ("snapshot.create", {"app": "absent", "typo": 1}, "invalid"),
        ("snapshot.create", {"app": "absent"}, "not_found"),
        ("snapshot.get", {"key": f"absent:{uuid.UUID(int=0)}"}, "invalid"),
        ("snapshot.get", {"key": "absent:01890a5d-ac96-774b-bcce-b302099a8057"}, "not_found"),
        ("snapshot.restore", {"key": "absent:01890a5d-ac96-774b-bcce-b302099a8057"}, "not_found"),
        ("snapshot.export", {"key": "absent:01890a5d-ac96-774b-bcce-b302099a8057"}, "not_found"),
        ("snapshot.list", {"limit": 0}, "invalid"),
    ],
)
async def test_what_cannot_be_done_has_a_code(
    site: Site, operation: str, request_: Record, code: str
) -> None:
    assert await refusal(site, operation, **request_) == code


async def test_an_app_that_is_a_link_is_not_followed(site: Site, tmp_path: Path) -> None:
    plain_tree(tmp_path / "outside", files=1, size=100, seed=1)
    (site.apps / "linked").symlink_to(tmp_path / "outside")

    code = await refusal(site, "snapshot.create", app="linked")

    assert code in ("invalid", "not_found")


async def test_progress_is_published_while_a_snapshot_is_made(site: Site) -> None:
    plain_tree(site.apps / "watched", files=300, size=40_000, seed=2)
    subscription = await site.client.subscribe(site.deployment.subject("snapshot.progress.*"))

    record = await site.create("watched")

    told = [json.loads((await subscription.next_msg(30)).data)]
    while told[-1]["state"] == "pending":
        told.append(json.loads((await subscription.next_msg(30)).data))
    with pytest.raises(NatsTimeoutError):
        await subscription.next_msg(0.1)
    await subscription.unsubscribe()
    assert {each["key"] for each in told} == {record["key"]}
    assert told[-1]["state"] == "ok"
    assert told[-1]["bytes"] == record["size"]


async def test_the_verbs_are_found_by_discovery(site: Site) -> None:
    [info] = (await site.deployment.told(site.client, "INFO")).values()

    subjects = {endpoint["subject"].split(".", 1)[1] for endpoint in info["endpoints"]}
    assert {"snapshot.create", "snapshot.restore", "snapshot.list", "snapshot.export"} <= subjects
