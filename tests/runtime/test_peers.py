"""Workers ask each other who has an app, on a real server."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import structlog
from nats.aio.client import Client

from holdfast.bootstrap.sources import SOURCES
from holdfast.errors import UnavailableError
from holdfast.protocol.subjects import reply_pattern
from holdfast.repository.snapshots.apps import Apps
from holdfast.repository.snapshots.placement import Answers
from holdfast.runtime import peers as forwarding
from holdfast.runtime.peers import Peers
from holdfast.sources import utc_now
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.nats

SECONDS = 60.0


@asynccontextmanager
async def peers(
    url: str,
    prefix: str,
    node: str,
    apps: Apps | Path | None,
    *,
    starts: bool = True,
    skew: timedelta = timedelta(0),
) -> AsyncIterator[Peers]:
    """One worker, as the others see it; with ``starts``, one that serves."""
    connection = await connect(NatsOptions(servers=(url,)))
    found = Peers(
        connection,
        Inbox(connection),
        apps if isinstance(apps, Apps) else Apps(apps),
        node=node,
        worker=secrets.token_hex(11),
        prefix=prefix,
        reply=reply_pattern(("_INBOX.",)),
        sources=replace(SOURCES, clock=lambda: utc_now() + skew),
    )
    if starts:
        found.start()
    await connection.wait_flushed(30)
    try:
        yield found
    finally:
        found.stop()
        await connection.close()


async def told(
    asker: Peers, wanted: Answers, *, app: str | None = None, node: str | None = None
) -> int:
    """How often it was asked until all that is ``wanted`` was told; never anything else is.

    On a busy machine somebody may miss the second that there is for an answer.
    """
    asked = 1
    async with asyncio.timeout(SECONDS):
        while not is_told(found := await asker.ask(app=app, node=node), wanted):
            assert found.yes is None
            assert found.no <= wanted.no
            asked += 1
    return asked


def is_told(found: Answers, wanted: Answers) -> bool:
    """The other answers are complete only without a yes."""
    return found.yes == wanted.yes if wanted.yes else found == wanted


async def test_the_node_that_has_an_app_is_found_and_no_other(
    nats_url: str, tmp_path: Path
) -> None:
    prefix = f"w{secrets.token_hex(4)}"
    (tmp_path / "one" / "shop").mkdir(parents=True)
    (tmp_path / "two" / "blog").mkdir(parents=True)

    async with (
        peers(nats_url, prefix, "bare", None) as bare,
        peers(nats_url, prefix, "one", tmp_path / "one"),
        peers(nats_url, prefix, "two", tmp_path / "two") as two,
    ):
        await told(bare, Answers(yes="one"), app="shop")
        await told(bare, Answers(yes="two"), app="blog")
        await told(bare, Answers(yes="two"), app="blog", node="two")
        await told(bare, Answers(yes="one"), node="one")
        await told(bare, Answers(no=frozenset({"one"})), app="blog", node="one")
        await told(bare, Answers(no=frozenset({"one", "two"})), app="other")
        assert await bare.ask(node="bare") == Answers()
        two.stop()
        missing = Answers(no=frozenset({"one"}), missed=frozenset({"two"}))
        await told(bare, missing, app="blog")


async def test_who_was_there_lately_is_missed_and_after_a_while_no_more(
    nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"w{secrets.token_hex(4)}"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    async with (
        peers(nats_url, prefix, "one", tmp_path / "one") as one,
        peers(nats_url, prefix, "two", tmp_path / "two") as two,
    ):
        await told(one, Answers(no=frozenset({"one", "two"})), app="new")
        two.stop()
        missing = Answers(no=frozenset({"one"}), missed=frozenset({"two"}))
        await told(one, missing, app="new")
        monkeypatch.setattr(forwarding, "MISSED_SECONDS", 0.1)
        await told(one, Answers(no=frozenset({"one"})), app="new")


class Hung(Apps):
    """Apps on a network that has gone."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.back = threading.Event()

    def has(self, app: str) -> bool:
        """See `Apps.has`."""
        self.back.wait(30)
        return super().has(app)


async def test_a_worker_whose_apps_cannot_be_reached_says_that_it_cannot_tell(
    nats_url: str, tmp_path: Path
) -> None:
    prefix = f"w{secrets.token_hex(4)}"
    (tmp_path / "two" / "blog").mkdir(parents=True)
    hung = Hung(tmp_path / "one")

    async with (
        peers(nats_url, prefix, "bare", None) as bare,
        peers(nats_url, prefix, "one", hung),
        peers(nats_url, prefix, "two", tmp_path / "two"),
    ):
        unsure = Answers(no=frozenset({"two"}), unsure=frozenset({"one"}))
        await told(bare, unsure, app="other")
        await told(bare, Answers(yes="two"), app="blog")
        await told(bare, Answers(yes="one"), node="one")

    hung.back.set()


@pytest.mark.fault("A01")
async def test_nothing_is_answered_to_what_is_no_inbox_or_no_question(
    nats_url: str, tmp_path: Path
) -> None:
    prefix = f"w{secrets.token_hex(4)}"
    (tmp_path / "shop").mkdir()
    client = Client()
    await client.connect(nats_url)
    heard = await client.subscribe(f"{prefix}.>")
    answers = await client.subscribe("_INBOX.mine")

    async with (
        peers(nats_url, prefix, "one", tmp_path),
        peers(nats_url, prefix, "two", None) as two,
    ):
        await client.publish(f"{prefix}.snapshot.where", b"{}", reply=f"{prefix}.elsewhere")
        for body in (b"", b"{", b'{"app":"../x"}', b'{"app":7}'):
            await client.publish(f"{prefix}.snapshot.where", body, reply="_INBOX.mine")
        asked = await told(two, Answers(yes="one"), app="shop")
        await client.flush()

    subjects = [(await heard.next_msg(SECONDS)).subject for _ in range(5 + asked)]
    assert set(subjects) == {f"{prefix}.snapshot.where"}
    assert answers.pending_msgs == 0
    await client.close()


async def started(one: Peers) -> bool:
    """Whether it may serve its node; then it does."""
    try:
        await one.check_node()
    except UnavailableError:
        return False
    one.start()
    return True


@pytest.mark.usefixtures("patience")
async def test_a_node_of_two_directories_is_found_though_one_is_a_copy_of_the_other(
    nats_url: str, tmp_path: Path
) -> None:
    prefix = f"w{secrets.token_hex(4)}"
    (tmp_path / "one" / "shop").mkdir(parents=True)
    shutil.copytree(tmp_path / "one", tmp_path / "two")

    async with (
        peers(nats_url, prefix, "twin", tmp_path / "one", starts=False) as one,
        peers(nats_url, prefix, "twin", tmp_path / "two", starts=False) as two,
        peers(nats_url, prefix, "other", tmp_path / "two", starts=False) as other,
        peers(nats_url, prefix, "twin", None, starts=False) as bare,
    ):
        assert await started(one)
        assert not await started(two)
        assert await started(other)
        assert await started(bare)
        await told(bare, Answers(yes="twin"), app="shop", node="twin")

    assert [os.listdir(tmp_path / name) for name in ("one", "two")] == [["shop"], ["shop"]]


async def test_workers_of_a_node_share_a_directory_however_they_reach_it(
    nats_url: str, tmp_path: Path
) -> None:
    prefix = f"w{secrets.token_hex(4)}"
    (tmp_path / "apps").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "apps")

    async with (
        peers(nats_url, prefix, "node", tmp_path / "apps", starts=False) as one,
        peers(nats_url, prefix, "node", tmp_path / "link", starts=False) as two,
    ):
        assert all(await asyncio.gather(started(one), started(two)))


@pytest.mark.usefixtures("patience")
async def test_of_two_that_start_at_the_same_moment_one_goes_on(
    nats_url: str, tmp_path: Path
) -> None:
    for number in range(2):
        prefix = f"w{secrets.token_hex(4)}"
        roots = [tmp_path / f"{number}-{name}" for name in ("one", "two")]
        for root in roots:
            root.mkdir()
        async with (
            peers(nats_url, prefix, "twin", roots[0], starts=False) as one,
            peers(nats_url, prefix, "twin", roots[1], starts=False) as two,
        ):
            assert sorted(await asyncio.gather(started(one), started(two))) == [False, True]


async def test_who_starts_is_asked_for_no_app(nats_url: str, tmp_path: Path) -> None:
    prefix = f"w{secrets.token_hex(4)}"
    (tmp_path / "shop").mkdir()

    async with (
        peers(nats_url, prefix, "one", tmp_path, starts=False) as one,
        peers(nats_url, prefix, "two", None) as two,
    ):
        await one.check_node()
        assert await two.ask(app="shop") == Answers()
        one.start()
        await told(two, Answers(yes="one"), app="shop")


class ReadOnly(Apps):
    """Apps that may only be read."""

    def put_mark(self, mark: str) -> bool:
        """See `Apps.put_mark`."""
        del mark
        return False


async def test_a_directory_that_may_only_be_read_is_served_and_told_of(
    nats_url: str, tmp_path: Path
) -> None:
    prefix = f"w{secrets.token_hex(4)}"

    async with peers(nats_url, prefix, "one", ReadOnly(tmp_path), starts=False) as one:
        with structlog.testing.capture_logs() as logs:
            assert await started(one)

    assert [entry["event"] for entry in logs] == ["node_not_compared"]


async def test_clocks_that_differ_are_told_of(nats_url: str, tmp_path: Path) -> None:
    prefix = f"w{secrets.token_hex(4)}"
    behind = timedelta(minutes=-10)

    async with (
        peers(nats_url, prefix, "one", tmp_path) as one,
        peers(nats_url, prefix, "slow", tmp_path, skew=behind),
        peers(nats_url, prefix, "right", tmp_path),
    ):
        async with asyncio.timeout(SECONDS):
            while await told_of_clocks(one) != {"slow": pytest.approx(-600, abs=1)}:
                pass  # an answer came late: that looks the same


async def told_of_clocks(looking: Peers) -> dict[str, float]:
    """Seconds that others are ahead, as it tells of them after one look."""
    with structlog.testing.capture_logs() as logs:
        await looking.look()
    return {e["node"]: e["ahead_seconds"] for e in logs if e["event"] == "clocks_differ"}
