"""Links: made by the worker that has keys, bound to what they were made for, used once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.client.test_client import digest_of
from tests.deployment import Asker, Deployment, code_of, deployed

from holdfast.cli import main
from holdfast.client import connect_sync
from holdfast.domain.link_keys import read_keys, secrets_at
from holdfast.domain.sigv4 import LinkTarget, Signed, verify_link
from holdfast.errors import ForbiddenError, InvalidError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from urllib.parse import SplitResult

    from holdfast.client import Client
    from holdfast.protocol.links import LinkMade
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

HOST: Final = "files.example:8443"
BASE: Final = "/kept"
DAY: Final = 86_400


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  (as the worker does)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("links") / "keys.json"
    assert main(["link-key", "create", "spring", "--file", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("apps")
    (path / "blog" / "posts").mkdir(parents=True)
    (path / "blog" / "posts" / "é 1.md").write_text("first")
    return path


@pytest.fixture(scope="module")
def deployment(nats_server: EmbeddedServer, keys: Path, apps: Path) -> Iterator[Deployment]:
    """A worker that has keys, and one that has none."""
    with Deployment(nats_server.url) as deployment:
        public = f"https://{HOST}{BASE}/"
        deployment.start("one", link_keys=str(keys), public_url=public, apps=str(apps))
        deployment.start("two")
        yield deployment


def signed(made: LinkMade, keys: Path, method: str = "GET") -> tuple[SplitResult, Signed]:
    """The link's URL, and who signed it. Raises ForbiddenError."""
    url = urlsplit(made.url)
    assert (url.scheme, url.netloc) == ("https", HOST)
    found = verify_link(
        LinkTarget(method=method, host=HOST, path=url.path, query=url.query),
        secrets_at(read_keys(keys.read_bytes()), now()),
        now(),
    )
    assert made.expires_at == found.expires_at.isoformat(timespec="microseconds").replace(
        "+00:00", "Z"
    )
    return url, found


async def test_a_link_of_a_blob_names_its_digest(holdfast: Client, keys: Path) -> None:
    put = await holdfast.put(b"linked")

    # Whichever worker would be asked, if both were.
    for made in [await holdfast.link(put.digest, DAY) for _ in range(8)]:
        url, found = signed(made, keys)
        assert url.path == f"{BASE}/blobs/{digest_of(b'linked')}"
        assert found.key_id == "spring"
        assert found.expires_at - found.signed_at == timedelta(seconds=DAY)


async def test_a_link_of_a_name_is_bound_to_its_version(holdfast: Client, keys: Path) -> None:
    await holdfast.names.create("cats/é?.jpg", b"one")
    await holdfast.names.replace("cats/é?.jpg", b"two")

    bound = await holdfast.names.link("cats/é?.jpg", 60)
    asked = await holdfast.names.link("cats/é?.jpg", 60, version=2)
    latest = await holdfast.names.link("cats/é?.jpg", 60, latest=True)

    urls = [signed(link, keys)[0] for link in (bound, asked, latest)]
    assert {url.path for url in urls} == {f"{BASE}/store/cats/%C3%A9%3F.jpg"}
    versions = [parse_qs(url.query).get("version") for url in urls]
    assert versions == [["2"], ["2"], None]
    with pytest.raises(NotFoundError):
        await holdfast.names.link("cats/é?.jpg", 60, version=3)


@pytest.mark.parametrize("name", ["a/../b", "./a", "a//b", "/a", "a/", "..", "a\nb"])
async def test_a_link_of_a_name_that_a_path_cannot_carry_has_it_in_its_query(
    holdfast: Client, keys: Path, name: str
) -> None:
    await holdfast.names.put(name, b"odd")

    url, _ = signed(await holdfast.names.link(name, 60), keys)

    assert url.path == f"{BASE}/store"
    assert parse_qs(url.query)["name"] == [name]


async def test_a_link_of_a_snapshot_is_bound_to_its_digest(holdfast: Client, keys: Path) -> None:
    record = await holdfast.snapshots.create("blog")

    archive = await holdfast.snapshots.link(record.key, 60)
    file = await holdfast.snapshots.link(record.key, 60, path="posts/é 1.md")

    urls = [signed(link, keys)[0] for link in (archive, file)]
    assert [url.path for url in urls] == [
        f"{BASE}/snapshots/{record.key}/archive",
        f"{BASE}/snapshots/{record.key}/files/posts/%C3%A9%201.md",
    ]
    assert {parse_qs(url.query)["link-digest"][0] for url in urls} == {record.digest}


async def test_a_link_of_what_is_not_there_is_not_made(holdfast: Client) -> None:
    record = await holdfast.snapshots.create("blog")
    key = "blog:00000000-0000-7000-8000-000000000000"

    with pytest.raises(NotFoundError):
        await holdfast.link("0" * 64, 60)
    with pytest.raises(NotFoundError):
        await holdfast.names.link("nothing", 60)
    with pytest.raises(NotFoundError):
        await holdfast.snapshots.link(key, 60)
    with pytest.raises(NotFoundError):
        await holdfast.snapshots.link(record.key, 60, path="nothing")
    with pytest.raises(InvalidError):
        await holdfast.snapshots.link(record.key, 60, path="posts")


@pytest.mark.fault("H02")
@pytest.mark.parametrize("seconds", [0, -1, 604_801, 10**18])
async def test_a_link_holds_for_a_second_to_seven_days(holdfast: Client, seconds: int) -> None:
    with pytest.raises(InvalidError):
        await holdfast.names.link("nothing", seconds)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"digest": "0" * 64, "name": "a"},
        {"digest": "0" * 64, "version": 1},
        {"digest": "0" * 64, "latest": True},
        {"name": "a", "version": 1, "method": "PUT"},
        {"name": "a", "latest": True, "method": "PUT"},
        {"name": "a", "version": 1, "latest": True},
        {"name": "a", "method": "DELETE"},
    ],
)
async def test_what_contradicts_itself_is_refused(ask: Asker, wanted: dict[str, object]) -> None:
    assert code_of(await ask("blob.link", {"ttl_seconds": 60, **wanted})) == "invalid"


async def test_a_link_for_an_upload_is_for_one(holdfast: Client, keys: Path) -> None:
    await holdfast.names.put("there", b"already")

    new, old, blob = (
        await holdfast.names.link("not there", 60, method="PUT"),
        await holdfast.names.link("there", 60, method="PUT"),
        await holdfast.link("0" * 64, 60, method="PUT"),
    )

    queries = [parse_qs(signed(link, keys, "PUT")[0].query) for link in (new, old, blob)]
    assert ["link-create" in query for query in queries] == [True, False, False]
    assert len({query["link-once"][0] for query in queries}) == 3
    with pytest.raises(ForbiddenError):
        signed(new, keys, "GET")


async def test_a_single_use_link_is_used_once_and_then_by_ranges(
    holdfast: Client, keys: Path
) -> None:
    put = await holdfast.put(b"linked")
    links = [await holdfast.link(put.digest, 60, single_use=True) for _ in range(2)]
    first, second = (parse_qs(signed(link, keys)[0].query)["link-once"][0] for link in links)

    used = await holdfast.use_link(first)

    assert first != second
    with pytest.raises(ForbiddenError, match="one use"):
        await holdfast.use_link(first)
    assert await holdfast.use_link(first, ranged=True) == used
    await holdfast.use_link(second, ranged=True)
    with pytest.raises(ForbiddenError):
        await holdfast.use_link(second)


@pytest.mark.fault("H03")
async def test_of_many_first_uses_at_once_one_is_allowed(holdfast: Client) -> None:
    async def use() -> bool:
        try:
            await holdfast.use_link("0123456789abcdefghijAB")
        except ForbiddenError:
            return False
        return True

    assert sum(await asyncio.gather(*(use() for _ in range(20)))) == 1


@pytest.mark.fault("H04")
async def test_keys_are_read_again_when_they_change(holdfast: Client, keys: Path) -> None:
    put = await holdfast.put(b"linked")
    old = await holdfast.link(put.digest, 60)

    assert main(["link-key", "create", "summer", "--lasts", "1w", "--file", str(keys)]) == 0
    made = await holdfast.link(put.digest, 60)
    assert signed(made, keys)[1].key_id == "summer"
    assert signed(old, keys)[1].key_id == "spring"

    assert main(["link-key", "end", "spring", "--file", str(keys)]) == 0
    with pytest.raises(ForbiddenError):
        signed(old, keys)
    assert signed(await holdfast.link(put.digest, 7 * DAY), keys)[1].key_id == "summer"

    assert main(["link-key", "end", "summer", "--after", "1h", "--file", str(keys)]) == 0
    _, found = signed(await holdfast.link(put.digest, 7 * DAY), keys)
    assert found.expires_at - now() <= timedelta(hours=1)


def test_without_keys_a_link_is_refused_with_what_to_set(nats_server: EmbeddedServer) -> None:
    with (
        deployed(nats_server.url, "one") as deployment,
        connect_sync(servers=deployment.url, prefix=deployment.prefix) as client,
        pytest.raises(UnavailableError, match=r"HOLDFAST_LINK_KEYS.*HOLDFAST_PUBLIC_URL"),
    ):
        client.names.link("nothing", 60)
