"""Workers ask each other who has an app, on a real server."""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from nats.aio.client import Client

from holdfast.handlers.placement import Answers
from holdfast.repository.apps import Apps
from holdfast.runtime import forwarding
from holdfast.runtime.forwarding import Peers
from holdfast.runtime.worker import reply_pattern
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.nats


@asynccontextmanager
async def peers(url: str, prefix: str, node: str, apps: Apps | Path | None) -> AsyncIterator[Peers]:
    """One worker, as the others see it."""
    connection = await connect(NatsOptions(servers=(url,)))
    found = Peers(
        connection,
        Inbox(connection),
        apps if isinstance(apps, Apps) else Apps(apps),
        node=node,
        prefix=prefix,
        reply=reply_pattern(("_INBOX.",)),
        monotonic=time.monotonic,
    )
    found.start()
    await connection.flush()
    try:
        yield found
    finally:
        found.stop()
        await connection.close()


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
        assert (await bare.ask(app="shop")).yes == "one"
        assert (await bare.ask(app="blog")).yes == "two"
        assert (await bare.ask(app="blog", node="two")).yes == "two"
        assert (await bare.ask(node="one")).yes == "one"
        assert await bare.ask(app="blog", node="one") == Answers(no=frozenset({"one"}))
        assert await bare.ask(app="other") == Answers(no=frozenset({"one", "two"}))
        assert await bare.ask(node="bare") == Answers()
        two.stop()
        missing = Answers(no=frozenset({"one"}), missed=frozenset({"two"}))
        assert await bare.ask(app="blog") == missing


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
        await one.look()
        two.stop()
        first = await one.ask(app="new")
        monkeypatch.setattr(forwarding, "MISSED_SECONDS", 0.1)
        later = await one.ask(app="new")

    assert (first.no, first.missed) == (frozenset({"one"}), frozenset({"two"}))
    assert (later.no, later.missed) == (frozenset({"one"}), frozenset())


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
        other = await bare.ask(app="other")
        assert other == Answers(no=frozenset({"two"}), unsure=frozenset({"one"}))
        assert (await bare.ask(app="blog")).yes == "two"
        assert (await bare.ask(node="one")).yes == "one"

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
        assert (await two.ask(app="shop")).yes == "one"
        await client.flush()

    subjects = [(await heard.next_msg(1)).subject for _ in range(6)]
    assert set(subjects) == {f"{prefix}.snapshot.where"}
    assert answers.pending_msgs == 0
    await client.close()
