"""The service of docs/states.md is killed, and so is its worker: it ends as if nothing had been.

``KILLS=100`` kills it a hundred times.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import pytest
from tests.deployment import deployed
from tests.docs.tables import ROOT
from tests.docs.test_documents import DEFAULT_URL, blocks

from holdfast.client import connect
from holdfast.errors import NotFoundError
from holdfast.runtime.child import dies_with_this_process

if TYPE_CHECKING:
    from tests.deployment import Deployment

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = [pytest.mark.nats, pytest.mark.long]

SERVICE: Final = blocks(ROOT / "docs" / "states.md", "python")[0]
NAME: Final = "ledger"
ORDERS: Final = 300
LINES: Final = 30
KILLS: Final = int(os.environ.get("KILLS", "5"))
SECONDS: Final = 120.0
VICTIMS: Final = ("service", "worker", "service and worker")


def test_the_service_takes_thirty_lines() -> None:
    assert len([line for line in SERVICE.splitlines() if line.strip()]) <= LINES


@pytest.mark.timeout(120 + 30 * KILLS)
def test_a_service_that_is_killed_with_its_worker_ends_as_one_that_is_not(
    nats_server: EmbeddedServer,
) -> None:
    rng = random.Random(KILLS)  # noqa: S311  (to be repeatable)
    with deployed(nats_server.url, "one") as calm, deployed(nats_server.url, "one") as rough:
        expected = ended(start(calm))

        service = start(rough)
        for kill in range(KILLS):
            index = rng.randrange(ORDERS * kill // KILLS, ORDERS * (kill + 1) // KILLS)
            asyncio.run(until_appended(rough, index, service))
            victims = rng.choice(VICTIMS)
            if "worker" in victims:
                rough.kill("one")
            if "service" in victims:
                service.kill()
                service.communicate()
            if "worker" in victims:
                rough.start("one")
            if "service" in victims:
                service = start(rough)

        assert ended(service) == expected
        asyncio.run(check_order(rough))


def start(deployment: Deployment) -> subprocess.Popen[str]:
    """The service of the document."""
    return subprocess.Popen(
        dies_with_this_process(
            [sys.executable, "-c", SERVICE.replace(DEFAULT_URL, deployment.url)]
        ),
        env=os.environ | {"HOLDFAST_PREFIX": deployment.prefix},
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(service: subprocess.Popen[str]) -> str:
    """The service's last words."""
    said, _ = service.communicate(timeout=SECONDS)
    assert service.returncode == 0
    return said


async def until_appended(
    deployment: Deployment, index: int, service: subprocess.Popen[str]
) -> None:
    """Until the log has command ``index``, or the service has ended."""
    async with (
        asyncio.timeout(SECONDS),
        await connect(servers=deployment.url, prefix=deployment.prefix) as client,
    ):
        while index and service.poll() is None:
            try:
                async with aclosing(client.states.follow(NAME)) as log:
                    async for one in log:
                        if one.index >= index:
                            return
            except NotFoundError:  # nothing was appended yet
                await asyncio.sleep(0.01)


async def check_order(deployment: Deployment) -> None:
    """Every order is in the log, in order, whatever was sent again."""
    async with await connect(servers=deployment.url, prefix=deployment.prefix) as client:
        numbers = [one.command["number"] async for one in client.states.replay(NAME)]
    firsts = list(dict.fromkeys(numbers))
    assert firsts == list(range(1, ORDERS + 1))
