"""Which worker answers what only one node can do."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from tests.handlers.snapshot_service import Shared, Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Pool:
    """A worker without apps, one with ``shop``, one with ``blog``."""

    def __init__(self, tmp_path: Path) -> None:
        self.shared = Shared()
        self.bare = Site(self.shared, None, node="bare")
        self.shop = Site(self.shared, tmp_path / "one", node="shop-node")
        self.blog = Site(self.shared, tmp_path / "two", node="blog-node")
        self.shop.write("shop/a", b"x")
        self.blog.write("blog/a", b"x")

    async def clients_snapshot(self) -> str:
        """The key of a snapshot of ``shop`` that a client has made: no node is in its record."""
        made = await self.shop.create("shop")
        begun = await self.bare.ok("snapshot.begin", app="shop")
        ended = await self.bare.ok("snapshot.commit", key=begun["key"], digest=made["digest"])
        assert ended["state"] == "ok", ended
        return str(ended["key"])

    async def goes_to(self, site: Site, subject: str, **fields: Any) -> str:
        """The node that the request is forwarded to, ``here``, or the code of a failure."""
        reply = await site.ask(subject, fields)
        if reply.answer.node is not None:
            assert reply.answer.headers["Timeout"]
            return reply.answer.node
        return "here" if reply.code == "ok" else reply.code


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    """Three workers."""
    pool = Pool(tmp_path)
    yield pool
    for site in (pool.bare, pool.shop, pool.blog):
        await site.aclose()


async def test_an_app_is_archived_where_it_is(pool: Pool) -> None:
    for site in (pool.bare, pool.blog):
        assert await pool.goes_to(site, "snapshot.create", app="shop") == "shop-node"
    assert await pool.goes_to(pool.shop, "snapshot.create", app="shop") == "here"


async def test_a_node_may_be_named(pool: Pool) -> None:
    create = "snapshot.create"

    assert await pool.goes_to(pool.bare, create, app="shop", node="shop-node") == "shop-node"
    assert await pool.goes_to(pool.shop, create, app="shop", node="shop-node") == "here"
    assert await pool.goes_to(pool.shop, create, app="shop", node="blog-node") == "not_found"
    assert await pool.goes_to(pool.shop, create, app="shop", node="gone") == "unavailable"
    assert await pool.goes_to(pool.shop, create, app="shop", node="bare") == "unavailable"


async def test_an_app_that_nobody_has_is_not_found(pool: Pool) -> None:
    for site in (pool.bare, pool.shop):
        assert await pool.goes_to(site, "snapshot.create", app="other") == "not_found"


async def test_a_forwarded_request_is_answered_here_or_not_at_all(pool: Pool) -> None:
    reply = await pool.bare.ask("snapshot.create", {"app": "shop"}, forwarded=True)
    other = await pool.blog.ask("snapshot.create", {"app": "shop"}, forwarded=True)

    assert (reply.code, other.code) == ("unavailable", "not_found")


async def test_only_what_a_worker_needs_is_forwarded(pool: Pool) -> None:
    reply = await pool.bare.ask("snapshot.create", {"app": "shop"}, op_id="op-7")

    assert set(reply.answer.headers) == {"Op-Id", "Timeout"}
    assert reply.answer.headers["Op-Id"] == "op-7"
    assert reply.body == b'{"app":"shop"}'


async def test_a_restore_goes_where_the_app_is_or_where_it_was(pool: Pool) -> None:
    key = (await pool.shop.create("shop"))["key"]
    restore = "snapshot.restore"

    assert await pool.goes_to(pool.bare, restore, key=key, mode="replace") == "shop-node"
    assert await pool.goes_to(pool.bare, restore, key=key, app="blog") == "blog-node"
    assert await pool.goes_to(pool.bare, restore, key=key, app="new") == "shop-node"
    assert await pool.goes_to(pool.blog, restore, key=key, app="new") == "shop-node"
    assert await pool.goes_to(pool.bare, restore, key=key, node="blog-node") == "blog-node"
    assert await pool.goes_to(pool.bare, restore, key=key, node="gone") == "unavailable"


async def test_a_restore_without_any_apps_is_unavailable(tmp_path: Path) -> None:
    shared = Shared()
    site = Site(shared, tmp_path / "apps", node="n1")
    site.write("shop/a", b"x")
    key = (await site.create())["key"]
    shared.sites.clear()
    bare = Site(shared, None, node="n2")

    reply = await bare.ask("snapshot.restore", {"key": key})

    assert reply.code == "unavailable"
    await site.aclose()
    await bare.aclose()


async def test_an_app_that_nobody_can_say_no_to_is_unavailable(pool: Pool) -> None:
    for site in (pool.shop, pool.blog):
        site.silent = True

    assert await pool.goes_to(pool.bare, "snapshot.create", app="shop") == "unavailable"
    assert await pool.goes_to(pool.blog, "snapshot.create", app="shop") == "not_found"


@pytest.mark.fault("N17")
async def test_an_app_is_not_gone_because_its_worker_is_silent_and_others_say_no(
    pool: Pool, tmp_path: Path
) -> None:
    await pool.shop.create("shop")
    pool.shop.silent = True

    reply = await pool.blog.ask("snapshot.create", {"app": "shop"})

    assert reply.code == "unavailable"
    assert b"shop-node" in reply.body
    pool.shop.silent = False
    shutil.rmtree(tmp_path / "one/shop")
    assert await pool.goes_to(pool.blog, "snapshot.create", app="shop") == "not_found"


@pytest.mark.fault("N17")
async def test_an_app_without_snapshots_may_be_where_somebody_is_missed(pool: Pool) -> None:
    pool.shop.silent = True
    assert await pool.goes_to(pool.blog, "snapshot.create", app="shop") == "not_found"

    pool.shop.missed = True

    assert await pool.goes_to(pool.blog, "snapshot.create", app="shop") == "unavailable"


async def test_a_restore_does_not_go_elsewhere_because_a_node_is_silent(pool: Pool) -> None:
    key = (await pool.shop.create("shop"))["key"]
    pool.shop.silent = True

    for site in (pool.bare, pool.blog):
        for app in ("shop", "new"):
            reply = await site.ask("snapshot.restore", {"key": key, "app": app})
            assert reply.code == "unavailable"
            assert b"shop-node" in reply.body
            assert b"`node`" in reply.body
    named = await pool.goes_to(pool.bare, "snapshot.restore", key=key, app="new", node="blog-node")
    assert named == "blog-node"
    assert await pool.goes_to(pool.shop, "snapshot.restore", key=key, app="new") == "here"


@pytest.mark.parametrize("app", ["shop", "new"])
async def test_what_a_client_made_may_be_restored_on_any_node(pool: Pool, app: str) -> None:
    key = await pool.clients_snapshot()

    at_bare = await pool.goes_to(pool.bare, "snapshot.restore", key=key, app=app, mode="merge")
    at_blog = await pool.goes_to(pool.blog, "snapshot.restore", key=key, app=app, mode="merge")

    assert at_bare == ("shop-node" if app == "shop" else "blog-node")
    assert at_blog == ("shop-node" if app == "shop" else "here")


async def test_what_a_client_made_is_restored_nowhere_while_nobody_answers(pool: Pool) -> None:
    key = await pool.clients_snapshot()
    for site in (pool.shop, pool.blog):
        site.silent = True

    assert await pool.goes_to(pool.bare, "snapshot.restore", key=key) == "unavailable"


async def test_while_one_node_cannot_tell_an_app_is_not_said_to_be_nowhere(pool: Pool) -> None:
    key = (await pool.shop.create("shop"))["key"]
    assert pool.blog.root is not None
    pool.blog.root.rename(pool.blog.root.with_name("away"))
    pool.blog.root.symlink_to(pool.blog.root)  # cannot be read: it leads nowhere

    for site in (pool.bare, pool.shop, pool.blog):
        assert await pool.goes_to(site, "snapshot.create", app="other") == "unavailable"
        new = await pool.goes_to(site, "snapshot.restore", key=key, app="new")
        assert new == "unavailable"
    assert await pool.goes_to(pool.blog, "snapshot.create", app="shop") == "shop-node"


@pytest.mark.parametrize("app", ["../x", "", ".hidden"])
async def test_what_is_no_apps_name_is_refused_by_whoever_is_asked(pool: Pool, app: str) -> None:
    for node in (None, "shop-node", "gone"):
        fields = {"app": app} | ({} if node is None else {"node": node})
        assert await pool.goes_to(pool.bare, "snapshot.create", **fields) == "invalid"


@pytest.mark.fault("S04")
async def test_a_restore_of_what_is_not_there_is_not_found_whoever_is_asked(pool: Pool) -> None:
    key = "shop:01993a3e-7c00-7abc-8def-0123456789ab"

    assert await pool.goes_to(pool.bare, "snapshot.restore", key=key) == "not_found"
