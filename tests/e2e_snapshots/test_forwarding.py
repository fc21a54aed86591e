"""Two workers with apps of their own: whoever gets a request, the one with the files does it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from nats.aio.client import Client
from tests.deployment import Deployment
from tests.e2e_snapshots.site import RefusedError, Site
from tests.e2e_snapshots.trees import difference, look, plain_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

EAST, WEST, BARE = "east", "west", "bare"
_REPEATS = 8


@pytest.fixture(scope="module")
def both(server: EmbeddedServer, apps: Path) -> Iterator[Deployment]:
    """Workers east and west with a directory of apps each, and one that has none."""
    with Deployment(server.url) as deployment:
        for node in (EAST, WEST):
            (apps / node).mkdir()
            deployment.start(node, apps=str(apps / node))
        deployment.start(BARE)
        yield deployment


@pytest_asyncio.fixture
async def pool(both: Deployment, apps: Path) -> AsyncIterator[Site]:
    """All of them, asked as one."""
    client = Client()
    await client.connect(both.url)
    yield Site(both, apps, client)
    await client.close()


async def test_an_app_is_archived_by_the_worker_that_has_it(pool: Site) -> None:
    plain_tree(pool.apps / WEST / "western", files=10, size=5000, seed=1)

    records = await asyncio.gather(*(pool.create("western") for _ in range(_REPEATS)))

    assert {(record["state"], record["node"]) for record in records} == {("ok", WEST)}
    assert len({record["key"] for record in records}) == _REPEATS


async def test_a_replacing_restore_goes_where_the_app_is(pool: Site) -> None:
    tree = plain_tree(pool.apps / EAST / "eastern", files=10, size=5000, seed=2)
    before = look(tree)
    record = await pool.create("eastern")
    (tree / "newer").write_bytes(b"newer")

    for _ in range(_REPEATS):
        restored = await pool.restore(record["key"], mode="replace")
        assert (restored["state"], restored["node"]) == ("ok", EAST)

    assert difference(before, look(tree)) == []
    assert not (pool.apps / WEST / "eastern").exists()


async def test_a_restore_goes_to_the_node_that_is_named(pool: Site) -> None:
    before = look(plain_tree(pool.apps / EAST / "moved", files=10, size=5000, seed=3))
    record = await pool.create("moved")

    restored = await pool.restore(record["key"], node=WEST)

    assert (restored["state"], restored["node"]) == ("ok", WEST)
    assert difference(before, look(pool.apps / WEST / "moved")) == []


async def test_of_an_app_that_two_nodes_have_the_named_ones_is_archived(pool: Site) -> None:
    for number, node in enumerate((EAST, WEST)):
        plain_tree(pool.apps / node / "shared-name", files=number + 1, size=100, seed=4)

    records = [await pool.create("shared-name", node=node) for node in (EAST, WEST)]

    assert [(record["node"], record["files"]) for record in records] == [(EAST, 1), (WEST, 2)]


@pytest.mark.parametrize("node", [None, EAST])
async def test_an_app_that_is_not_there_is_not_found(pool: Site, node: str | None) -> None:
    plain_tree(pool.apps / WEST / "only-west", files=1, size=100, seed=5)
    app = "nowhere" if node is None else "only-west"

    with pytest.raises(RefusedError) as refused:
        await pool.create(app, **({} if node is None else {"node": node}))

    assert refused.value.code == "not_found"


async def test_any_worker_reads_what_another_archived(pool: Site) -> None:
    tree = plain_tree(pool.apps / EAST / "read", files=3, size=300_000, seed=6)
    record = await pool.create("read")
    file = next(path for path in sorted(tree.rglob("f*")) if path.is_file())

    for _ in range(_REPEATS):
        data = await pool.content(
            "snapshot.read", key=record["key"], path=str(file.relative_to(tree))
        )
        assert data == file.read_bytes()
