"""Whether a gateway lives, and whether it is of use."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
from nats.aio.client import Client as NatsClient
from tests.gateway.conftest import serving

from holdfast.gateway.routes.health import FRESH_SECONDS
from holdfast.protocol.status import GET_STATUS

if TYPE_CHECKING:
    from tests.deployment import Deployment


async def times_asked(deployment: Deployment) -> int:
    """How often the worker was asked for its status."""
    client = NatsClient()
    await client.connect(deployment.url)
    try:
        told = await deployment.told(client, "STATS")
    finally:
        await client.close()
    subject = deployment.subject(GET_STATUS.subject)
    found = [
        one for worker in told.values() for one in worker["endpoints"] if one["subject"] == subject
    ]
    return sum(int(one["num_requests"]) for one in found)


def test_a_gateway_lives(http: httpx.Client) -> None:
    answer = http.get("/healthz")

    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_a_gateway_whose_workers_answer_is_ready(http: httpx.Client) -> None:
    assert http.get("/readyz").status_code == 200


def test_who_asks_often_whether_it_is_ready_asks_workers_seldom(deployment: Deployment) -> None:
    before, began = asyncio.run(times_asked(deployment)), time.monotonic()

    with (
        serving(deployment) as url,
        httpx.Client(timeout=60) as http,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: http.get(f"{url}/readyz"), range(40)))

    seconds = time.monotonic() - began
    assert {answer.status_code for answer in answers} == {200}
    assert 1 <= asyncio.run(times_asked(deployment)) - before <= 1 + seconds / FRESH_SECONDS


def test_an_unknown_path_is_a_problem_with_the_code_of_the_wire(http: httpx.Client) -> None:
    answer = http.get("/nothing/here")

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"


def test_another_method_is_told_which_there_are(http: httpx.Client) -> None:
    answer = http.put("/healthz")

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_a_parameter_that_is_not_known_is_refused(http: httpx.Client) -> None:
    assert http.get("/healthz?verbose=1").status_code == 400
