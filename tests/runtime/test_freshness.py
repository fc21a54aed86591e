"""How old a request may be that has just arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.nats.tools import connected, frozen

from holdfast.runtime.freshness import Freshness
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from tests.conftest import StartServer

pytestmark = pytest.mark.nats


async def test_what_arrives_is_at_most_as_old_as_the_last_ping_that_was_answered(
    start_server: StartServer,
) -> None:
    server = start_server()
    async with connected(NatsOptions(servers=(server.url,))) as connection:
        freshness = Freshness(connection)
        with frozen(server):
            await freshness.prove()
        unproven = freshness.most_seconds

        await freshness.prove()

        assert unproven >= 1
        assert freshness.most_seconds < unproven
