"""Requests about keeping snapshots, to a worker over stores in memory and on disk."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from tests.handlers.snapshot_service import DiskShared, Shared, Site

from holdfast.handlers import retention

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DAY = timedelta(days=1).total_seconds()


@pytest_asyncio.fixture(params=["memory", "disk"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """A worker with apps ``shop`` and ``blog``."""
    shared = Shared() if request.param == "memory" else DiskShared(tmp_path / "store")
    site = Site(shared, tmp_path / "apps")
    site.write("shop/conf", b"name = shop\n")
    site.write("blog/conf", b"name = blog\n")
    yield site
    await site.aclose()


async def days(site: Site, count: int, app: str = "shop", **fields: Any) -> list[str]:
    """A snapshot a day: their keys, the oldest first."""
    keys = []
    for _ in range(count):
        site.shared.time.advance(DAY)
        keys.append((await site.create(app, **fields))["key"])
    return keys


async def left(site: Site, app: str = "shop") -> list[str]:
    """The keys of what is there, the oldest first."""
    page = await site.ok("snapshot.list", app=app)
    return [record["key"] for record in page["snapshots"]][::-1]


async def test_what_is_not_to_be_kept_is_forgotten_and_told_with_reasons(site: Site) -> None:
    keys = await days(site, 3)

    dry = await site.ok("snapshot.prune", app="shop", keep={"daily": 2}, dry_run=True)
    before = await left(site)
    report = await site.ok("snapshot.prune", app="shop", keep={"daily": 2})

    assert before == keys
    assert await left(site) == keys[1:]
    assert [(row["key"], row["kept"], row["removed"]) for row in dry["snapshots"]] == [
        (keys[0], False, False),
        (keys[2], True, False),
        (keys[1], True, False),
    ]
    assert report["snapshots"][0]["reasons"] == ["2 newer days"]
    assert report["snapshots"][1]["reasons"] == ["daily"]
    assert (report["kept"], report["superfluous"], report["removed"]) == (2, 1, 1)
    assert (report["stopped"], report["damaged"]) == ([], [])
    assert (await site.ask("snapshot.get", {"key": keys[0]})).code == "not_found"


async def test_a_request_that_makes_a_snapshot_anew_after_it_was_pruned_is_a_conflict(
    site: Site,
) -> None:
    made = (await site.ask("snapshot.create", {"app": "shop"}, op_id="once")).json
    await site.create()
    await site.ok("snapshot.prune", app="shop", keep={"last": 1})

    again = await site.ask("snapshot.create", {"app": "shop"}, op_id="once")

    assert again.code == "conflict"
    assert made["key"] not in await left(site)


async def test_a_run_ends_where_somebody_deletes_a_snapshot_of_the_app(tmp_path: Path) -> None:
    site = Site(Shared(), tmp_path / "apps")
    site.write("shop/conf", b"name = shop\n")
    keys = await days(site, 4)
    gate = site.shared.when_begun()
    pruning = asyncio.create_task(site.ok("snapshot.prune", app="shop", keep={"last": 1}))
    await gate.wait()  # the oldest is gone
    await site.ok("snapshot.delete", key=keys[3])

    gate.go_on()

    assert (await pruning)["stopped"] != []
    assert await left(site) == keys[1:3]
    await site.aclose()


async def test_only_snapshots_with_the_labels_are_pruned(site: Site) -> None:
    by_hand = await days(site, 2, labels={"by": "hand"})
    by_clock = await days(site, 3, labels={"by": "clock"})

    await site.ok("snapshot.prune", app="shop", keep={"last": 1}, labels={"by": "clock"})

    assert await left(site) == [*by_hand, by_clock[-1]]


async def test_a_hold_is_told_kept_and_ended(site: Site) -> None:
    keys = await days(site, 3)

    held = await site.ok("snapshot.hold", key=keys[0], reason="audit")
    await site.ok("snapshot.prune", app="shop", keep={"last": 1})

    assert (held["held"], held["hold_reason"]) == (True, "audit")
    assert held["state"] == "ok"
    assert await left(site) == [keys[0], keys[2]]
    released = await site.ok("snapshot.hold", key=keys[0], hold=False)
    assert "held" not in released
    await site.ok("snapshot.prune", app="shop", keep={"last": 1})
    assert await left(site) == [keys[2]]


async def test_what_is_held_is_still_deleted_by_who_asks_for_it(site: Site) -> None:
    (key,) = await days(site, 1)
    await site.ok("snapshot.hold", key=key)

    assert (await site.ok("snapshot.delete", key=key)) == {"deleted": True}


async def test_a_policy_is_kept_told_and_applied_by_the_worker_itself(site: Site) -> None:
    shop, blog = await days(site, 3), await days(site, 3, app="blog")
    none = await site.ok("snapshot.policy", app="shop")

    own = await site.ok("snapshot.set_policy", app="shop", keep={"last": 1}, if_revision=0)
    default = await site.ok("snapshot.set_policy", keep={"daily": 2, "time_zone": "Asia/Tokyo"})
    await site.service.pruner.run()

    assert none == {"app": "shop", "keep": None, "default": False, "revision": 0}
    assert own == {
        "app": "shop",
        "keep": {"last": 1},
        "default": False,
        "revision": own["revision"],
    }
    assert default["keep"] == {"daily": 2, "time_zone": "Asia/Tokyo"}
    assert default["app"] is None
    inherited = await site.ok("snapshot.policy", app="blog")
    assert (inherited["default"], inherited["revision"]) == (True, 0)
    assert await left(site, "shop") == shop[2:]
    assert await left(site, "blog") == blog[1:]


async def test_without_what_to_keep_the_policy_is_gone_by(site: Site) -> None:
    keys = await days(site, 3)
    nothing = await site.ok("snapshot.prune", app="shop")
    await site.ok("snapshot.set_policy", app="shop", keep={"last": 2})

    report = await site.ok("snapshot.prune", app="shop")

    assert nothing["stopped"] == ["shop: there is no policy"]
    assert report["removed"] == 1
    assert await left(site) == keys[1:]


async def test_a_policy_is_taken_back(site: Site) -> None:
    keys = await days(site, 2)
    await site.ok("snapshot.set_policy", app="shop", keep={"last": 1})

    told = await site.ok("snapshot.set_policy", app="shop")
    await site.service.pruner.run()

    assert told["keep"] is None
    assert told["revision"] > 0
    assert await left(site) == keys


async def test_a_policy_that_another_has_changed_is_a_conflict(site: Site) -> None:
    first = await site.ok("snapshot.set_policy", keep={"last": 1})
    await site.ok("snapshot.set_policy", keep={"last": 2}, if_revision=first["revision"])

    lost = await site.ask(
        "snapshot.set_policy", {"keep": {"last": 3}, "if_revision": first["revision"]}
    )

    assert lost.code == "conflict"
    assert (await site.ok("snapshot.policy"))["keep"] == {"last": 2}


async def test_all_apps_are_pruned_a_page_at_a_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await days(site, 2, app="blog")
    await days(site, 2, app="shop")
    monkeypatch.setattr(retention, "MAX_ROWS", 1)

    first = await site.ok("snapshot.prune", keep={"last": 1})
    second = await site.ok("snapshot.prune", keep={"last": 1}, cursor=first["cursor"])

    assert [row["key"][:4] for row in first["snapshots"]] == ["blog", "blog"]
    assert [row["key"][:4] for row in second["snapshots"]] == ["shop", "shop"]
    assert second["cursor"] is None
    assert [len(await left(site, app)) for app in ("blog", "shop")] == [1, 1]


@pytest.mark.parametrize(
    ("verb", "fields"),
    [
        ("prune", {"app": "shop", "keep": {}}),
        ("prune", {"app": "shop", "keep": {"time_zone": "Europe/Berlin"}}),
        ("prune", {"app": "shop", "keep": {"last": -1}}),
        ("prune", {"app": "shop", "keep": {"last": 1, "minutely": 1}}),
        ("prune", {"app": "shop", "keep": {"within": "3w"}}),
        ("prune", {"app": "shop", "keep": {"last": 1, "time_zone": "Nowhere/City"}}),
        ("prune", {"app": "shop", "keep": {"last": 1, "time_zone": "../zones"}}),
        ("prune", {"app": "shop", "keep": {"labels": [{}]}}),
        ("prune", {"app": "../shop", "keep": {"last": 1}}),
        ("prune", {"app": "shop", "keep": {"last": 1}, "labels": {"": "x"}}),
        ("prune", {"app": "shop", "keep": {"last": 1}, "cursor": "c2hvcA"}),
        ("prune", {"keep": {"last": 1}, "cursor": "Li4v"}),
        ("prune", {"keep": {"last": 1}, "cursor": "____"}),
        ("hold", {"key": "shop"}),
        ("hold", {"key": "shop:01993a3e-7c00-7abc-8def-0123456789ab", "reason": "a\nb"}),
        (
            "hold",
            {"key": "shop:01993a3e-7c00-7abc-8def-0123456789ab", "hold": False, "reason": "x"},
        ),
        ("set_policy", {"app": "shop", "keep": {"time_zone": "Nowhere/City"}}),
        ("set_policy", {"app": ""}),
        ("policy", {"app": "a/b"}),
    ],
)
async def test_bad_input_is_invalid_and_changes_nothing(
    site: Site, verb: str, fields: dict[str, Any]
) -> None:
    keys = await days(site, 2)

    reply = await site.ask(f"snapshot.{verb}", fields)

    assert reply.code == "invalid"
    assert await left(site) == keys
    assert (await site.ok("snapshot.policy", app="shop"))["revision"] == 0


async def test_a_snapshot_that_is_not_there_cannot_be_held(site: Site) -> None:
    reply = await site.ask("snapshot.hold", {"key": "shop:01993a3e-7c00-7abc-8def-0123456789ab"})

    assert reply.code == "not_found"
